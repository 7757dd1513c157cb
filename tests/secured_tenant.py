"""A tenant of its own on the shared node that allows nothing by default, for tests of topics and rights."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from broker_user import BrokerUser
from fixtures_broker import ADMIN, TENANTS, SecuredKafka

from sluicegate.cli import main
from sluicegate.settings import Settings
from sluicegate.streams.topic_admin import TopicAdmin
from sluicegate.streams.topic_plan import Deviation
from sluicegate.streams.topology import Topology
from sluicegate.topics import Applications, apply, examine, read_applications, realm_of

HELPDESK, TRIAGE, ROGUE = "helpdesk-app", "nightly-triage", "rogue-app"
STAGES = ("enforcer", "freshness", "runner", "redactor", "delivery", "shadow", "sink")
PUBLISHER = "publisher"
REPLIES = {HELPDESK: "helpdesk", TRIAGE: "triage"}
SETTLE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SecuredTenant:
    """A tenant of its own on the shared node; its stages are the node's users `main.<stage>`."""

    kafka: SecuredKafka
    settings: Settings
    directory: Path

    @property
    def topology(self) -> Topology:
        return Topology(tenant=self.settings.tenant, partitions=self.settings.partitions)

    @property
    def users(self) -> dict[str, str]:
        return {each: f"main.{each}" for each in (*STAGES, PUBLISHER)}

    @property
    def applications(self) -> Applications:
        return read_applications(self.directory)

    def topic(self, name: str) -> str:
        return f"{self.settings.tenant}.{name}"

    def user(self, name: str) -> BrokerUser:
        return BrokerUser(self.kafka.config(self.users.get(name, name)))

    def admin(self) -> TopicAdmin:
        return TopicAdmin(self.kafka.config(ADMIN))

    def environment(self) -> dict[str, str]:
        environment = self.settings.environment()
        return {name: value for name, value in environment.items() if name.startswith("SLUICEGATE_")}

    def words(self, *words: str) -> list[str]:
        return ["topics", *words, *(word for role, user in self.users.items() for word in ("--user", f"{role}={user}"))]

    async def apply(self, *, revoke: bool = False) -> list[Deviation]:
        """What was done; nothing may be left."""
        done: list[Deviation] = []
        applications = self.applications
        realm = realm_of(self.settings, applications, self.users)
        left = await apply(self.settings, applications, realm=realm, revoke=revoke, done=done.append)
        assert not left.deviations
        return done

    async def check(self, *, revoke: bool = False) -> tuple[Deviation, ...]:
        applications = self.applications
        realm = realm_of(self.settings, applications, self.users)
        return (await examine(self.settings, applications, realm=realm, revoke=revoke)).deviations


def write_directory(path: Path, replies: Mapping[str, str]) -> Path:
    entries = [{"service": service, "topic": topic} for service, topic in replies.items()]
    services = [{"uid": {"type": "Service", "id": each}, "attrs": {}, "parents": []} for each in replies]
    path.write_text(json.dumps({"entities": services, "replies": entries}))
    return path


@pytest.fixture
def untouched(secured_kafka: SecuredKafka, tmp_path: Path) -> SecuredTenant:
    password = tmp_path / "admin.password"
    password.touch(mode=0o600)
    password.write_text(f"{secured_kafka.password(ADMIN)}\n")
    settings = Settings(
        home=tmp_path / "home",
        tenant=f"t{next(TENANTS)}",
        bootstrap=secured_kafka.bootstrap,
        broker="kafka",
        security_protocol="SASL_PLAINTEXT",
        sasl_username=ADMIN,
        sasl_password_file=password,
        directory_path=write_directory(tmp_path / "directory.json", REPLIES),
        replication=1,
        partitions=2,
    )
    return SecuredTenant(kafka=secured_kafka, settings=settings, directory=settings.directory)


@pytest.fixture
async def deployed(untouched: SecuredTenant) -> SecuredTenant:
    """The same, with its topics and rights."""
    assert await untouched.apply()
    return untouched


async def told_once(deployed: SecuredTenant, count: int = 1) -> tuple[Deviation, ...]:
    """The deviations, once the broker has heard of what its controller was told: `count` of them, not one more."""
    deadline = time.monotonic() + SETTLE_S
    while len(found := await deployed.check()) != count:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)
    return found


async def quiet_again(deployed: SecuredTenant) -> None:
    assert await told_once(deployed, 0) == ()


def type_topics(
    deployed: SecuredTenant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `sluicegate topics ...`."""
    for name, value in deployed.environment().items():
        monkeypatch.setenv(name, value)
    code = main(deployed.words(*words))
    out, err = capsys.readouterr()
    assert deployed.kafka.password(ADMIN) not in out + err
    return code, out, err
