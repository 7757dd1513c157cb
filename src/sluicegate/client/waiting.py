"""Releases go in, each waiter's own release comes out, at most once: the only place that matches the two.

A waiter's own release is the one for a place where one of its sends was acknowledged, or the one of the decision that a
`DUPLICATE_OF` at such a place names: the gate compared the bodies. A request id alone proves nothing to a waiter that
knows its body, for another process of the service may have used it; it is all that `find` has.

A `DUPLICATE_OF` or a `PROOF_REPLAYED` at an own place is no end: another send of the same request was decided. The
first names its decision; after the second the request is sent once more, with a new proof, to learn that name.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeVar

from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import ReleaseMade

K_ = TypeVar("K_")
REFUSALS_KEPT: Final = 16_384
"""Refusals of requests that nobody waits for yet, kept while a send of ours is under way: they name no request id."""
HEARD_MAX: Final = 32
NOT_ITS_OWN: Final = frozenset({Code.DUPLICATE_OF, Code.REQUEST_ID_REUSED})
"""What a release says of a send that repeated a request id: the id stands for another record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A release with the partition that it and its request stand on; `repeats`: it was decided for an earlier send."""

    partition: int
    release: ReleaseMade
    repeats: bool = False


class Next(Enum):
    """What a waiter needs now, if anything."""

    NOTHING = "nothing"
    SEND_AGAIN = "send again"
    LOOK_BACK = "look back"


@dataclass(slots=True, eq=False)
class Waiter:
    """One call's wait. `partition` None: any (`find`). `future` gets its release, or what went wrong."""

    request_id: str
    partition: int | None
    future: "asyncio.Future[Found]"
    by_id: bool = False
    offsets: set[int] = field(default_factory=set)
    decisions: set[str] = field(default_factory=set)
    heard: "OrderedDict[str, Found]" = field(default_factory=OrderedDict)
    looking_back: bool = False
    candidate: Found | None = None


class Waiting:
    """The waiters of one client."""

    def __init__(self) -> None:
        self._by_id: dict[str, list[Waiter]] = {}
        self._by_place: dict[tuple[int, int], list[Waiter]] = {}
        self._sending: dict[int, int] = {}
        self._refusals: OrderedDict[tuple[int, int], Found] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(each) for each in self._by_id.values())

    def enter(self, waiter: Waiter) -> None:
        """From now on the waiter is given what is its own. `leave` MUST follow."""
        self._by_id.setdefault(waiter.request_id, []).append(waiter)
        for offset in waiter.offsets:
            self._own(waiter, offset)

    def leave(self, waiter: Waiter) -> None:
        """Forgets the waiter; its future is cancelled where it is not done."""
        _remove(self._by_id, waiter.request_id, waiter)
        for offset in waiter.offsets:
            _remove(self._by_place, (_partition(waiter), offset), waiter)
        waiter.future.cancel()

    def _own(self, waiter: Waiter, offset: int) -> None:
        waiter.offsets.add(offset)
        self._by_place.setdefault((_partition(waiter), offset), []).append(waiter)

    def waiters(self) -> list[Waiter]:
        """All of them."""
        return [waiter for same in self._by_id.values() for waiter in same]

    def sending(self, partition: int) -> None:
        """A send to the partition begins: refusals there are kept until `sent`."""
        self._sending[partition] = self._sending.get(partition, 0) + 1

    def sent(self, waiter: Waiter, offset: int | None) -> Next:
        """A send has ended, at `offset` where it was acknowledged; what came for that place meanwhile is given out."""
        partition = _partition(waiter)
        self._sending[partition] -= 1
        following = Next.NOTHING
        if offset is not None and not waiter.future.done():
            self._own(waiter, offset)
            early = [self._refusals.get((partition, offset)), *waiter.heard.values()]
            for found in early:
                if found is not None and found.release.request_offset == offset:
                    following = self._give(waiter, found)
        if not self._sending[partition]:
            del self._sending[partition]
            for place in [place for place in self._refusals if place[0] == partition]:
                del self._refusals[place]
        return following

    def take(self, partition: int, release: ReleaseMade) -> list[tuple[Waiter, Next]]:
        """Gives a genuine release to those whose it is; what each of them needs now."""
        if release.request_offset is None:
            return []
        found = Found(partition=partition, release=release)
        place = (partition, release.request_offset)
        at_place = self._by_place.get(place, [])
        following = [(waiter, self._give(waiter, found)) for waiter in at_place]
        if release.request_id is None and partition in self._sending:
            self._refusals[place] = found
            if len(self._refusals) > REFUSALS_KEPT:
                self._refusals.popitem(last=False)
        for waiter in self._by_id.get(release.request_id or "", ()):
            if waiter not in at_place and waiter.partition in (None, partition):
                self._hear(waiter, found)
        return following

    def looked_back(self, waiter: Waiter) -> None:
        """Everything that came before was taken: what was found last is the answer, if anything was."""
        waiter.looking_back = False
        if waiter.candidate is not None:
            _settle(waiter, waiter.candidate)

    def _give(self, waiter: Waiter, found: Found) -> Next:
        """A release for a place of the waiter's own."""
        release = found.release
        if waiter.future.done():
            return Next.NOTHING
        if release.code is Code.PROOF_REPLAYED and not waiter.by_id:
            return Next.SEND_AGAIN
        if release.code is not Code.DUPLICATE_OF or release.duplicate_of is None:
            _settle(waiter, found)
            return Next.NOTHING
        if release.duplicate_of in waiter.decisions:
            return Next.NOTHING
        waiter.decisions.add(release.duplicate_of)
        for heard in waiter.heard.values():
            if heard.release.decision_id == release.duplicate_of:
                _settle(waiter, Found(partition=heard.partition, release=heard.release, repeats=True))
                return Next.NOTHING
        return Next.LOOK_BACK

    def _hear(self, waiter: Waiter, found: Found) -> None:
        """A release with the waiter's request id, for a place that it does not know as its own."""
        release = found.release
        if waiter.future.done():
            return
        if release.decision_id is not None and release.decision_id in waiter.decisions:
            _settle(waiter, Found(partition=found.partition, release=release, repeats=True))
        elif not waiter.by_id:
            waiter.heard[release.release_id] = found
            if len(waiter.heard) > HEARD_MAX:
                waiter.heard.popitem(last=False)
        elif release.code not in NOT_ITS_OWN:
            if waiter.looking_back:  # a refusal that may be tried again may have been: the last one counts
                last = waiter.candidate
                if last is None or (last.release.request_offset or 0) <= (release.request_offset or 0):
                    waiter.candidate = found
            else:
                _settle(waiter, found)


def _settle(waiter: Waiter, found: Found) -> None:
    if not waiter.future.done():
        waiter.future.set_result(found)


def _partition(waiter: Waiter) -> int:
    if waiter.partition is None:
        raise ValueError("a waiter with places of its own knows its partition")
    return waiter.partition


def _remove(waiters: dict[K_, list[Waiter]], key: K_, waiter: Waiter) -> None:
    same = waiters.get(key, [])
    if waiter in same:
        same.remove(waiter)
        if not same:
            del waiters[key]
