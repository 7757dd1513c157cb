"""Records in and out of the broker, without a group: the only place that appends.

Every error of the client leaves here as one of `schemas.errors`. An append is one record batch, acknowledged by all
replicas; it may land twice when an acknowledgement was lost, and compare-and-append makes the second void.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    InvalidTopicError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    for_code,
)

from sluicegate.schemas.errors import ConfigurationError, Unavailable
from sluicegate.schemas.records import Record, Unsent
from sluicegate.streams.connect import connecting
from sluicegate.streams.fetch import EARLIEST, LATEST, BrokerConfig, Fetcher, translated
from sluicegate.streams.topic_admin import TopicAdmin
from sluicegate.streams.topic_plan import TopicSpec

__all__ = ["Broker", "BrokerConfig", "Tail"]

log = logging.getLogger(__name__)
TAIL_PAUSE_S = 0.5
SHORT_READ_RECORDS = 256
REFUSED = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidTopicError)


class Tail:
    """One partition, followed for ever on a connection of its own. Iterate it from one task.

    `position`: the next offset to be delivered. `caught_up`: set once everything before the high watermark seen at the
    first fetch was delivered *and* the reader came back for more.
    """

    def __init__(self, config: BrokerConfig, topic: str, partition: int, *, start: int) -> None:
        self._fetcher = Fetcher(config)
        self._topic = topic
        self._partition = partition
        self._goal: int | None = None
        self.position = start
        self.high_watermark = start
        self.caught_up = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Record]:
        """The next records, never an empty list. A broker that does not answer is asked again.

        Raises:
            ContinuityError: the log was cut or recreated.
            ConfigurationError: the topic is missing or forbidden.
        """
        while True:
            if self._goal is not None and self.position >= self._goal:
                self.caught_up.set()
            try:
                found = await self._fetcher.fetch(self._topic, self._partition, offset=self.position)
            except Unavailable as error:
                log.warning("tail waits", extra={"topic": self._topic, "partition": self._partition, "why": str(error)})
                await asyncio.sleep(TAIL_PAUSE_S)
                continue
            if self._goal is None:
                self._goal = found.high_watermark
            self.high_watermark = found.high_watermark
            self.position = found.next
            if found.records:
                return found.records

    async def aclose(self) -> None:
        """Closes the connection."""
        await self._fetcher.close()


class Broker:
    """One process's connection: `async with Broker(config) as broker`."""

    def __init__(self, config: BrokerConfig) -> None:
        self.config = config
        self._reader = Fetcher(config)
        self._producer: AIOKafkaProducer | None = None
        self._known: set[tuple[str, int]] = set()

    async def __aenter__(self) -> Self:
        producer = AIOKafkaProducer(
            **self.config.connection(),
            acks="all",
            enable_idempotence=False,  # the embedded broker refuses it; a doubled batch is void by position
            linger_ms=0,
            max_batch_size=self.config.batch_bytes_max,
            max_request_size=2 * self.config.batch_bytes_max,
        )
        try:
            async with connecting(self.config.connection()):
                await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        producer, self._producer = self._producer, None
        await self._reader.close()
        if producer is not None:
            await producer.stop()

    async def members(self, group: str) -> int:
        """How many workers a consumer group has now; 0 for a group that nobody ever joined.

        Raises:
            ConfigurationError: the broker does not let us look.
            Unavailable: it does not answer.
        """
        admin = AIOKafkaAdminClient(**self.config.connection())
        try:
            with translated(f"describe the group `{group}`"):
                await admin.start()
                answers = await admin.describe_consumer_groups([group])
                found = [each for answer in answers for each in answer.groups if each[1] == group]
                for code, *_ in found:
                    if code != 0:
                        raise for_code(code)
        finally:
            await admin.close()
        return sum(len(each[5]) for each in found)

    async def create_topics(
        self, topics: Mapping[str, int], configs: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        """Creates the topics (name to number of partitions) that do not exist.

        Raises:
            ConfigurationError: one exists with another number of partitions, or the broker refuses one.
            Unavailable: the broker does not answer.
        """
        specs = tuple(
            TopicSpec(
                name=name,
                partitions=count,
                replication=self.config.replication,
                configs=(configs or {}).get(name, {}),
            )
            for name, count in topics.items()
        )
        async with TopicAdmin(self.config) as admin:
            await admin.create(specs)
        for name, count in topics.items():
            found = await self._partitions_once_known(name)
            if found != count:
                raise ConfigurationError(
                    f"topic `{name}` has {found} partitions, not {count}: configure {found}, or use another tenant"
                )

    async def _partitions_once_known(self, topic: str) -> int:
        # A controller answers before every broker has heard of a new topic.
        for _ in range(40):
            found = await self._reader.partitions(topic)
            if found:
                return found
            await asyncio.sleep(0.05)
        return 0

    async def topics(self) -> Mapping[str, int]:
        """Every topic that this user may see, with its number of partitions.

        Raises:
            Unavailable: the broker does not answer.
        """
        return await self._reader.topics()

    async def start_offset(self, topic: str, partition: int) -> int:
        """The first offset that the log keeps.

        Raises:
            Unavailable: the broker does not answer.
            ConfigurationError: there is no such partition.
        """
        return await self._reader.edge(topic, partition, EARLIEST)

    async def end_offset(self, topic: str, partition: int) -> int:
        """The exact high watermark: the offset the next record will get.

        Raises:
            Unavailable: the broker does not answer.
            ConfigurationError: there is no such partition.
        """
        listed = await self._reader.edge(topic, partition, LATEST)
        found = await self._reader.fetch(topic, partition, offset=listed, wait_ms=1)
        return found.high_watermark

    async def read(
        self, topic: str, partition: int, *, start: int, end: int | None = None
    ) -> AsyncIterator[list[Record]]:
        """The records from `start` up to the high watermark at the call, or to `end`; holes are not filled.

        Raises:
            ContinuityError: the log does not reach from its start to `start`.
            Unavailable: the broker does not answer.
        """
        # Who wants a few records is not sent thousands: one batch, at least.
        bytes_max = self.config.batch_bytes_max if end is not None and end - start <= SHORT_READ_RECORDS else None
        position, moved_at = start, time.monotonic()
        while end is None or position < end:
            found = await self._reader.fetch(topic, partition, offset=position, wait_ms=1, bytes_max=bytes_max)
            if end is None:
                end = found.high_watermark
            if found.next == position and position < min(end, found.high_watermark):
                if time.monotonic() - moved_at > self.config.request_timeout_s:
                    raise Unavailable(f"the broker holds back `{topic}`/{partition} from offset {position}")
                continue
            position, moved_at = found.next, time.monotonic()
            kept = [record for record in found.records if record.offset < end]
            if kept:
                yield kept
            if position >= found.high_watermark:
                return

    def tail(self, topic: str, partition: int, *, start: int, wait_ms: int | None = None) -> Tail:
        """Follows one partition for ever from offset `start`, on a connection of its own.

        `wait_ms`: how long an empty fetch may take where that is not the broker's default; a follower that nobody waits
        for asks less often.
        """
        config = self.config if wait_ms is None else replace(self.config, fetch_wait_ms=wait_ms)
        return Tail(config, topic, partition, start=start)

    async def append(
        self, topic: str, partition: int, records: Sequence[Unsent], *, timestamp_ms: int | None = None
    ) -> int:
        """Appends ONE record batch, acknowledged by all replicas; returns the base offset that the broker gave it.

        As `append_stamped`.
        """
        base, _ = await self.append_stamped(topic, partition, records, timestamp_ms=timestamp_ms)
        return base

    async def append_stamped(
        self, topic: str, partition: int, records: Sequence[Unsent], *, timestamp_ms: int | None = None
    ) -> tuple[int, int | None]:
        """Appends ONE record batch, acknowledged by all replicas; returns the base offset that the broker gave it, and
        the broker's own stamp, None where it keeps the writer's.

        `timestamp_ms`: the writer's stamp, now where it is None; a broker that stamps appends itself overrides it.

        Raises:
            ValueError: no record, or the batch is over `batch_bytes_max`; nothing was sent.
            Unavailable: the outcome is not known; the caller MUST read back before it appends again.
            ConfigurationError: the broker refuses the batch or the topic.
        """
        producer = self._producer
        if producer is None:
            raise RuntimeError("the broker is used outside of `async with`")
        limit = self.config.batch_bytes_max
        batch = producer.create_batch()
        for record in records:
            headers = [(name, value) for name, value in record.headers]
            taken = batch.append(timestamp=timestamp_ms, key=record.key, value=record.value, headers=headers)
            if taken is None or batch.size() > limit:
                raise ValueError(f"a batch of {len(records)} records is over the limit of {limit} bytes")
        if not records:
            raise ValueError("a batch holds at least one record")
        batch.close()
        await self._must_exist(topic, partition)
        try:
            with translated(f"acknowledge an append to `{topic}`/{partition}"):
                # The client gives up by itself; the second limit is for what it does not time.
                async with asyncio.timeout(2 * self.config.request_timeout_s):
                    sent = await producer.send_batch(batch, topic, partition=partition)
                    landed = await sent
        except Unavailable as error:
            if isinstance(error.__context__, REFUSED):
                raise ConfigurationError(
                    f"the broker refuses a batch of {batch.size()} bytes for `{topic}`; raise its `max.message.bytes`"
                ) from None
            raise
        stamp_ms = int(landed.timestamp)
        return int(landed.offset), None if stamp_ms < 0 else stamp_ms

    async def _must_exist(self, topic: str, partition: int) -> None:
        # A produce to a topic that is not there creates one with the broker's defaults.
        if (topic, partition) in self._known:
            return
        count = await self._reader.partitions(topic)
        if partition >= count:
            raise ConfigurationError(f"there is no partition {partition} of a topic `{topic}`; create the topics first")
        self._known.update((topic, each) for each in range(count))
