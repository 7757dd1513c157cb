"""Whatever is lost, doubled, repeated, forged or out of order: each waiter gets its own release, once."""

import asyncio
from collections import deque
from dataclasses import replace
from random import Random

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from echo_gate import KEYS, ROGUE, EchoGate
from hypothesis import given
from hypothesis import strategies as st
from memory_wire import Fault, MemoryBroker, MemoryWire

from sluicegate.client import Answer, Client, ClientConfig
from sluicegate.client import client as client_module
from sluicegate.client.waiting import Waiter, Waiting
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import ReleaseMade
from sluicegate.schemas.records import Record, Unsent
from sluicegate.streams.topology import Topology

KEY = Ed25519PrivateKey.from_private_bytes(b"h" * 32)
TOPOLOGY = Topology(tenant="main", partitions=2)
CONFIG = ClientConfig(bootstrap="memory:1", service="desk", key=KEY, trust=KEYS, timeout_s=20.0)


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAUSE_S", 0.0005)
    monkeypatch.setattr(client_module, "PAUSE_S_MAX", 0.0005)


class Chaos:
    """Delivers what the gate released in a drawn order, some of it again, with forgeries between."""

    def __init__(self, broker: MemoryBroker, seed: int, repeats: int, forgeries: int) -> None:
        self.broker, self.gate = broker, EchoGate(TOPOLOGY)
        self.random, self.repeats, self.forgeries = Random(seed), repeats, forgeries
        self.held: list[tuple[str, int, Unsent]] = []
        self.forged = 0
        broker.on_append = self.on_append

    def on_append(self, record: Record) -> None:
        if record.topic == TOPOLOGY.requests:
            self.held.append(self.gate.judge(record))

    def draw(self, bound: int) -> int:
        return self.random.randrange(bound)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(0)
            if not self.held or self.draw(3) == 0:
                continue
            topic, partition, copy = self.held.pop(self.draw(len(self.held)))
            for _ in range(min(self.forgeries, 1 + self.draw(3))):
                self.forge(topic, partition, copy)
            self.broker.put(topic, partition, copy)
            for _ in range(min(self.repeats, self.draw(3))):
                self.broker.put(topic, partition, copy)

    def forge(self, topic: str, partition: int, genuine: Unsent) -> None:
        self.forgeries -= 1
        self.forged += 1
        release = replace(codec.decode(genuine.value, ReleaseMade), text="forged", code=Code.OK)
        kinds = [
            replace(genuine, value=codec.encode(release)),
            self.gate.seal(release, partition, private=ROGUE),
            Unsent(key=None, value=codec.encode(release)),
        ]
        self.broker.put(topic, partition, kinds[self.draw(3)])


@given(
    bodies=st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=8),
    faults=st.lists(st.sampled_from(Fault), max_size=8),
    seed=st.integers(0, 2**32),
    repeats=st.integers(0, 5),
    forgeries=st.integers(0, 5),
)
def test_every_waiter_gets_its_own_release_at_most_once(
    bodies: list[tuple[int, bool]], faults: list[Fault], seed: int, repeats: int, forgeries: int
) -> None:
    """`bodies`: which request id a call has, and which of two bodies; calls share ids and bodies as they may."""

    async def run() -> tuple[list[Answer], Chaos, Client]:
        broker = MemoryBroker(partitions=TOPOLOGY.partitions, faults=deque(faults))
        chaos = Chaos(broker, seed, repeats, forgeries)
        delivery = asyncio.create_task(chaos.run())
        async with Client(CONFIG, wire=MemoryWire(broker)) as client:
            answers = await asyncio.gather(
                *(
                    client.ask(
                        model="m", purpose="p", text=f"{number}/{other}", request_id=f"r{number}", deadline_ms=1,
                        principal=f"p{number}",
                    )
                    for number, other in bodies
                )
            )  # fmt: skip
            assert client.waiting == len(client._waiting) == 0
            assert not client._waiting._by_place
            assert not client._waiting._sending
        delivery.cancel()
        return answers, chaos, client

    answers, chaos, client = asyncio.run(run())
    for (number, other), answer in zip(bodies, answers, strict=True):
        released = chaos.gate.answered["desk", f"r{number}"]
        [first] = [each for each in released if each.code is Code.OK]
        if answer.code is Code.OK:
            assert answer.text == f"{number}/{other}"
            assert answer.release == first
        else:
            assert answer.code is Code.REQUEST_ID_REUSED
            assert first.text != f"{number}/{other}"
    assert client.counts.unverified <= chaos.forged


async def test_a_settled_waiter_stays_settled() -> None:
    """Unit of the law above: what comes later for the same place, genuine or not, changes nothing."""
    waiting = Waiting()
    waiter = Waiter(request_id="a", partition=0, future=asyncio.get_running_loop().create_future())
    waiting.enter(waiter)
    waiting.sending(0)
    waiting.sent(waiter, 7)
    broker = MemoryBroker()
    broker.put("main.requests", 0, Unsent(key=None, value=b""))
    gate = EchoGate(TOPOLOGY)
    nobody = codec.decode(gate.judge(broker.logs["main.requests", 0][0])[2].value, ReleaseMade)
    first = replace(nobody, request_offset=7, request_id="a", code=Code.OK, text="first")
    waiting.take(1, replace(first, text="another partition"))
    assert not waiter.future.done()
    waiting.take(0, replace(first, request_offset=8, text="another place, the same id"))
    assert not waiter.future.done()
    waiting.take(0, first)
    waiting.take(0, replace(first, text="second"))
    assert waiter.future.result().release.text == "first"
    waiting.leave(waiter)
    assert len(waiting) == 0
