"""The shadow stage over a log in memory: one outcome a decision while a candidate stands, next to nothing otherwise."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from candidates import BUNDLE, START_MS, candidate_event, decided, edited, fresh_log, log_with, traffic
from company import NOON_MS, private_key
from memory_log import MemoryLog
from stages import KEYS, TOPICS, place, sealed, signer, verifier

from sluicegate.enforcer.grant import source_of
from sluicegate.enforcer.log import SealedLog
from sluicegate.enforcer.seal import Effective, Signer, Verifier, seal_slice
from sluicegate.enforcer.shadow import ShadowOutcome, shadow_decide
from sluicegate.enforcer.shadow_stage import OUTCOME_BYTES_MAX, ShadowConfig, ShadowStage, outcome_event
from sluicegate.enforcer.state import Accepted, PolicyLog
from sluicegate.schemas import codec
from sluicegate.schemas.errors import ContinuityError, Unavailable
from sluicegate.schemas.events import DecisionMade
from sluicegate.schemas.records import Record, Unsent
from sluicegate.schemas.shadow_events import ShadowDecided, ShadowStatus
from sluicegate.streams.lane import Lane
from sluicegate.streams.ports import always_current
from sluicegate.streams.shadow import PASSED_S, RequestReader, ShadowLane

REQUESTS, DECISIONS, SHADOW = "t.requests", TOPICS["enforcer"], TOPICS["shadow"]
TIGHTER = edited("access.cedar", '@max_tokens("64")', '@max_tokens("16")')


class House:
    """A log with decisions of the company's traffic, and the lanes of as many workers as are started."""

    def __init__(self, policy: PolicyLog) -> None:
        self.policy = policy
        self.log = MemoryLog()
        self.now_s = 0.0
        self.verified: list[int] = []

    def decide(self, *numbers: int, time_ms: int = NOON_MS) -> None:
        """Requests, each with its decision sealed by the enforcer; `time_ms`: of the slice, as its seal says."""
        for number in numbers:
            asked = traffic()[number]
            self.log.put(REQUESTS, 0, [Unsent(key=asked.key, value=asked.value or b"", headers=asked.headers)])
            value, made = decided(asked, log_with(None))
            assert made.source.offset == len(self.log.partitions[REQUESTS, 0]) - 1
            at = len(self.log.partitions.get((DECISIONS, 0), []))
            unsent = [Unsent(key=asked.key, value=value or b"")]
            slice_ = sealed("enforcer", unsent, at=at, source_first=number, source_last=number, time_ms=time_ms)
            self.log.put(DECISIONS, 0, slice_)

    @property
    def decisions(self) -> list[Record]:
        return self.log.partitions[DECISIONS, 0]

    async def worker(self, *, passes_deleted: bool = True, slice_bytes_max: int = 100_000) -> ShadowLane:
        requests = RequestReader(self.log, REQUESTS, 0)
        house = self

        class Watched(Verifier):
            def verify(self, record: Record) -> object:  # type: ignore[override]
                house.verified.append(record.offset)
                return super().verify(record)

        decisions = Watched(place("enforcer"), lambda: KEYS)
        stage = ShadowStage(
            ShadowConfig(slice_bytes_max=slice_bytes_max, schema_ids={}),
            decisions=decisions,
            request_at=requests.at,
            shadow_at=self.policy.shadow_at,
        )
        inner = Lane(
            broker=self.log,
            stage=stage,
            verifier=verifier("shadow"),
            signer=signer("shadow"),
            source_topic=DECISIONS,
            output=ShadowDecided,
            slice_bytes_max=slice_bytes_max,
            may_append=lambda: True,
            passes_deleted=passes_deleted,
        )
        made = ShadowLane(
            inner=inner,
            stage=stage,
            log=self.log,
            requests=requests,
            decisions=decisions,
            over=self.policy.candidates.over,
            policy_current=always_current,
            now_s=lambda: self.now_s,
        )
        await made.recover()
        return made

    def outcomes(self) -> list[ShadowDecided]:
        """The effective ones; what they cover has neither hole nor repetition, or this fails."""
        folded = SealedLog(verifier("shadow"))
        records = self.log.partitions.get((SHADOW, 0), [])
        found = [
            codec.decode(each.value, ShadowDecided) for each in records if isinstance(folded.observe(each), Effective)
        ]
        covered = [
            offset for each in found for offset in range(each.source.offset, each.source.offset + each.source.count)
        ]
        assert covered == list(range(len(covered)))
        return found

    def purely(self, record: Record) -> ShadowDecided:
        decision = codec.decode(record.value, DecisionMade)
        request = self.log.partitions[REQUESTS, 0][decision.source.offset]
        found = shadow_decide(request, decision, self.policy.shadow_at(decision.time_ms), schema_ids={})
        return outcome_event(source_of(record), decision, found)


def of_decisions(found: Sequence[ShadowDecided]) -> list[ShadowDecided]:
    return [each for each in found if each.status is not ShadowStatus.PASSED]


@pytest.mark.parametrize("fault", ["", "lost", "unacknowledged", "intruders"])
async def test_each_decision_has_the_outcome_that_the_decider_gives_purely(fault: str) -> None:
    house = House(log_with(TIGHTER))
    house.decide(*range(10))
    genuine = list(house.decisions)
    house.log.put(DECISIONS, 0, [Unsent(key=b"k", value=genuine[0].value or b"", headers=genuine[0].headers)] * 3)
    house.decide(*range(10, 20))
    if fault == "intruders":
        house.log.intruders = [Unsent(key=None, value=b"intruder")]
    elif fault:
        setattr(house.log, fault, 1)
    worker = await house.worker()
    await worker.advance(house.decisions)
    found = house.outcomes()
    assert of_decisions(found) == [house.purely(each) for each in [*genuine, *house.decisions[13:]]]
    assert [each.source.count for each in found if each.status is ShadowStatus.PASSED] == [3], "forged decisions"
    assert Counter(each.difference for each in of_decisions(found)).total() == 20
    assert len({each.difference for each in of_decisions(found)}) == 2, "the candidate differs for some of them"


async def test_without_a_candidate_nothing_is_verified_read_or_written() -> None:
    house = House(fresh_log())
    house.decide(*range(20))
    worker = await house.worker()
    assert worker.frontier == 20, "what was decided before is not read"
    house.decide(*range(20, 30))
    await worker.advance(house.decisions[20:])
    assert (worker.frontier, house.verified, house.outcomes()) == (30, [], [])
    # A candidate begins: from here on all is decided, and the run before it is told as one.
    assert isinstance(house.policy.fold(9, candidate_event(BUNDLE), START_MS), Accepted)
    house.decide(*range(30, 33))
    await worker.advance(house.decisions[30:])
    first, *rest = house.outcomes()
    assert (first.status, first.source.offset, first.source.count) == (ShadowStatus.PASSED, 0, 30)
    assert rest == [house.purely(each) for each in house.decisions[30:]]
    # It ends: one more slice shows that event time is past the end, and then nothing is looked at again.
    end = candidate_event(b"", version=2, effective_at_ms=NOON_MS + 1)
    assert isinstance(house.policy.fold(10, end, START_MS), Accepted)
    house.decide(33, time_ms=NOON_MS + 2)
    await worker.advance(house.decisions[33:])
    written, house.verified = len(house.log.partitions[SHADOW, 0]), []
    house.decide(*range(34, 40), time_ms=NOON_MS + 3)
    await worker.advance(house.decisions[34:])
    again = await house.worker()
    assert (again.frontier, house.verified, len(house.log.partitions[SHADOW, 0])) == (40, [], written)


async def test_a_run_that_was_passed_over_is_written_down_now_and_then() -> None:
    house = House(fresh_log())
    house.decide(0)
    worker = await house.worker()
    house.decide(1, 2, 3)
    await worker.advance(house.decisions[1:3])
    assert house.outcomes() == []
    house.now_s = PASSED_S
    await worker.advance(house.decisions[3:])
    assert [(each.status, each.source.count) for each in house.outcomes()] == [(ShadowStatus.PASSED, 4)]


async def test_workers_that_are_killed_anywhere_leave_one_outcome_a_decision() -> None:
    for seed in range(12):
        draw = random.Random(seed)
        house = House(log_with(TIGHTER))
        house.decide(*range(30))
        house.log.put(SHADOW, 0, [Unsent(key=None, value=b"foreign")] * draw.randrange(3))
        workers = [await house.worker()]
        reached = 0
        while reached < 30:
            worker = draw.choice(workers)
            reached = max(reached, worker.frontier)
            house.log.unacknowledged = draw.randrange(2)
            house.log.lost = draw.randrange(2)
            upto = min(30, worker.frontier + draw.randrange(1, 9))
            await worker.advance(house.decisions[worker.frontier : upto])
            if draw.random() < 0.3:
                workers = [*workers[-1:], await house.worker()]
        assert house.outcomes() == [house.purely(each) for each in house.decisions[: len(house.outcomes())]]
        assert len(house.outcomes()) == 30


async def test_forged_outcomes_change_nothing_that_is_written_or_read_back() -> None:
    house, alone = House(log_with(TIGHTER)), House(log_with(TIGHTER))
    for each in (house, alone):
        each.decide(*range(6))
    honest = await alone.worker()
    await honest.advance(alone.decisions)
    genuine = alone.log.partitions[SHADOW, 0]
    stranger = Signer(key_id=signer("shadow").key_id, private=private_key("stranger"))
    runner = signer("runner")
    for by in (stranger, runner):
        lie = [Unsent(key=None, value=genuine[3].value or b"")]
        at = len(house.log.partitions.get((SHADOW, 0), []))
        made = seal_slice(
            lie, place=place("shadow"), at=at, source_first=0, source_last=5, time_ms=1, policy_position=1, signer=by
        )
        house.log.put(SHADOW, 0, made)
    house.log.put(SHADOW, 0, [Unsent(key=None, value=each.value or b"", headers=each.headers) for each in genuine])
    worker = await house.worker()
    assert worker.frontier == 0
    await worker.advance(house.decisions)
    assert house.outcomes() == alone.outcomes()
    assert len(house.log.partitions[SHADOW, 0]) == 2 + 2 * len(genuine)


async def test_a_candidate_that_cannot_be_asked_says_so_for_each_decision() -> None:
    house = House(log_with(b"no bundle"))
    house.decide(*range(6))
    worker = await house.worker()
    await worker.advance(house.decisions)
    assert [each.status for each in house.outcomes()] == [ShadowStatus.FAILED] * 6
    assert all("candidate 1 is not valid" in (each.reason or "") for each in house.outcomes())


def test_an_outcome_that_no_slice_could_hold_is_a_failure() -> None:
    _, decision = decided(traffic()[0], log_with(BUNDLE))
    found = shadow_decide(traffic()[0], decision, log_with(BUNDLE).shadow_at(decision.time_ms), schema_ids={})
    assert isinstance(found, ShadowOutcome)
    assert outcome_event(decision.source, decision, found).status is ShadowStatus.DECIDED
    huge = replace(found, newly_readable=("x" * OUTCOME_BYTES_MAX,))
    made = outcome_event(decision.source, decision, huge)
    assert (made.status, made.newly_readable, "takes more than" in (made.reason or "")) == (
        ShadowStatus.FAILED,
        (),
        True,
    )


async def test_what_retention_took_meanwhile_is_passed_and_a_request_that_is_gone_is_told() -> None:
    house = House(log_with(TIGHTER))
    house.decide(*range(8))
    worker = await house.worker()
    await worker.advance(house.decisions[:2])
    house.log.starts = {DECISIONS: 5, REQUESTS: 6}
    with pytest.raises(ContinuityError):
        await house.worker(passes_deleted=False)
    again = await house.worker()
    assert again.frontier == 5
    await again.advance(house.decisions[5:])
    statuses = [(each.status, each.source.count) for each in house.outcomes()[2:]]
    assert statuses == [(ShadowStatus.PASSED, 3), (ShadowStatus.FAILED, 1), *[(ShadowStatus.DECIDED, 1)] * 2]
    assert house.outcomes()[3].reason == "the request is kept no more"


async def test_a_log_that_ends_before_what_was_answered_is_another_one() -> None:
    house = House(log_with(TIGHTER))
    house.decide(*range(4))
    worker = await house.worker()
    await worker.advance(house.decisions)
    del house.decisions[2:]
    with pytest.raises(ContinuityError, match="cut or recreated"):
        await house.worker()


async def test_a_lane_that_was_given_up_writes_nothing_more() -> None:
    house = House(log_with(TIGHTER))
    house.decide(0, 1)
    worker = await house.worker()
    await worker.close()
    with pytest.raises(Unavailable):
        await worker.advance(house.decisions)
    assert house.outcomes() == []
