"""`up`, `down` and `status` as a person types them, over a real broker and stages in miniature."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fixtures_broker import KINDS, need_kafka

from sluicegate.streams.kafka import Broker, BrokerConfig

# Stands in for `sluicegate.wiring` and `sluicegate.publish` in every process of the stack: a policy is a line.
SITE = """
import asyncio, os, signal, sys, types
from dataclasses import dataclass
from pathlib import Path

wiring = types.ModuleType("sluicegate.wiring")
async def prepare(settings):
    from aiokafka import AIOKafkaProducer
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic("prepared", 1, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap)
    await producer.start()
    await producer.send_and_wait("prepared", b"1", partition=0)
    await producer.stop()
async def run_stage(name, settings):
    from sluicegate.readiness import report_ready
    from sluicegate.schemas.errors import ConfigurationError
    clocks = {"embedded": "enforcer", "kafka": "broker"}
    assert settings.epoch >= 1 and settings.event_time == clocks[settings.broker]
    assert os.environ["TMPDIR"] == str(settings.home / "tmp")
    if os.environ.get("SLUICEGATE_MODEL_SOURCE") == "gone" and name == "runner":
        raise ConfigurationError("no model at `gone`")
    report_ready(settings.ready_fd, "SmolLM2-135M cpu" if name == "runner" else "")
    while True:
        await asyncio.sleep(0.05)
        if name == "redactor" and (settings.home / "bug").exists():
            raise KeyError("MARA-LIND")
wiring.prepare, wiring.run_stage = prepare, run_stage
sys.modules["sluicegate.wiring"] = wiring

publishing = types.ModuleType("sluicegate.publish")
@dataclass
class Published:
    version: int
    digest: str
    policies: int
    directory_version: int
    changed: bool
seen = []
async def publish(settings, bundle_dir, directory_path, *, development):
    assert development
    from sluicegate.schemas.errors import InvalidBundle
    lines = (bundle_dir / "a.cedar").read_text().splitlines()
    if "typo" in lines:
        raise InvalidBundle(("a.cedar L1: unexpected `typo`", "a.cedar L2: no\\nsuch role"))
    changed = not seen or seen[-1] != lines
    if changed:
        seen.append(lines)
    return Published(len(seen), "sha256:4be1" + "0" * 60, len(lines), 1, changed)
publishing.publish = publish
sys.modules["sluicegate.publish"] = publishing
"""


class Place:
    """A folder with a bundle, where `sluicegate` is typed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []
        (folder / "policies").mkdir()
        (folder / "policies" / "a.cedar").write_text("permit one\npermit two\n")
        (folder / "policies" / "directory.json").write_text("[]")
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(SITE)

    @property
    def home(self) -> Path:
        return self.folder / ".sluicegate"

    def environment(self, settings: dict[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SLUICEGATE_")}
        return {**kept, "PYTHONPATH": str(self.folder / "site"), **settings}

    def start(self, *words: str, **settings: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-P", "-m", "sluicegate", *words]
        process = subprocess.Popen(
            command, cwd=self.folder, env=self.environment(settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def type(self, *words: str, **settings: str) -> tuple[int, str, str]:
        process = self.start(*words, **settings)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def pids(self) -> list[int]:
        """The processes of the stack that runs, its supervisor first."""
        found = json.loads((self.home / "run" / "state.json").read_text())
        return [found["pid"], *(child["pid"] for child in found["children"])]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(claim: Callable[[], object], limit_s: float = 8.0) -> None:
    deadline = time.monotonic() + limit_s
    while not claim():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def read_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path)
    yield found
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(found.pids()[0], signal.SIGKILL)
    for process in found.started:
        process.kill()
        process.communicate()


STATUS_LINE = (
    "  sluicegate up: broker ok  policy v1 sha256:4be1.. (2 policies)  gate ok  freshness ok  "
    "runner SmolLM2-135M cpu ok  redactor ok  delivery ok  audit ok\n"
)


BROKERS = {"embedded": "embedded (in memory)", "kafka": "Apache Kafka (log kept)"}


@pytest.mark.parametrize("kind", KINDS)
def test_detached_it_comes_up_is_seen_and_goes_down(place: Place, kind: str) -> None:
    if kind == "kafka":
        need_kafka()
    assert place.type("status") == (1, f"  no stack runs in `{place.home}`: start it with `sluicegate up`\n", "")
    assert place.type("up", "--detach") == (0, STATUS_LINE, "")
    pids = place.pids()
    assert len(pids) == 8

    code, out, _ = place.type("status")
    assert code == 0
    assert re.search(rf"stack +ready +pid {pids[0]} ", out)
    assert re.search(r"broker +127\.0\.0\.1:\d+ +embedded \(in memory\) +epoch 1\n", out)
    assert re.search(r"runner +ready SmolLM2-135M cpu +pid \d+", out)

    # Whoever asks again has it; in the foreground there is no second one.
    again = f"a stack runs already in `{place.home}` (pid {pids[0]}): `sluicegate status` shows it, "
    assert place.type("up", "--detach") == (0, f"  {again}`sluicegate down` stops it\n", "")
    assert place.type("up") == (1, "", f"sluicegate: {again}`sluicegate down` stops it\n")

    assert place.type("down") == (0, "  stopped\n", "")
    assert [pid for pid in pids[1:] if alive(pid)] == []
    until(lambda: not alive(pids[0]))
    assert place.type("down")[0] == 0


def test_on_apache_kafka_a_killed_stack_goes_on_with_its_log_and_a_new_folder_is_a_new_epoch(place: Place) -> None:
    need_kafka()
    kafka = {"SLUICEGATE_BROKER": "kafka"}
    assert place.type("up", "--detach", **kafka) == (0, STATUS_LINE, "")
    pids = place.pids()
    os.kill(pids[0], signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in pids))
    assert place.type("up", "--detach", **kafka) == (0, STATUS_LINE, "")
    state = json.loads((place.home / "run" / "state.json").read_text())
    assert (state["epoch"], state["broker"]) == (1, "kafka")
    # A record of the first run stands before the one of the second.
    assert asyncio.run(end_of("prepared", state["bootstrap"])) == 2
    assert place.type("down")[0] == 0

    # Another log in the same home is another epoch, and the first one keeps its own.
    said = "  the embedded broker starts anew: epoch 2 (the history of earlier epochs stays in the audit)\n"
    assert place.type("up", "--detach") == (0, said + STATUS_LINE, "")
    assert place.type("down")[0] == 0
    assert place.type("up", "--detach", **kafka) == (0, STATUS_LINE, "")
    assert json.loads((place.home / "run" / "state.json").read_text())["epoch"] == 1
    assert place.type("down")[0] == 0
    (place.home / "kafka").rename(place.folder / "moved")
    said = "  Apache Kafka starts with an empty log: epoch 3 (the history of earlier epochs stays in the audit)\n"
    assert place.type("up", "--detach", **kafka) == (0, said + STATUS_LINE, "")
    assert place.type("down")[0] == 0

    # A log of another home: its epoch 1 is not ours.
    (place.home / "epoch").unlink()
    code, _, err = place.type("up", **kafka)
    assert (code, "says epoch `3` and" in err, "another data directory" in err) == (2, True, True)
    assert err.count("\n") == 1


async def end_of(topic: str, bootstrap: str) -> int:
    async with Broker(BrokerConfig(bootstrap=bootstrap, client_id="test")) as broker:
        return await broker.end_offset(topic, 0)


def test_an_edit_is_published_on_save_and_a_wrong_one_is_told(place: Place) -> None:
    process = place.start("up")
    assert read_line(process) == STATUS_LINE
    bundle = place.folder / "policies" / "a.cedar"
    time.sleep(0.5)
    bundle.write_text("permit one\n")
    assert read_line(process) == "  published: policy v2 sha256:4be1.. (1 policies), directory v1\n"
    bundle.write_text("typo\n")
    assert read_line(process) == "  policy not published: a.cedar L1: unexpected `typo`\n"
    assert read_line(process) == "  policy not published: a.cedar L2: no such role\n"
    assert read_line(process) == "  policy v2 stays in force\n"
    until(lambda: "last edit not published: a.cedar L1" in place.type("status")[1])
    bundle.write_text("permit one\npermit two\n")
    assert "policy v3 " in read_line(process)
    assert "not published" not in place.type("status")[1]
    pids = place.pids()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10) == ("  stopped\n", "")
    assert process.returncode == 0
    assert [pid for pid in pids if alive(pid)] == []


def test_a_stage_that_cannot_start_is_told_in_one_line(place: Place) -> None:
    code, out, err = place.type("up", "--detach", SLUICEGATE_MODEL_SOURCE="gone")
    assert code == 1
    assert out == "  sluicegate up: broker ok  policy v1 sha256:4be1.. (2 policies)  gate ok  freshness ok\n"
    assert err.startswith("sluicegate: runner died (exit 2): no model at `gone`; see `")
    assert err.count("\n") == 1
    code, out, _ = place.type("status")
    assert code == 1
    assert "(the last one ended: runner died (exit 2): no model at `gone`; see `" in out


def test_a_bug_in_a_stage_ends_the_stack_and_shows_no_content(place: Place) -> None:
    process = place.start("up")
    assert read_line(process) == STATUS_LINE
    (place.home / "bug").touch()
    _, err = process.communicate(timeout=10)
    assert process.returncode == 1
    assert err.startswith("sluicegate: redactor died (exit 1): unexpected exception: KeyError; see `")
    log = (place.home / "logs" / "redactor.log").read_text()
    assert '"frames"' in log
    assert "MARA-LIND" not in log + err


def test_a_policy_that_is_wrong_from_the_start_starts_nothing(place: Place) -> None:
    (place.folder / "policies" / "a.cedar").write_text("typo\n")
    code, _, err = place.type("up")
    assert (code, err) == (1, "sluicegate: a.cedar L1: unexpected `typo`; a.cedar L2: no such role\n")
    assert not (place.home / "logs" / "enforcer.log").exists()


@pytest.mark.parametrize(
    ("words", "settings", "says"),
    [
        (("--bundle", "nowhere"), {}, "no bundle at `nowhere`: name its folder with `--bundle`"),
        ((), {"SLUICEGATE_DISK_FREE_MB_MIN": "1000000"}, "MB left, 1000000 are needed"),
        ((), {"SLUICEGATE_PARTITION": "3"}, "did you mean `SLUICEGATE_PARTITIONS`?"),
        ((), {"SLUICEGATE_HOME": "policies"}, "holds other things than a stack's data"),
        (
            (),
            {"SLUICEGATE_BROKER": "kafka", "PATH": "/nowhere"},
            "there is no `java`: install it (Debian and Ubuntu: `apt-get install openjdk-17-jre-headless maven`)",
        ),
        (
            ("--broker", "kafka"),
            {"SLUICEGATE_BOOTSTRAP": "127.0.0.1:1"},
            "names a broker at `127.0.0.1:1`: unset it, or leave `--broker` out",
        ),
    ],
)
def test_what_is_wrong_is_told_before_anything_starts(
    place: Place, words: tuple[str, ...], settings: dict[str, str], says: str
) -> None:
    code, out, err = place.type("up", *words, **settings)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
    assert not (place.home / "logs" / "broker.log").exists()


def test_a_port_in_use_is_told_and_a_killed_stack_starts_anew(place: Place) -> None:
    assert place.type("up", "--detach", "--no-watch")[0] == 0
    pids = place.pids()
    (place.folder / "policies" / "a.cedar").write_text("permit one\n")
    state = json.loads((place.home / "run" / "state.json").read_text())
    port = state["bootstrap"].rpartition(":")[2]
    code, _, err = place.type("up", SLUICEGATE_HOME="other", SLUICEGATE_BROKER_PORT=port)
    assert (code, f"port {port} on 127.0.0.1 is in use" in err) == (2, True)
    assert "(2 policies)" in place.type("status")[1], "it published without being told to watch"
    os.kill(pids[0], signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in pids))
    code, out, _ = place.type("up", "--detach")
    said = "  the embedded broker starts anew: epoch 2 (the history of earlier epochs stays in the audit)\n"
    assert (code, out) == (0, said + STATUS_LINE.replace("2 policies", "1 policies"))
    assert place.type("down")[0] == 0
