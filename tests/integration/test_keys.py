"""Keys enter and leave by events on a real broker: each host holds its own, and the policy log says which count."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from counting import Counting, check_one_to_one
from deployment import SEALING, Deployment
from fixtures_broker import TENANTS

from sluicegate.enforcer.seal import Verifier
from sluicegate.enforcer.stage_keys import read_stage_keys
from sluicegate.enforcer.state import PolicyLog
from sluicegate.home import Home
from sluicegate.installation import Installation, require_admitted
from sluicegate.key_admission import LEAD_MS
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.schemas.events import DecisionMade
from sluicegate.schemas.records import Record, Unsent
from sluicegate.settings import Settings
from sluicegate.streams.kafka import Broker, BrokerConfig
from sluicegate.streams.lane import Lane
from sluicegate.streams.policy_tail import PolicyTail
from sluicegate.streams.topology import ENFORCER, Topology

Found = TypeVar("Found")


@pytest.fixture
def deployment(tansu: str, tmp_path: Path) -> Deployment:
    made = Deployment(tmp_path, bootstrap=tansu, tenant=f"t{next(TENANTS)}", partitions="1", fetch_wait_ms="20")
    made.make_keys()
    for stage in SEALING:
        made.host(stage, stage)
    made.service("helpdesk-app", made.hosts["enforcer"])
    connected(made, lambda broker, topology: broker.create_topics(topology.topics))
    return made


def connected(deployment: Deployment, call: Callable[[Broker, Topology], Awaitable[Found]]) -> Found:
    settings = deployment.publisher.loaded()

    async def body() -> Found:
        async with Broker(BrokerConfig(bootstrap=settings.bootstrap, client_id="test", fetch_wait_ms=20)) as broker:
            return await call(broker, Topology(tenant=settings.tenant, partitions=settings.partitions))

    return asyncio.run(body())


def listed(deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    capsys.readouterr()
    assert deployment.publisher.type("keys", "list", "--json") == 0
    return {str(row["id"]): row for row in map(json.loads, capsys.readouterr().out.splitlines())}


class Worker:
    """The enforcer's host at work: its newest admitted key, its lane, the policy log it follows."""

    def __init__(self, deployment: Deployment, broker: Broker, topology: Topology) -> None:
        self.settings: Settings = deployment.hosts["enforcer"].loaded()
        self.installation = Installation(self.settings, Home(root=self.settings.home))
        self.broker, self.topology = broker, topology
        state = PolicyLog(domain=self.installation.domain, root_digest=self.installation.root_digest())
        self.policy = PolicyTail(broker, topic=topology.policy, state=state)
        place = topology.place(ENFORCER, env=self.settings.env, epoch=1, partition=0)
        self.verifier = Verifier(place, lambda: self.policy.stage_keys(ENFORCER))

    async def lane(self, now_ms: int) -> Lane:
        await self.policy.start(timeout_s=10)
        await self.policy.stop()
        own = self.installation.stage_signers(ENFORCER)
        lane = Lane(
            broker=self.broker, stage=Counting(), verifier=self.verifier, source_topic=self.topology.requests,
            signer=require_admitted(ENFORCER, own, self.policy.stage_keys(ENFORCER), now_ms=now_ms),
            output=DecisionMade, slice_bytes_max=100_000, may_append=lambda: True, clock_ms=lambda: now_ms,
        )  # fmt: skip
        await lane.recover()
        return lane


async def ask(broker: Broker, topology: Topology, count: int) -> list[Record]:
    if count:
        await broker.append(topology.requests, 0, [Unsent(key=b"k", value=b"%d" % each) for each in range(count)])
    return [record async for batch in broker.read(topology.requests, 0, start=0) for record in batch]


def work(deployment: Deployment, count: int, *, now_ms: int) -> tuple[str, int]:
    """Asks `count` more and has the enforcer answer at event time `now_ms`: what it ended with, its frontier."""

    async def body(broker: Broker, topology: Topology) -> tuple[str, int]:
        worker = Worker(deployment, broker, topology)
        records = await ask(broker, topology, count)
        lane = await worker.lane(now_ms)
        try:
            await lane.advance(records)
        except ConfigurationError as error:
            return str(error), lane.frontier
        return "", lane.frontier

    return connected(deployment, body)


def report(deployment: Deployment) -> tuple[int, int, bool]:
    async def body(broker: Broker, topology: Topology) -> tuple[int, int, bool]:
        worker = Worker(deployment, broker, topology)
        await worker.policy.start(timeout_s=10)
        await worker.policy.stop()
        found = await check_one_to_one(broker, worker.verifier, source_topic=topology.requests)
        return found.answered, found.void, found.sound

    return connected(deployment, body)


def test_the_publishers_host_holds_no_other_private_key_and_makes_none(deployment: Deployment) -> None:
    keys = deployment.publisher.keys
    before = sorted(path.name for path in keys.iterdir())
    assert before == [
        "publisher.pem", "publisher.pub", "root.json", "stage-enforcer.pub", "stage-redactor.pub", "stage-runner.pub",
        "stage-shadow.pub",
    ]  # fmt: skip
    assert deployment.publisher.type("publish") == 0
    assert sorted(path.name for path in keys.iterdir()) == before

    async def directory(broker: Broker, topology: Topology) -> bytes:
        records = [record async for batch in broker.read(topology.policy, 0, start=0) for record in batch]
        return b"".join(record.value or b"" for record in records)

    assert b"urn:sluicegate:development-issuer" not in connected(deployment, directory)
    # The control: what was listed is there.
    assert b'"service":"helpdesk-app"' in connected(deployment, directory)


def test_a_revoked_stage_key_stops_its_stage_and_the_next_key_goes_on(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher, enforcer = deployment.publisher, deployment.hosts["enforcer"]
    assert publisher.type("publish") == 0
    (key,) = (name for name, row in listed(deployment, capsys).items() if row["owner"] == "enforcer")
    assert work(deployment, 5, now_ms=1_000) == ("", 5)

    assert publisher.type("keys", "revoke", key) == 0
    said = capsys.readouterr().out
    assert f"revoked  `{key}` by stage keys v2" in said
    assert "run `sluicegate keys new stage enforcer`" in said
    until_ms = policy_keys(deployment)[key]
    assert until_ms is not None

    # Until its time comes the key seals on; then what it seals is void and the stage says what to type.
    assert work(deployment, 3, now_ms=until_ms - 1) == ("", 8)
    text, frontier = work_with_the_old_key(deployment, 4, now_ms=until_ms)
    assert "run `sluicegate keys new stage enforcer`, then `sluicegate publish`" in text
    assert frontier == 8, "what the revoked key sealed has no effect"
    with pytest.raises(ConfigurationError, match=f"`{key}` of the enforcer is revoked"):
        work(deployment, 0, now_ms=until_ms)

    assert enforcer.type("keys", "new", "stage", "enforcer") == 0
    enforcer.carry("stage-enforcer~2.pub", to=[publisher])
    with pytest.raises(ConfigurationError, match="is revoked"):
        work(deployment, 0, now_ms=until_ms)
    assert publisher.type("publish") == 0
    assert work(deployment, 2, now_ms=until_ms + 1) == ("", 14)
    assert report(deployment) == (14, 4, True), "what was sealed before stays effective; 4 void records"

    # A publication that still finds the file admits it no more, nor does it forget.
    assert policy_keys(deployment)[key] == until_ms
    row = listed(deployment, capsys)[key]
    assert row["revoked"] is not None
    assert publisher.type("keys", "revoke", key) == 0
    assert "out of force already" in capsys.readouterr().out


def work_with_the_old_key(deployment: Deployment, count: int, *, now_ms: int) -> tuple[str, int]:
    """As `work`, by a process that took its key before the revocation's time came."""

    async def body(broker: Broker, topology: Topology) -> tuple[str, int]:
        worker = Worker(deployment, broker, topology)
        records = await ask(broker, topology, count)
        lane = await worker.lane(now_ms - 1)
        lane._clock_ms = lambda: now_ms
        with pytest.raises(ConfigurationError) as raised:
            await lane.advance(records)
        return str(raised.value), lane.frontier

    return connected(deployment, body)


def policy_keys(deployment: Deployment) -> dict[str, int | None]:
    """Each admitted stage key with its end, folded from the log with nothing but the root."""

    async def body(broker: Broker, topology: Topology) -> dict[str, int | None]:
        worker = Worker(deployment, broker, topology)
        await worker.policy.start(timeout_s=10)
        await worker.policy.stop()
        return {
            str(key_id): key.revoked_at_ms
            for stage in SEALING
            for key_id, key in worker.policy.stage_keys(stage).items()
        }

    return connected(deployment, body)


def test_a_key_leaves_neither_in_the_past_nor_unknown(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deployment.publisher.type("publish") == 0
    (key,) = (name for name, row in listed(deployment, capsys).items() if row["owner"] == "runner")
    before = policy_keys(deployment)
    for words in ((key, "--at", "2020-01-01T00:00:00Z"), ("runner-0000000000000000",)):
        assert deployment.publisher.type("keys", "revoke", *words) == 2
    assert policy_keys(deployment) == before
    assert f"{LEAD_MS} ms from now" in capsys.readouterr().err
    assert deployment.publisher.type("keys", "revoke", key, "--at", "2090-01-01T00:00:00Z") == 0
    assert policy_keys(deployment) == {**before, key: 3_786_912_000_000}


def test_a_revoked_service_key_is_out_of_the_directory_and_never_comes_back(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher = deployment.publisher
    assert publisher.type("publish") == 0
    (kid,) = (name for name, row in listed(deployment, capsys).items() if row["owner"] == "helpdesk-app")
    assert publisher.type("keys", "revoke", kid) == 0
    assert "take its entry out of" in capsys.readouterr().out
    assert listed(deployment, capsys)[kid]["revoked"] is not None
    assert publisher.type("publish") == 1
    assert f"`{kid}` was taken out before" in capsys.readouterr().err
    deployment.change_directory(service_keys=[])
    deployment.service("helpdesk-app", deployment.hosts["enforcer"])
    assert publisher.type("publish") == 0
    rows = {name: row["revoked"] for name, row in listed(deployment, capsys).items() if row["owner"] == "helpdesk-app"}
    assert (len(rows), rows.pop(kid) is not None, list(rows.values())) == (2, True, [None])


def test_clients_get_the_public_keys_that_they_trust(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deployment.publisher.type("keys", "list", "--public") == 2
    assert deployment.publisher.type("publish") == 0
    capsys.readouterr()
    assert deployment.publisher.type("keys", "list", "--public") == 0
    found = read_stage_keys(capsys.readouterr().out.strip().encode())
    assert {str(key_id): key.revoked_at_ms for key_id, key in found.items()} == policy_keys(deployment)
