"""Requests in flight: a slot, a time limit and a waiter each, all given back however a call ends; the only place that
holds them.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from sluicegate.client.body import Body
from sluicegate.client.errors import NotAnswered, TooManyWaiting
from sluicegate.client.waiting import Waiter, Waiting
from sluicegate.schemas.ids import EventKey


@dataclass(slots=True, eq=False)
class Submitted:
    """A request on its way. `place`: where the broker acknowledged its last send, or where it is looked for; else None.

    What is private is the client's. Nobody needs to wait for it: its slot comes back when its time is over.
    """

    request_id: str
    place: EventKey | None
    _waiter: Waiter = field(repr=False)
    _within_s: float
    _body: Body | None = field(repr=False, default=None)
    _expiry: asyncio.TimerHandle | None = field(repr=False, default=None)
    _sends: "set[asyncio.Task[None]]" = field(repr=False, default_factory=set)


class Calls:
    """At most `waiting_max` at once. `wait`: whether the one over that waits for its turn or is refused."""

    def __init__(self, waiting: Waiting, *, waiting_max: int, wait: bool) -> None:
        self._waiting = waiting
        self._waiting_max = waiting_max
        self._wait = wait
        self._slots = asyncio.Semaphore(waiting_max)
        self._calls: dict[Waiter, Submitted] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def of(self, waiter: Waiter) -> Submitted | None:
        """The call that the waiter belongs to, while it lasts."""
        return self._calls.get(waiter)

    async def enter(
        self,
        request_id: str,
        partition: int | None,
        *,
        within_s: float,
        limit: float,
        body: Body | None = None,
        place: EventKey | None = None,
    ) -> Submitted:
        """A call that lasts until `limit` on the loop's clock; without a body it is looked for by its id.

        Raises:
            TooManyWaiting: there is no slot, now or in that time.
        """
        if self._slots.locked() and not self._wait:
            raise TooManyWaiting(self._waiting_max)
        try:
            async with asyncio.timeout_at(limit):
                await self._slots.acquire()
        except TimeoutError:
            raise TooManyWaiting(self._waiting_max) from None
        loop = asyncio.get_running_loop()
        waiter = Waiter(request_id=request_id, partition=partition, future=loop.create_future(), by_id=body is None)
        if place is not None:
            waiter.offsets.add(place.offset)
        call = Submitted(request_id=request_id, place=place, _waiter=waiter, _within_s=within_s, _body=body)
        self._calls[waiter] = call
        self._waiting.enter(waiter)
        call._expiry = loop.call_at(limit, self._expire, call)
        return call

    def leave(self, call: Submitted) -> None:
        """Gives the slot back and stops what is still being sent; a second time it does nothing."""
        if self._calls.pop(call._waiter, None) is None:
            return
        self._slots.release()
        self._waiting.leave(call._waiter)
        if call._expiry is not None:
            call._expiry.cancel()
        for task in call._sends:
            task.cancel()

    def _expire(self, call: Submitted) -> None:
        self.fail(call, NotAnswered(call.request_id, within_s=call._within_s, place=call.place))

    def fail(self, call: Submitted, error: Exception) -> None:
        """Ends the call with an error."""
        future = call._waiter.future
        if not future.done():
            future.set_exception(error)
            future.exception()  # who submits and never waits is not told
        self.leave(call)

    def fail_all(self, error: Callable[[], Exception]) -> None:
        """Ends every call, each with an error of its own."""
        for call in list(self._calls.values()):
            self.fail(call, error())
