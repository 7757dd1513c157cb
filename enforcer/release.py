"""The redactor: generations in, one release a generation out; the only way text leaves the house.

12 verify that the generation belongs to a grant, 13 redact and check support (tool calls come with tools), 14 release.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sluicegate.enforcer.detect import RedactionClass, Scanner
from sluicegate.enforcer.grant import source_of
from sluicegate.enforcer.ports import FORGETS, Memory, Proposal
from sluicegate.enforcer.redact import Operator, Redacted, redact
from sluicegate.enforcer.seal import SEAL_BYTES_MAX, SLICE_RECORDS_MAX, Effective, Verifier, Void
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import (
    DecisionMade,
    GenerationFinished,
    Outcome,
    RedactionMade,
    ReleaseMade,
    ShapedMessage,
    Source,
    Verdict,
)
from sluicegate.schemas.ids import release_id
from sluicegate.schemas.meanings import MEANINGS
from sluicegate.schemas.records import Record, Unsent

ADMITTED_SOURCES = ("field:", "message:", "template:", "alias:", "redacted:")
REPLACED_SOURCES = ("alias:", "redacted:")
RUNNER_CODES = frozenset(
    {
        Code.FORGED,
        Code.EXPIRED,
        Code.BLOCKED,
        Code.PROMPT_TOO_LONG,
        Code.MODEL_MISSING,
        Code.MODEL_FAILED,
        Code.CONTROL_CHARACTER,
        Code.STOPPED,
    }
)
"""Why a runner may end an allowed request without an answer; that policy says no is not its to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseConfig:
    """One partition of the redactor. `slice_bytes_max` is the most bytes of a slice; `schema_id` the id under which a
    registry knows the schema of releases, whose framing they then get; None: no registry.
    """

    epoch: int
    partition: int
    slice_bytes_max: int
    schema_id: int | None = None


class Redactor:
    """The redactor's `Stage` for one partition.

    `decision_at(offset)` is the verdict on the decision record at that offset (the loop reads it before `decide`);
    `scanner_for(bundle digest)` is the scanner of that bundle's redaction rules, None where the bundle is not known;
    `stopped(decision)` is whether nothing of what it grants may leave any more.
    """

    def __init__(
        self,
        config: ReleaseConfig,
        *,
        generations: Verifier,
        decision_at: Callable[[int], Effective | Void | None],
        scanner_for: Callable[[str], Scanner | None],
        stopped: Callable[[DecisionMade], bool] = lambda _: False,
    ) -> None:
        self._config = config
        self._generations = generations
        self._decision_at = decision_at
        self._scanner_for = scanner_for
        self._is_stopped = stopped

    @property
    def memory(self) -> Memory:
        """Nothing."""
        return FORGETS

    def lose(self, time_ms: int) -> None:
        """Nothing is lost on a stage that keeps nothing."""

    def fold(self, effective: Effective) -> None:
        """The redactor keeps nothing between releases: its frontier and event time stand in the log itself."""

    def sources(self, records: Sequence[Record]) -> tuple[int, ...]:
        """The decision offsets that `decide` will ask for, ascending."""
        wanted = set()
        for record in records:
            verdict = self._generations.verify(record)
            if isinstance(verdict, Effective):
                wanted.add(codec.decode(record.value, GenerationFinished).source.offset)
        return tuple(sorted(wanted))

    def decide(self, records: Sequence[Record], *, frontier: int, time_ms: int, clock_ms: int | None) -> Proposal:  # noqa: ARG002
        """Releases for a prefix of `records` that fits one slice. Runs of foreign records get one refusal together."""
        outputs: list[ReleaseMade] = []
        size, covered, now, position = 0, frontier, time_ms, -1
        encoded: list[Unsent] = []
        for record in records:
            if len(encoded) + 2 > SLICE_RECORDS_MAX or size > self._config.slice_bytes_max:
                break
            if record.offset > covered:
                outputs.append(self._hole(covered, record.offset - covered))
                encoded.append(self._unsent(None, outputs[-1]))
            verdict = self._generations.verify(record)
            covered = record.offset + 1
            if isinstance(verdict, Void):
                self._add_foreign(record, outputs, encoded)
                continue
            now = max(now, verdict.statement.time_ms)
            position = max(position, verdict.statement.policy_position)
            outputs.append(self._release(verdict))
            proved = outputs[-1].actor is not None
            encoded.append(self._unsent(record.key if proved else None, outputs[-1]))
            size += encoded[-1].size_bytes() + SEAL_BYTES_MAX
        return Proposal(
            outputs=tuple(encoded),
            source_first=frontier,
            source_last=covered - 1,
            time_ms=now,
            policy_position=position,
        )

    def _add_foreign(self, record: Record, outputs: list[ReleaseMade], encoded: list[Unsent]) -> None:
        before = outputs[-1] if outputs else None
        if before is not None and before.code is Code.FORGED and before.request_offset is None:
            first = before.source
            source = Source(offset=first.offset, count=first.count + 1, digest=b"", timestamp_ms=first.timestamp_ms)
            outputs[-1] = replace(before, source=source)
            encoded[-1] = self._unsent(None, outputs[-1])
            return
        outputs.append(self._without_request(source_of(record), Code.FORGED))
        encoded.append(self._unsent(None, outputs[-1]))

    def _unsent(self, key: bytes | None, release: ReleaseMade) -> Unsent:
        return Unsent(key=key, value=codec.encode(release, schema_id=self._config.schema_id))

    def _hole(self, offset: int, count: int) -> ReleaseMade:
        return self._without_request(Source(offset=offset, count=count, digest=b"", timestamp_ms=0), Code.GAP)

    def _without_request(self, source: Source, code: Code) -> ReleaseMade:
        return _ended(self._base(source), code)

    def _base(self, source: Source) -> ReleaseMade:
        """A release that says no more than what it answers; how it ended is filled in by `_ended` or `_released`."""
        name = release_id(epoch=self._config.epoch, partition=self._config.partition, offset=source.offset)
        code = Code.GENERATION_MISMATCH
        return ReleaseMade(release_id=name, source=source, outcome=MEANINGS[code].outcome, code=code, retryable=False)

    def _release(self, verdict: Effective) -> ReleaseMade:
        generation = codec.decode(verdict.record.value, GenerationFinished)
        source = source_of(verdict.record)
        # 12 verify that the generation belongs to a grant
        decided = self._decision_at(generation.source.offset)
        if not isinstance(decided, Effective):
            return self._without_request(source, _code_without_decision(decided, generation))
        decision = codec.decode(decided.record.value, DecisionMade)
        base = replace(
            self._base(source),
            request_offset=decision.source.offset,
            decision_id=decision.decision_id,
            withheld=decision.withheld,
            clamps=decision.clamps,
        )
        if decision.identity is not None:
            base = replace(
                base,
                principal=decision.identity.principal,
                actor=decision.identity.actor,
                duplicate_of=decision.duplicate_of,
                # Whoever was not proved gets nothing of what they wrote, for every application may read their refusal.
                request_id=decision.request_id,
            )
        expected = source_of(decided.record)
        denied = generation.outcome is Outcome.DENIED
        if generation.source != expected or generation.decision_id not in (None, decision.decision_id):
            return _ended(base, Code.GENERATION_MISMATCH)
        if denied != (decision.verdict is Verdict.DENY):
            return _ended(base, Code.GENERATION_MISMATCH)
        if denied:
            return _ended(base, decision.code, decision.reason)
        if generation.code in RUNNER_CODES and generation.outcome is not Outcome.ANSWERED:
            return _ended(base, generation.code)
        answered = generation.code is Code.OK and generation.outcome is Outcome.ANSWERED
        if not answered or generation.text is None or generation.run is None:
            return _ended(base, Code.GENERATION_MISMATCH)
        if self._is_stopped(decision):
            return _ended(base, Code.STOPPED)
        return self._answer(base, decision, generation.text, generation.run.finish)

    def _answer(self, base: ReleaseMade, decision: DecisionMade, text: str, finish: str) -> ReleaseMade:
        # 13 redact and check support
        scanner = self._scanner_for(decision.policy.bundle_digest) if decision.policy else None
        if scanner is None:
            return _ended(base, Code.REDACTION_FAILED)
        values = {obligation.name: obligation.value for obligation in decision.obligations}
        redacted = redact(
            text=text,
            scanner=scanner,
            operators=_operators(values.get("redact")),
            numbers="from_context" if json.loads(values.get("numbers", '"free"')) == "from_context" else "free",
            admitted=tuple(text for message in decision.prompt for text in _admitted(message)),
        )
        # 14 release
        return _released(base, redacted, finish)


def _code_without_decision(decided: Void | None, generation: GenerationFinished) -> Code:
    if decided is not None:
        return Code.FORGED
    return Code.GAP if generation.code is Code.GAP else Code.GENERATION_MISMATCH


def _admitted(message: ShapedMessage) -> Iterator[str]:
    """The texts that the model was given. What was replaced inside a text, and the rest of that text, are one again:
    the model reads `Project 122` where a public name and a `2` stand side by side.
    """
    run, joins = "", True
    for segment in message.segments:
        replaced = segment.source.startswith(REPLACED_SOURCES)
        if not segment.source.startswith(ADMITTED_SOURCES):
            yield run
            run, joins = "", True
        elif replaced or joins:
            run, joins = run + segment.text, replaced
        else:
            yield run
            run = segment.text
    yield run


def _operators(value: str | None) -> Mapping[RedactionClass, Operator]:
    if value is None:
        return {}
    return {RedactionClass(name): Operator(operator) for name, operator in json.loads(value).items()}


def _released(base: ReleaseMade, redacted: Redacted, finish: str) -> ReleaseMade:
    """14 release: takes a `Redacted` and nothing else."""
    if not redacted.checked:
        return _ended(base, Code.REDACTION_FAILED)
    return replace(
        base,
        outcome=MEANINGS[Code.OK].outcome,
        code=Code.OK,
        text=redacted.text,
        finish=finish,
        unsupported=redacted.unsupported,
        rules_digest=redacted.rules_digest,
        redactions=tuple(
            RedactionMade(
                redaction_class=each.class_,
                start=each.start,
                end=each.end,
                rule_id=each.rule_id,
                operator=each.operator,
            )
            for each in redacted.findings
        ),
    )


def _ended(base: ReleaseMade, code: Code, reason: str | None = None) -> ReleaseMade:
    """The release without an answer; OK ends nothing so, for it alone releases text."""
    code = Code.GENERATION_MISMATCH if code is Code.OK else code
    meaning = MEANINGS[code]
    return replace(
        base,
        outcome=meaning.outcome,
        code=code,
        retryable=meaning.retryable,
        retry_after_ms=meaning.retry_after_ms,
        reason=meaning.told(reason),
    )
