"""Apache Kafka as `up` and the tests start it: ready or told why not, its log kept, its folder never another's."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fixtures_broker import ADMIN, STRANGER, SecuredKafka, node
from fixtures_stack import alive, until

from sluicegate import kafka_node
from sluicegate.broker import PortInUse, RunningBroker, cluster_id, take_port
from sluicegate.kafka_jars import Java, find_java
from sluicegate.kafka_node import NodeAccess, start_kafka
from sluicegate.schemas.errors import ConfigurationError, SluicegateError, Unavailable
from sluicegate.schemas.records import Unsent
from sluicegate.streams.kafka import Broker, BrokerConfig

PARENT = """
import asyncio, sys
from pathlib import Path
from sluicegate.kafka_node import start_kafka
async def main():
    folder = Path(sys.argv[1])
    started = await start_kafka(port=0, data=folder / "data", log=folder / "log", tmp=folder)
    print(started.child.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def prepared_machine(apache_kafka: str) -> None:
    """Jars and class archive are in the cache, whichever test comes first."""


async def stop(started: RunningBroker) -> None:
    assert await started.child.stop(limit_s=60), "it had to be killed"


def records(bootstrap: str) -> Broker:
    return Broker(BrokerConfig(bootstrap=bootstrap, client_id="test", fetch_wait_ms=20))


async def test_its_log_outlives_it_and_so_does_its_label(tmp_path: Path) -> None:
    labels = iter(["7"])

    async def start() -> RunningBroker:
        return await start_kafka(
            port=0, data=tmp_path / "data", log=tmp_path / "log", tmp=tmp_path, label=lambda: next(labels)
        )

    first = await start()
    assert (first.label, first.fresh) == ("7", True)
    cluster = await cluster_id(first.bootstrap, timeout_s=5)
    async with records(first.bootstrap) as opened:
        await opened.create_topics({"t": 1})
        assert await opened.append("t", 0, [Unsent(key=None, value=b"%d" % n) for n in range(3)]) == 0
    began = time.monotonic()
    await stop(first)
    assert time.monotonic() - began < 10

    second = await start()  # a label asked for again would end in StopIteration
    assert (second.label, second.fresh) == ("7", False)
    assert await cluster_id(second.bootstrap, timeout_s=5) == cluster
    async with records(second.bootstrap) as opened:
        assert [r.value for batch in [b async for b in opened.read("t", 0, start=0)] for r in batch] == [
            b"0",
            b"1",
            b"2",
        ]
        assert await opened.append("t", 0, [Unsent(key=None, value=b"3")]) == 3
    # And what was acknowledged outlives a kill.
    second.child.kill()
    await second.child.wait()
    third = await start()
    async with records(third.bootstrap) as opened:
        assert await opened.end_offset("t", 0) == 4
    await stop(third)
    assert names(tmp_path) == ["data", "log"], "something of a start was left"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def listening(pid: int) -> list[str]:
    """The local addresses, as the kernel writes them, on which a process listens."""
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    ]
    sockets = {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()}
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]


async def test_it_listens_on_loopback_alone(tmp_path: Path) -> None:
    started = await node(tmp_path)
    mine = listening(started.child.pid)
    await stop(started)
    assert len(mine) == 2, "its own port and its controller's"
    # 127.0.0.1 as itself or within IPv6, as the kernel writes them.
    assert {address.rpartition(":")[0] for address in mine} <= {"0100007F", "0000000000000000FFFF00000100007F"}


async def test_a_port_in_use_is_named_and_a_free_one_that_was_lost_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        lost = other.getsockname()[1]
        with pytest.raises(PortInUse, match=rf"port {lost} on .* is in use: stop .* `SLUICEGATE_BROKER_PORT`"):
            await node(tmp_path, port=lost)
        offers = [lost]
        monkeypatch.setattr(kafka_node, "take_port", lambda asked: offers.pop() if offers else take_port(asked))
        started = await node(tmp_path)
    assert offers == []
    assert started.bootstrap != f"127.0.0.1:{lost}"
    await stop(started)


async def test_a_second_node_on_the_same_folder_is_told_and_the_first_goes_on(tmp_path: Path) -> None:
    first = await node(tmp_path)
    with pytest.raises(ConfigurationError, match=r"another node runs on `.*/data`: stop it"):
        await node(tmp_path)
    told = (tmp_path / "broker.log").read_text()
    assert told.count("Performing controller activation") == 1, "the second took up the first one's metadata log"
    assert await cluster_id(first.bootstrap, timeout_s=5)
    assert await first.child.stop(limit_s=30), "the first cannot end by itself"
    second = await node(tmp_path)  # once the first has ended, the folder is free
    second.child.kill()
    await second.child.wait()
    third = await node(tmp_path)  # and a node that was killed holds nothing
    await stop(third)


async def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "letters").write_text("dear")
    with pytest.raises(ConfigurationError, match=r"not a folder that was formatted here"):
        await node(tmp_path)
    assert (data / "letters").read_text() == "dear"
    (data / "letters").unlink()
    started = await node(tmp_path)  # an empty one is taken
    await stop(started)

    card, meta = data / "node.json", data / "log" / "meta.properties"
    genuine = card.read_text(), meta.read_text()
    meta.write_text(re.sub(r"cluster\.id=.*", "cluster.id=sAAAAAAAAAAAAAAAAAAAAA", genuine[1]))
    with pytest.raises(ConfigurationError, match="was formatted by another cluster"):
        await node(tmp_path)
    meta.write_text(genuine[1])
    for bad in ("", "{}", json.dumps({"cluster": "x"}), "[]"):
        card.write_text(bad)
        with pytest.raises(ConfigurationError, match="no whole data folder of a node"):
            await node(tmp_path)
    card.write_text(genuine[0])
    await stop(await node(tmp_path))


def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A machine whose Java is a script, over a folder that is formatted."""
    data = tmp_path / "data"
    (data / "log").mkdir(parents=True)
    (data / "node.json").write_text(json.dumps({"cluster": "sX", "label": ""}))
    (data / "log" / "meta.properties").write_text("cluster.id=sX\n")
    fake_java(tmp_path, monkeypatch, script)


def fake_java(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A Java that is a script. It carries the digest of the real one, so that nothing is made for it in the cache."""
    java = folder / "java"
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o755)
    monkeypatch.setattr(kafka_node, "find_java", lambda: Java(path=java, digest=find_java().digest))


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (
            """echo '{"level":"ERROR","text":"Error while writing","exception":"IOException: No space left on device"}'
            echo '{"level":"ERROR","text":"Shutdown broker because all log dirs have failed"}'; exit 1""",
            r"the disk of `.*/data` is full: free some space",
        ),
        (
            "echo 'java.nio.file.AccessDeniedException: Permission denied'; exit 1",
            r"below `.*/data` belongs to somebody",
        ),
        ("exit 3", r"ended at its start \(exit 3\): it says nothing"),
        (
            "echo 'Exception in thread main: no such class'; echo '    at kafka.Kafka'; exit 1",
            r"\(exit 1\): Exception in thread main: no such class",
        ),
    ],
)
async def test_why_it_ended_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str) -> None:
    prepared(tmp_path, monkeypatch, script)
    with pytest.raises(ConfigurationError, match=why):
        await node(tmp_path)


async def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels: list[str] = []

    def label() -> str:
        labels.append("1")
        return labels[-1]

    script = "echo 'Exception in thread main: no space'; exit 1"
    with monkeypatch.context() as patch:
        fake_java(tmp_path, patch, script)
        with pytest.raises(ConfigurationError, match=r"cannot format its folder \(exit 1\): Exception in thread main"):
            await start_kafka(port=0, data=tmp_path / "data", log=tmp_path / "log", tmp=tmp_path, label=label)
    assert (names(tmp_path), labels) == (["java"], [])
    # As a start that was killed leaves it.
    (tmp_path / ".data-0123" / "log").mkdir(parents=True)
    started = await start_kafka(port=0, data=tmp_path / "data", log=tmp_path / "log", tmp=tmp_path, label=label)
    await stop(started)
    assert (names(tmp_path), labels) == (["data", "java", "log"], ["1"])


async def test_one_that_does_not_answer_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(tmp_path, monkeypatch, f"echo $$ > {tmp_path}/pid; exec sleep 60")
    with pytest.raises(Unavailable, match=r"within 0\.5 s"):
        await start_kafka(port=0, data=tmp_path / "data", log=tmp_path / "log", tmp=tmp_path, ready_timeout_s=0.5)
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not alive(pid))


async def test_a_stranger_on_the_port_is_not_taken_for_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    stranger = await node(tmp_path / "a")
    port = int(stranger.bootstrap.rpartition(":")[2])
    # As if it had come between our look and the bind.
    monkeypatch.setattr(kafka_node, "take_port", lambda asked: asked or take_port(0))
    with pytest.raises(PortInUse):
        await node(tmp_path / "b", port=port)
    assert await cluster_id(stranger.bootstrap, timeout_s=5)
    await stop(stranger)


async def test_with_users_it_asks_who_comes_and_allows_what_an_acl_says(secured_kafka: SecuredKafka) -> None:
    async with Broker(secured_kafka.config(ADMIN)) as admin:
        await admin.create_topics({"vault": 1})
        assert await admin.append("vault", 0, [Unsent(key=None, value=b"x")]) == 0
    with pytest.raises(SluicegateError):
        async with Broker(secured_kafka.config(STRANGER)) as stranger:
            await stranger.append("vault", 0, [Unsent(key=None, value=b"y")])
    open_door = BrokerConfig(bootstrap=secured_kafka.bootstrap, client_id="test", request_timeout_s=3)
    wrong = NodeAccess(users={ADMIN: "guess"}, super_user=ADMIN).security(ADMIN)
    for config in (open_door, BrokerConfig(**{**settings_of(open_door), "security": wrong})):
        with pytest.raises(SluicegateError):
            async with Broker(config):
                pass
    async with Broker(secured_kafka.config(ADMIN)) as admin:
        assert await admin.end_offset("vault", 0) == 1


def settings_of(config: BrokerConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__slots__}


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
async def test_a_password_stands_in_no_argument_log_or_file(tmp_path: Path, mechanism: str) -> None:
    users = {"admin": "ocelot-admin-1", "alice": "ocelot-alice-2"}
    access = NodeAccess(users=users, super_user="admin", mechanism=mechanism)  # type: ignore[arg-type]
    formatting: list[bytes] = []

    async def watch() -> None:
        while True:
            formatting.extend(words for words in command_lines() if str(tmp_path).encode() in words)
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    started = await node(tmp_path, access=access)
    watching.cancel()
    assert await cluster_id(started.bootstrap, timeout_s=5, security=access.security("alice"))
    assert any(b"format.args" in words for words in formatting), "the formatter was not seen"
    assert not [words for words in formatting if b"ocelot" in words]
    left = holding(tmp_path, b"ocelot")
    await stop(started)
    assert left == []


def command_lines() -> list[bytes]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.append((folder / "cmdline").read_bytes())
    return found


def holding(folder: Path, word: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and word in path.read_bytes()]


def test_it_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-P", "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        os.kill(parent.pid, signal.SIGKILL)
    until(lambda: not alive(pid))
