"""Stages of the real stack are killed at any moment: it is told, nothing is lost, and nothing happens twice."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from deliveries import all_delivered
from fixtures_broker import KINDS, need_kafka
from fixtures_stack import (
    COMMAND,
    StackPlace,
    alive,
    ask,
    broker_of,
    effective,
    landed,
    settings_from,
    until,
    whole,
    with_tiny_model,
)

from sluicegate.dev_client import Client
from sluicegate.enforcer.seal import seal_slice
from sluicegate.home import open_home
from sluicegate.installation import Installation
from sluicegate.publish import publish
from sluicegate.readiness import parse_ready
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code, ReleaseOutcome
from sluicegate.schemas.events import DecisionMade, GenerationFinished, ReleaseMade, Verdict
from sluicegate.schemas.ids import EventKey
from sluicegate.schemas.meanings import MEANINGS
from sluicegate.schemas.records import Record, Unsent
from sluicegate.settings import Settings
from sluicegate.sinks.clickhouse import AuditConfig, open_audit
from sluicegate.sinks.question import run_sql
from sluicegate.sinks.rows import Landing, Table
from sluicegate.sinks.sink import Sink
from sluicegate.streams.topology import DELIVERY, ENFORCER, REDACTOR, RUNNER, SINK, Topology
from sluicegate.supervisor import STAGES
from sluicegate.wiring import prepare

SESSION_TIMEOUT_S = 2.0
KILLS = 3
REQUESTS_QUICK = 90
ANSWER_LIMIT_S = 60.0
PEOPLE = ("eva.eng", "ian.intern", "una.both")
SERVICE = "helpdesk-app"
SEED = 20261123


# ---- under the supervisor -------------------------------------------------------------------------------------------


def read_until(process: "subprocess.Popen[str]", text: str) -> str:
    """What the command printed up to the line that holds `text`."""
    assert process.stdout is not None
    said = ""
    while text not in said:
        line = process.stdout.readline()
        assert line, f"it ended before it said `{text}`: {said}"
        said += line
    return said


async def ask_one(place: StackPlace, request_id: str) -> ReleaseMade:
    settings = place.attached()
    async with Client(settings) as client:
        key = await client.submit(ask(request_id), service=SERVICE, person="eva.eng")
        found = await client.release_of(key, ANSWER_LIMIT_S)
    await landed(place, settings)
    return found


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StackPlace]:
    if request.param == "kafka":
        need_kafka()
    found = with_tiny_model(tmp_path, SLUICEGATE_BROKER=request.param)
    try:
        yield found
    finally:
        found.end()


def test_a_killed_stage_ends_the_stack_and_the_next_one_goes_on(place: StackPlace) -> None:
    """The command says which and why, nobody is left behind, and the audit keeps what was before and after.

    The embedded broker's log goes with it, so what follows is another epoch, and told; Apache Kafka's goes on.
    """
    process = place.start("up", "--no-watch")
    read_until(process, "audit ok")
    until(lambda: place.home.running(ready=False).ready)
    first = asyncio.run(ask_one(place, "before-the-kill"))
    assert first.outcome is ReleaseOutcome.RELEASED
    pids = place.pids()
    os.kill(pids["runner"], signal.SIGKILL)
    _, err = process.communicate(timeout=40)
    assert process.returncode == 1
    assert err.startswith("sluicegate: runner died (killed by SIGKILL): ")
    assert f"see `{place.home.logs / 'runner.log'}`" in err
    assert err.count("\n") == 1
    assert [name for name, pid in pids.items() if name != "up" and alive(pid)] == []

    out = place.up()
    epoch = 1 if place.stamped_by_broker else 2
    assert ("the embedded broker starts anew: epoch 2 (the history of earlier epochs stays" in out) == (epoch == 2)
    second = asyncio.run(ask_one(place, "after-the-kill"))
    assert second.outcome is ReleaseOutcome.RELEASED
    rows = place.sql("SELECT epoch, request_id, verdict, outcome, answer FROM asks ORDER BY epoch, offset")
    assert [(row["epoch"], row["request_id"], row["answer"]) for row in rows] == [
        (1, "before-the-kill", first.text),
        (epoch, "after-the-kill", second.text),
    ]
    assert place.sql("SELECT * FROM coverage") == []
    code, out, _ = place.type("down")
    assert (code, out) == (0, "  stopped\n")
    plant_an_inference(place, epoch)


def plant_an_inference(place: StackPlace, epoch: int) -> None:
    """Invariant 1: in this very audit the view names exactly the generation that nobody allowed."""
    with open_audit(AuditConfig(path=place.home.audit)) as database:
        question = "SELECT partition, offset, effective, allows FROM inferences_without_one_allow"
        assert run_sql(database, question).rows == ()
        found = run_sql(
            database, f"SELECT partition, max(offset) FROM generations WHERE epoch = {epoch} GROUP BY partition"
        )
        (partition, last), *_ = found.rows
        topic = "main.generations"
        sink = Sink(database, {topic: Table.GENERATIONS})
        (raw, *_) = database.writer.query(
            f"SELECT hex(value) FROM generations WHERE epoch = {epoch} AND ran AND partition = {partition}"
        ).result_rows
        genuine = codec.decode(bytes.fromhex(str(raw[0])), GenerationFinished)
        planted = replace(genuine, source=replace(genuine.source, offset=77))
        record = Record(
            topic=topic, partition=int(str(partition)), offset=int(str(last)) + 1, timestamp_ms=0, key=b"k",
            value=codec.encode(planted),
        )  # fmt: skip
        sink.land(epoch, topic, record.partition, [Landing(record=record, effective=True)])
        assert run_sql(database, question).rows == ((record.partition, record.offset, 1, 0),)


# ---- stages by hand over a broker that stays ------------------------------------------------------------------------


class Stage:
    """`sluicegate run NAME` in a process of its own, with the whole environment that the supervisor would give it."""

    def __init__(self, name: str, settings: Settings, log: Path) -> None:
        self.name = name
        reader, writer = os.pipe()
        environment = settings.environment() | {
            "SLUICEGATE_READY_FD": str(writer),
            "TMPDIR": str(settings.home / "tmp"),
        }
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*COMMAND, "run", name], env=environment, cwd=settings.home, stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, pass_fds=(writer,), start_new_session=True,
            )  # fmt: skip
        os.close(writer)
        self._ready = os.fdopen(reader)
        self._log = log

    def until_ready(self) -> None:
        line = self._ready.readline()
        assert parse_ready(line) is not None, f"{self.name} is not ready: {self._log.read_text()[-2000:]}"

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._ready.close()


class Line:
    """The four stages over one broker, started and restarted by hand."""

    def __init__(self, place: StackPlace, settings: Settings) -> None:
        self.place = place
        self.settings = settings
        self.stages: dict[str, Stage] = {}

    def start(self, name: str) -> Stage:
        self.stages[name] = Stage(name, self.settings, self.place.home.log_file(name))
        return self.stages[name]

    def kill(self, name: str) -> None:
        self.stages[name].kill()


@pytest.fixture(scope="module", params=KINDS)
def line(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    bootstrap: str = request.getfixturevalue("tansu" if request.param == "embedded" else "apache_kafka")
    place = with_tiny_model(
        tmp_path_factory.mktemp("k"),
        SLUICEGATE_BROKER=request.param,
        SLUICEGATE_TENANT="killed",
        SLUICEGATE_SESSION_TIMEOUT_S=str(SESSION_TIMEOUT_S),
    )
    open_home(place.home.root)
    settings = settings_from(place.settings).attached(bootstrap=bootstrap, epoch=1)

    async def ground() -> None:
        await prepare(settings)
        await publish(
            settings, place.folder / "policies", place.folder / "policies" / "directory.json", development=True
        )

    asyncio.run(ground())
    found = Line(place, settings)
    try:
        for name in STAGES:
            found.start(name)
        for stage in found.stages.values():
            stage.until_ready()
        yield found
    finally:
        for name in found.stages:
            found.kill(name)


async def traffic(client: Client, stop: asyncio.Event, prefix: str, chance: random.Random) -> list[EventKey]:
    """Requests by three people, a few at a time, until told to stop; every seventh is one that nobody may ask."""
    keys: list[EventKey] = []
    while not stop.is_set():
        number = len(keys)
        request = ask(f"{prefix}-{number}", f"Say {number}.", purpose="mischief" if number % 7 == 6 else "writing")
        keys.append(await client.submit(request, service=SERVICE, person=PEOPLE[number % len(PEOPLE)]))
        # Enough to be in flight at every kill; a slow machine makes the test longer, not larger.
        await asyncio.sleep(chance.uniform(0.0, 0.15) if len(keys) < REQUESTS_QUICK else 1.0)
    return keys


async def kill_often(line: Line, name: str, chance: random.Random) -> None:
    """Kills a stage while it works, while it starts, and while it reads back; then leaves it running."""
    for kill in range(KILLS):
        stage = line.stages[name]
        if kill % 3 == 1:
            await asyncio.sleep(chance.uniform(0.2, 3.0))  # it may not be ready yet
        else:
            await asyncio.to_thread(stage.until_ready) if kill else None
            await asyncio.sleep(chance.uniform(0.2, 1.5))
        await asyncio.to_thread(line.kill, name)
        line.start(name)
    await asyncio.to_thread(line.stages[name].until_ready)


async def besiege(line: Line, name: str) -> list[tuple[EventKey, ReleaseMade]]:
    chance = random.Random(f"{SEED}-{name}")
    async with Client(line.settings) as client:
        stop = asyncio.Event()
        sending = asyncio.create_task(traffic(client, stop, name, chance))
        await kill_often(line, name, chance)
        await asyncio.sleep(0.5)
        stop.set()
        keys = await sending
        return [(key, await client.release_of(key, ANSWER_LIMIT_S)) for key in keys]


Count = Counter[tuple[int, int]]


async def count_effective(line: Line) -> dict[str, tuple[Count, Count]]:
    """For each stage: how often each offset of its input was answered, and what stands there to be answered."""
    topology = Topology(tenant=line.settings.tenant, partitions=line.settings.partitions)
    events = {ENFORCER: DecisionMade, RUNNER: GenerationFinished, REDACTOR: ReleaseMade}
    found: dict[str, tuple[Count, Count]] = {}
    async with broker_of(line.settings) as broker:
        for stage, event in events.items():
            answers, inputs = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
            for partition in range(line.settings.partitions):
                for record in await whole(broker, topology.source(stage), partition):
                    inputs[partition, record.offset] += 1
                for record in await effective(broker, line.settings, stage, partition):
                    source = codec.decode(record.value, event).source
                    answers.update((partition, source.offset + step) for step in range(source.count))
            found[stage] = answers, inputs
    return found


async def terminal_releases(line: Line) -> Count:
    """How many effective releases each request has."""
    count = Counter[tuple[int, int]]()
    async with broker_of(line.settings) as broker:
        for partition in range(line.settings.partitions):
            for record in await effective(broker, line.settings, REDACTOR, partition):
                offset = codec.decode(record.value, ReleaseMade).request_offset
                if offset is not None:
                    count[partition, offset] += 1
    return count


def killed_by_hand(line: Line, name: str) -> None:
    released = asyncio.run(besiege(line, name))
    assert len(released) > 20, "too few requests were in flight for this to say anything"
    for number, (_, release) in enumerate(released):
        code = Code.UNKNOWN_PURPOSE if number % 7 == 6 else Code.OK
        assert (release.outcome, release.code) == (MEANINGS[code].outcome, code)
    asyncio.run(landed(line.place, line.settings))
    for stage, (answers, inputs) in asyncio.run(count_effective(line)).items():
        assert answers == inputs, f"{stage} did not answer every input exactly once"
    terminal = asyncio.run(terminal_releases(line))
    assert all(terminal[key.partition, key.offset] == 1 for key, _ in released)
    assert set(terminal.values()) == {1}
    copies = asyncio.run(all_delivered(line.settings, limit_s=ANSWER_LIMIT_S))
    assert name in (DELIVERY, SINK) or set(copies.values()) == {1}, "only a killed delivery repeats"
    place = line.place
    assert place.sql("SELECT * FROM coverage") == []
    assert place.sql("SELECT * FROM inferences_without_one_allow") == []
    (ran,) = place.sql("SELECT countIf(ran) AS n FROM generations WHERE effective")
    (allowed,) = place.sql(f"SELECT countIf(verdict = '{Verdict.ALLOW}') AS n FROM decisions WHERE effective")
    assert ran == allowed
    for table in Table:
        twice = f"SELECT partition, offset FROM {table} GROUP BY partition, offset HAVING count() != 1"
        assert place.sql(twice) == []


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_killed_again_and_again_loses_and_repeats_nothing(line: Line, name: str) -> None:
    """Invariants 1, 3 and 9: the log and the audit, after kills at random moments with requests in flight."""
    began = time.monotonic()
    before = line.stages[name].process.pid
    killed_by_hand(line, name)
    assert line.stages[name].process.pid != before
    assert [each for each in STAGES if line.stages[each].process.poll() is not None] == []
    print(f"{name}: {KILLS} kills in {time.monotonic() - began:.1f} s")


def test_the_same_counts_find_an_output_that_is_there_twice(line: Line) -> None:
    """The control, last of all: a second generation for one decision, truly sealed with the runner's key."""
    for name in (RUNNER, REDACTOR):
        line.kill(name)

    async def double() -> tuple[int, int]:
        settings, signer = line.settings, Installation(line.settings, line.place.home).stage_signer(RUNNER)
        place = Topology(tenant=settings.tenant, partitions=settings.partitions).place(
            RUNNER, env=settings.env, epoch=settings.epoch, partition=0
        )
        async with broker_of(settings) as broker:
            again = (await effective(broker, settings, RUNNER, 0))[-1]
            source = codec.decode(again.value, GenerationFinished).source.offset
            end = await broker.end_offset(place.topic, 0)
            sealed = seal_slice(
                [Unsent(key=again.key, value=again.value or b"")], place=place, at=end, source_first=source,
                source_last=source, time_ms=2**41, policy_position=0, signer=signer,
            )  # fmt: skip
            assert await broker.append(place.topic, 0, sealed) == end
            return source, end

    source, end = asyncio.run(double())
    answers, inputs = asyncio.run(count_effective(line))[RUNNER]
    assert answers - inputs == Counter({(0, source): 1})
    until(lambda: line.place.sql(f"SELECT 1 FROM generations WHERE partition = 0 AND offset = {end}"))
    found = line.place.sql("SELECT stage, problem, first_offset FROM coverage WHERE stage = 'generations'")
    assert found == [{"stage": "generations", "problem": "more than one effective record", "first_offset": source}]
