"""Decisions in, what the candidate would have said of each out: the shadow stage of one partition, without effect.

Every decision of a time at which a candidate stands gets one outcome. A run of which nothing is decided in shadow (no
candidate stood, or there is no effective decision) gets one together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sluicegate.enforcer.candidate import NoShadow, Shadow
from sluicegate.enforcer.grant import source_of
from sluicegate.enforcer.ports import FORGETS, Memory, Proposal
from sluicegate.enforcer.seal import SEAL_BYTES_MAX, SLICE_RECORDS_MAX, Effective, Verifier
from sluicegate.enforcer.shadow import NotShadowed, ShadowOutcome, asks_a_bundle, shadow_decide
from sluicegate.schemas import codec
from sluicegate.schemas.events import DecisionMade, Source
from sluicegate.schemas.records import Record, Unsent
from sluicegate.schemas.shadow_events import ShadowDecided, ShadowStatus

REASON_MAX: Final = 500
"""Characters; what is wrong with a candidate can be a long list."""
OUTCOME_BYTES_MAX: Final = 64 * 1024
"""An outcome holds names, which the candidate chose; one that is larger would not fit a slice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowConfig:
    """`slice_bytes_max`: the most bytes of a slice; `schema_ids`: as the gate's."""

    slice_bytes_max: int
    schema_ids: Mapping[int, str]


class ShadowStage:
    """The `Stage` for one partition.

    `decisions` verifies what the enforcer writes there. `request_at(offset)` is the request at that offset, None where
    it is kept no more (the loop reads it before `decide`); `shadow_at(T)` is `PolicyLog.shadow_at`, which must know all
    that is in force at T.
    """

    def __init__(
        self,
        config: ShadowConfig,
        *,
        decisions: Verifier,
        request_at: Callable[[int], Record | None],
        shadow_at: Callable[[int], Shadow | NoShadow],
    ) -> None:
        self._config = config
        self._decisions = decisions
        self._request_at = request_at
        self._shadow_at = shadow_at

    @property
    def memory(self) -> Memory:
        """Nothing."""
        return FORGETS

    def lose(self, time_ms: int) -> None:
        """Nothing is lost on a stage that keeps nothing."""

    def fold(self, effective: Effective) -> None:
        """Nothing is kept between outcomes: frontier and event time stand in the log itself."""

    def sources(self, records: Sequence[Record]) -> tuple[int, ...]:
        """The request offsets that `decide` will ask for, ascending."""
        wanted = set()
        for record in records:
            if isinstance(self._decisions.verify(record), Effective):
                decision = codec.decode(record.value, DecisionMade)
                if asks_a_bundle(decision) and isinstance(self._shadow_at(decision.time_ms), Shadow):
                    wanted.add(decision.source.offset)
        return tuple(sorted(wanted))

    def decide(self, records: Sequence[Record], *, frontier: int, time_ms: int, clock_ms: int | None) -> Proposal:  # noqa: ARG002
        """Outcomes for a prefix of `records` that fits one slice."""
        outputs: list[Unsent] = []
        passed, covered, size, now, position = frontier, frontier, 0, time_ms, -1
        for record in records:
            if len(outputs) + 2 > SLICE_RECORDS_MAX or size > self._config.slice_bytes_max:
                break
            verdict = self._decisions.verify(record)
            made: ShadowDecided | None = None
            if isinstance(verdict, Effective):
                now = max(now, verdict.statement.time_ms)
                position = max(position, verdict.statement.policy_position)
                made = self._outcome(verdict)
            if made is not None:
                if record.offset > passed:
                    outputs.append(_passed(passed, record.offset - passed))
                outputs.append(_unsent(made))
                size += outputs[-1].size_bytes() + SEAL_BYTES_MAX
                passed = record.offset + 1
            covered = record.offset + 1
        if covered > passed:
            outputs.append(_passed(passed, covered - passed))
        return Proposal(
            outputs=tuple(outputs),
            source_first=frontier,
            source_last=covered - 1,
            time_ms=now,
            policy_position=position,
        )

    def _outcome(self, effective: Effective) -> ShadowDecided | None:
        """None where no candidate stood."""
        decision = codec.decode(effective.record.value, DecisionMade)
        shadow = self._shadow_at(decision.time_ms)
        if isinstance(shadow, NoShadow) and not shadow.standing:
            return None
        request = self._request_at(decision.source.offset)
        found = shadow_decide(request, decision, shadow, schema_ids=self._config.schema_ids)
        return outcome_event(source_of(effective.record), decision, found)


def outcome_event(source: Source, decision: DecisionMade, found: ShadowOutcome | NotShadowed) -> ShadowDecided:
    """The event that says `found` of the decision that stands at `source`."""
    if isinstance(found, NotShadowed):
        return ShadowDecided(
            source=source,
            status=ShadowStatus.FAILED if found.failed else ShadowStatus.NOT_ASKED,
            reason=found.reason[:REASON_MAX],
            decision_id=found.decision_id,
            request_id=decision.request_id,
            time_ms=decision.time_ms,
            bundle_digest=decision.policy.bundle_digest if decision.policy else None,
        )
    made = ShadowDecided(
        source=source,
        status=ShadowStatus.DECIDED,
        decision_id=found.decision_id,
        request_id=found.request_id,
        time_ms=found.time_ms,
        bundle_digest=found.bundle_digest,
        candidate_digest=found.candidate_digest,
        candidate_version=found.candidate_version,
        active=found.active,
        shadow=found.shadow,
        difference=found.difference,
        newly_readable=found.newly_readable,
    )
    if _unsent(made).size_bytes() <= OUTCOME_BYTES_MAX:
        return made
    reason = f"what candidate {found.candidate_version} says takes more than {OUTCOME_BYTES_MAX} bytes"
    return outcome_event(source, decision, NotShadowed(decision_id=found.decision_id, reason=reason, failed=True))


def _passed(offset: int, count: int) -> Unsent:
    source = Source(offset=offset, count=count, digest=b"", timestamp_ms=0)
    return _unsent(ShadowDecided(source=source, status=ShadowStatus.PASSED))


def _unsent(event: ShadowDecided) -> Unsent:
    return Unsent(key=None, value=codec.encode(event))
