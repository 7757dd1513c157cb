"""The runner's own outputs go in, its window as it stood comes out: the only place that restores it after a crash.

The last `outputs_needed` effective outputs restore a window exactly. A log that retention has cut may keep fewer; then
its sealed event times still say which of the waiting decisions none of the deleted outputs can have answered.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sluicegate.enforcer import window as windows
from sluicegate.enforcer.log import SealedLog
from sluicegate.enforcer.seal import Effective, Verifier
from sluicegate.schemas import codec
from sluicegate.schemas.errors import ContinuityError
from sluicegate.schemas.events import GenerationFinished
from sluicegate.streams.ports import Log, PolicyCurrent


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The window, and the log of outputs folded up to the end that was read."""

    window: windows.Window
    folded: SealedLog


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    outputs: Sequence[windows.Output]
    oldest_ms: int
    """T of the first output kept: what was deleted before it has no later one."""


async def restore_window(
    log: Log, *, decisions: Verifier, generations: Verifier, size: int, policy_current: PolicyCurrent
) -> Restored:
    """Reads back as much of the own output as restores the window; foreign records make it read further.

    Raises:
        ContinuityError: the log keeps too little to know which decisions are carried out.
        Unavailable: the broker does not answer.
    """
    topic, partition = generations.place.topic, generations.place.partition
    log_start = await log.start_offset(topic, partition)
    end = await log.end_offset(topic, partition)
    await policy_current()
    span = 4 * size
    while True:
        start = max(log_start, end - span)
        folded = SealedLog(generations, start=start, in_order=False)
        kept = await _read(log, folded, start, end)
        if start == log_start or len(kept.outputs) >= windows.outputs_needed(size):
            break
        span *= 2
    if start == log_start == 0 or len(kept.outputs) >= windows.outputs_needed(size):
        window = windows.restore(kept.outputs, size=size, log_start_known=start == log_start == 0)
    else:
        window = await _restore_cut(log, kept, decisions, size)
    return Restored(window=window, folded=folded)


async def _read(log: Log, folded: SealedLog, start: int, end: int) -> _Kept:
    outputs: list[windows.Output] = []
    oldest_ms = 0
    async for batch in log.read(folded.place.topic, folded.place.partition, start=start, end=end):
        for record in batch:
            verdict = folded.observe(record)
            if isinstance(verdict, Effective):
                output = codec.decode(record.value, GenerationFinished)
                oldest_ms = oldest_ms if outputs else verdict.statement.time_ms
                outputs.append(
                    windows.Output(source=output.source.offset, count=output.source.count, first=output.window.first)
                )
    return _Kept(outputs=outputs, oldest_ms=oldest_ms)


async def _restore_cut(log: Log, kept: _Kept, decisions: Verifier, size: int) -> windows.Window:
    """An output is sealed with the event time of its decision or a later one. So a decision later than the oldest
    output kept has none among those deleted.
    """
    topic, partition = decisions.place.topic, decisions.place.partition
    start, end = await log.start_offset(topic, partition), await log.end_offset(topic, partition)
    first = max((output.first for output in kept.outputs), default=start)
    window = windows.Window(size=size, first=first)
    for source in sorted({at for each in kept.outputs for at in range(each.source, each.source + each.count)}):
        if source >= first:
            window.finish(source)
    time_ms = -1
    async for batch in log.read(topic, partition, start=max(window.first, start), end=min(first + size, end)):
        for record in batch:
            verdict = decisions.verify(record)
            if isinstance(verdict, Effective):
                time_ms = max(time_ms, verdict.statement.time_ms)
            if not window.is_done(record.offset) and (not kept.outputs or time_ms <= kept.oldest_ms):
                raise ContinuityError(
                    f"the outputs of `{topic}`/{partition} were deleted down to {len(kept.outputs)}, too few to know "
                    f"whether {record.offset} is carried out: keep more of them, or take a new epoch"
                )
    return window
