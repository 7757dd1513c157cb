"""A broker in memory with the echoing gate behind it, and clients of it: what the unit tests of the client share."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from echo_gate import KEYS, Copy, EchoGate
from memory_wire import MemoryBroker, MemoryWire

from sluicegate.client import Client, ClientConfig
from sluicegate.schemas.events import ReleaseMade
from sluicegate.schemas.records import Record
from sluicegate.streams.topology import Topology

HELPDESK = Ed25519PrivateKey.from_private_bytes(b"h" * 32)
TOPOLOGY = Topology(tenant="main", partitions=2)
REPLIES = TOPOLOGY.reply("helpdesk-app")
LIMIT_S = 5.0


def config(**changes: object) -> ClientConfig:
    own = {
        "bootstrap": "memory:1",
        "service": "helpdesk-app",
        "key": HELPDESK,
        "trust": KEYS,
        "timeout_s": LIMIT_S,
        "now_ms": lambda: 1_800_000_000_000,
        **changes,
    }
    return ClientConfig(**own)  # type: ignore[arg-type]


class House:
    """A broker in memory with the echoing gate behind it; `deliver` None delivers at once."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(partitions=TOPOLOGY.partitions)
        self.gate = EchoGate(TOPOLOGY)
        self.held: list[Copy] | None = None
        self.decided = asyncio.Event()
        self.broker.on_append = self._on_append

    def _on_append(self, record: Record) -> None:
        if record.topic != TOPOLOGY.requests:
            return
        copy = self.gate.judge(record)
        if self.held is None:
            self.broker.put(*copy)
        else:
            self.held.append(copy)
        self.decided.set()

    async def holds(self, count: int) -> None:
        """Returns once so many releases wait to be delivered."""
        async with asyncio.timeout(LIMIT_S):
            while len(self.held or []) < count:
                self.decided.clear()
                await self.decided.wait()

    def deliver(self, *, order: Callable[[list[Copy]], list[Copy]] = list) -> None:
        held, self.held = self.held or [], None
        for copy in order(held):
            self.broker.put(*copy)

    @asynccontextmanager
    async def client(self, **changes: object) -> AsyncIterator[Client]:
        async with Client(config(**changes), wire=MemoryWire(self.broker)) as client:
            yield client
        assert client.waiting == 0
        assert len(client._waiting) == 0

    def refuse(self, record: Record) -> None:
        """Instead of `_on_append`: as if no request had a proof."""
        if record.topic == TOPOLOGY.requests:
            self.broker.put(*self.gate.judge(replace(record, headers=())))

    def releases(self, request_id: str, service: str = "helpdesk-app") -> list[ReleaseMade]:
        return self.gate.answered.get((service, request_id), [])


def asked(text: str = "Say hello.", **changes: object) -> dict[str, object]:
    return {"model": "smollm2", "purpose": "writing", "text": text, **changes}


async def quiet() -> None:
    for _ in range(50):
        await asyncio.sleep(0)
