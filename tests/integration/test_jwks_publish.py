"""A provider's keys become events on a real broker: both in force while both are published, and none that is gone."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from deployment import SEALING, Deployment
from fixtures_broker import TENANTS
from producers import IDP, ed25519

from sluicegate.enforcer.state import PolicyLog, Rules
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.keys import public_jwk
from sluicegate.streams.kafka import Broker, BrokerConfig
from sluicegate.streams.policy_tail import PolicyTail
from sluicegate.streams.topology import Topology

ISSUER = "https://id.heron.example"
OLD, NEW = public_jwk(IDP, "idp-1"), public_jwk(ed25519(44), "idp-2")


@pytest.fixture
def deployment(tansu: str, tmp_path: Path) -> Deployment:
    made = Deployment(tmp_path, bootstrap=tansu, tenant=f"t{next(TENANTS)}", partitions="1", fetch_wait_ms="20")
    made.make_keys()
    for stage in SEALING:
        made.host(stage, stage)
    made.service("helpdesk-app", made.hosts["enforcer"])
    settings = made.publisher.loaded()

    async def create() -> None:
        async with Broker(BrokerConfig(bootstrap=settings.bootstrap, client_id="test", fetch_wait_ms=20)) as broker:
            await broker.create_topics(Topology(tenant=settings.tenant, partitions=1).topics)

    asyncio.run(create())
    return made


def in_force(deployment: Deployment) -> tuple[int, set[str]]:
    """The directory's version and the issuer's keys, as an enforcer reads them from the log."""
    settings = deployment.hosts["enforcer"].loaded()
    installation = Installation(settings, Home(root=settings.home))

    async def read() -> Rules:
        async with Broker(BrokerConfig(bootstrap=settings.bootstrap, client_id="test", fetch_wait_ms=20)) as broker:
            topic = Topology(tenant=settings.tenant, partitions=1).policy
            state = PolicyLog(domain=installation.domain, root_digest=installation.root_digest())
            tail = PolicyTail(broker, topic=topic, state=state)
            await tail.start(timeout_s=10)
            await tail.stop()
            found = state.at(4_000_000_000_000)
            assert isinstance(found, Rules), found
            return found

    rules = asyncio.run(read())
    issuer = rules.credentials.issuers.get(ISSUER)
    return rules.version.directory_version, set(issuer.keys) if issuer else set()


def fetch(deployment: Deployment, folder: Path, *keys: dict[str, Any], new: bool = False) -> int:
    path = folder / "jwks.json"
    path.write_text(json.dumps({"keys": list(keys)}))
    more = ("--audience", "urn:sluicegate:prod", "--bind", "azp") if new else ()
    return deployment.publisher.type("jwks", "fetch", "--issuer", ISSUER, "--file", str(path), "--publish", *more)


def test_keys_come_and_go_by_events(deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch(deployment, tmp_path, OLD, new=True) == 2, "there is no directory yet"
    assert deployment.publisher.type("publish") == 0
    version, keys = in_force(deployment)
    assert keys == set()
    seen = []
    for published in ((OLD,), (OLD, NEW), (OLD, NEW), (NEW,)):
        assert fetch(deployment, tmp_path, *published, new=not seen) == 0
        now, keys = in_force(deployment)
        seen.append((now - version, keys))
    assert seen == [(1, {"idp-1"}), (2, {"idp-1", "idp-2"}), (2, {"idp-1", "idp-2"}), (3, {"idp-2"})]
    assert f"published directory v{version + 3}" in capsys.readouterr().err


def test_a_key_that_speaks_for_nobody_publishes_nothing(deployment: Deployment, tmp_path: Path) -> None:
    assert deployment.publisher.type("publish") == 0
    before = in_force(deployment)
    stranger = deployment.hosts["enforcer"].keys / "stage-enforcer.pem"
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [OLD]}))
    words = ("jwks", "fetch", "--issuer", ISSUER, "--file", str(path), "--audience", "a", "--bind", "azp", "--publish")
    assert deployment.publisher.type(*words, "--key", str(stranger)) == 1
    assert in_force(deployment) == before
    assert deployment.publisher.type(*words) == 0
    assert in_force(deployment) == (before[0] + 1, {"idp-1"})
