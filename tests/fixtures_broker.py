"""Brokers for a test session, and a tenant of its own for each test: one process a kind, no shared topics.

The launchers are the product's. Their loop lives as long as the session, because a child belongs to the loop that
started it; it runs only while a broker starts and stops.
"""

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sluicegate.broker import RunningBroker, start_tansu
from sluicegate.kafka_jars import require_tools
from sluicegate.kafka_node import NodeAccess, start_kafka
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.streams.fetch import Security
from sluicegate.streams.kafka import BrokerConfig
from sluicegate.streams.topology import DELIVERY, PUBLISHER, STAGES, Topology

TENANTS = itertools.count(1)
STOP_LIMIT_S = 15.0
ADMIN = "admin"
STRANGER = "stranger"
APPLICATIONS = ("helpdesk-app", "nightly-triage", "rogue-app")
KINDS = ("embedded", "kafka")
"""The brokers that `SLUICEGATE_BROKER` may name: the end-to-end tests run on each."""


@contextmanager
def running(start: Callable[[], Awaitable[RunningBroker]]) -> Iterator[RunningBroker]:
    """A broker outside any test's loop."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:

        async def started() -> RunningBroker:
            return await start()

        broker = runner.run(started())
        try:
            yield broker
        finally:
            runner.run(broker.child.stop(limit_s=STOP_LIMIT_S))


def need_kafka() -> None:
    """Skips where this machine has no Java or Maven; on CI that is a failure, for nobody would notice the gap."""
    try:
        require_tools()
    except ConfigurationError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def tansu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an embedded broker that lives as long as the session."""
    folder = tmp_path_factory.mktemp("tansu")
    with running(lambda: start_tansu(port=0, log=folder / "broker.log", folder=folder, tmp=folder)) as broker:
        yield broker.bootstrap


@pytest.fixture(scope="session")
def apache_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an open Apache Kafka node that lives as long as the session."""
    need_kafka()
    folder = tmp_path_factory.mktemp("kafka")
    with running(lambda: node(folder)) as broker:
        yield broker.bootstrap


def node(folder: Path, *, port: int = 0, access: NodeAccess | None = None) -> Awaitable[RunningBroker]:
    """A node whose data, log and temporary files lie in `folder`; started again, it finds them."""
    return start_kafka(port=port, data=folder / "data", log=folder / "broker.log", tmp=folder, access=access)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecuredKafka:
    """A node that asks who connects (SASL_PLAINTEXT, SCRAM) and allows what an ACL says, and no more.

    Users: `ADMIN` (no ACL binds it), `main.<stage>` for each stage, `main.publisher`, the services of the directory in
    `policies/`, and `STRANGER`, whom nobody grants anything.
    """

    bootstrap: str
    access: NodeAccess

    def security(self, user: str) -> Security:
        return self.access.security(user)

    def password(self, user: str) -> str:
        return self.access.users[user]

    def config(self, user: str, **changes: int) -> BrokerConfig:
        return BrokerConfig(
            bootstrap=self.bootstrap,
            client_id=f"test-{user}",
            fetch_wait_ms=20,
            security=self.security(user),
            **changes,
        )


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """One node with users and ACLs for the session."""
    need_kafka()
    folder = tmp_path_factory.mktemp("secured-kafka")
    names = [ADMIN, STRANGER, *APPLICATIONS, *(f"main.{stage}" for stage in {*STAGES, DELIVERY, PUBLISHER})]
    access = NodeAccess(users={name: f"{name}.password" for name in names}, super_user=ADMIN)
    with running(lambda: node(folder, access=access)) as broker:
        yield SecuredKafka(bootstrap=broker.bootstrap, access=access)


@pytest.fixture(scope="session", params=KINDS)
def broker_address(request: pytest.FixtureRequest) -> str:
    """The address of each kind of broker in turn: what uses it runs once on each."""
    address: str = request.getfixturevalue("tansu" if request.param == "embedded" else "apache_kafka")
    return address


@pytest.fixture
def broker_config(broker_address: str) -> BrokerConfig:
    return BrokerConfig(bootstrap=broker_address, client_id="test", fetch_wait_ms=20)


@pytest.fixture
def topology() -> Topology:
    return Topology(tenant=f"t{next(TENANTS)}", partitions=2)
