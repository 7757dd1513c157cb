"""The copies that stand in reply topics go in, how far releases were delivered comes out: the only place that decides
where delivery goes on.

No committed offset and no record's word is trusted: where a release stood is read from its seal, which nobody but the
redactor makes. Delivery finishes each piece of `PIECE_OFFSETS` offsets on every topic before it begins the next one. So
what lies before the lowest of a topic's `COPIES_NEEDED` highest copies was delivered, to whomever it was for; even when
two pieces' worth of genuine releases were copied there ahead of time by somebody else.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from sluicegate.enforcer.seal import Effective, Verifier, verify_copy
from sluicegate.schemas.errors import ContinuityError
from sluicegate.streams.ports import Log
from sluicegate.streams.read_back import VERIFIED_BEFORE_YIELD

PIECE_OFFSETS: Final = 128
COPIES_NEEDED: Final = 3 * PIECE_OFFSETS + 1
FIRST_READ: Final = 512
READ_MAX: Final = 16_384
TOPICS_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """Every release before offset `before` was delivered, and of the later ones those at the offsets `copied`."""

    before: int
    copied: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copies:
    """Offsets of the releases whose copies one topic holds; `before`: all earlier ones of the partition were
    delivered, None where this topic cannot tell.
    """

    offsets: frozenset[int]
    before: int | None


async def find_delivered(
    log: Log, verifier: Verifier, *, topics: Iterable[str], belongs: Callable[[str, Effective], bool]
) -> Delivered:
    """How far the releases of the verifier's partition were delivered, as the same partition of `topics` says.

    `belongs(topic, copy)`: whether that topic is where this release goes. `before` is the start of the log of releases
    where no topic says more. Records that are no copies cost time in proportion to their number, and nothing else.

    Raises:
        Unavailable: the broker does not answer.
        ContinuityError: the copies are of releases that their log never held.
    """
    limit = asyncio.Semaphore(TOPICS_AT_ONCE)

    async def read(topic: str) -> _Copies:
        async with limit:
            return await _read_tail(log, verifier, topic, belongs)

    found = await asyncio.gather(*(read(topic) for topic in topics))
    place = verifier.place
    start = await log.start_offset(place.topic, place.partition)
    end = await log.end_offset(place.topic, place.partition)
    before = max([each.before for each in found if each.before is not None], default=start)
    copied = frozenset(offset for each in found for offset in each.offsets if offset >= before)
    if before > end or any(offset >= end for offset in copied):
        raise ContinuityError(
            f"`{place.topic}`/{place.partition} ends at {end}, but copies of later releases were delivered: it was cut "
            "or recreated; take a new epoch"
        )
    return Delivered(before=max(before, start), copied=copied)


async def _read_tail(log: Log, verifier: Verifier, topic: str, belongs: Callable[[str, Effective], bool]) -> _Copies:
    """Reads backwards until there are enough copies; foreign records make it read further."""
    partition = verifier.place.partition
    start = await log.start_offset(topic, partition)
    unread = await log.end_offset(topic, partition)
    offsets: set[int] = set()
    span, seen = FIRST_READ, 0
    while unread > start and len(offsets) < COPIES_NEEDED:
        first = max(start, unread - span)
        try:
            async for batch in log.read(topic, partition, start=first, end=unread):
                for record in batch:
                    verdict = verify_copy(verifier, record)
                    if isinstance(verdict, Effective) and belongs(topic, verdict):
                        offsets.add(verdict.record.offset)
                    seen += 1
                    if seen % VERIFIED_BEFORE_YIELD == 0:
                        await asyncio.sleep(0)
        except ContinuityError:
            start = await log.start_offset(topic, partition)
            if start <= first:
                raise
            continue  # old copies were deleted while they were read
        unread, span = first, min(2 * span, READ_MAX)
    highest = sorted(offsets, reverse=True)[:COPIES_NEEDED]
    before = None
    if len(highest) == COPIES_NEEDED:
        before = highest[-1]
    elif highest and start > 0:
        before = max(0, highest[-1] - PIECE_OFFSETS)
    return _Copies(offsets=frozenset(highest), before=before)
