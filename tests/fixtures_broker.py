"""The embedded broker for a test session, and a tenant of its own for each test: one process, no shared topics."""

import itertools
import subprocess
import time
from collections.abc import Iterator

import pytest

from sluicegate.broker import HOST, take_port, tansu_executable
from sluicegate.streams.kafka import BrokerConfig
from sluicegate.streams.topology import Topology

TENANTS = itertools.count(1)
START_LIMIT_S = 10.0


@pytest.fixture(scope="session")
def tansu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a broker that lives as long as the session."""
    folder = tmp_path_factory.mktemp("tansu")
    port = take_port(0)
    url = f"tcp://{HOST}:{port}"
    command = [str(tansu_executable()), "broker", "--listener-url", url, "--advertised-listener-url", url]
    with (folder / "broker.log").open("wb") as output:
        process = subprocess.Popen(
            [*command, "--storage-engine", "memory://tansu/"],
            env={"NO_COLOR": "1", "TMPDIR": str(folder)},
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while b"ready" not in (folder / "broker.log").read_bytes():
            assert process.poll() is None, (folder / "broker.log").read_text()
            assert time.monotonic() < deadline, "the embedded broker does not start"
            time.sleep(0.02)
        yield f"{HOST}:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def broker_config(tansu: str) -> BrokerConfig:
    return BrokerConfig(bootstrap=tansu, client_id="test", fetch_wait_ms=20)


@pytest.fixture
def topology() -> Topology:
    return Topology(tenant=f"t{next(TENANTS)}", partitions=2)
