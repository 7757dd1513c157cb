"""Faust's Kafka transport with slices for messages: one Faust event is one slice of a partition; the only place that
overrides Faust's consumer.

Faust keeps the group, its thread for heartbeats, agents, timers and sensors. What it does to offsets is taken out:
`perform_seek` starts the lanes (every other hook is undone by the recovery service's own seek), `getmany` hands out
what their feeds read, nothing is acked or committed. aiokafka's consumer stays paused, touched in its thread alone.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar, Final, cast

from faust import Schema
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from sluicegate.streams.feed import Slice
from sluicegate.streams.holding import Holding, Holdings
from sluicegate.streams.membership import watch_membership

SLICES_WAITING: Final = 4


class SliceSchema(Schema):  # type: ignore[type-arg]
    """Hands a message's value to the agent as it is: no codec stands on the request path."""

    def compile(self, app: Any, **_: Any) -> Callable[..., Any]:
        """The function with which Faust makes an event of a message."""
        create_event = app.create_event

        async def decode(message: Any, *, propagate: bool = False) -> Any:  # noqa: ARG001 - nothing here can fail
            return create_event(None, message.value, message.headers, message)

        return decode


class SliceThread(driver.AIOKafkaConsumerThread):
    """aiokafka's consumer in its thread: it joins the group and sends heartbeats, and fetches nothing."""

    async def on_start(self) -> None:
        """Starts the consumer and has its heartbeats renew the lease."""
        await super().on_start()
        holdings, coordinator = cast(SliceTransport, self.transport).holdings, self._ensure_consumer()._coordinator
        holdings.lease.watch(coordinator)
        instance_id = self.app.conf.consumer_group_instance_id
        if instance_id:

            def fail(error: BaseException) -> None:
                self.parent_loop.call_soon_threadsafe(holdings.fail, error)

            watch_membership(coordinator, instance_id=instance_id, fail=fail)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Runs in the thread, so the consumer may be paused right here."""
        cast(SliceTransport, self.transport).holdings.lease.renew(time.monotonic())
        consumer = self._ensure_consumer()
        consumer.pause(*(each for each in consumer.assignment()))
        await super().on_partitions_assigned(assigned, generation_id)


class SliceConsumer(driver.Consumer):
    """Faust's consumer, fed by the lanes' own feeds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._slices: asyncio.Queue[tuple[Holding, Slice]] = asyncio.Queue(maxsize=SLICES_WAITING)

    @property
    def served(self) -> "SliceTransport":
        """The transport, which knows what is served."""
        return cast(SliceTransport, self.transport)

    def _new_consumer_thread(self) -> SliceThread:
        return SliceThread(self, loop=self.loop, beacon=self.beacon)

    async def put(self, holding: Holding, piece: Slice) -> None:
        """A feed's next slice; waits while Faust has enough of them."""
        await self._slices.put((holding, piece))

    async def perform_seek(self) -> None:
        """Starts the lanes of the assignment. They read back on their own time: no limit of Faust's cuts it short."""
        assigned = self.assignment()
        self._read_offset.update(dict.fromkeys(assigned))
        await self.served.holdings.assign(
            sorted(tp.partition for tp in assigned if tp.topic == self.served.input_topic)
        )

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Gives up the lanes, waiting for the slice in flight, before Faust clears its buffers."""
        await self.served.holdings.release()
        await super().on_partitions_revoked(revoked)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:  # noqa: ASYNC109 - Faust's
        """At most one slice, as one message that stands at its last record's offset."""
        if not self.flow_active:
            await self.wait(cast(Any, self.can_resume_flow))  # also ends when the service stops
        try:
            holding, piece = await asyncio.wait_for(self._slices.get(), timeout)
        except TimeoutError:
            return
        if holding.revoked or self.should_stop:
            return
        last = piece.records[-1]
        tp = TP(self.served.input_topic, piece.partition)
        yield (
            tp,
            ConsumerMessage(
                tp.topic,
                tp.partition,
                last.offset,
                last.timestamp_ms / 1000,
                0,
                None,
                None,
                cast(bytes, (holding, piece)),  # the schema above hands it on as it is
                None,
                None,
                None,
                tp,
                generation_id=self.app.consumer_generation_id,
            ),
        )

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust looks for fetches and commits here; there are none, and the lanes log their own waits."""


class SliceTransport(driver.Transport):
    """The transport whose consumer deals in slices; set `input_topic` and `holdings` before the app starts."""

    input_topic: str
    holdings: Holdings
    Consumer: ClassVar[type[SliceConsumer]] = SliceConsumer
