"""An imported file becomes an event on a real broker, and the gate's own fold has it in force within a second."""

import asyncio
import time
from pathlib import Path

import pytest
from deployment import Deployment, embedded_deployment

from sluicegate.directory_publish import change_in_force
from sluicegate.enforcer.directory_import import read_csv
from sluicegate.enforcer.directory_merge import import_change
from sluicegate.enforcer.state import PolicyLog, Rules
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.policy_writer import policy_writer
from sluicegate.streams.kafka import Broker, BrokerConfig
from sluicegate.streams.policy_tail import PolicyTail
from sluicegate.streams.topology import Topology

IN_FORCE_LIMIT_S = 1.0
NEW = 'User::"new.person"'


@pytest.fixture
def deployment(tansu: str, tmp_path: Path) -> Deployment:
    return embedded_deployment(tmp_path, tansu)


def test_a_file_is_shown_published_and_refused(
    deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host, file = deployment.publisher, tmp_path / "people.csv"
    file.write_text("id,roles,purposes\nnew.person,finance,invoice\n")
    words = ("directory", "import", str(file))
    assert host.type(*words, "--publish") == 2, "there is no directory yet"
    assert host.type("publish") == 0
    capsys.readouterr()
    assert host.type(*words, "--dry-run") == 0
    assert f"+ {NEW}" in capsys.readouterr().out
    assert host.type(*words, "--publish", "--key", str(deployment.hosts["enforcer"].keys / "stage-enforcer.pem")) == 1
    assert host.type(*words, "--publish") == 0
    assert "published directory v2" in capsys.readouterr().err
    assert host.type(*words, "--publish") == 0
    assert "0 new, 0 changed, 0 removed" in capsys.readouterr().err
    time.sleep(1.0)  # in force half a second after it was stamped, as the broker's lead allows
    assert host.type("directory", "show") == 0
    shown = capsys.readouterr()
    assert '"id":"new.person"' in shown.out
    assert "directory v2 sha256:" in shown.err
    assert host.type("directory", "show", "--at", "yesterday") == 2


def test_one_directory_change_is_in_force_within_a_second(deployment: Deployment) -> None:
    assert deployment.publisher.type("publish") == 0
    settings = deployment.publisher.loaded()
    installation = Installation(settings, Home(root=settings.home))
    listing = read_csv(b"id,roles,purposes\nnew.person,finance,invoice\n", kind="User", file="f.csv")

    async def run() -> float:
        async with Broker(BrokerConfig(bootstrap=settings.bootstrap, client_id="test", fetch_wait_ms=20)) as broker:
            state = PolicyLog(domain=installation.domain, root_digest=installation.root_digest())
            tail = PolicyTail(broker, topic=Topology(tenant=settings.tenant, partitions=1).policy, state=state)
            await tail.start(timeout_s=10)
            found, _ = await change_in_force(
                settings,
                lambda before, bundle: import_change(listing, "User", before, bundle, file="f.csv", prune=False),
                publish=False,
            )
            async with policy_writer(settings, installation) as writer:
                rules = state.at(time.time_ns() // 1_000_000)
                assert isinstance(rules, Rules) and not rules.judging.directory.has(NEW)  # noqa: PT018 - one fact
                start = time.monotonic()
                await writer.change_directory(found.content)
                async with asyncio.timeout(10):
                    while True:
                        rules = state.at(time.time_ns() // 1_000_000)
                        if isinstance(rules, Rules) and rules.judging.directory.has(NEW):
                            break
                        await asyncio.sleep(0.005)
                took_s = time.monotonic() - start
            await tail.stop()
            return took_s

    took_s = asyncio.run(run())
    assert 0 < took_s < IN_FORCE_LIMIT_S, f"in force after {took_s:.3f} s"
