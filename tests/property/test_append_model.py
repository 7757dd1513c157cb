"""Model of compare-and-append: stages as the real pure parts, brokers as lists, and a scheduler that does its worst.

Every step may be a crash, a second owner that does not know it is one (zombie), a batch that lands late, a replayed
or forged
record, or a crash between append and acknowledgement. Laws: every source has exactly one effective output; state
folded from
the log is the state of one writer that never failed (a counter that must not overspend, and a spent set).
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sluicegate.enforcer.log import SealedLog
from sluicegate.enforcer.ports import Proposal
from sluicegate.enforcer.seal import Effective, Place, Signer, StageKey, Verifier, Void, seal_slice
from sluicegate.enforcer.window import Output, Window, outputs_needed, restore
from sluicegate.schemas.ids import KeyId
from sluicegate.schemas.records import Record, Unsent

PLACE = Place(env="test", tenant="t", epoch=1, topic="t.out", partition=0, event="decision", stage="enforcer")
PRIVATE = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
ROGUE = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
KEY = StageKey(key_id=KeyId("k"), stage="enforcer", public=PRIVATE.public_key(), not_before_ms=0, revoked_at_ms=None)
SIGNER = Signer(key_id=KeyId("k"), private=PRIVATE)
BUDGET = 12
SCHEDULES = 20
STEPS = 60


def keys() -> dict[KeyId, StageKey]:
    return {KEY.key_id: KEY}


@dataclass
class BrokerLog:
    """One partition: appends whole batches and returns the base offset."""

    records: list[Record] = field(default_factory=list)

    def append(self, batch: tuple[Unsent, ...]) -> int:
        base = len(self.records)
        for index, unsent in enumerate(batch):
            self.records.append(
                Record(
                    topic=PLACE.topic,
                    partition=0,
                    offset=base + index,
                    timestamp_ms=0,
                    key=unsent.key,
                    value=unsent.value,
                    headers=unsent.headers,
                )
            )
        return base


class Spender:
    """A stage with a counter: each source asks for 1; it grants while the folded total is under the budget."""

    def __init__(self) -> None:
        self.granted = 0

    def fold(self, effective: Effective) -> None:
        self.granted += (effective.record.value or b"").endswith(b"allow")

    def decide(self, records: list[Record], *, frontier: int, time_ms: int, clock_ms: int | None) -> Proposal:
        granted, outputs, now = self.granted, [], time_ms
        for record in records:
            allow = granted < BUDGET
            granted += allow
            now = max(now, record.timestamp_ms)
            outputs.append(Unsent(key=None, value=b"%d:%s" % (record.offset, b"allow" if allow else b"deny")))
        return Proposal(
            outputs=tuple(outputs),
            source_first=frontier,
            source_last=frontier + len(outputs) - 1,
            time_ms=now,
            policy_position=0,
        )


class Writer:
    """One worker process: it may be a zombie that still thinks that it owns the partition."""

    def __init__(self, log: BrokerLog, *, sound: bool = True) -> None:
        self.log = log
        self.sealed = SealedLog(Verifier(PLACE, keys))
        self.stage = Spender()
        self.sound = sound
        self.read_back()

    def read_back(self) -> None:
        for record in self.log.records[self.sealed.end :]:
            verdict = self.sealed.observe(record)
            if isinstance(verdict, Effective):
                self.stage.fold(verdict)

    def next_slice(self, source: list[Record], size: int) -> tuple[Unsent, ...] | None:
        frontier = self.sealed.source_next or 0
        records = source[frontier : frontier + size]
        if not records:
            return None
        proposal = self.stage.decide(records, frontier=frontier, time_ms=self.sealed.time_ms, clock_ms=None)
        return seal_slice(
            proposal.outputs,
            place=PLACE,
            at=self.sealed.end,
            source_first=proposal.source_first,
            source_last=proposal.source_last,
            time_ms=proposal.time_ms,
            policy_position=0,
            signer=SIGNER,
        )

    def settle(self, base: int, batch: tuple[Unsent, ...]) -> None:
        self.read_back()


def source_log(count: int, rng: random.Random) -> list[Record]:
    """Requests whose stamps step back now and then."""
    clock, records = 1_000, []
    for offset in range(count):
        clock += rng.choice([5, 5, 5, -40])
        records.append(Record(topic="t.in", partition=0, offset=offset, timestamp_ms=clock, key=None, value=b"r"))
    return records


@dataclass
class Counts:
    crashes: int = 0
    zombies: int = 0
    late: int = 0
    forged: int = 0
    replayed: int = 0


def forge(log: BrokerLog, rng: random.Random, counts: Counts) -> None:
    """A rogue with write access: its own key under the admitted key id, or a copy of any record seen, or garbage."""
    kind = rng.randrange(3)
    if kind == 0 or not log.records:
        rogue = Signer(key_id=KeyId("k"), private=ROGUE)
        batch = seal_slice(
            (Unsent(key=None, value=b"0:allow"),),
            place=PLACE,
            at=len(log.records),
            source_first=0,
            source_last=0,
            time_ms=1,
            policy_position=0,
            signer=rogue,
        )
        counts.forged += 1
    elif kind == 1:
        copied = rng.choice(log.records)
        batch = (Unsent(key=copied.key, value=copied.value or b"", headers=copied.headers),)
        counts.replayed += 1
    else:
        batch = (Unsent(key=None, value=b"0:allow", headers=(("sg-seal", rng.randbytes(20)),)),)
        counts.forged += 1
    log.append(batch)


def run_schedule(rng: random.Random, counts: Counts) -> tuple[BrokerLog, list[Record]]:
    """A random schedule until one calm writer has covered every source."""
    log, source = BrokerLog(), source_log(24, rng)
    workers = [Writer(log)]
    in_flight: list[tuple[Unsent, ...]] = []
    for _ in range(STEPS):
        worker = rng.choice(workers)
        event = rng.random()
        if event < 0.35:
            batch = worker.next_slice(source, rng.randint(1, 4))
            if batch is not None:
                worker.settle(log.append(batch), batch)
        elif event < 0.5:  # produced, then killed before it lands: it may land at any later time
            batch = worker.next_slice(source, rng.randint(1, 4))
            if batch is not None:
                in_flight.append(batch)
                counts.crashes += 1
                workers = [each for each in workers if each is not worker] or [Writer(log)]
        elif event < 0.62:  # a second owner; the first does not know
            if len(workers) < 4:
                workers.append(Writer(log))
                counts.zombies += 1
        elif event < 0.74 and in_flight:
            log.append(in_flight.pop(rng.randrange(len(in_flight))))
            counts.late += 1
        elif event < 0.86:
            forge(log, rng, counts)
        else:  # acknowledged, but the worker died before it saw that
            batch = worker.next_slice(source, rng.randint(1, 4))
            if batch is not None:
                log.append(batch)
                counts.crashes += 1
                workers = [each for each in workers if each is not worker] or [Writer(log)]
    calm = Writer(log)
    while (batch := calm.next_slice(source, 4)) is not None:
        log.append(batch)
        calm.read_back()
    for batch in in_flight:
        log.append(batch)
    return log, source


def effective_values(log: BrokerLog, accept: Callable[[Record, Effective | Void], bool]) -> list[bytes]:
    sealed = SealedLog(Verifier(PLACE, keys))
    return [record.value or b"" for record in log.records if accept(record, sealed.observe(record))]


def violations(values: list[bytes], source: list[Record]) -> int:
    """How often the laws are broken: a source without exactly one output, or a budget overspent or not filled."""
    sources = [int(value.split(b":")[0]) for value in values]
    wrong = sum(sources.count(record.offset) != 1 for record in source)
    wrong += abs(sum(value.endswith(b"allow") for value in values) - min(BUDGET, len(source)))
    return wrong


@pytest.mark.parametrize("seed", range(8))
def test_every_source_has_one_effective_output_and_the_budget_is_exact(seed: int) -> None:
    """Invariants 2 and 3 and 14 under crashes, zombies, late produces, replays and forgeries at every step."""
    rng, counts = random.Random(seed), Counts()
    broken_without_position = 0
    for _ in range(SCHEDULES):
        log, source = run_schedule(rng, counts)
        assert violations(effective_values(log, lambda _, verdict: isinstance(verdict, Effective)), source) == 0
        # positive control: the rule "any record with a good signature counts" must be caught breaking the same laws
        anywhere = effective_values(
            log,
            lambda _, verdict: (
                isinstance(verdict, Effective)
                or (isinstance(verdict, Void) and verdict.reason == "sealed for another offset")
            ),
        )
        broken_without_position += violations(anywhere, source) > 0
    assert broken_without_position > SCHEDULES // 4
    assert min(counts.crashes, counts.zombies, counts.late, counts.forged, counts.replayed) > SCHEDULES // 2


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_the_last_outputs_restore_the_window(size: int) -> None:
    """DESIGN 2: the last 2W-1 effective outputs restore `first` and the finished set exactly; fewer do not."""
    rng = random.Random(size)
    too_few_differ = 0
    for _ in range(400):
        window, outputs = Window(size=size), list[Output]()
        for _ in range(30):
            open_sources = [each for each in range(window.first, window.limit) if window.may_admit(each)]
            batch = rng.sample(open_sources, rng.randint(1, len(open_sources)))
            outputs += [Output(source=each, count=1, first=window.first) for each in batch]
            for each in batch:
                window.finish(each)
            assert restore(outputs, size=size, log_start_known=True).state() == window.state()
            if len(outputs) >= outputs_needed(size):
                kept = outputs[-outputs_needed(size) :]
                assert restore(kept, size=size, log_start_known=False).state() == window.state()
                fewer = Window(size=size, first=max(output.first for output in kept[-1:]))
                for output in kept[-1:]:
                    if output.source >= fewer.first:
                        fewer.finish(output.source)
                too_few_differ += fewer.state() != window.state()
    assert too_few_differ > 0 or size == 1
