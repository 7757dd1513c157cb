"""A proof counts once, whenever the enforcer dies: 0 replays accepted over random schedules of kills and replays.

The real gate and lane on a log in memory. Each life ends before or after an append, or between two slices, and the next
one knows only what it reads back. A gate that does not fold what it reads is the control: there the count must rise.
"""

import asyncio
from collections import Counter
from dataclasses import replace
from random import Random

import company
import pytest
from memory_log import MemoryLog
from stages import KEYS, place, signer

from sluicegate.enforcer.gate import Gate
from sluicegate.enforcer.log import SealedLog
from sluicegate.enforcer.seal import Effective, Verifier
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import DecisionMade
from sluicegate.schemas.records import Record, Unsent
from sluicegate.streams.lane import Lane

SCHEDULES = 60
FRESH, LINES = 8, 24
PERSON = "ana.support"
TEMPLATES = [
    company.record(company.request(f"r{number}"), person=PERSON, offset=number, at_ms=company.NOON_MS)
    for number in range(FRESH)
]
PARTITION = TEMPLATES[0].partition
PLACE = replace(place("enforcer"), partition=PARTITION)
VERIFIER = Verifier(PLACE, lambda: KEYS)


class Killed(Exception):
    """The process is gone; nothing of it is used again."""


class DyingLog(MemoryLog):
    """Kills whoever appends next, before or after the batch has landed."""

    def __init__(self) -> None:
        super().__init__()
        self.die = ""

    async def append(self, topic: str, partition: int, records: list[Unsent]) -> int:  # type: ignore[override]
        die, self.die = self.die, ""
        if die == "before":
            raise Killed
        base = await super().append(topic, partition, records)
        if die == "after":
            raise Killed
        return base


class Forgetful(Gate):
    """The hole: what was spent before this life is not known."""

    def fold(self, effective: Effective) -> None:
        """Nothing is taken."""


def asked(chance: Random) -> list[Record]:
    """Every request once, in order, and copies of those sent so far in between: header, key and body as they were."""
    sent: list[Record] = []
    fresh = list(TEMPLATES)
    while fresh or len(sent) < LINES:
        again = sent and (not fresh or chance.random() < 0.6)
        sent.append(chance.choice(sent) if again else fresh.pop(0))
    return sent


async def lived(chance: Random, kind: type[Gate]) -> tuple[Counter[str], int]:
    """How often each proof was accepted, and how many lives it took."""
    log, lives = DyingLog(), 0
    for each in asked(chance):
        log.put(company.TOPIC, PARTITION, [Unsent(key=each.key, value=each.value or b"", headers=each.headers)],
                timestamp_ms=company.NOON_MS)  # fmt: skip
    records = log.partitions[company.TOPIC, PARTITION]
    while True:
        lives += 1
        lane = Lane(
            broker=log, stage=fresh_gate(kind), verifier=VERIFIER, signer=signer("enforcer"),
            source_topic=company.TOPIC, output=DecisionMade, slice_bytes_max=900_000, slice_records_max=5,
            may_append=lambda: True,
        )  # fmt: skip
        try:
            await lane.recover()
            while lane.frontier < len(records):
                log.die = chance.choice(["before", "after", "", "", ""])
                await lane.advance(records[lane.frontier : lane.frontier + chance.randint(1, 5)])
                if chance.random() < 0.2:
                    raise Killed
            return accepted(log), lives
        except Killed:
            continue


def fresh_gate(kind: type[Gate]) -> Gate:
    made = company.gate(PARTITION)
    return kind(made._config, made._rules_at)


def accepted(log: MemoryLog) -> Counter[str]:
    """Effective decisions that spent a proof, by its id; every offset has one."""
    sealed, found, answered = SealedLog(VERIFIER, start=0), Counter[str](), 0
    for record in log.partitions[PLACE.topic, PARTITION]:
        if isinstance(sealed.observe(record), Effective):
            answered += 1
            decision = codec.decode(record.value, DecisionMade)
            assert decision.code in {Code.OK, Code.PROOF_REPLAYED, Code.DUPLICATE_OF}, decision.code
            if decision.identity is not None:
                found[decision.identity.proof_id] += 1
    assert answered == len(log.partitions[company.TOPIC, PARTITION])
    return found


def replays(kind: type[Gate], seeds: range) -> tuple[int, int]:
    """Replays accepted, and kills, over the schedules of these seeds."""
    count = kills = 0
    for seed in seeds:
        found, lives = asyncio.run(lived(Random(seed), kind))
        assert len(found) == FRESH, "every proof is accepted once"
        count += sum(found.values()) - FRESH
        kills += lives - 1
    return count, kills


@pytest.mark.timeout(60)
def test_no_replayed_proof_is_accepted_whenever_the_enforcer_dies() -> None:
    count, kills = replays(Gate, range(SCHEDULES))
    assert count == 0
    assert kills > SCHEDULES, "too few deaths to speak of"


def test_the_count_rises_where_nothing_is_read_back() -> None:
    count, _ = replays(Forgetful, range(5))
    assert count > 0
