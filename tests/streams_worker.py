"""A worker for the tests: `python streams_worker.py SHELL BOOTSTRAP TENANT` serves the counting stage until SIGTERM."""

import asyncio
import importlib
import logging
import signal
import sys
from collections.abc import Callable

from counting import Counting
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sluicegate.enforcer.seal import Signer, StageKey, Verifier
from sluicegate.schemas.events import DecisionMade
from sluicegate.schemas.ids import KeyId
from sluicegate.streams.kafka import Broker, BrokerConfig
from sluicegate.streams.lane import Lane
from sluicegate.streams.topology import ENFORCER, Topology

PRIVATE = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
KEY = StageKey(key_id=KeyId("k"), stage=ENFORCER, public=PRIVATE.public_key(), not_before_ms=0, revoked_at_ms=None)
SIGNER = Signer(key_id=KEY.key_id, private=PRIVATE)
SHELLS = {"loop": "run_group", "faust": "run_faust"}
MODULES = {"loop": "sluicegate.streams.loop", "faust": "sluicegate.streams.enforce"}
SESSION_TIMEOUT_S = 2.0


def verifier(topology: Topology, partition: int) -> Verifier:
    place = topology.place(ENFORCER, env="test", epoch=1, partition=partition)
    return Verifier(place, lambda: {KEY.key_id: KEY})


def lane(broker: Broker, topology: Topology, partition: int, may_append: Callable[[], bool]) -> Lane:
    return Lane(
        broker=broker,
        stage=Counting(),
        verifier=verifier(topology, partition),
        signer=SIGNER,
        source_topic=topology.requests,
        output=DecisionMade,
        slice_bytes_max=100_000,
        slice_records_max=20,
        may_append=may_append,
    )


async def serve(
    shell: str, config: BrokerConfig, topology: Topology, stopping: asyncio.Event, ready: Callable[[], None]
) -> None:
    run = getattr(importlib.import_module(MODULES[shell]), SHELLS[shell])  # the loop starts without Faust's imports
    async with Broker(config) as broker:
        await run(
            config,
            topic=topology.requests,
            partitions=topology.partitions,
            group=topology.group(ENFORCER),
            stopping=stopping,
            session_timeout_s=SESSION_TIMEOUT_S,
            make_lane=lambda partition, may_append: lane(broker, topology, partition, may_append),
            ready=ready,
        )


async def main() -> None:
    shell, bootstrap, tenant = sys.argv[1:]
    stopping = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stopping.set)
    config = BrokerConfig(bootstrap=bootstrap, client_id=f"worker-{shell}", fetch_wait_ms=20)
    await serve(shell, config, Topology(tenant=tenant, partitions=2), stopping, lambda: print("ready", flush=True))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(main())
