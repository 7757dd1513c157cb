"""A place in a log goes in, the records there and the exact high watermark come out: the only place that fetches.

Requests of our own rather than aiokafka's consumer: the answer then belongs to the offset that was asked for, holds the
high watermark even when it is empty (the embedded broker lists as "latest" the last batch's base + 1), and a batch that
cannot be unpacked becomes a hole instead of an exception that comes back for ever.
"""

import asyncio
import contextlib
import ssl
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    CorruptRecordException,
    GroupAuthorizationFailedError,
    KafkaError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
    UnsupportedCodecError,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from sluicegate.schemas.errors import ConfigurationError, ContinuityError, Unavailable
from sluicegate.schemas.records import Record
from sluicegate.streams.connect import connecting

READ_UNCOMMITTED = 0
EARLIEST, LATEST = -2, -1
RETRY_PAUSE_S = 0.05
RETRY_PAUSE_MAX_S = 0.5  # a client that asks a broker that is away twenty times a second fills the log
# A broker that just started answers before it knows all its topics and how far they are acknowledged.
SETTLING_S = 3.0
FORBIDDEN = (TopicAuthorizationFailedError, GroupAuthorizationFailedError, ClusterAuthorizationFailedError)
# What unpacking a batch that its checksum vouches for can still raise: it was packed by somebody else's client.
UNREADABLE = (
    CorruptRecordException,
    UnsupportedCodecError,
    ValueError,
    IndexError,
    struct.error,
    zlib.error,
    EOFError,
    OSError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """How a client proves itself to the broker and the broker to it, as Kafka names it. The password is never shown."""

    protocol: str = "PLAINTEXT"
    mechanism: str = "PLAIN"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    context: ssl.SSLContext | None = None

    def arguments(self) -> dict[str, object]:
        """The part of an aiokafka client's arguments that is about security."""
        return {
            "security_protocol": self.protocol,
            "sasl_mechanism": self.mechanism,
            "sasl_plain_username": self.username,
            "sasl_plain_password": self.password,
            "ssl_context": self.context,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConfig:
    """How the broker is reached. Times in seconds, sizes in bytes; replication and security as Kafka names them."""

    bootstrap: str
    client_id: str
    request_timeout_s: float = 10.0
    fetch_wait_ms: int = 30
    fetch_bytes_max: int = 4 * 1024 * 1024
    batch_bytes_max: int = 1_000_000
    replication: int = 1
    session_timeout_s: float = 6.0
    instance_id: str | None = None
    security: Security = Security()

    def connection(self) -> dict[str, object]:
        """The arguments that every aiokafka client takes."""
        return {
            "bootstrap_servers": self.bootstrap,
            "client_id": self.client_id,
            "request_timeout_ms": int(self.request_timeout_s * 1000),
            **self.security.arguments(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Records in offset order, the offset to ask for next, and the offset that the next record of the log will get."""

    records: list[Record]
    next: int
    high_watermark: int


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turns every error of the client into one of ours; `doing` says what was not done.

    Raises:
        ConfigurationError: the broker forbids it.
        Unavailable: it did not happen in time, or it is not known whether it did.
    """
    try:
        yield
    except FORBIDDEN as error:
        raise ConfigurationError(f"the broker forbids to {doing} ({type(error).__name__}); mend its rights") from None
    except (KafkaError, OSError, TimeoutError) as error:
        raise Unavailable(f"the broker did not {doing} ({type(error).__name__})") from None


class Fetcher:
    """One connection that reads any partition, without a group."""

    def __init__(self, config: BrokerConfig) -> None:
        self._config = config
        self._client: AIOKafkaClient | None = None
        self._starting = asyncio.Lock()
        self._missing: set[str] = set()

    async def _connected(self) -> AIOKafkaClient:
        async with self._starting:
            if self._client is None:
                client = AIOKafkaClient(**self._config.connection())
                try:
                    async with connecting(self._config.connection()):
                        await client.bootstrap()
                except BaseException:
                    await client.close()
                    raise
                self._client = client
            return self._client

    async def close(self) -> None:
        """Closes the connection; a later call opens a new one."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def topics(self) -> dict[str, int]:
        """Every topic that this user may see, with its number of partitions, as this broker knows them now."""
        client = await self._connected()
        with translated("list its topics"):
            metadata = await client.fetch_all_metadata()
        return {topic: len(metadata.partitions_for_topic(topic) or ()) for topic in metadata.topics()}

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has; 0 where there is none, which is looked at again for `SETTLING_S` the first
        time. Asks for all topics: asking for one creates it.
        """
        deadline = time.monotonic() + SETTLING_S
        while True:
            client = await self._connected()
            with translated("list its topics"):
                metadata = await client.fetch_all_metadata()
            count = len(metadata.partitions_for_topic(topic) or ())
            if count:
                self._missing.discard(topic)
                return count
            if topic in self._missing or time.monotonic() >= deadline:
                self._missing.add(topic)
                return 0
            await asyncio.sleep(RETRY_PAUSE_MAX_S)

    async def _leader(self, client: AIOKafkaClient, topic: str, partition: int) -> int:
        found: int | None = client.cluster.leader_for_partition(TopicPartition(topic, partition))
        if found is not None and found != -1:
            return found
        with translated("list its topics"):
            await client.force_metadata_update()
        found = client.cluster.leader_for_partition(TopicPartition(topic, partition))
        if found is None and await self.partitions(topic) > partition:
            found = client.cluster.leader_for_partition(TopicPartition(topic, partition))
            if found is None:
                raise Unavailable(f"partition {partition} of `{topic}` has no leader")
        if found is None:
            raise ConfigurationError(f"there is no partition {partition} of a topic `{topic}`; create the topics first")
        if found == -1:
            raise Unavailable(f"partition {partition} of `{topic}` has no leader")
        return found

    async def fetch(
        self, topic: str, partition: int, *, offset: int, wait_ms: int | None = None, bytes_max: int | None = None
    ) -> Fetched:
        """The records from `offset` on, as many as fit into `bytes_max` but one batch at least; none when nothing came
        within `wait_ms`. None: the setting.

        Raises:
            ContinuityError: the log does not reach from its start to `offset`.
            Unavailable: the broker did not answer within the request timeout.
        """
        deadline, pause_s = time.monotonic() + self._config.request_timeout_s, RETRY_PAUSE_S
        settled = time.monotonic() + SETTLING_S
        while True:
            try:
                found = await self._fetch_once(
                    topic,
                    partition,
                    offset,
                    self._config.fetch_wait_ms if wait_ms is None else wait_ms,
                    bytes_max or self._config.fetch_bytes_max,
                )
            except Unavailable:
                if time.monotonic() >= deadline:
                    raise
                found = None
            if found is not None and found.high_watermark >= offset:
                return found
            if found is not None and time.monotonic() >= settled:
                raise ContinuityError(
                    f"`{topic}`/{partition} ends at {found.high_watermark}, before offset {offset}: it was cut or "
                    "recreated"
                )
            if time.monotonic() >= deadline:
                raise Unavailable(f"the broker did not fetch from `{topic}`/{partition} in time")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_PAUSE_MAX_S)

    async def _fetch_once(self, topic: str, partition: int, offset: int, wait_ms: int, size: int) -> Fetched | None:
        client = await self._connected()
        node = await self._leader(client, topic, partition)
        # A wait of 0 makes the embedded broker answer with no partition at all.
        request = FetchRequest(max(1, wait_ms), 1, size, READ_UNCOMMITTED, [(topic, [(partition, offset, size)])])
        with translated(f"fetch from `{topic}`/{partition}"):
            answer = await client.send(node, request)
            parts = [part for name, found in answer.topics if name == topic for part in found if part[0] == partition]
            if not parts:
                return None
            _, code, high_watermark, *rest = parts[0]
            error = for_code(code)
            if error is OffsetOutOfRangeError:
                raise ContinuityError(f"`{topic}`/{partition} does not reach offset {offset}: it was cut or recreated")
            if code != 0:
                client.force_metadata_update()
                raise error()
        data = rest[-1] or b""
        records, following = unpack(data, topic=topic, partition=partition, offset=offset)
        if data and following == offset and size < self._config.fetch_bytes_max:
            return await self._fetch_once(topic, partition, offset, wait_ms, self._config.fetch_bytes_max)
        if data and following == offset:
            raise Unavailable(
                f"the batch at `{topic}`/{partition}/{offset} is over the fetch limit of {size} bytes or damaged"
            )
        return Fetched(records=records, next=following, high_watermark=high_watermark)

    async def edge(self, topic: str, partition: int, which: int) -> int:
        """What the broker lists as `EARLIEST` or `LATEST`; only the first is exact on every broker."""
        deadline = time.monotonic() + self._config.request_timeout_s
        while True:
            try:
                client = await self._connected()
                node = await self._leader(client, topic, partition)
                with translated(f"list the offsets of `{topic}`/{partition}"):
                    answer = await client.send(
                        node, OffsetRequest(-1, READ_UNCOMMITTED, [(topic, [(partition, which)])])
                    )
                    _, code, *rest = answer.topics[0][1][0]
                    if code != 0:
                        client.force_metadata_update()
                        error = for_code(code)
                        raise error()
                    return int(rest[1])
            except Unavailable:
                if time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(RETRY_PAUSE_S)


def unpack(data: bytes, *, topic: str, partition: int, offset: int) -> tuple[list[Record], int]:
    """The records of a fetch answer at or after `offset`, and the offset behind the last batch.

    A batch that cannot be unpacked gives no records: its offsets are a hole. Control batches are holes too.
    """
    records: list[Record] = []
    following = offset
    try:
        batches = MemoryRecords(data)
        while batches.has_next():
            batch = batches.next_batch()
            end = batch.next_offset
            if end <= offset:
                continue
            following = max(following, end)
            if not batch.is_control_batch:
                records += _unpack_batch(batch, topic, partition, offset)
    except UNREADABLE:
        pass  # no batch can be found behind this one; the next fetch starts at it
    return records, following


def _unpack_batch(batch: Any, topic: str, partition: int, offset: int) -> list[Record]:
    try:
        if not batch.validate_crc():
            return []
        return [
            Record(
                topic=topic,
                partition=partition,
                offset=each.offset,
                timestamp_ms=each.timestamp,
                key=each.key,
                value=each.value,
                headers=tuple((name, value or b"") for name, value in each.headers),
            )
            for each in batch
            if each.offset >= offset
        ]
    except UNREADABLE:
        return []
