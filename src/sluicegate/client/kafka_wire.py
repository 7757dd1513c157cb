"""The client's `Wire` over Kafka: one consumer without a group, one producer; the only place of the client that
connects.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import (
    CorruptRecordException,
    InvalidTopicError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    RecordListTooLargeError,
    RecordTooLargeError,
)

from sluicegate.client.config import ClientConfig
from sluicegate.schemas.errors import ConfigurationError, ContinuityError, Unavailable
from sluicegate.schemas.records import Record, Unsent
from sluicegate.streams.fetch import UNREADABLE, BrokerConfig, translated

log = logging.getLogger(__name__)
REQUEST_BYTES_MAX: Final = 8 * 1024 * 1024
FETCH_BYTES_MAX: Final = 8 * 1024 * 1024
RECORDS_AT_ONCE: Final = 256
FOLLOW_WAIT_MS: Final = 1000
HISTORY_WAIT_MS: Final = 200
REFUSED: Final = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidTopicError)


class KafkaWire:
    """One consumer that stands on every partition of the replies, and one producer; both reconnect by themselves."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        client_id = f"sluicegate-{config.service}"
        self._broker = BrokerConfig(
            bootstrap=config.bootstrap,
            client_id=client_id,
            request_timeout_s=config.request_timeout_s,
            fetch_wait_ms=config.fetch_wait_ms,
            security=config.security,
        )
        self._consumer: AIOKafkaConsumer | None = None
        self._producer: AIOKafkaProducer | None = None
        self._positions: dict[TopicPartition, int] = {}

    async def open(self, *, requests: str, replies: Sequence[str]) -> int:
        """As `Wire.open`."""
        consumer, producer = self._new_consumer(), self._new_producer()
        try:
            with translated(f"answer at `{self._config.bootstrap}`"):
                await consumer.start()
                await producer.start()
                # Asked for all topics first: a broker may create what it is asked for by name.
                known = await consumer.topics()
            counts: dict[str, int] = {}
            for topic in (requests, *replies):
                if topic not in known:
                    raise ConfigurationError(
                        f"there is no topic `{topic}`, or this user may not see it: run `sluicegate topics apply`, "
                        f"and see that the directory gives the service its reply topic"
                    )
                with translated(f"list the partitions of `{topic}`"):
                    counts[topic] = len(await producer.partitions_for(topic))
                if counts[topic] < counts[requests]:
                    raise ConfigurationError(
                        f"`{topic}` has {counts[topic]} partitions and `{requests}` {counts[requests]}: each partition "
                        f"is answered on its own; run `sluicegate topics check`"
                    )
            places = [TopicPartition(topic, each) for topic in replies for each in range(counts[topic])]
            with translated("list the ends of the replies"):
                # The embedded broker lists the start of the last batch: what is read once more there is nobody's.
                ends = await consumer.end_offsets(places)
        except BaseException:
            await consumer.stop()
            await producer.stop()
            raise
        consumer.assign(places)
        for place, end in ends.items():
            consumer.seek(place, end)
        self._positions = dict(ends)
        self._consumer, self._producer = consumer, producer
        return counts[requests]

    def _new_consumer(self, reset: str = "none") -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **self._broker.connection(),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset=reset,  # a position that is gone is an error, never a silent jump
            isolation_level="read_uncommitted",
            fetch_max_wait_ms=self._config.fetch_wait_ms,
            max_partition_fetch_bytes=FETCH_BYTES_MAX,
        )

    def _new_producer(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **self._broker.connection(),
            acks="all",
            enable_idempotence=False,  # its right is not given, and the gate tells repeats by proof and request id
            max_request_size=REQUEST_BYTES_MAX,
        )

    async def close(self) -> None:
        """As `Wire.close`."""
        consumer, producer, self._consumer, self._producer = self._consumer, self._producer, None, None
        if producer is not None:
            await producer.stop()
        if consumer is not None:
            await consumer.stop()

    async def append(self, topic: str, partition: int, record: Unsent) -> int:
        """As `Wire.append`."""
        producer = self._producer
        if producer is None:
            raise RuntimeError("the client is used outside of `async with`")
        try:
            with translated(f"acknowledge a request to `{topic}`/{partition}"):
                # The producer gives up by itself; the second limit is for what it does not time.
                async with asyncio.timeout(2 * self._config.request_timeout_s):
                    sent = await producer.send(
                        topic,
                        record.value,
                        key=record.key,
                        partition=partition,
                        headers=list(record.headers),
                        timestamp_ms=self._config.now_ms(),  # the embedded broker keeps it; Apache Kafka stamps itself
                    )
                    landed = await sent
        except Unavailable as error:
            if isinstance(error.__context__, REFUSED):
                raise ConfigurationError(
                    f"the broker refuses a request of {len(record.value)} bytes for `{topic}`; send less context"
                ) from None
            raise
        return int(landed.offset)

    async def follow(self) -> list[Record]:
        """As `Wire.follow`."""
        consumer = self._consumer
        if consumer is None:
            raise RuntimeError("the client is used outside of `async with`")
        while True:
            with _readable():
                found = await consumer.getmany(timeout_ms=FOLLOW_WAIT_MS, max_records=RECORDS_AT_ONCE)
            for place, records in found.items():
                self._positions[place] = records[-1].offset + 1
            for place, position in self._positions.items():
                end = consumer.highwater(place)
                if end is not None and end < position:
                    raise ContinuityError(
                        f"`{place.topic}`/{place.partition} ends at {end}, before offset {position}: it was cut or "
                        f"recreated; open a new client, with the new epoch"
                    )
            if found:
                return [_record(each) for records in found.values() for each in records]

    async def history(
        self, topics: Sequence[str], partitions: Iterable[int], since_ms: int | None
    ) -> AsyncIterator[list[Record]]:
        """As `Wire.history`, on a connection of its own."""
        wanted = set(partitions)
        ends = {
            place: end
            for place, end in self._positions.items()
            if place.topic in topics and place.partition in wanted and end > 0
        }
        if not ends:
            return
        consumer = self._new_consumer(reset="earliest")
        try:
            with translated("read the replies back"):
                await consumer.start()
                starts = await consumer.beginning_offsets(list(ends))
                if since_ms is not None:
                    later = await consumer.offsets_for_times(dict.fromkeys(ends, since_ms))
                    # None: nothing is as young as that; the embedded broker answers 0 to every time.
                    starts |= {place: ends[place] if at is None else at.offset for place, at in later.items()}
            left = {place for place, end in ends.items() if starts[place] < end}
            consumer.assign(list(left))
            for place in left:
                consumer.seek(place, starts[place])
            while left:
                with _readable():
                    found = await consumer.getmany(*left, timeout_ms=HISTORY_WAIT_MS, max_records=RECORDS_AT_ONCE)
                for place in list(left):
                    with translated("read the replies back"):
                        position = await consumer.position(place)
                    if position >= ends[place]:
                        left.discard(place)
                        consumer.pause(place)
                records = [_record(each) for many in found.values() for each in many]
                if records:
                    yield records
        finally:
            await consumer.stop()


class _readable:  # noqa: N801 - read as a word of a sentence
    """Turns what a fetch raises into one of ours; the connection's own troubles never come here."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OffsetOutOfRangeError):
            raise ContinuityError(
                "a reply topic no longer holds the offset that was reached: it was cut or recreated, or this client "
                "was away for longer than replies are kept; open a new client and look for what is missing with `find`"
            ) from None
        if isinstance(error, RecordTooLargeError | CorruptRecordException) or (
            isinstance(error, UNREADABLE) and not isinstance(error, OSError)
        ):
            raise ConfigurationError(
                f"a reply topic holds what the client cannot unpack ({type(error).__name__}): nobody but the delivery "
                f"stage should write there"
            ) from None
        with translated("read the replies"):
            if error is not None:
                raise error


def _record(found: ConsumerRecord) -> Record:
    return Record(
        topic=found.topic,
        partition=found.partition,
        offset=found.offset,
        timestamp_ms=found.timestamp,
        key=found.key,
        value=found.value,
        headers=tuple((name, value or b"") for name, value in found.headers),
    )
