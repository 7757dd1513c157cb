"""A run's output topic is read back, the faults found in it come out: a figure is shown only where there are none."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bench.stand import decisions_place
from sluicegate.enforcer.log import SealedLog
from sluicegate.enforcer.seal import StageKey, Verifier
from sluicegate.schemas import codec
from sluicegate.schemas.errors import CodecError, ContinuityError
from sluicegate.schemas.events import DecisionMade, Verdict
from sluicegate.schemas.ids import KeyId
from sluicegate.schemas.records import Record
from sluicegate.streams.kafka import Broker

READ_LIMIT_S: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """How many requests each partition holds; `keys`: of the stage whose seals must verify, None where none are."""

    counts: Mapping[int, int]
    keys: Mapping[KeyId, StageKey] | None

    def admitted(self) -> Mapping[KeyId, StageKey]:
        """The keys, as a verifier asks for them."""
        return self.keys or {}


async def faults_of_run(broker: Broker, topic: str, expected: Expected) -> list[str]:
    """What is wrong with the decisions on `topic`; nothing where every request has exactly one, an allow."""
    faults: list[str] = []
    for partition, count in expected.counts.items():
        records = await _read(broker, topic, partition)
        found = faults_of_decisions(records, count)
        if expected.keys is not None:
            found += faults_of_seals(records, Verifier(decisions_place(topic, partition), expected.admitted))
        faults += [f"partition {partition}: {fault}" for fault in found]
    return faults


async def _read(broker: Broker, topic: str, partition: int) -> list[Record]:
    # A tail waits longer for an answer than `Broker.read`: the embedded broker needs that for thousands of batches.
    end = await broker.end_offset(topic, partition)
    tail = broker.tail(topic, partition, start=0)
    records: list[Record] = []
    try:
        while tail.position < end:
            records += await asyncio.wait_for(anext(tail), READ_LIMIT_S)
    finally:
        await tail.aclose()
    return records


def faults_of_decisions(records: list[Record], count: int) -> list[str]:
    """Whether offsets 0 to `count` of the requests have one decision each, every one an allow."""
    faults: list[str] = []
    try:
        decisions = [codec.decode(record.value, DecisionMade) for record in records]
    except CodecError as error:
        return [f"a decision cannot be read: {error}"]
    answered = [decision.source.offset for decision in decisions]
    if sorted(answered) != list(range(count)) or any(decision.source.count != 1 for decision in decisions):
        faults.append(f"{len(answered)} decisions on {len(set(answered))} of {count} requests")
    denied = [decision.code.name for decision in decisions if decision.verdict is not Verdict.ALLOW]
    if denied:
        faults.append(f"{len(denied)} denied, the first with {denied[0]}")
    return faults


def faults_of_seals(records: list[Record], verifier: Verifier) -> list[str]:
    """Whether every record is effective and the slices follow one another."""
    log = SealedLog(verifier)
    try:
        for record in records:
            log.observe(record)
    except ContinuityError as error:
        return [str(error)]
    return [f"{log.void_count} of {len(records)} records are void"] if log.void_count else []
