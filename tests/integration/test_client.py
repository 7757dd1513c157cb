"""The client on real brokers, with an echoing gate behind them: nothing is lost, doubled or taken from another."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from echo_gate import KEY, KEYS, ROGUE
from echo_stage import EchoStage, echoing
from fixtures_broker import need_kafka, node

from sluicegate.client import Client, ClientConfig, NotAnswered
from sluicegate.enforcer.stage_keys import stage_keys_content
from sluicegate.keys import write_key
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.errors import ConfigurationError, ContinuityError, Unavailable
from sluicegate.schemas.events import ReleaseMade
from sluicegate.schemas.records import Unsent
from sluicegate.streams.kafka import Broker, BrokerConfig
from sluicegate.streams.topology import Topology

HELPDESK = Ed25519PrivateKey.from_private_bytes(b"h" * 32)
REPLIES = ("helpdesk-app", "nightly-triage")
CHILD = Path(__file__).parent.parent / "client_child.py"


def config(broker: BrokerConfig, topology: Topology, **changes: object) -> ClientConfig:
    own = {
        "bootstrap": broker.bootstrap,
        "tenant": topology.tenant,
        "service": "helpdesk-app",
        "key": HELPDESK,
        "trust": KEYS,
        "timeout_s": 60.0,
        "request_timeout_s": 2.0,
        "fetch_wait_ms": 20,
        **changes,
    }
    return ClientConfig(**own)  # type: ignore[arg-type]


@pytest.fixture
async def stage(broker_config: BrokerConfig, topology: Topology) -> AsyncIterator[EchoStage]:
    async with echoing(broker_config, topology, REPLIES) as stage:
        yield stage


@asynccontextmanager
async def served(broker: BrokerConfig, topology: Topology, **changes: object) -> AsyncIterator[Client]:
    async with Client(config(broker, topology, **changes)) as client:
        yield client
    assert client.waiting == 0


def asked(text: str, **changes: object) -> dict[str, object]:
    return {"model": "smollm2", "purpose": "writing", "text": text, **changes}


async def test_200_at_once(stage: EchoStage, broker_config: BrokerConfig, topology: Topology) -> None:
    async with served(broker_config, topology) as client:
        answers = await asyncio.gather(*(client.ask(**asked(f"q{n}", principal=f"p{n}")) for n in range(200)))
        assert [answer.text for answer in answers] == [f"q{n}" for n in range(200)]
        assert {answer.place.partition for answer in answers} == {0, 1}
        assert stage.gate.decided == 200
        assert client.counts.genuine == 200


async def test_what_came_before_is_found(stage: EchoStage, broker_config: BrokerConfig, topology: Topology) -> None:
    async with served(broker_config, topology) as first:
        await asyncio.gather(*(first.ask(**asked(f"q{n}", request_id=f"r{n}", deadline_ms=1)) for n in range(60)))
        async with served(broker_config, topology) as second:
            found = await asyncio.gather(*(second.find(f"r{n}") for n in range(60)))
            assert [answer.text for answer in found] == [f"q{n}" for n in range(60)]
            again = await second.ask(**asked("q7", request_id="r7", deadline_ms=1))
            assert (again.text, again.duplicate_of) == ("q7", found[7].decision_id)
            other = await second.ask(**asked("another", request_id="r7", deadline_ms=1))
            assert other.code is Code.REQUEST_ID_REUSED
            with pytest.raises(NotAnswered):
                await second.find("never sent", timeout_s=0.5)


async def test_a_second_service_sees_nothing_of_the_first(
    stage: EchoStage, broker_config: BrokerConfig, topology: Topology
) -> None:
    async with (
        served(broker_config, topology) as first,
        served(broker_config, topology, service="nightly-triage") as second,
    ):
        await first.ask(**asked("mine", request_id="a"))
        with pytest.raises(NotAnswered):
            await second.find("a", timeout_s=0.5)
        assert (await second.ask(**asked("yours", request_id="b"))).text == "yours"
        assert (first.counts.genuine, second.counts.genuine) == (1, 1)
        assert second.counts.foreign == first.counts.foreign == 0


async def test_forged_copies_are_counted_and_reach_nobody(
    stage: EchoStage, broker_config: BrokerConfig, topology: Topology
) -> None:
    """Positive control: the genuine release, behind them."""
    stage.held = []
    async with served(broker_config, topology) as client, Broker(broker_config) as rogue:
        call = asyncio.create_task(client.ask(**asked("true", request_id="a")))
        await stage.holds(1)
        [(topic, partition, genuine)] = stage.held
        loot = replace(codec.decode(genuine.value, ReleaseMade), text="forged")
        forgeries = [
            replace(genuine, value=codec.encode(loot)),
            stage.gate.seal(loot, partition, private=ROGUE),
            Unsent(key=None, value=codec.encode(loot)),
        ]
        await rogue.append(topic, partition, forgeries)
        await stage.release_held()
        assert (await call).text == "true"
        assert (client.counts.unverified, client.counts.genuine) == (len(forgeries), 1)


async def test_a_killed_service_finds_its_answers(
    stage: EchoStage, broker_config: BrokerConfig, topology: Topology, tmp_path: Path
) -> None:
    key, trust = tmp_path / "keys" / "service-helpdesk-app.pem", tmp_path / "redactor-keys.json"
    write_key(key, HELPDESK)
    trust.write_bytes(stage_keys_content([KEY]))
    stage.held = []
    ids = [f"r{n}" for n in range(8)]
    words = (broker_config.bootstrap, topology.tenant, "helpdesk-app", "1", str(key), str(trust), *ids)
    child = await asyncio.create_subprocess_exec(sys.executable, str(CHILD), *words, stdout=asyncio.subprocess.PIPE)
    try:
        assert child.stdout is not None
        async with asyncio.timeout(60):
            lines = [(await child.stdout.readline()).decode() for _ in ids]
        await stage.holds(len(ids))
    finally:
        child.kill()
        await child.wait()
    assert [line.split()[0] for line in lines] == ids
    half, stage.held = stage.held[:4], stage.held[4:]
    await stage.deliver(half)
    async with served(broker_config, topology, trust=trust, key=key) as client:
        calls = [asyncio.create_task(client.find(each)) for each in ids]
        done, _ = await asyncio.wait(calls, timeout=2.0)
        assert len(done) == 4
        await stage.release_held()
        assert [answer.text for answer in await asyncio.gather(*calls)] == [f"asked by {each}" for each in ids]


async def test_topics_that_are_missing_are_named(broker_config: BrokerConfig, topology: Topology) -> None:
    async with Broker(broker_config) as broker:
        await broker.create_topics(topology.topics)
        with pytest.raises(ConfigurationError, match=r"no topic `t\d+.replies.helpdesk-app`.*topics apply"):
            async with served(broker_config, topology):
                pass
        assert await broker._reader.partitions(topology.reply("helpdesk-app")) == 0, "looking for it did not create it"
        await broker.create_topics({topology.reply("helpdesk-app"): 2})
        with pytest.raises(ConfigurationError, match="has 2 partitions, not 3"):
            async with served(broker_config, topology, partitions=3):
                pass


async def test_no_broker_is_said(topology: Topology) -> None:
    nowhere = BrokerConfig(bootstrap="127.0.0.1:1", client_id="test")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        async with served(nowhere, topology):
            pass


async def test_50_wait_through_a_restart_of_kafka(topology: Topology, tmp_path: Path) -> None:
    need_kafka()
    kafka = await node(tmp_path)
    broker_config = BrokerConfig(bootstrap=kafka.bootstrap, client_id="test", fetch_wait_ms=20)
    port = int(kafka.bootstrap.rpartition(":")[2])
    try:
        async with echoing(broker_config, topology, REPLIES) as stage:
            stage.held = []
            async with served(broker_config, topology) as client:
                calls = [
                    asyncio.create_task(client.ask(**asked(f"q{n}", principal=f"p{n}", request_id=f"r{n}")))
                    for n in range(50)
                ]
                await stage.holds(50)
                os.killpg(kafka.child.pid, signal.SIGKILL)
                await kafka.child.wait()
                during = [asyncio.create_task(client.ask(**asked(f"during {n}"))) for n in range(5)]
                await asyncio.sleep(3.0)
                kafka = await node(tmp_path, port=port)
                await stage.release_held()
                assert [each.text for each in await asyncio.gather(*calls)] == [f"q{n}" for n in range(50)]
                assert [each.text for each in await asyncio.gather(*during)] == [f"during {n}" for n in range(5)]
                for n in range(50):
                    assert len([each for each in stage.gate.answered["helpdesk-app", f"r{n}"] if each.text]) == 1
    finally:
        await kafka.child.stop(limit_s=15.0)


async def test_a_recreated_log_is_an_error_for_everybody(topology: Topology, tmp_path: Path) -> None:
    """Whose topics were lost must not wait in silence: another log has other offsets."""
    need_kafka()
    kafka = await node(tmp_path / "one")
    broker_config = BrokerConfig(bootstrap=kafka.bootstrap, client_id="test", fetch_wait_ms=20)
    port = int(kafka.bootstrap.rpartition(":")[2])
    try:
        async with echoing(broker_config, topology, REPLIES) as stage, served(broker_config, topology) as client:
            await asyncio.gather(*(client.ask(**asked(f"q{n}", principal=f"p{n}")) for n in range(20)))
            stage.held = []
            call = asyncio.create_task(client.ask(**asked("lost")))
            await stage.holds(1)
            os.killpg(kafka.child.pid, signal.SIGKILL)
            await kafka.child.wait()
            kafka = await node(tmp_path / "two", port=port)
            async with Broker(broker_config) as broker:
                await broker.create_topics(topology.with_replies(REPLIES))
            with pytest.raises(ContinuityError, match="cut or recreated"):
                await call
    finally:
        await kafka.child.stop(limit_s=15.0)
