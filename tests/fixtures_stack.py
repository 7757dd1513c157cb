"""The real embedded stack for tests: `sluicegate` as a person types it, over a data directory of its own."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures_broker import KINDS, need_kafka
from fixtures_model import MODELS, SMOLLM2_WHEEL, Tensors, write_tiny_gguf
from fixtures_model import Settings as ModelSettings

from sluicegate.enforcer.seal import Effective, Verifier
from sluicegate.enforcer.stage_keys import read_stage_keys
from sluicegate.home import Home, StackState
from sluicegate.installation import Installation
from sluicegate.model_runner.build import ensure_built
from sluicegate.schemas.events import Message, Parameters, RequestSubmitted, Role
from sluicegate.schemas.records import Record
from sluicegate.settings import Settings, load_settings
from sluicegate.sinks.clickhouse import AuditConfig
from sluicegate.sinks.serve import asking
from sluicegate.streams.kafka import Broker, BrokerConfig
from sluicegate.streams.topology import Topology

POLICIES = Path(__file__).resolve().parent.parent / "policies"
COMMAND = (sys.executable, "-P", "-m", "sluicegate")
LANDING_LIMIT_S = 30.0
CONTEXT_TOKENS = 2048  # what the engine reserves unless told otherwise
Row = dict[str, Any]


class StackPlace:
    """A folder with a copy of the company's policies and a data directory, where `sluicegate` is typed."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.home = Home(root=folder / "home")
        self.settings = {"SLUICEGATE_HOME": str(self.home.root), "SLUICEGATE_STOP_TIMEOUT_S": "10", **settings}
        self.started: list[subprocess.Popen[str]] = []
        shutil.copytree(POLICIES, folder / "policies")

    def environment(self, **settings: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SLUICEGATE_")}
        return {**kept, **self.settings, **settings}

    def start(self, *words: str, **settings: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [*COMMAND, *words], cwd=self.folder, env=self.environment(**settings), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def type(self, *words: str, **settings: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        process = self.start(*words, **settings)
        out, err = process.communicate(timeout=150)
        return process.returncode, out, err

    def up(self, *words: str) -> str:
        code, out, err = self.type("up", "--detach", "--no-watch", *words)
        assert code == 0, f"the stack did not come up: {out}{err}"
        return out

    @property
    def stamped_by_broker(self) -> bool:
        """Whether a record's stamp is the broker's own, whatever its writer says."""
        return self.settings.get("SLUICEGATE_BROKER") == "kafka"

    def state(self) -> StackState:
        return self.home.running()

    def pids(self) -> dict[str, int]:
        state = self.home.running(ready=False)
        return {"up": state.pid, **{child.name: child.pid for child in state.children}}

    def attached(self) -> Settings:
        """Settings pointed at the stack that runs here."""
        state = self.state()
        return settings_from(self.settings).attached(bootstrap=state.bootstrap, epoch=state.epoch, broker=state.broker)

    def sql(self, query: str) -> list[Row]:
        """The rows of an auditor's question."""
        with asking(AuditConfig(path=self.home.audit)) as auditor:
            found = auditor.sql(query)
        assert not found.more
        return [dict(zip(found.columns, row, strict=True)) for row in found.rows]

    def typed_sql(self, query: str) -> list[Row]:
        """The same question as a person types it."""
        code, out, err = self.type("audit", "sql", query, "--json")
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()]

    def logs(self) -> dict[str, str]:
        return {path.name: path.read_text(errors="replace") for path in self.home.logs.iterdir()}

    def end(self) -> None:
        """Stops what runs, kindly and then not."""
        with contextlib.suppress(Exception):
            self.type("down")
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        owner = self.home.owner() if (self.home.root / "run").is_dir() else None
        if owner:
            with contextlib.suppress(ProcessLookupError):
                os.kill(owner, signal.SIGKILL)


def settings_from(environment: dict[str, str]) -> Settings:
    """The settings of an environment that is not this process's."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [each for each in os.environ if each.startswith("SLUICEGATE_")]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        return load_settings()


def broker_of(settings: Settings, **changes: int) -> Broker:
    """A connection with no limit of ours on what is written: an attacker's."""
    limits = {"batch_bytes_max": 32 * 1024**2, "fetch_bytes_max": 32 * 1024**2, **changes}
    return Broker(BrokerConfig(bootstrap=settings.bootstrap, client_id="test", fetch_wait_ms=20, **limits))


def verifier_of(settings: Settings, stage: str, partition: int) -> Verifier:
    """Tells what `stage` sealed from everything else, by the keys of this installation and nothing of the stack's."""
    keys = read_stage_keys(Installation(settings, Home(root=settings.home)).stage_keys())
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    place = topology.place(stage, env=settings.env, epoch=settings.epoch, partition=partition)
    return Verifier(place, lambda: keys)


async def whole(broker: Broker, topic: str, partition: int) -> list[Record]:
    """Every record of a partition."""
    return [record async for batch in broker.read(topic, partition, start=0) for record in batch]


async def effective(broker: Broker, settings: Settings, stage: str, partition: int) -> list[Record]:
    """What `stage` sealed for where it stands."""
    verifier = verifier_of(settings, stage, partition)
    records = await whole(broker, verifier.place.topic, partition)
    return [record for record in records if isinstance(verifier.verify(record), Effective)]


async def landed(place: StackPlace, settings: Settings) -> None:
    """Returns once every record of the epoch stands in the audit and every request has its release."""
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    deadline = time.monotonic() + LANDING_LIMIT_S
    async with broker_of(settings) as broker:
        while True:
            ends = [
                {"topic": topic, "partition": partition, "records": await broker.end_offset(topic, partition)}
                for topic, count in sorted(topology.audited.items())
                for partition in range(count)
            ]
            there = place.sql(
                " UNION ALL ".join(
                    f"SELECT toString(topic) AS topic, partition, count() AS records FROM {name.partition('.')[2]} "
                    f"WHERE epoch = {settings.epoch} GROUP BY topic, partition"
                    for name in topology.audited
                )
            )
            wanted = [each for each in ends if each["records"]]
            under_way = place.sql(f"SELECT * FROM coverage WHERE epoch = {settings.epoch}")
            if sorted(map(str, wanted)) == sorted(map(str, there)) and not under_way:
                return
            assert time.monotonic() < deadline, f"not landed: {wanted} in the log, {there} in the audit, {under_way}"
            await asyncio.sleep(0.2)


def ask(
    request_id: str,
    question: str = "Say hello.",
    *,
    purpose: str = "writing",
    max_tokens: int | None = 6,
    **changes: Any,
) -> RequestSubmitted:
    """A request that nobody has proved yet; as it stands, `eva.eng` and `ian.intern` may ask it at any hour."""
    fields = {
        "model": "smollm2",
        "messages": (Message(role=Role.USER, content=question),),
        "parameters": Parameters(max_tokens=max_tokens),
        **changes,
    }
    return RequestSubmitted(request_id=request_id, purpose=purpose, **fields)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(claim: Callable[[], object], limit_s: float = 15.0) -> None:
    deadline = time.monotonic() + limit_s
    while not claim():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def with_smollm2(folder: Path, **settings: str) -> StackPlace:
    """A place whose runner finds SmolLM2 built: the graph is made once for all tests."""
    place = StackPlace(
        folder,
        SLUICEGATE_MODEL_SOURCE=str(SMOLLM2_WHEEL),
        SLUICEGATE_LOG_LEVEL="DEBUG",
        SLUICEGATE_SINK_BATCH_WAIT_MS="50",
        **settings,
    )
    if not SMOLLM2_WHEEL.is_file():
        pytest.fail(f"no model at `{SMOLLM2_WHEEL}`: run `make model`")
    built = ensure_built(SMOLLM2_WHEEL, MODELS / "built")
    place.home.models.mkdir(parents=True)
    (place.home.root / "run").mkdir()
    (place.home.models / built.name).symlink_to(built)
    return place


def widened_tiny_model(folder: Path) -> Path:
    """A random two-layer model with the context that the engine reserves."""

    def widen(_: Tensors, settings: ModelSettings) -> None:
        settings["llama.context_length"] = CONTEXT_TOKENS

    return write_tiny_gguf(folder / "tiny.gguf", change=widen)


def with_tiny_model(folder: Path, **settings: str) -> StackPlace:
    """A place whose runner holds a random two-layer model: what matters there is who ran what, not what it said."""
    source = widened_tiny_model(folder)
    return StackPlace(folder, SLUICEGATE_MODEL_SOURCE=str(source), SLUICEGATE_SINK_BATCH_WAIT_MS="50", **settings)


@pytest.fixture(scope="session", params=KINDS)
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackPlace]:
    """One stack on SmolLM2 for every test that leaves it running, on each kind of broker in turn."""
    if request.param == "kafka":
        need_kafka()
    place = with_smollm2(tmp_path_factory.mktemp("s"), SLUICEGATE_BROKER=request.param)
    try:
        place.up()
        yield place
    finally:
        place.end()
