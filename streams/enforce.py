"""A consumer group and a way to make lanes go in, every assigned partition is served on Faust: the enforcer's worker.

It holds the same guarantees as `loop` and shares all of it but the shell: `Holding` does the work, Faust says when.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Final, cast

import faust
from faust.app.base import BootStrategy
from faust.auth import SASLCredentials, SSLCredentials
from yarl import URL

from sluicegate.schemas.errors import Unavailable
from sluicegate.streams.faust_transport import SliceConsumer, SliceSchema, SliceTransport
from sluicegate.streams.fetch import BrokerConfig, Security
from sluicegate.streams.holding import Holdings, MakeLane
from sluicegate.streams.loop import METADATA_AGE_S, NEVER_MS, must_have

log = logging.getLogger(__name__)
POLL_S: Final = 0.2
STREAM_BUFFER_SLICES: Final = 16
AGENTS_MAX: Final = 16
STOP_TIMEOUT_S: Final = 10.0


class ConsumerOnly(BootStrategy):
    """No producer and no web server: appends are the lanes', and Faust's pages show what it holds."""

    enable_kafka_producer = False
    enable_web = False


class WorkerApp(faust.App):
    """A Faust app that serves one topic by slices."""

    BootStrategy = ConsumerOnly
    holdings: Holdings

    def _create_directories(self) -> None:
        """Nothing is kept on disk: there are no tables."""


def build_app(
    config: BrokerConfig,
    *,
    topic: str,
    partitions: int,
    group: str,
    session_timeout_s: float,
    make_lane: MakeLane,
    ready: Callable[[], None],
) -> WorkerApp:
    """The Faust app; call it where the event loop runs. See `run_faust` for the arguments."""
    app = WorkerApp(
        group,
        broker=[URL(f"kafka://{host}") for host in config.bootstrap.split(",")],
        broker_client_id=config.client_id,
        broker_credentials=_credentials(config.security),
        consumer_group_instance_id=config.instance_id,
        broker_session_timeout=session_timeout_s,
        broker_heartbeat_interval=session_timeout_s / 10,
        broker_rebalance_timeout=session_timeout_s,
        broker_request_timeout=max(config.request_timeout_s, session_timeout_s),
        broker_max_poll_interval=NEVER_MS / 1000,
        consumer_auto_offset_reset="earliest",
        consumer_metadata_max_age_ms=int(METADATA_AGE_S * 1000),
        consumer_max_fetch_size=1,
        stream_buffer_maxsize=STREAM_BUFFER_SLICES,
        stream_wait_empty=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        autodiscover=False,
    )
    app.transport = transport = SliceTransport(app.conf.broker_consumer, app)
    transport.input_topic = topic
    transport.holdings = app.holdings = Holdings(
        config,
        topic=topic,
        session_timeout_s=session_timeout_s,
        make_lane=make_lane,
        ready=ready,
        deliver=cast(SliceConsumer, app.consumer).put,
    )
    slices = app.topic(topic, schema=SliceSchema(), acks=False)

    @app.agent(slices, name="answer", concurrency=min(partitions, AGENTS_MAX))
    async def answer(stream: Any) -> None:
        async for holding, piece in stream:
            try:
                await holding.take(piece)
            except Exception as error:  # noqa: BLE001 - worker loop: out of here Faust would drop the slice and go on
                app.holdings.fail(error)

    return app


def _credentials(security: Security) -> SSLCredentials | SASLCredentials | None:
    """What Faust hands to aiokafka's consumer, which then has what every other client of ours has."""
    if security.protocol == "PLAINTEXT":
        return None
    if security.protocol == "SSL":
        return SSLCredentials(security.context)
    return SASLCredentials(
        username=security.username,
        password=security.password,
        mechanism=security.mechanism,
        ssl_context=security.context,
    )


async def run_faust(
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
        Unavailable: the broker does not answer at the start, or Faust gave up.
        Exception: a bug in a lane; what it was deciding was not acknowledged.
    """
    await must_have(config, topic, partitions)
    app = build_app(
        config,
        topic=topic,
        partitions=partitions,
        group=group,
        session_timeout_s=session_timeout_s,
        make_lane=make_lane,
        ready=ready,
    )
    await run_worker(app, stopping)


async def run_worker(app: WorkerApp, stopping: asyncio.Event) -> None:
    """Runs the app until `stopping` is set, something failed, or Faust crashed; stops it cleanly in any case.

    Raises:
        Unavailable: Faust gave up.
        Exception: what a lane or feed failed with.
    """
    starting = asyncio.create_task(app.start())
    try:
        while not await app.holdings.over(stopping, wait_s=POLL_S):
            if starting.done() and starting.exception() is not None:
                app.holdings.fail(Unavailable(f"the worker did not start ({type(starting.exception()).__name__})"))
            elif app.crashed:
                app.holdings.fail(Unavailable(f"the worker gave up ({type(app.crash_reason).__name__})"))
    finally:
        # The slice in flight first, while heartbeats still go out.
        await app.holdings.release()
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(app.stop(), STOP_TIMEOUT_S)
    app.holdings.raise_failure()
