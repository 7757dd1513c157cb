"""What `deploy/prepare.sh` makes is what compose.yaml mounts, and the Kafka node of compose.yaml starts from it.

The node is started by its own script over its own configuration, with the jars of `sluicegate up --broker kafka`; only
its hosts, ports and folder are others. What stays for a machine with Docker: the images themselves.
"""

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fixtures_broker import need_kafka

from sluicegate.broker import cluster_id, take_port
from sluicegate.kafka_jars import find_java, kafka_jars
from sluicegate.schemas.errors import SluicegateError
from sluicegate.schemas.records import Unsent
from sluicegate.streams.fetch import Security
from sluicegate.streams.kafka import Broker, BrokerConfig

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
START_LIMIT_S = 60.0
TOOLS = {"kafka-storage.sh": "kafka.tools.StorageTool", "kafka-server-start.sh": "kafka.Kafka"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `deploy/` after `prepare.sh`."""
    folder = tmp_path_factory.mktemp("compose")
    shutil.copytree(ROOT / "deploy", folder / "deploy", ignore=shutil.ignore_patterns("secrets", "offline"))
    prepare(folder)
    return folder


def prepare(folder: Path) -> None:
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    subprocess.run([folder / "deploy" / "prepare.sh"], check=True, capture_output=True, env=environment, timeout=120)


def mounted(folder: Path, kind: str) -> dict[str, Path]:
    return {name: folder / each["file"] for name, each in COMPOSE[kind].items()}


def test_everything_that_is_mounted_is_made_once_and_for_its_owner_alone(prepared: Path) -> None:
    files = mounted(prepared, "secrets") | mounted(prepared, "configs")
    made = {name: path.read_bytes() for name, path in files.items()}
    prepare(prepared)
    assert {name: path.read_bytes() for name, path in files.items()} == made, "the second time changes nothing"
    private = [path for name, path in mounted(prepared, "secrets").items() if not name.endswith(".xml")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert (prepared / "deploy" / "offline" / "root.pem").exists()
    assert not list((prepared / "deploy" / "secrets").rglob("root.pem"))
    passwords = {name: text for name, text in made.items() if name.startswith(("kafka.", "clickhouse."))}
    assert len(set(passwords.values())) == len(passwords) > 8
    assert passwords["clickhouse.admin"] not in made["clickhouse-admin.xml"]


@pytest.fixture(scope="module")
def node(prepared: Path) -> Iterator[str]:
    """The address of the OUTSIDE listener of compose.yaml's node."""
    need_kafka()
    work, jars, java = prepared / "work", asyncio.run(asyncio.to_thread(kafka_jars)), find_java()
    (work / "bin").mkdir(parents=True)
    classpath = ":".join(str(jar) for jar in sorted(jars.glob("*.jar")))
    for name, main in TOOLS.items():
        script = work / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{java.path}" -Xmx384m -XX:+UseSerialGC -cp "{classpath}" {main} "$@"\n')
        script.chmod(0o700)
    chosen = {"9092": take_port(0), "9093": take_port(0), "9094": take_port(0)}
    text = (prepared / "deploy" / "kafka" / "server.properties").read_text()
    for port, free in chosen.items():
        text = text.replace(f":{port}", f":{free}")
    text = text.replace("://:", "://127.0.0.1:").replace("kafka:", "127.0.0.1:").replace("localhost", "127.0.0.1")
    (work / "given.properties").write_text(text.replace("/var/lib/kafka/data", str(work / "data")))
    cluster = COMPOSE["services"]["kafka"]["environment"]["CLUSTER_ID"]
    environment = {
        "PATH": os.environ["PATH"], "KAFKA_BIN": str(work / "bin"), "KAFKA_WORK": str(work), "CLUSTER_ID": cluster,
        "KAFKA_SECRETS": str(prepared / "deploy" / "secrets"), "KAFKA_PROPERTIES": str(work / "given.properties"),
    }  # fmt: skip
    log = work / "node.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", prepared / "deploy" / "kafka" / "start.sh"], env=environment, cwd=work, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + START_LIMIT_S
        address = f"127.0.0.1:{chosen['9094']}"
        while not asyncio.run(answers(address, prepared)):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
        assert "Key=" not in log.read_text(), "a credential in the log"
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


async def answers(node: str, prepared: Path) -> bool:
    try:
        await cluster_id(node, timeout_s=1.0, security=security(prepared, "admin"))
    except SluicegateError:
        await asyncio.sleep(0.2)
        return False
    return True


def security(prepared: Path, user: str, password: str | None = None) -> Security:
    secret = (prepared / "deploy" / "secrets" / f"kafka.{user}").read_text() if password is None else password
    return Security(protocol="SASL_PLAINTEXT", mechanism="SCRAM-SHA-512", username=user, password=secret)


def connection(node: str, prepared: Path, user: str, password: str | None = None) -> Broker:
    return Broker(BrokerConfig(bootstrap=node, client_id=f"test-{user}", security=security(prepared, user, password)))


async def test_the_administrator_makes_topics_and_nobody_else_may_do_anything_yet(node: str, prepared: Path) -> None:
    async with connection(node, prepared, "admin") as broker:
        await broker.create_topics({"main.requests": 2}, {"main.requests": {"message.timestamp.type": "LogAppendTime"}})
        assert await broker.append("main.requests", 0, [Unsent(key=b"k", value=b"v")]) == 0
    names = [path.name.removeprefix("kafka.") for path in (prepared / "deploy" / "secrets").glob("kafka.*")]
    assert {"admin", "main.enforcer", "main.publisher", "helpdesk-app"} <= set(names)
    for user in set(names) - {"admin"}:
        async with connection(node, prepared, user) as broker:
            with pytest.raises(SluicegateError, match=r"no partition|right"):
                await broker.append("main.requests", 0, [Unsent(key=b"k", value=b"v")])


async def test_a_wrong_password_and_a_stranger_do_not_come_in(node: str, prepared: Path) -> None:
    for user, password in (("main.enforcer", "guessed-and-long-enough"), ("stranger", "guessed-and-long-enough")):
        with pytest.raises(SluicegateError):
            async with connection(node, prepared, user, password) as broker:
                await broker.end_offset("main.requests", 0)
