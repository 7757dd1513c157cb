"""A consumer group and a way to make lanes go in, every assigned partition is served: the worker shell without Faust.

The group says who holds which partition, and nothing else: no offset is committed or trusted, and records are read by
each lane's own feed. The group's consumer stays paused.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener

from sluicegate.schemas.errors import ConfigurationError, Unavailable
from sluicegate.streams.fetch import BrokerConfig, Fetcher, translated
from sluicegate.streams.holding import Holdings, MakeLane
from sluicegate.streams.membership import watch_membership

POLL_S: Final = 0.2
# Whoever leads the group hands out the partitions it knows of. A broker that just started may not have told it of any:
# then nobody holds one, until the next look. aiokafka looks every five minutes.
METADATA_AGE_S: Final = 5.0
NEVER_MS: Final = 2**31 - 1  # our lanes poll; aiokafka's own clock for that would make an idle worker leave the group


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Tells the holdings what the group assigned, and keeps the group's own consumer from fetching."""

    def __init__(self, holdings: Holdings, pause: Callable[..., None], topic: str) -> None:
        self._holdings = holdings
        self._pause = pause
        self._topic = topic

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:  # noqa: ARG002
        """Gives up every partition: the group assigns all of them anew."""
        await self._holdings.release()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Returns soon, for heartbeats begin only after it."""
        self._holdings.lease.renew(time.monotonic())
        mine = [each for each in assigned if each.topic == self._topic]
        self._pause(*mine)
        await self._holdings.assign(each.partition for each in mine)


async def run_group(
    config: BrokerConfig,
    *,
    topic: str,
    partitions: int,
    group: str,
    stopping: asyncio.Event,
    session_timeout_s: float,
    make_lane: MakeLane,
    ready: Callable[[], None],
) -> None:
    """Serves the partitions of `topic` that the group assigns, until `stopping` is set.

    `ready` is called whenever every partition of an assignment is read back (also when none was assigned).

    Raises:
        ConfigurationError: the topic has another number of partitions, or something is forbidden.
        ContinuityError: a log is not the one that was sealed.
        Unavailable: the broker does not answer at the start, or the group's protocol failed.
        Exception: a bug in a lane; what it was deciding was not acknowledged.
    """
    await must_have(config, topic, partitions)
    consumer = AIOKafkaConsumer(
        **config.connection(),
        group_id=group,
        group_instance_id=config.instance_id,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_uncommitted",
        fetch_max_wait_ms=config.fetch_wait_ms,
        max_partition_fetch_bytes=1,
        session_timeout_ms=int(session_timeout_s * 1000),
        heartbeat_interval_ms=int(session_timeout_s * 100),
        max_poll_interval_ms=NEVER_MS,
        metadata_max_age_ms=int(METADATA_AGE_S * 1000),
        rebalance_timeout_ms=int(session_timeout_s * 1000),
    )
    holdings = Holdings(
        config,
        topic=topic,
        session_timeout_s=session_timeout_s,
        make_lane=make_lane,
        ready=ready,
        deliver=lambda holding, piece: holding.take(piece),
    )
    try:
        with translated(f"let `{group}` join at `{config.bootstrap}`"):
            await consumer.start()
            holdings.lease.watch(consumer._coordinator)
            if config.instance_id is not None:
                watch_membership(consumer._coordinator, instance_id=config.instance_id, fail=holdings.fail)
            consumer.subscribe([topic], listener=Listener(holdings, consumer.pause, topic))
        while not await holdings.over(stopping, wait_s=POLL_S):
            with translated(f"keep `{group}` together"):
                # Paused, so it brings no records; it raises what the group's protocol ran into.
                await consumer.getmany(timeout_ms=0)
    except Unavailable:
        holdings.raise_failure()  # where it is known better
        raise
    finally:
        await holdings.release()
        await consumer.stop()
    holdings.raise_failure()


async def must_have(config: BrokerConfig, topic: str, partitions: int) -> None:
    """Looks before a subscription creates what is missing.

    Raises:
        ConfigurationError: the topic does not exist, or with another number of partitions.
        Unavailable: the broker does not answer.
    """
    fetcher = Fetcher(config)
    try:
        found = await fetcher.partitions(topic)
    finally:
        await fetcher.close()
    if found != partitions:
        raise ConfigurationError(f"topic `{topic}` has {found} partitions, not {partitions}: create the topics first")
