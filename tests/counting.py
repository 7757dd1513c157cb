"""A stage that counts, and the check of what it wrote: a missed or doubled output shows in all later ones."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sluicegate.enforcer.ports import Memory, Proposal
from sluicegate.enforcer.seal import Effective, Verifier, source_digest
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import DecisionMade, Source, Verdict
from sluicegate.schemas.ids import decision_id
from sluicegate.schemas.records import Record, Unsent
from sluicegate.streams.ports import Log


def body(offset: int, *, number: int, source: Source, code: Code, time_ms: int) -> bytes:
    return codec.encode(
        DecisionMade(
            decision_id=decision_id(epoch=1, partition=0, offset=offset),
            source=source,
            time_ms=time_ms,
            verdict=Verdict.DENY,
            code=code,
            check=1,
            reason=str(number),
        )
    )


class Counting:
    """Numbers its outputs: the number of an output is how many effective ones stand before it."""

    def __init__(self) -> None:
        self.count = 0

    @property
    def memory(self) -> Memory:
        return Memory(window_ms=2**60, count_max=2**60, counts=lambda _: True)

    def lose(self, time_ms: int) -> None:
        raise AssertionError("an output counts for ever")

    def fold(self, effective: Effective) -> None:
        self.count += 1

    def decide(self, records: Sequence[Record], *, frontier: int, time_ms: int, clock_ms: int | None) -> Proposal:
        outputs: list[Unsent] = []
        now, covered = time_ms, frontier
        for record in records:
            if len(outputs) + 2 > 512:
                break
            now = max(now, record.timestamp_ms if clock_ms is None else clock_ms)
            if record.offset > covered:
                hole = Source(offset=covered, count=record.offset - covered, digest=b"", timestamp_ms=0)
                number = self.count + len(outputs)
                value = body(covered, number=number, source=hole, code=Code.GAP, time_ms=now)
                outputs.append(Unsent(key=None, value=value))
            digest = source_digest(record.key, record.value)
            source = Source(offset=record.offset, count=1, digest=digest, timestamp_ms=record.timestamp_ms)
            number = self.count + len(outputs)
            value = body(record.offset, number=number, source=source, code=Code.DENIED, time_ms=now)
            outputs.append(Unsent(key=record.key, value=value))
            covered = record.offset + 1
        return Proposal(
            outputs=tuple(outputs), source_first=frontier, source_last=covered - 1, time_ms=now, policy_position=0
        )


@dataclass(frozen=True, kw_only=True)
class Report:
    """What stands in one output partition against its input."""

    answered: int
    missing: int
    doubled: int
    misnumbered: int
    void: int

    @property
    def sound(self) -> bool:
        return (self.missing, self.doubled, self.misnumbered) == (0, 0, 0)


async def check_one_to_one(log: Log, verifier: Verifier, *, source_topic: str) -> Report:
    """Counts from the logs alone, with no help but the seals: every input offset against its effective outputs."""
    place = verifier.place
    inputs: set[int] = set()
    async for batch in log.read(source_topic, place.partition, start=0):
        inputs.update(record.offset for record in batch)
    answers: Counter[int] = Counter()
    misnumbered, effective, void = 0, 0, 0
    async for batch in log.read(place.topic, place.partition, start=0):
        for record in batch:
            if not isinstance(verifier.verify(record), Effective):
                void += 1
                continue
            decision = codec.decode(record.value, DecisionMade)
            misnumbered += decision.reason != str(effective)
            effective += 1
            answers.update(range(decision.source.offset, decision.source.offset + decision.source.count))
    return Report(
        answered=sum(1 for offset in inputs if answers[offset] > 0),
        missing=sum(1 for offset in inputs if answers[offset] == 0),
        doubled=sum(1 for count in answers.values() if count > 1),
        misnumbered=misnumbered,
        void=void,
    )
