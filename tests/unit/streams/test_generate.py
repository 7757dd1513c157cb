"""The runner's lane over an in-memory broker: one generation a decision, none without an effective allow."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from memory_log import MemoryLog
from stages import KEYS, TOPICS, as_unsent, decision, place, sealed, signer, verifier

from sluicegate.enforcer.grant import Grant
from sluicegate.enforcer.log import SealedLog
from sluicegate.enforcer.seal import Effective
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.errors import ContinuityError
from sluicegate.schemas.events import GenerationFinished, ModelRun, Outcome
from sluicegate.schemas.records import Record, Unsent
from sluicegate.streams.generate import GenerationLane, Ran

RUN = ModelRun(
    provider="test", graph_digest="g", tokenizer_digest="t", seed=0, prompt_tokens=1, output_tokens=1, finish="stop"
)


class CountingModel:
    """Answers with the prompt's text; `slow` decisions wait until `release` is set."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.slow: set[str] = set()
        self.release = asyncio.Event()

    async def run(self, grant: Grant, *, cancelled: Callable[[], bool]) -> Ran:
        self.calls.append(grant.decision.decision_id)
        if grant.decision.decision_id in self.slow:
            await self.release.wait()
        if cancelled():
            return Ran(code=Code.MODEL_FAILED, text=None, run=None)
        return Ran(code=Code.OK, text=grant.decision.prompt[0].text(), run=RUN)


def lane(log: MemoryLog, model: CountingModel, *, window_size: int = 4) -> GenerationLane:
    return GenerationLane(
        broker=log,
        model=model,
        decisions=verifier("enforcer"),
        generations=verifier("runner"),
        signer=signer("runner"),
        window_size=window_size,
        slice_bytes_max=100_000,
        clock_ms=lambda: 5_000,
        may_append=lambda: True,
    )


def put_decisions(log: MemoryLog, allows: list[bool], **options: int | None) -> None:
    at = len(log.partitions.get((TOPICS["enforcer"], 0), []))
    records = [
        as_unsent(decision(at + index, allow=allow, deadline_ms=options.get("deadline_ms")))
        for index, allow in enumerate(allows)
    ]
    batch = sealed("enforcer", records, at=at, source_first=at, source_last=at + len(allows) - 1)
    log.put(TOPICS["enforcer"], 0, batch)


def generations(log: MemoryLog) -> list[GenerationFinished]:
    """Effective generations, in log order."""
    folded = SealedLog(verifier("runner"), in_order=False)
    return [
        codec.decode(record.value, GenerationFinished)
        for record in log.partitions.get((TOPICS["runner"], 0), [])
        if isinstance(folded.observe(record), Effective)
    ]


def covered(log: MemoryLog) -> list[int]:
    """Every decision offset that an effective generation covers, sorted, repeats kept."""
    return sorted(
        offset
        for each in generations(log)
        for offset in range(each.source.offset, each.source.offset + each.source.count)
    )


async def until(condition: Callable[[], bool]) -> None:
    """Lets the lane's tasks run until the condition holds; the caller sets the time limit."""
    while not condition():  # noqa: ASYNC110 - the condition is about the log, which tells nobody
        await asyncio.sleep(0)


async def run_until(log: MemoryLog, model: CountingModel, sources: int, window_size: int = 4) -> None:
    each = lane(log, model, window_size=window_size)
    start = await each.recover()
    async with asyncio.timeout(10):
        await each.advance(log.partitions[(TOPICS["enforcer"], 0)][start:])
        await until(lambda: len(covered(log)) == sources)
    await each.close()


async def test_each_decision_gets_one_generation_and_only_allows_are_run() -> None:
    log, model = MemoryLog(), CountingModel()
    put_decisions(log, [True, False, True, False, False, True])
    await run_until(log, model, 6)
    assert covered(log) == list(range(6))
    assert model.calls == ["d1-0-0", "d1-0-2", "d1-0-5"]
    by_source = {each.source.offset: each for each in generations(log)}
    assert by_source[0].outcome is Outcome.ANSWERED
    assert by_source[0].text == "Call Mara at 020 7946 0958."
    assert (by_source[1].outcome, by_source[1].code, by_source[1].text) == (Outcome.DENIED, Code.DENIED, None)


async def test_forged_grants_are_refused_in_one_record_and_never_run() -> None:
    log, model = MemoryLog(), CountingModel()
    put_decisions(log, [True])
    genuine = log.partitions[(TOPICS["enforcer"], 0)][0]
    copied = Unsent(key=genuine.key, value=genuine.value or b"", headers=genuine.headers)
    bare = Unsent(key=b"k", value=genuine.value or b"")
    log.put(TOPICS["enforcer"], 0, [copied, bare, copied])
    put_decisions(log, [True])
    await run_until(log, model, 5)
    assert covered(log) == [0, 1, 2, 3, 4]
    refused = [each for each in generations(log) if each.outcome is Outcome.REFUSED]
    assert [(each.code, each.source.offset, each.source.count) for each in refused] == [(Code.FORGED, 1, 3)]
    assert model.calls == ["d1-0-0", "d1-0-4"]  # the genuine ones on both sides were answered


async def test_what_finishes_first_is_appended_first_within_the_window() -> None:
    log, model = MemoryLog(), CountingModel()
    model.slow = {"d1-0-0"}
    put_decisions(log, [True, False, False, False, False, False])
    each = lane(log, model, window_size=3)
    await each.recover()
    advancing = asyncio.create_task(each.advance(log.partitions[(TOPICS["enforcer"], 0)]))
    async with asyncio.timeout(10):
        await until(lambda: covered(log) == [1, 2])
    for _ in range(50):
        await asyncio.sleep(0)
    assert covered(log) == [1, 2]  # source 3 stands outside [0, 3) until source 0 has its output
    assert not advancing.done()
    model.release.set()
    async with asyncio.timeout(10):
        await advancing
        await until(lambda: len(covered(log)) == 6)
    await each.close()
    assert covered(log) == list(range(6))


async def test_a_restart_runs_nothing_twice_that_is_in_the_log() -> None:
    log, model = MemoryLog(), CountingModel()
    model.slow = {"d1-0-1"}
    put_decisions(log, [True, True, False, True])
    first = lane(log, model)
    await first.recover()
    async with asyncio.timeout(10):
        await first.advance(log.partitions[(TOPICS["enforcer"], 0)])
        await until(lambda: covered(log) == [0, 2])
    closing = asyncio.create_task(first.close())
    await asyncio.sleep(0)
    model.release.set()
    await closing
    model.slow = set()
    await run_until(log, model, 4)
    assert covered(log) == [0, 1, 2, 3]
    assert sorted(model.calls) == ["d1-0-0", "d1-0-1", "d1-0-1", "d1-0-3"]  # the interrupted one ran again, no other


@pytest.mark.parametrize("fault", ["unacknowledged", "lost", "intruder"])
async def test_a_failed_append_is_read_back_and_redone_once(fault: str) -> None:
    log, model = MemoryLog(), CountingModel()
    put_decisions(log, [True, False, True, True])
    match fault:
        case "unacknowledged":
            log.unacknowledged = 2
        case "lost":
            log.lost = 2
        case "intruder":
            log.intruders = [Unsent(key=None, value=b"junk"), Unsent(key=None, value=b"junk")]
    await run_until(log, model, 4)
    assert covered(log) == [0, 1, 2, 3]
    assert len(model.calls) == 3
    total = len(log.partitions[(TOPICS["runner"], 0)])
    assert total == {"unacknowledged": 4, "lost": 4, "intruder": total}[fault]
    assert fault != "intruder" or total > 4  # the positive control: void records do stand in the log


async def test_past_its_deadline_no_model_call_starts() -> None:
    log, model = MemoryLog(), CountingModel()
    put_decisions(log, [True], deadline_ms=4_999)
    put_decisions(log, [True], deadline_ms=5_000)
    await run_until(log, model, 2)
    assert [(each.outcome, each.code) for each in generations(log)] == [
        (Outcome.EXPIRED, Code.EXPIRED),
        (Outcome.ANSWERED, Code.OK),
    ]
    assert model.calls == ["d1-0-1"]


async def test_a_hole_in_the_decisions_gets_one_output() -> None:
    log, model = MemoryLog(), CountingModel()
    put_decisions(log, [True] * 9)
    each = lane(log, model, window_size=3)
    await each.recover()
    records = log.partitions[(TOPICS["enforcer"], 0)]
    async with asyncio.timeout(10):
        await each.advance([records[0], records[8]])
        await until(lambda: len(covered(log)) == 9)
    await each.close()
    assert covered(log) == list(range(9))
    assert {one.code for one in generations(log)} == {Code.OK, Code.GAP}


async def test_a_cut_decisions_log_is_refused() -> None:
    log, model = MemoryLog(), CountingModel()
    put_decisions(log, [True, True])
    await run_until(log, model, 2)
    log.partitions[(TOPICS["enforcer"], 0)] = []
    with pytest.raises(ContinuityError, match="recreated or cut"):
        await lane(log, model).recover()


async def test_a_bug_in_the_model_stops_the_lane_loudly() -> None:
    class Broken(CountingModel):
        async def run(self, grant: Grant, *, cancelled: Callable[[], bool]) -> Ran:
            raise RuntimeError("a bug")

    log = MemoryLog()
    put_decisions(log, [True] * 6)
    each = lane(log, Broken(), window_size=2)
    await each.recover()
    with pytest.raises(RuntimeError, match="a bug"):
        async with asyncio.timeout(10):
            await each.advance(log.partitions[(TOPICS["enforcer"], 0)])
    await each.close()
    assert generations(log) == []


def test_a_grant_is_made_by_verification_alone() -> None:
    made = decision(0)
    assert made.granted is not None
    with pytest.raises(TypeError, match="effective allow"):
        Grant(object(), made, made.granted, made.source)
    assert KEYS.keys() == {"enforcer", "runner", "redactor"}
    assert place("runner").stage == "runner"


async def test_a_long_log_is_read_back_only_as_far_as_the_window_needs() -> None:
    class CountingLog(MemoryLog):
        def __init__(self) -> None:
            super().__init__()
            self.first_read: int | None = None

        async def read(
            self, topic: str, partition: int, *, start: int, end: int | None = None
        ) -> AsyncIterator[list[Record]]:
            if topic == TOPICS["runner"] and self.first_read is None:
                self.first_read = start
            async for batch in super().read(topic, partition, start=start, end=end):
                yield batch

    log, model = CountingLog(), CountingModel()
    put_decisions(log, [False, True] * 40)
    await run_until(log, model, 80)
    log.first_read = None
    put_decisions(log, [True])
    await run_until(log, model, 81)
    assert log.first_read == 80 - 4 * 4
    assert covered(log) == list(range(81))
    assert model.calls.count("d1-0-80") == 1
    assert len(model.calls) == 41


async def test_a_flood_of_foreign_outputs_makes_the_read_back_go_further() -> None:
    log, model = MemoryLog(), CountingModel()
    put_decisions(log, [True] * 12)
    await run_until(log, model, 12)
    log.put(TOPICS["runner"], 0, [Unsent(key=None, value=b"junk")] * 100)
    put_decisions(log, [True])
    await run_until(log, model, 13)
    assert covered(log) == list(range(13))
    assert len(model.calls) == 13
