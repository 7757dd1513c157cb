"""A bounded read-back against a fold of the whole log: the same frontier, event time and answers, whatever is there.

Logs are random: genuine slices of two keys (one revoked later), jumps of event time from none to more than a day,
garbage, replays, slices that landed elsewhere, forgeries with a high event time at the right place, and what a holder
of the revoked key can still seal: genuine signatures with an event time of long ago.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from memory_log import MemoryLog

from sluicegate.enforcer.log import SealedLog
from sluicegate.enforcer.ports import Memory, Proposal
from sluicegate.enforcer.seal import Effective, Place, Signer, StageKey, Verifier, seal_slice, source_digest
from sluicegate.enforcer.seen import (
    PROOF_WINDOW_MS,
    REQUEST_WINDOW_MS,
    SeenProofs,
    SeenRequests,
    stands_for_its_request,
)
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.errors import ContinuityError
from sluicegate.schemas.events import DecisionMade, Identity, Source, Verdict
from sluicegate.schemas.ids import KeyId
from sluicegate.schemas.records import Record, Unsent
from sluicegate.streams import read_back
from sluicegate.streams.lane import Lane

PLACE = Place(env="test", tenant="t", epoch=1, topic="t.decisions", partition=0, event="decision", stage="enforcer")
SOURCE = "t.requests"
START_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
LONG_AGO_MS = 40 * HOUR_MS
SIGNERS = {
    name: Signer(key_id=KeyId(name), private=Ed25519PrivateKey.from_private_bytes(name.encode() * 32)) for name in "ab"
}
ROGUE = Ed25519PrivateKey.from_private_bytes(b"r" * 32)
COUNT_MAX = 12


def verifier(revoked_at_ms: int | None) -> Verifier:
    keys = {
        signer.key_id: StageKey(
            key_id=signer.key_id, stage="enforcer", public=signer.private.public_key(), not_before_ms=0,
            revoked_at_ms=revoked_at_ms if name == "a" else None,
        )
        for name, signer in SIGNERS.items()
    }  # fmt: skip
    return Verifier(PLACE, lambda: keys)


class Remembering:
    """The gate's two sets with a small limit by count, which a test can reach."""

    def __init__(self, *, window_ms: int = REQUEST_WINDOW_MS, count_max: int = COUNT_MAX) -> None:
        self.proofs = SeenProofs(count_max=COUNT_MAX)
        self.requests = SeenRequests(count_max=COUNT_MAX)
        self.memory = Memory(
            window_ms=window_ms,
            count_max=count_max,
            counts=lambda each: stands_for_its_request(codec.decode(each.record.value, DecisionMade)),
        )
        self.folded = 0

    def lose(self, time_ms: int) -> None:
        self.proofs.lose(time_ms)

    def fold(self, effective: Effective) -> None:
        self.folded += 1
        self.take(codec.decode(effective.record.value, DecisionMade))

    def take(self, decision: DecisionMade) -> None:
        self.proofs.fold(decision)
        self.requests.fold(decision)

    def decide(self, records: Sequence[Record], *, frontier: int, time_ms: int, clock_ms: int | None) -> Proposal:
        raise AssertionError("nothing is decided here")


JUMPS_MS = (0, 0, 1, 1_000, 60_000, 200_000, HOUR_MS, 13 * HOUR_MS, 25 * HOUR_MS)
GENUINE = st.tuples(st.just("genuine"), st.sampled_from(JUMPS_MS), st.integers(1, 4), st.integers(0, 30))
FOREIGN = st.tuples(
    st.sampled_from(["garbage", "replayed", "elsewhere", "forged", "stale", "stale"]),
    st.sampled_from(JUMPS_MS),
    st.integers(1, 9),
    st.integers(0, 30),
)
EVENTS = st.lists(st.one_of(GENUINE, GENUINE, FOREIGN), min_size=1, max_size=40)


@dataclass
class Built:
    """A log, and what was asked in it."""

    log: MemoryLog
    revoked_at_ms: int | None
    time_ms: int
    asked: int


def decision(number: int, request: int, time_ms: int, code: Code) -> DecisionMade:
    record = Record(topic=SOURCE, partition=0, offset=number, timestamp_ms=0, key=None, value=b"%d" % number)
    return DecisionMade(
        decision_id=f"d{number}",
        source=Source(offset=number, count=1, digest=digest_of(record), timestamp_ms=0),
        time_ms=time_ms,
        verdict=Verdict.ALLOW if code is Code.OK else Verdict.DENY,
        code=code,
        check=0,
        request_id=f"r{request}",
        identity=Identity(
            principal='User::"ana"', actor="desk", proof_issuer="desk", proof_id=f"j{number}",
            proof_issued_at_s=time_ms // 1000, proof_key_id="k",
        ),
    )  # fmt: skip


def digest_of(record: Record) -> bytes:
    return source_digest(record.key, record.value)


class Builder:
    """Appends what the events say; genuine decisions answer as the gate does, from the same sets."""

    def __init__(self, revoke_after: int | None) -> None:
        self.log = MemoryLog()
        self.records = self.log.partitions.setdefault((PLACE.topic, 0), [])
        self.stage = Remembering()
        self.time_ms = START_MS
        self.number = 0
        self.slices = 0
        self.revoke_after = revoke_after
        self.revoked_at_ms: int | None = None

    def add(self, kind: str, jump_ms: int, count: int, request: int) -> None:
        match kind:
            case "genuine":
                self.genuine(jump_ms, count, request)
            case "garbage":
                self.log.put(
                    PLACE.topic, 0, [Unsent(key=None, value=b"x", headers=(("sg-seal", b"?"),))] * (count * count)
                )
            case "replayed" if self.records:
                old = self.records[request % len(self.records)]
                copied = Unsent(key=old.key, value=old.value or b"", headers=old.headers)
                self.log.put(PLACE.topic, 0, [copied] * count)
            case "elsewhere" if self.records:
                # A late produce: who sealed it saw an earlier end. Nobody seals for a place not yet reached.
                self.seal(len(self.records) - 1, self.time_ms + jump_ms, self.signer, [self.foreign()] * count)
            case "forged":
                rogue = replace(self.signer, private=ROGUE)
                self.seal(len(self.records), self.time_ms + LONG_AGO_MS, rogue, [self.foreign()] * count)
            case "stale" if self.revoked_at_ms is not None:
                self.seal(len(self.records), START_MS - LONG_AGO_MS + jump_ms, SIGNERS["a"], [self.foreign()] * count)

    @property
    def signer(self) -> Signer:
        return SIGNERS["a" if self.revoked_at_ms is None else "b"]

    def foreign(self) -> Unsent:
        return Unsent(key=None, value=codec.encode(decision(10**6, 10**6, START_MS, Code.OK)))

    def seal(self, at: int, time_ms: int, signer: Signer, outputs: list[Unsent], first: int = 0, last: int = 0) -> None:
        sealed = seal_slice(
            outputs, place=PLACE, at=at, source_first=first, source_last=last, time_ms=time_ms, policy_position=0,
            signer=signer,
        )  # fmt: skip
        self.log.put(PLACE.topic, 0, sealed)

    def genuine(self, jump_ms: int, count: int, request: int) -> None:
        if self.slices == self.revoke_after:
            self.revoked_at_ms = self.time_ms + 1
            self.time_ms += 1
        self.slices += 1
        first, outputs = self.number, []
        self.time_ms += jump_ms
        for each in range(count):
            name = request + each
            used = self.stage.requests.find(actor="desk", request_id=f"r{name}")
            code = Code.OK if used is None else Code.DUPLICATE_OF
            made = decision(self.number, name, self.time_ms, code)
            self.stage.take(made)
            self.log.put(SOURCE, 0, [Unsent(key=None, value=b"%d" % self.number)])
            outputs.append(Unsent(key=None, value=codec.encode(made)))
            self.number += 1
        self.seal(len(self.records), self.time_ms, self.signer, outputs, first, self.number - 1)


def build(events: list[tuple[Any, ...]], revoke_after: int | None) -> Built:
    builder = Builder(revoke_after)
    for event in events:
        builder.add(*event)
    return Built(
        log=builder.log, revoked_at_ms=builder.revoked_at_ms, time_ms=builder.time_ms, asked=builder.number
    )  # fmt: skip


def answers(stage: Remembering, built: Built) -> list[object]:
    """Everything that the gate may still ask the two sets."""
    found: list[object] = [stage.requests.find(actor="desk", request_id=f"r{each}") for each in range(40)]
    for number in range(built.asked + 1):
        for age_s in (-20, 0, 100, 299):
            issued_at_s = built.time_ms // 1000 - age_s
            found.append(stage.proofs.check(issuer="desk", proof_id=f"j{number}", issued_at_s=issued_at_s))
    return found


def later(built: Built) -> list[DecisionMade]:
    """What is folded after the read-back; places and limits must go on alike."""
    return [decision(built.asked + each, 3 * each, built.time_ms + 90_000 * each, Code.OK) for each in range(6)]


def whole_fold(built: Built, *, cut: bool = False) -> tuple[SealedLog, Remembering]:
    stage = Remembering()
    start = built.log.starts.get(PLACE.topic, 0)
    sealed = SealedLog(verifier(built.revoked_at_ms), start=start, source_start=0 if start == 0 else None)
    effective = []
    for record in built.log.partitions[PLACE.topic, 0][start:]:
        verdict = sealed.observe(record)
        if isinstance(verdict, Effective):
            effective.append(verdict)
    if cut and effective and effective[0].statement.time_ms >= sealed.time_ms - stage.memory.window_ms:
        stage.lose(effective[0].statement.time_ms)
    for each in effective:
        stage.fold(each)
    return sealed, stage


async def bounded(built: Built, stage: Remembering) -> tuple[SealedLog | None, Remembering]:
    lane = Lane(
        broker=built.log, stage=stage, verifier=verifier(built.revoked_at_ms), signer=SIGNERS["b"],
        source_topic=SOURCE, output=DecisionMade, slice_bytes_max=100_000, may_append=lambda: True,
    )  # fmt: skip
    await lane.recover()
    return lane._log, stage


@pytest.fixture(autouse=True)
def searched_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random logs are short: pieces as short, so that every step of the search is taken."""
    monkeypatch.setattr(read_back, "CLOSE_ENOUGH", 1)
    monkeypatch.setattr(read_back, "FIRST_PIECE", 2)
    monkeypatch.setattr(read_back, "PIECE_MAX", 5)


def differ(built: Built, stage: Remembering, *, cut: bool = False) -> bool:
    """Whether the bounded read-back knows anything else than the fold of the whole log."""
    sealed, whole = whole_fold(built, cut=cut)
    log, part = asyncio.run(bounded(built, stage))
    assert log is not None
    if (log.end, log.source_next, log.time_ms) != (sealed.end, sealed.source_next, sealed.time_ms):
        return True
    if answers(part, built) != answers(whole, built):
        return True
    for made in later(built):
        for each in (part, whole):
            each.take(made)
        if answers(part, built) != answers(whole, built):
            return True
    return False


@settings(max_examples=250, deadline=None)
@given(events=EVENTS, revoke_after=st.one_of(st.none(), st.integers(0, 12)))
def test_the_state_after_a_bounded_read_back_is_that_of_the_whole_log(
    events: list[tuple[Any, ...]], revoke_after: int | None
) -> None:
    assert not differ(build(events, revoke_after), Remembering())


@settings(max_examples=120, deadline=None)
@given(events=EVENTS, revoke_after=st.one_of(st.none(), st.integers(0, 12)), start=st.integers(0, 30))
def test_so_it_is_on_a_log_whose_start_was_deleted(
    events: list[tuple[Any, ...]], revoke_after: int | None, start: int
) -> None:
    built = build([*events, ("genuine", 0, 1, 31)], revoke_after)
    records = built.log.partitions[PLACE.topic, 0]
    kept_from = start_of_slice(built, min(start, len(records) - 1))
    built.log.starts[PLACE.topic] = kept_from
    # Where a revoked key speaks first, nothing that is kept tells its old event time from a true one: both refuse.
    assume(kept_from == 0 or first_is_vouched_for(built, kept_from))
    assert not differ(built, Remembering(), cut=kept_from > 0)


def start_of_slice(built: Built, offset: int) -> int:
    """Retention deletes whole batches: the first place at or before `offset` that is within no slice."""
    inside: set[int] = set()
    check = verifier(built.revoked_at_ms)
    for record in built.log.partitions[PLACE.topic, 0]:
        verdict = check.verify(record)
        if isinstance(verdict, Effective) and verdict.statement.at != record.offset:
            inside.add(record.offset)
    while offset in inside:
        offset -= 1
    return offset


def first_is_vouched_for(built: Built, kept_from: int) -> bool:
    check = verifier(built.revoked_at_ms)
    verdicts = map(check.verify, built.log.partitions[PLACE.topic, 0][kept_from:])
    first = next((each for each in verdicts if isinstance(each, Effective)), None)
    return first is None or check.vouches(first)


def test_a_revoked_key_that_speaks_first_where_the_start_was_deleted_is_not_believed() -> None:
    events = [*[("genuine", 0, 3, each) for each in range(3)], ("stale", 0, 1, 0), ("genuine", 0, 1, 31)]
    built = build(events, 0)
    assert isinstance(verifier(built.revoked_at_ms).verify(built.log.partitions[PLACE.topic, 0][9]), Effective)
    built.log.starts[PLACE.topic] = 9
    with pytest.raises(ContinuityError, match="the frontier is"):
        asyncio.run(bounded(built, Remembering()))


LONG: list[tuple[Any, ...]] = [("genuine", 60_000 if each % 3 else 2 * HOUR_MS, 2, each) for each in range(60)]


def test_a_window_that_is_too_short_is_caught() -> None:
    """The control of the property: it tells a stage that remembers less from one that remembers enough."""
    built = build([("genuine", 60_000, 1, each) for each in range(10)], None)
    assert not differ(built, Remembering())
    assert differ(built, Remembering(window_ms=PROOF_WINDOW_MS // 2))
    many = build([("genuine", 1_000, 3, 3 * each) for each in range(10)], None)
    assert not differ(many, Remembering())
    assert differ(many, Remembering(count_max=COUNT_MAX - 2))


def test_a_holder_of_a_revoked_key_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Event times of long ago, truly signed and in the right place, in front of what must be remembered."""
    events = [*[("genuine", 30 * 60_000, 1, each) for each in range(20)], *[("stale", each, 1, 0) for each in range(9)]]
    built = build([*events, *[("genuine", 1_000, 1, 20 + each) for each in range(6)]], 4)
    assert not differ(built, Remembering())
    monkeypatch.setattr(Verifier, "vouches", lambda *_: True)
    with pytest.raises(ContinuityError, match="covers sources from 0"):
        differ(built, Remembering())


@pytest.mark.parametrize("place", ["remembered", "forgotten"])
def test_a_torn_slice_is_refused_where_it_matters(place: str) -> None:
    """The fold of the whole log refuses both; what is older than the memory, the audit checks."""
    built = build([("genuine", HOUR_MS, 2, 2 * each) for each in range(60)], None)
    records = built.log.partitions[PLACE.topic, 0]
    torn = len(records) - 11 if place == "remembered" else 21
    records[torn] = replace(records[torn], headers=())
    with pytest.raises(ContinuityError, match="torn"):
        whole_fold(built)
    if place == "remembered":
        with pytest.raises(ContinuityError, match="torn"):
            asyncio.run(bounded(built, Remembering()))
    else:
        log, _ = asyncio.run(bounded(built, Remembering()))
        assert log is not None
        assert log.source_next == 120


def test_the_read_back_is_bounded() -> None:
    built = build(LONG, None)
    _, whole = whole_fold(built)
    _, part = asyncio.run(bounded(built, Remembering()))
    assert whole.folded == 120
    assert part.folded <= 2 * (COUNT_MAX + 2)
    by_time = Remembering(count_max=10**6)
    asyncio.run(bounded(built, by_time))
    assert 60 < by_time.folded < 90
