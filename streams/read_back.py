"""A sealed partition and what its stage must remember go in, the offset to fold it from comes out: the only place that
decides how much of its own output a stage reads back.

No committed offset and no hint is trusted: what was sealed says it. The event time T of effective records never runs
backwards, so the first one that matters is found by bisection over the log. State folded from there on is the state
folded from the start: what lies before is older than anything the stage may still ask about.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from sluicegate.enforcer.ports import Memory
from sluicegate.enforcer.seal import Effective, Verifier
from sluicegate.schemas.records import Record
from sluicegate.streams.ports import Log

VERIFIED_BEFORE_YIELD: Final = 32  # long synchronous verification starves heartbeats
FIRST_PIECE: Final = 256
PIECE_MAX: Final = 16_384
CLOSE_ENOUGH: Final = 512
"""Records that are folded rather than searched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldFrom:
    """Fold from offset `at`. `lost_ms`: the log keeps less than the stage must remember, and what is gone may be as
    young as this event time; None where nothing that matters is gone.
    """

    at: int
    lost_ms: int | None = None


async def find_fold_start(
    log: Log, verifier: Verifier, *, memory: Memory, is_anchor: Callable[[Record], bool]
) -> FoldFrom:
    """Where folding must begin for the state to be that of the whole log; the log's start where that cannot be told.

    `is_anchor`: of an output that names its source by digest; the newest of these is folded too, for the lane holds
    the input against it.

    Only records whose key was not revoked count here. Each of those is effective for certain, whatever is around it;
    all others are left to the fold.

    Raises:
        Unavailable: the broker does not answer.
        ConfigurationError: there is no such partition.
    """
    search = _Search(log, verifier)
    place = verifier.place
    start = await log.start_offset(place.topic, place.partition)
    end = await log.end_offset(place.topic, place.partition)
    newest: Effective | None = None
    needed = start
    async for effective in search.backwards(start, end):
        newest = newest or effective
        if is_anchor(effective.record):
            needed = _slice_start(effective, start)
            break
    if newest is None:
        return FoldFrom(at=start)
    if memory.window_ms == 0:
        return FoldFrom(at=needed)
    goal_ms = newest.statement.time_ms - memory.window_ms
    oldest = await search.first(start, end)
    if oldest is None or oldest.statement.time_ms >= goal_ms:
        at, lost_ms = start, oldest.statement.time_ms if start > 0 and oldest is not None else None
    else:
        at, lost_ms = await _last_before(search, oldest, start, newest.statement.at, goal_ms), None
    if end - at > memory.count_max:
        counted = await _newest_that_count(search, at, end, memory)
        if counted is not None:
            at, lost_ms = _slice_start(counted, start), None
    return FoldFrom(at=min(at, needed), lost_ms=lost_ms)


async def _last_before(search: "_Search", oldest: Effective, start: int, end: int, goal_ms: int) -> int:
    """The start of a late slice whose T is before `goal_ms`: no slice before it matters. `oldest` is one such."""
    at, low, high = _slice_start(oldest, start), _slice_end(oldest), end
    while high - low > CLOSE_ENOUGH:
        middle = (low + high) // 2
        found = await search.first(middle, high)
        if found is None or found.statement.time_ms >= goal_ms:
            high = middle
        else:
            at, low = _slice_start(found, start), _slice_end(found)
    return at


async def _newest_that_count(search: "_Search", start: int, end: int, memory: Memory) -> Effective | None:
    """One more than the limit by count, so that the newest one it pushed out is known too; None where there are not as
    many.
    """
    count = 0
    async for effective in search.backwards(start, end):
        count += memory.counts(effective)
        if count > memory.count_max:
            return effective
    return None


def _slice_start(effective: Effective, log_start: int) -> int:
    return max(effective.statement.at, log_start)


def _slice_end(effective: Effective) -> int:
    return effective.statement.at + effective.statement.count


class _Search:
    """Effective records whose key vouches for them, from either end of a range. Foreign ones cost no signature check
    unless they name the very offset that they stand at.
    """

    def __init__(self, log: Log, verifier: Verifier) -> None:
        self._log = log
        self._verifier = verifier
        self._seen = 0

    async def first(self, start: int, end: int) -> Effective | None:
        """The first one in [start, end)."""
        piece = FIRST_PIECE
        while start < end:
            for effective in await self._piece(start, min(start + piece, end)):
                return effective
            start, piece = start + piece, min(2 * piece, PIECE_MAX)
        return None

    async def backwards(self, start: int, end: int) -> AsyncIterator[Effective]:
        """All of them in [start, end), the last one first."""
        piece = FIRST_PIECE
        while start < end:
            lower = max(start, end - piece)
            for effective in reversed(await self._piece(lower, end)):
                yield effective
            end, piece = lower, min(2 * piece, PIECE_MAX)

    async def _piece(self, start: int, end: int) -> list[Effective]:
        place = self._verifier.place
        found: list[Effective] = []
        async for batch in self._log.read(place.topic, place.partition, start=start, end=end):
            for record in batch:
                verdict = self._verifier.verify(record)
                if isinstance(verdict, Effective) and self._verifier.vouches(verdict):
                    found.append(verdict)
                self._seen += 1
                if self._seen % VERIFIED_BEFORE_YIELD == 0:
                    await asyncio.sleep(0)
        return found
