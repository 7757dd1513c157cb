"""A runner's lane over a log in memory, with a model that counts its calls."""

import asyncio
from collections.abc import Callable

from memory_log import MemoryLog
from stages import TOPICS, as_unsent, decision, sealed, signer, verifier

from sluicegate.enforcer.grant import Grant
from sluicegate.enforcer.log import SealedLog
from sluicegate.enforcer.seal import Effective
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import DecisionMade, GenerationFinished, ModelRun
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


def lane(
    log: MemoryLog,
    model: CountingModel,
    *,
    window_size: int = 4,
    held: Callable[[], bool] = lambda: True,
    stopped: Callable[[DecisionMade], bool] = lambda _: False,
) -> GenerationLane:
    return GenerationLane(
        broker=log,
        model=model,
        decisions=verifier("enforcer"),
        generations=verifier("runner"),
        signer=signer("runner"),
        window_size=window_size,
        slice_bytes_max=100_000,
        clock_ms=lambda: 5_000,
        may_append=held,
        stopped=stopped,
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
