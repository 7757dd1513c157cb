"""How many requests the enforcer decides per CPU-second, as a share of raw aiokafka at the same job: `make bench`, or
`python -m bench.enforcer` in an environment that has quixstreams too.

Every contender has a process of its own, and its runs read a topic that is full before they start; CPU time counts from
the end of a run's warm-up. A repeat runs every contender once, one after the other, each repeat begun with another.
"""

import argparse
import asyncio
import importlib.util
import json
import math
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.checks import Expected, faults_of_run
from bench.costs import costs_of
from bench.report import REFERENCE, TITLES, Run, machine, save, summarize, table
from bench.stand import ENV, PARTITIONS, TENANT, Task, bench_settings, broker_config
from bench.tally import Measured
from bench.traffic import MIXES, NOON_MS, REQUESTS_MAX, SHELL, Load, make_load
from sluicegate.broker import start_tansu
from sluicegate.enforcer.seal import StageKey
from sluicegate.enforcer.stage_keys import read_stage_keys
from sluicegate.home import Home, open_home
from sluicegate.installation import Installation
from sluicegate.kafka_node import start_kafka
from sluicegate.publish import publish
from sluicegate.schemas.ids import KeyId
from sluicegate.settings import PASSED_ON, Settings
from sluicegate.streams.kafka import Broker
from sluicegate.streams.topology import ENFORCER
from sluicegate.wiring import prepare

ROOT: Final = Path(__file__).parent.parent
POLICIES: Final = ROOT / "policies"
RESULTS: Final = Path(__file__).parent / "results"
SEALED: Final = frozenset({"faust", "faust-no-proof", "loop", "raw-proof-seals"})
PROVEN: Final = frozenset({"faust", "faust-no-seals", "loop", "raw-proof", "raw-proof-seals"})
FOREVER: Final[Mapping[str, str]] = {"retention.ms": "-1"}  # the stamps are of one noon in the past
PRELOAD_RECORDS: Final = 200
STOP_S: Final = 5.0
RUN_LIMIT_S: Final = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure."""

    mixes: Sequence[str]
    contenders: Sequence[str]
    broker: str
    events: int
    warm_up: int
    repeats: int

    def order(self, mix: str, repeat: int) -> list[str]:
        """The contenders of a repeat, each time begun with another one. A gate that decides nothing proves nothing."""
        able = [name for name in self.contenders if mix != SHELL or name not in PROVEN]
        turn = repeat * max(1, len(able) // max(1, self.repeats)) % len(able)
        return [*able[turn:], *able[:turn]]


class Workers:
    """One process for each contender, started when it is first asked for; it waits on its input between its runs."""

    def __init__(self, logs: Path, scratch: Path) -> None:
        """`scratch`: where they run, for Faust and quixstreams leave folders where they are started."""
        self._logs = logs
        self._scratch = scratch
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def measure(self, task: Task) -> tuple[Measured | None, str]:
        """What the contender's process measured, or why it did not."""
        log = self._logs / f"{task.contender}.log"
        process = self._running.get(task.contender) or await self._start(task.contender, log)
        assert process.stdin is not None and process.stdout is not None  # noqa: PT018 - both are pipes
        process.stdin.write(json.dumps(asdict(task)).encode() + b"\n")
        try:
            line = await asyncio.wait_for(process.stdout.readline(), RUN_LIMIT_S)
        except TimeoutError:
            await self._end(task.contender)
            return None, f"it did not finish within {RUN_LIMIT_S:g} s"
        if not line:
            await self._end(task.contender)
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no error text"]
            return None, f"its process ended: {lines[-1]}"
        return Measured(**json.loads(line)), ""

    async def _start(self, contender: str, log: Path) -> asyncio.subprocess.Process:
        with log.open("ab") as errors:
            self._running[contender] = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "bench.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                cwd=self._scratch,
                env={name: os.environ[name] for name in PASSED_ON if name in os.environ} | {"PYTHONPATH": str(ROOT)},
            )
        return self._running[contender]

    async def _end(self, contender: str) -> None:
        process = self._running.pop(contender)
        if process.returncode is None:
            process.kill()
        await process.wait()

    async def stop(self) -> None:
        """Ends them all."""
        for contender in list(self._running):
            await self._end(contender)


class Bench:
    """An embedded broker with the example company's policy, and full request topics."""

    def __init__(self, settings: Settings, broker: Broker, workers: Workers, plan: Plan) -> None:
        self._workers = workers
        self._settings = settings
        self._broker = broker
        self._plan = plan
        self._loads: dict[str, Load] = {}
        self._installation = Installation(settings, Home(root=settings.home))

    async def fill(self) -> None:
        """Publishes the policy and fills a topic for each mix."""
        await prepare(self._settings)
        await publish(self._settings, POLICIES, POLICIES / "directory.json", development=True)
        for mix in self._plan.mixes:
            topic = f"{TENANT}.requests-{mix}"
            total = self._plan.warm_up + self._plan.events
            load = make_load(mix, total, topic=topic, partitions=PARTITIONS, env=ENV, installation=self._installation)
            await self._broker.create_topics({topic: PARTITIONS}, {topic: FOREVER})
            for partition, unsent in load.partitions.items():
                for start in range(0, len(unsent), PRELOAD_RECORDS):
                    batch = unsent[start : start + PRELOAD_RECORDS]
                    await self._broker.append(topic, partition, batch, timestamp_ms=NOON_MS)
            self._loads[mix] = load

    async def run(self, mix: str, contender: str, repeat: int, *, profile: str = "") -> Run:
        """Runs one contender once over the whole load of a mix and looks at every decision it made."""
        load, keys = self._loads[mix], self._stage_keys() if contender in SEALED else None
        output = f"{TENANT}.decisions-{mix}-{contender}-{repeat}{'-profile' if profile else ''}"
        await self._broker.create_topics({output: PARTITIONS}, {output: FOREVER})
        task = Task(
            contender=contender,
            home=str(self._settings.home),
            bootstrap=self._settings.bootstrap,
            source=load.topic,
            output=output,
            warm_up=self._plan.warm_up,
            total=load.count,
            broker=self._plan.broker,
            light=mix == SHELL,
            profile=profile,
        )
        measured, fault = await self._workers.measure(task)
        if measured is None:
            return Run(mix=mix, contender=contender, repeat=repeat, measured=None, faults=(fault,))
        counts = {partition: len(unsent) for partition, unsent in load.partitions.items()}
        faults = await faults_of_run(self._broker, output, Expected(counts=counts, keys=keys))
        return Run(mix=mix, contender=contender, repeat=repeat, measured=measured, faults=tuple(faults))

    def _stage_keys(self) -> Mapping[KeyId, StageKey]:
        keys = read_stage_keys(self._installation.stage_keys())
        return {key_id: key for key_id, key in keys.items() if key.stage == ENFORCER}


@asynccontextmanager
async def running_broker(kind: str, home: Home) -> AsyncIterator[str]:
    """The address of a broker of this bench's own: `embedded` or `kafka`."""
    if kind == "kafka":
        broker = await start_kafka(port=0, data=home.root / "kafka", log=home.log_file("broker"), tmp=home.tmp)
    else:
        broker = await start_tansu(port=0, log=home.log_file("broker"), folder=home.run, tmp=home.tmp)
    try:
        yield broker.bootstrap
    finally:
        await broker.child.stop(limit_s=STOP_S)


async def measure(plan: Plan, console: Console, *, profile: bool) -> list[Run]:
    """Runs the plan on a broker of its own; with `profile`, the enforcer once more under cProfile, which is shown."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluicegate-bench-")))
        home = open_home(folder / "home")
        bootstrap = await stack.enter_async_context(running_broker(plan.broker, home))
        settings = bench_settings(home=home.root, bootstrap=bootstrap, kind=plan.broker)
        broker = await stack.enter_async_context(Broker(broker_config(settings, "bench")))
        workers = Workers(home.logs, home.tmp)
        stack.push_async_callback(workers.stop)
        bench = Bench(settings, broker, workers, plan)
        await bench.fill()
        runs: list[Run] = []
        columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            wanted = [
                (repeat, mix, contender)
                for repeat in range(plan.repeats)
                for mix in plan.mixes
                for contender in plan.order(mix, repeat)
            ]
            bar = progress.add_task("", total=len(wanted))
            for repeat, mix, contender in wanted:
                progress.update(bar, description=f"{mix} {contender}")
                runs.append(await bench.run(mix, contender, repeat))
                progress.advance(bar)
        if profile:
            for mix in plan.mixes:
                path = folder / f"{mix}.profile"
                await bench.run(mix, "faust", plan.repeats, profile=str(path))
                console.print(costs_of(path, title=f"costs of (a), mix `{mix}`, by cProfile (it favours C code)"))
        return runs


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.enforcer", description="CPU cost of the enforcer, by parts")
    parser.add_argument("--events", type=int, default=1500, help="requests measured in a run (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each contender (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="600 events, one repeat: does it run, roughly how fast")
    parser.add_argument("--broker", choices=("kafka", "embedded"), default="kafka", help="default: %(default)s")
    parser.add_argument("--mix", choices=MIXES, action="append", help="one mix only")
    parser.add_argument("--only", choices=tuple(TITLES), action="append", help="these contenders, and the reference")
    parser.add_argument("--profile", action="store_true", help="also show what the enforcer spends its time on")
    parser.add_argument("--no-save", action="store_true", help="leave the results folder alone")
    found = parser.parse_args(arguments)
    if not 500 <= found.events <= REQUESTS_MAX // 2 or not 1 <= found.repeats <= 100:
        parser.error(f"--events is 500 to {REQUESTS_MAX // 2}, --repeats 1 to 100")
    return found


def main(arguments: Sequence[str]) -> int:
    """Measures, shows and saves; 1 where a contender's decisions were not what they must be."""
    options, console = parse(arguments), Console()
    only = {*(options.only or TITLES), REFERENCE}
    if importlib.util.find_spec("quixstreams") is None:
        only.discard("quix")
        console.print("quixstreams is not installed here: `make bench` measures it too")
    plan = Plan(
        mixes=options.mix or MIXES,
        contenders=tuple(name for name in TITLES if name in only),
        broker=options.broker,
        events=600 if options.quick else options.events,
        warm_up=math.ceil((600 if options.quick else options.events) / 5),
        repeats=1 if options.quick else options.repeats,
    )
    before = os.getloadavg()[0]
    runs = asyncio.run(measure(plan, console, profile=options.profile))
    about = machine()
    console.print(
        f"{about['cpu']}, {about['cores']} cores, Python {about['python']}; load average {before:.1f} before, "
        f"{os.getloadavg()[0]:.1f} after; {plan.events} requests a run, {plan.repeats} runs each, medians"
    )
    for mix in plan.mixes:
        console.print(table(summarize(runs, mix)[0], mix))
    for run in runs:
        for fault in run.faults:
            console.print(f"{run.mix} {run.contender}, run {run.repeat + 1}: {fault}", style="red", markup=False)
    if not options.no_save:
        path = RESULTS / f"enforcer-{plan.broker}-{datetime.now(UTC):%Y-%m-%d}.json"
        load = (before, os.getloadavg()[0])
        save(path, runs, broker=plan.broker, events=plan.events, warm_up=plan.warm_up, load=load)
        console.print(f"raw numbers: {path.relative_to(ROOT)}")
    return 1 if any(run.faults for run in runs) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
