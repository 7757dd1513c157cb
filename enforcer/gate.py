"""The gate: request records in, one sealed-ready decision a request offset out; the only place that decides.

The numbered checks, the same numbers as in DESIGN and in `meanings`; the first that fails denies with its code:
    1 decode the record
    2 prove the identity (`identity.prove`), and that the request was not decided before
    3 take the policy state at T; nothing of the request may be stopped, and T must be before the deadline
    4 decide access, 5 decide each document, field and tool, 6 shape the prompt, 7 clamp the parameters (`access.judge`)
    8 charge the budgets: no bundle may name one yet, `bundle.load_bundle` refuses it
    9 seal (the caller, `seal.seal_slice`, over the slice that `Gate.decide` proposes)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Required, TypedDict

from sluicegate.enforcer import access
from sluicegate.enforcer.directory import split_uid
from sluicegate.enforcer.identity import prove
from sluicegate.enforcer.judgement import Ask, Refused
from sluicegate.enforcer.ports import Memory, Proposal
from sluicegate.enforcer.seal import SEAL_BYTES_MAX, SLICE_RECORDS_MAX, Effective, source_digest
from sluicegate.enforcer.seen import (
    PROOF_WINDOW_MS,
    PROOFS_MAX,
    REQUEST_WINDOW_MS,
    REQUESTS_MAX,
    SeenProofs,
    SeenRequests,
    stands_for_its_request,
)
from sluicegate.enforcer.state import NotReady, Rules
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.errors import CodecError
from sluicegate.schemas.events import DecisionMade, Identity, PolicyVersion, RequestSubmitted, Source, Verdict
from sluicegate.schemas.ids import decision_id
from sluicegate.schemas.meanings import MEANINGS
from sluicegate.schemas.reading import read_request
from sluicegate.schemas.records import Record, Unsent


@dataclass(frozen=True, slots=True, kw_only=True)
class GateConfig:
    """One partition of the gate. Limits: bytes of a request's value; age of a request's stamp behind T; bytes of a
    slice. `schema_ids`: which of our schemas a registry knows under which id, as it said at start; empty: no registry.
    """

    epoch: int
    partition: int
    audience: str
    partition_count: int
    request_bytes_max: int
    stale_after_ms: int
    slice_bytes_max: int
    schema_ids: Mapping[int, str] = field(default_factory=dict)


class Known(TypedDict, total=False):
    """What is known of a decision before its verdict, by the names of its fields; it is put together once."""

    decision_id: Required[str]
    source: Required[Source]
    time_ms: Required[int]
    request_id: str
    model: str
    purpose: str
    deadline_ms: int | None
    policy: PolicyVersion
    identity: Identity
    duplicate_of: str


MEMORY = Memory(
    window_ms=max(PROOF_WINDOW_MS, REQUEST_WINDOW_MS),
    count_max=max(PROOFS_MAX, REQUESTS_MAX),
    counts=lambda effective: stands_for_its_request(codec.decode(effective.record.value, DecisionMade)),
)


class Gate:
    """The enforcer's `Stage` for one partition. `rules_at(T)` returns the policy state in force at event time T."""

    def __init__(self, config: GateConfig, rules_at: Callable[[int], Rules | NotReady]) -> None:
        self._config = config
        self._rules_at = rules_at
        self._proofs = SeenProofs()
        self._requests = SeenRequests()
        self._proposed: dict[bytes, DecisionMade] = {}

    @property
    def memory(self) -> Memory:
        """As far back as a proof or a request may be a repeat."""
        return MEMORY

    def lose(self, time_ms: int) -> None:
        """Refuses proofs that may be among the spent ones; repeats of requests are told as far as the log goes."""
        self._proofs.lose(time_ms)

    def fold(self, effective: Effective) -> None:
        """Takes one effective decision of this partition into the sets of spent proofs and decided requests."""
        value = effective.record.value
        # What was just proposed needs no decoding again: a memo, not state, for equal bytes are the same decision.
        decision = (self._proposed.pop(value, None) if value else None) or codec.decode(value, DecisionMade)
        self._proofs.fold(decision)
        self._requests.fold(decision)

    def decide(self, records: Sequence[Record], *, frontier: int, time_ms: int, clock_ms: int | None) -> Proposal:
        """Decisions for a prefix of `records` that fits one slice; decided again from the same input, the same
        bytes.
        """
        proofs, requests = self._proofs.fork(), self._requests.fork()
        outputs: list[Unsent] = []
        self._proposed = {}
        size, position, covered, now = 0, -1, frontier, time_ms
        for record in records:
            stamp = record.timestamp_ms if clock_ms is None else clock_ms
            record_time = max(now, stamp)
            step: list[tuple[bytes | None, DecisionMade]] = []
            if record.offset > covered:
                step.append((None, self._gap(covered, record.offset - covered, record_time)))
            step.append((record.key, self._decide_one(record, record_time, proofs, requests)))
            unsent = [Unsent(key=key, value=codec.encode(decision)) for key, decision in step]
            if unsent[-1].size_bytes() + SEAL_BYTES_MAX > self._config.slice_bytes_max:
                step[-1] = (record.key, _too_large(step[-1][1]))
                unsent[-1] = Unsent(key=record.key, value=codec.encode(step[-1][1]))
            step_size = sum(each.size_bytes() + SEAL_BYTES_MAX for each in unsent)
            if outputs and (size + step_size > self._config.slice_bytes_max or len(outputs) + 2 > SLICE_RECORDS_MAX):
                break
            outputs += unsent
            size += step_size
            now, covered = record_time, record.offset + 1
            self._proposed |= {each.value: decision for each, (_, decision) in zip(unsent, step, strict=True)}
            for _, decision in step:
                proofs.fold(decision)
                requests.fold(decision)
                if decision.policy is not None:
                    position = max(position, decision.policy.position)
        return Proposal(
            outputs=tuple(outputs),
            source_first=frontier,
            source_last=covered - 1,
            time_ms=now,
            policy_position=position,
        )

    def _gap(self, offset: int, count: int, time_ms: int) -> DecisionMade:
        return DecisionMade(
            decision_id=decision_id(epoch=self._config.epoch, partition=self._config.partition, offset=offset),
            source=Source(offset=offset, count=count, digest=b"", timestamp_ms=0),
            time_ms=time_ms,
            verdict=Verdict.DENY,
            code=Code.GAP,
            check=MEANINGS[Code.GAP].check,
            reason=MEANINGS[Code.GAP].text,
        )

    def _decide_one(self, record: Record, time_ms: int, proofs: SeenProofs, requests: SeenRequests) -> DecisionMade:
        config = self._config
        digest = source_digest(record.key, record.value)
        known = Known(
            decision_id=decision_id(epoch=config.epoch, partition=config.partition, offset=record.offset),
            source=Source(offset=record.offset, count=1, digest=digest, timestamp_ms=record.timestamp_ms),
            time_ms=time_ms,
        )
        # 1 decode the record
        if len(record.value or b"") > config.request_bytes_max:
            return _denied(known, Refused(code=Code.TOO_LARGE))
        if time_ms - record.timestamp_ms > config.stale_after_ms:
            return _denied(known, Refused(code=Code.STALE))
        try:
            request = read_request(record, config.schema_ids)
        except CodecError as error:
            return _denied(known, Refused(code=Code.POISON, reason=str(error)))
        known["request_id"] = request.request_id
        known["model"] = request.model
        known["purpose"] = request.purpose
        known["deadline_ms"] = request.deadline_ms
        # 3 take the policy state at T (before 2, because the keys that prove an identity are part of it)
        rules = self._rules_at(time_ms)
        if isinstance(rules, NotReady):
            return _denied(known, Refused(code=rules.code, reason=rules.reason))
        known["policy"] = rules.version
        # 2 prove the identity, and that the request was not decided before
        identity = prove(
            record,
            audience=config.audience,
            partition_count=config.partition_count,
            time_ms=time_ms,
            credentials=rules.credentials,
            seen=proofs,
        )
        if isinstance(identity, Refused):
            return _denied(known, identity)
        known["identity"] = identity
        earlier = requests.find(actor=identity.actor, request_id=request.request_id)
        if earlier is not None:
            known["duplicate_of"] = earlier.decision_id
            same = earlier.digest == digest
            return _denied(known, Refused(code=Code.DUPLICATE_OF if same else Code.REQUEST_ID_REUSED))
        # 3 nothing of it may be stopped
        if rules.stops.standing:
            stop = rules.stops.hitting(_denied(known, Refused(code=Code.STOPPED)))
            if stop is not None:
                return _denied(known, Refused(code=Code.STOPPED, reason=f"stopped: {stop}"))
        # 3 T must be before the deadline; a repeat is told of its first decision, however late
        if request.deadline_ms is not None and time_ms >= request.deadline_ms:
            return _denied(known, Refused(code=Code.EXPIRED))
        # 4 to 7
        return judged(known, rules.judging, identity, request)


def judged(known: Known, rules: access.Rules, identity: Identity, request: RequestSubmitted) -> DecisionMade:
    """`known`, which holds what checks 1 to 3 found, with what checks 4 to 7 say of the proved request."""
    found = access.judge(
        rules,
        Ask(
            principal=split_uid(identity.principal),
            actor=split_uid(identity.actor),
            request=request,
            time_ms=known["time_ms"],
            default_seed=int.from_bytes(known["source"].digest[:7], "big"),
        ),
    )
    allowed = found.code is Code.OK
    return DecisionMade(
        **known,
        verdict=Verdict.ALLOW if allowed else Verdict.DENY,
        code=found.code,
        check=MEANINGS[found.code].check,
        reason=found.reason if allowed else found.reason or MEANINGS[found.code].text,
        determining=found.determining,
        rulings=found.rulings,
        obligations=found.obligations,
        prompt=found.prompt,
        granted=found.granted,
        clamps=found.clamps,
        admitted=found.admitted,
        withheld=found.withheld,
        aliases=found.aliases,
        materials=found.materials,
        prompt_redactions=found.prompt_redactions,
        prompt_tokens_max=found.prompt_tokens_max,
    )


def _too_large(decision: DecisionMade) -> DecisionMade:
    """The denial of what fits no slice: a decision that no broker takes would stand in the way of all that follow.

    What is shaped can be longer than what was asked: public names for short terms, labels for short values.
    """
    meaning = MEANINGS[Code.TOO_LARGE]
    return DecisionMade(
        decision_id=decision.decision_id,
        source=decision.source,
        time_ms=decision.time_ms,
        request_id=decision.request_id,
        model=decision.model,
        purpose=decision.purpose,
        deadline_ms=decision.deadline_ms,
        policy=decision.policy,
        identity=decision.identity,
        duplicate_of=decision.duplicate_of,
        verdict=Verdict.DENY,
        code=Code.TOO_LARGE,
        check=meaning.check,
        reason=f"{meaning.text}, as it is shaped",
    )


def _denied(known: Known, refused: Refused) -> DecisionMade:
    meaning = MEANINGS[refused.code]
    return DecisionMade(
        **known, verdict=Verdict.DENY, code=refused.code, check=meaning.check, reason=refused.reason or meaning.text
    )
