"""A delivery worker for the tests: `python delivery_worker.py BOOTSTRAP TENANT` serves reply topics until SIGTERM."""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable

from stages import KEYS

from sluicegate.enforcer.seal import Verifier
from sluicegate.streams.deliver import DeliveryLane, Routes
from sluicegate.streams.kafka import Broker, BrokerConfig
from sluicegate.streams.loop import run_group
from sluicegate.streams.topology import DELIVERY, REDACTOR, Topology

REPLIES = {"desk": "desk", "batch": "batch"}
SESSION_TIMEOUT_S = 2.0


def verifier(topology: Topology, partition: int) -> Verifier:
    """Tells the redactor's records of a partition, by the keys of these tests."""
    return Verifier(topology.place(REDACTOR, env="test", epoch=1, partition=partition), lambda: KEYS)


async def serve(config: BrokerConfig, topology: Topology, stopping: asyncio.Event, ready: Callable[[], None]) -> None:
    routes = Routes(topology, lambda: REPLIES)

    async def current() -> None:
        """The keys of these tests never change."""

    async with Broker(config) as broker:

        def make_lane(partition: int, may_append: Callable[[], bool]) -> DeliveryLane:
            return DeliveryLane(
                broker=broker,
                verifier=verifier(topology, partition),
                routes=routes,
                bytes_max=100_000,
                may_append=may_append,
                policy_current=current,
            )

        await run_group(
            config,
            topic=topology.source(DELIVERY),
            partitions=topology.partitions,
            group=topology.group(DELIVERY),
            stopping=stopping,
            session_timeout_s=SESSION_TIMEOUT_S,
            make_lane=make_lane,
            ready=ready,
        )


async def main() -> None:
    bootstrap, tenant = sys.argv[1:]
    stopping = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stopping.set)
    config = BrokerConfig(bootstrap=bootstrap, client_id="worker-delivery", fetch_wait_ms=20)
    await serve(config, Topology(tenant=tenant, partitions=2), stopping, lambda: print("ready", flush=True))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(main())
