"""A deployment for tests: hosts with data directories and key folders of their own, and nothing shared but a broker."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from fixtures_broker import TENANTS

from sluicegate import cli
from sluicegate.installation import service_key_entry
from sluicegate.keys import KeyFolder, KeyKind
from sluicegate.settings import Settings, load_settings
from sluicegate.streams.kafka import Broker, BrokerConfig
from sluicegate.streams.topology import FRESHNESS, Topology

POLICIES = Path(__file__).resolve().parent.parent / "policies"
SEALING = ("enforcer", "runner", "redactor", "shadow")
COMMAND = (sys.executable, "-P", "-m", "sluicegate")
KILL_LIMIT_S = 15.0


class Host:
    """One machine: a data directory, a key folder and the settings of whoever works there."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.keys = folder / "keys"
        folder.mkdir(parents=True)
        self.settings = {
            "SLUICEGATE_HOME": str(folder / "home"),
            "SLUICEGATE_KEYS_DIR": str(self.keys),
            **{f"SLUICEGATE_{name.upper()}": value for name, value in settings.items()},
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SLUICEGATE_")}
        return {**kept, **self.settings}

    def type(self, *words: str) -> int:
        """The exit code of a command, run in this process; what it prints is the caller's to capture."""
        with pytest.MonkeyPatch.context() as patch:
            for name in [each for each in os.environ if each.startswith("SLUICEGATE_")]:
                patch.delenv(name)
            for name, value in self.settings.items():
                patch.setenv(name, value)
            return cli.main(list(words))

    def loaded(self) -> Settings:
        with pytest.MonkeyPatch.context() as patch:
            for name in [each for each in os.environ if each.startswith("SLUICEGATE_")]:
                patch.delenv(name)
            for name, value in self.settings.items():
                patch.setenv(name, value)
            return load_settings()

    def carry(self, *names: str, to: Sequence["Host"]) -> None:
        """Copies files of the key folder to other hosts."""
        for host in to:
            host.keys.mkdir(mode=0o700, exist_ok=True)
            for name in names:
                shutil.copy(self.keys / name, host.keys / name)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def run(self, stage: str) -> "subprocess.Popen[bytes]":
        """`sluicegate run STAGE` as a process of its own."""
        with self.log(stage).open("ab") as log:
            process = subprocess.Popen(
                [*COMMAND, "run", stage], env=self.environment(), cwd=self.folder, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def end(self) -> None:
        """Stops what was started here, kindly and then not."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(KILL_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Deployment:
    """An offline host with the root key, a publisher's host with the policy, and the stages' hosts."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.settings = settings
        self.hosts: dict[str, Host] = {}
        self.offline = Host(folder / "offline", **settings)
        policies = folder / "publisher" / "policies"
        self.publisher = Host(folder / "publisher", bundle_dir=str(policies), **settings)
        shutil.copytree(POLICIES, policies)
        self.directory = policies / "directory.json"

    def make_keys(self) -> None:
        """Root offline, publisher and freshness on hosts of their own; each trusts the other's public half alone."""
        assert self.publisher.type("keys", "new", "publisher") == 0
        self.publisher.carry("publisher.pub", to=[self.offline])
        self.clock = Host(self.folder / FRESHNESS, **self.settings)
        assert self.clock.type("keys", "new", FRESHNESS) == 0
        self.clock.carry("freshness.pub", to=[self.offline])
        assert self.offline.type("keys", "new", "root") == 0
        self.offline.carry("root.json", to=[self.publisher])

    def host(self, name: str, stage: str, **settings: str) -> Host:
        """A host for one stage, with the root of trust and a key of its own where the stage seals."""
        if stage == FRESHNESS:
            # Its key is older than the root that names it.
            made = self.hosts[name] = self.clock
            made.settings |= {f"SLUICEGATE_{each.upper()}": value for each, value in settings.items()}
        else:
            made = self.hosts[name] = Host(self.folder / name, **{**self.settings, **settings})
        self.offline.carry("root.json", to=[made])
        if stage in SEALING:
            assert made.type("keys", "new", "stage", stage) == 0
            # One of several hosts of a stage: its public half gets a name of its own at the publisher's.
            number = 1 + len(list(self.publisher.keys.glob(f"stage-{stage}*.pub")))
            target = f"stage-{stage}.pub" if number == 1 else f"stage-{stage}~{number}.pub"
            shutil.copy(made.keys / f"stage-{stage}.pub", self.publisher.keys / target)
        return made

    def change_directory(self, **members: object) -> None:
        document = json.loads(self.directory.read_bytes())
        self.directory.write_text(json.dumps({**document, **members}))

    def service(self, name: str, host: Host) -> None:
        """A service with a key on its own host, listed in the directory."""
        assert host.type("keys", "new", "service", name) == 0
        folder = KeyFolder(host.keys, may_make=False)
        entry = service_key_entry(folder, folder.of(KeyKind.SERVICE, name)[0])
        document = json.loads(self.directory.read_bytes())
        self.change_directory(service_keys=[*document["service_keys"], entry])

    def end(self) -> None:
        for host in self.hosts.values():
            host.end()


def embedded_deployment(folder: Path, bootstrap: str) -> Deployment:
    """One on the embedded broker at `bootstrap`, as a tenant of its own: keys, stages' hosts, a service and the topics,
    and nothing published yet.
    """
    made = Deployment(
        folder, bootstrap=bootstrap, tenant=f"t{next(TENANTS)}", partitions="1", fetch_wait_ms="20",
        event_time="enforcer",
    )  # fmt: skip
    made.make_keys()
    for stage in SEALING:
        made.host(stage, stage)
    made.service("helpdesk-app", made.hosts["enforcer"])
    topology = Topology(tenant=made.publisher.loaded().tenant, partitions=1)

    async def create() -> None:
        async with Broker(BrokerConfig(bootstrap=bootstrap, client_id="test", fetch_wait_ms=20)) as broker:
            await broker.create_topics(topology.topics, configs=topology.configs(batch_bytes_max=900_000))

    asyncio.run(create())
    return made
