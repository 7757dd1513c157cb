"""Two environments, `staging` and `prod`, as two tenants of one broker; and three people with a key each."""

import asyncio
import os
import shutil
import time
from pathlib import Path

import pytest
from deployment import SEALING, Deployment, Host
from fixtures_broker import TENANTS

from sluicegate import cli
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.keys import KeyFolder, KeyKind
from sluicegate.policy_versions import PolicyView, read_policy
from sluicegate.settings import Settings
from sluicegate.streams.kafka import Broker, BrokerConfig
from sluicegate.streams.topology import Topology

PEOPLE = ("ana", "ben", "cleo")
ROLES = """\
bundle:
  threshold: 2
  holders:
    ana: keys/ana.pub
    ben: keys/ben.pub
    cleo: keys/cleo.pub
"""


class House:
    """Where `sluicegate` is typed: a folder with the settings of both environments and the keys of all three."""

    def __init__(self, folder: Path, bootstrap: str) -> None:
        self.folder = folder
        self.environments: dict[str, Deployment] = {}
        (folder / "environments").mkdir(parents=True)
        (folder / "keys").mkdir(mode=0o700)
        for person in PEOPLE:
            made = KeyFolder(folder / "of" / person)
            name = made.new(KeyKind.PUBLISHER)
            shutil.copy(made.file(name), folder / "keys" / f"{person}.pem")
            shutil.copy(made.file(name, ".pub"), folder / "keys" / f"{person}.pub")
        (folder / "roles.yaml").write_text(ROLES)
        for env in ("staging", "prod"):
            self._deploy(env, bootstrap)
        shutil.copytree(self.environments["prod"].publisher.folder / "policies", folder / "policies")

    def _deploy(self, env: str, bootstrap: str) -> None:
        made = Deployment(
            self.folder / "deployed" / env, bootstrap=bootstrap, tenant=f"t{next(TENANTS)}", partitions="1",
            fetch_wait_ms="20", event_time="enforcer", env=env,
        )  # fmt: skip
        made.make_keys()
        for stage in SEALING:
            made.host(stage, stage)
        made.service("helpdesk-app", made.hosts["enforcer"])
        settings = made.publisher.loaded()
        asyncio.run(_create_topics(settings))
        lines = [f"{name}={value}" for name, value in made.publisher.settings.items() if "HOME" not in name]
        (self.folder / "environments" / f"{env}.env").write_text("\n".join(lines))
        assert made.publisher.type("publish") == 0
        self.environments[env] = made

    def type(self, *words: str, **settings: str) -> int:
        """The exit code of a command typed in the folder; what it prints is the caller's to capture."""
        with pytest.MonkeyPatch.context() as patch:
            for name in [each for each in os.environ if each.startswith("SLUICEGATE_")]:
                patch.delenv(name)
            patch.chdir(self.folder)
            for name, value in {"SLUICEGATE_HOME": str(self.folder / "home"), **settings}.items():
                patch.setenv(name, value)
            return cli.main(list(words))

    def settings(self, env: str) -> Settings:
        return self.environments[env].publisher.loaded()

    def view(self, env: str) -> PolicyView:
        return asyncio.run(read_policy(self.settings(env)))

    def installation(self, env: str) -> Installation:
        settings = self.settings(env)
        return Installation(settings, Home(root=settings.home))

    def publisher(self, env: str) -> Host:
        return self.environments[env].publisher


async def _create_topics(settings: Settings) -> None:
    async with Broker(BrokerConfig(bootstrap=settings.bootstrap, client_id="test", fetch_wait_ms=20)) as broker:
        await broker.create_topics(Topology(tenant=settings.tenant, partitions=1).topics)


def until_in_force(house: House, env: str, version: int) -> None:
    """Returns once a bundle's version is in force."""
    deadline = time.monotonic() + 10
    while True:
        found = house.view(env).in_force(Kind.BUNDLE)
        if found is not None and found[0].version == version:
            return
        assert time.monotonic() < deadline
        time.sleep(0.1)
