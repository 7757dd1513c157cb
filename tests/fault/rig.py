"""The fault rig: a node of Apache Kafka, two workers a stage as real processes, and what is done to them.

Workers are restarted when they end, as any service manager does; how often one ended by itself, and with which words,
is counted. All choices come from one seed.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fixtures_broker import node
from fixtures_stack import COMMAND, StackPlace, settings_from

from sluicegate.broker import RunningBroker
from sluicegate.settings import Settings
from sluicegate.streams.topology import DELIVERY, ENFORCER, FRESHNESS, REDACTOR, RUNNER

STAGES = (ENFORCER, FRESHNESS, RUNNER, REDACTOR, DELIVERY)
WORKERS = 2
WORKERS_MAX = 3
SESSION_TIMEOUT_S = 3.0
FROZEN_S = SESSION_TIMEOUT_S + 1.0
BROKER_DOWN_S = 1.5
READY_LIMIT_S = 90.0
WATCH_S = 0.2
SAYS = "sluicegate: "
BROKER_AWAY = ("the broker did not ", "the worker did not start (KafkaConnectionError)")
"""The one reason for which a worker may end by itself: it was started while there was no broker."""
NAMED = (RUNNER, REDACTOR)
"""Stages whose workers have a name of their own (static membership); the others do without."""
FAULTS = {"kill": 9, "freeze": 6, "join": 4, "leave": 4, "broker": 2}
"""What is done, and how often in 25."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A worker that ended and was not told to."""

    stage: str
    code: int
    words: str


class Worker:
    """`sluicegate run STAGE` in a process of its own."""

    def __init__(self, stage: str, name: str, settings: Settings, log: Path) -> None:
        self.stage, self.name, self.log = stage, name, log
        self.frozen = False
        self.leaving = False
        self._log_start = log.stat().st_size if log.exists() else 0
        reader, writer = os.pipe()
        own = {
            "SLUICEGATE_READY_FD": str(writer),
            "SLUICEGATE_LOG_LEVEL": "DEBUG",
            "TMPDIR": str(settings.home / "tmp"),
            **({"SLUICEGATE_INSTANCE_ID": name} if stage in NAMED else {}),
        }
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*COMMAND, "run", stage], env=settings.environment() | own, cwd=settings.home,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=(writer,), start_new_session=True,
            )  # fmt: skip
        os.close(writer)
        self._ready = os.fdopen(reader)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def until_ready(self) -> bool:
        """Whether it said so; it may be killed meanwhile."""
        return bool(self._ready.readline())

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def words(self) -> str:
        """What it said last on its way out, of this run alone."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            said = [line for line in file.read().decode(errors="replace").splitlines() if line.startswith(SAYS)]
        return said[-1].removeprefix(SAYS) if said else ""

    def end(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait()
        self._ready.close()


@dataclass
class Rig:
    """Everything that runs; `async with` starts and ends it."""

    place: StackPlace
    folder: Path
    seed: int
    stages: tuple[str, ...] = STAGES
    done: Counter[str] = field(default_factory=Counter)
    ended: list[Ended] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    began_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.broker: RunningBroker | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching = False
        self._number = 0

    @property
    def settings(self) -> Settings:
        return settings_from(self.place.settings)

    async def start_broker(self) -> None:
        """On the same port over the same data, so that clients find it again."""
        port = 0 if self.broker is None else int(self.broker.bootstrap.rpartition(":")[2])
        self.broker = await node(self.folder / "kafka", port=port)
        self.place.settings["SLUICEGATE_BOOTSTRAP"] = self.broker.bootstrap

    async def start(self) -> None:
        """Two workers a stage; returns when all are ready."""
        for stage in self.stages:
            for _ in range(WORKERS):
                self.add(stage)
        async with asyncio.timeout(READY_LIMIT_S):
            for worker in self.workers:
                assert await asyncio.to_thread(worker.until_ready), f"{worker.name} is not ready: {worker.words()}"
        self._watching = True
        self._spawn(self._watch())

    def add(self, stage: str, name: str | None = None) -> None:
        if name is None:
            self._number += 1
            name = f"{stage}-{self._number}"
        self.workers.append(Worker(stage, name, self.settings, self.place.home.logs / f"{name}.log"))

    def _spawn(self, body: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(body)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self) -> None:
        """The service manager: what ends is started again, unless it was told to leave."""
        while self._watching:
            for worker in [each for each in self.workers if not each.running]:
                self._replace(worker)
            await asyncio.sleep(WATCH_S)

    def _replace(self, worker: Worker) -> None:
        self.workers.remove(worker)
        code = worker.process.returncode
        worker.end()
        if worker.leaving:
            if code not in (0, -signal.SIGTERM):  # the second: told before it listened
                self.ended.append(Ended(stage=worker.stage, code=code, words=f"told to leave: {worker.words()}"))
            return
        if code != -signal.SIGKILL:
            self.ended.append(Ended(stage=worker.stage, code=code, words=worker.words()))
        self.add(worker.stage, worker.name)

    # ---- faults -----------------------------------------------------------------------------------------------------

    def plan(self, faults: int) -> list[str]:
        """Every kind at least once, in the shares of `FAULTS`."""
        shares = [kind for kind, share in FAULTS.items() for _ in range(share)]
        plan = [*FAULTS, *(self.chance.choice(shares) for _ in range(faults - len(FAULTS)))]
        self.chance.shuffle(plan)
        return plan

    async def do(self, kind: str) -> None:
        """One fault; what needs time to take its course takes it beside the next ones."""
        match kind:
            case "kill":
                self.pick(lambda each: not each.frozen).signal(signal.SIGKILL)
            case "freeze":
                self._spawn(self._freeze(self.pick(lambda each: not each.frozen)))
            case "join":
                few = [stage for stage in self.stages if self.count(stage) < WORKERS_MAX]
                if not few:
                    await self.do("leave")
                    return
                self.add(self.chance.choice(few))
            case "leave":
                many = [stage for stage in self.stages if self.count(stage) > 1]
                if not many:
                    await self.do("join")
                    return
                worker = self.pick(lambda each: not each.frozen and each.stage in many)
                worker.leaving = True
                worker.signal(signal.SIGTERM)
            case "broker":
                await self._restart_broker()
        self.done[kind] += 1

    def count(self, stage: str) -> int:
        """How many workers of a stage will stay."""
        return sum(each.stage == stage and not each.leaving for each in self.workers)

    def pick(self, which: Callable[[Worker], bool]) -> Worker:
        found = [each for each in self.workers if each.running and not each.leaving and which(each)]
        return self.chance.choice(found or [each for each in self.workers if not each.leaving])

    async def _freeze(self, worker: Worker) -> None:
        worker.frozen = True
        worker.signal(signal.SIGSTOP)
        await asyncio.sleep(FROZEN_S)
        worker.signal(signal.SIGCONT)
        worker.frozen = False

    async def _restart_broker(self) -> None:
        assert self.broker is not None
        self.broker.child.kill()
        await self.broker.child.wait()
        await asyncio.sleep(self.chance.uniform(0.0, BROKER_DOWN_S))
        await self.start_broker()

    # ---- the end ----------------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Nobody is frozen, leaving or away any more, and every stage has its two workers."""
        async with asyncio.timeout(READY_LIMIT_S):
            while any(each.frozen or each.leaving for each in self.workers):  # noqa: ASYNC110 - processes tell nobody
                await asyncio.sleep(WATCH_S)
        for stage in self.stages:
            while self.count(stage) < WORKERS:
                self.add(stage)

    def model_calls(self) -> int:
        """How many calls of the model were begun, by the runners' own logs."""
        count = 0
        for log in self.place.home.logs.glob("runner-*.log"):
            for line in log.read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    entry = json.loads(line)
                    count += isinstance(entry, dict) and entry.get("text") == "model call"
        return count

    async def end(self) -> None:
        self._watching = False
        for worker in self.workers:
            await asyncio.to_thread(worker.end)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.broker is not None:
            self.broker.child.kill()
            await self.broker.child.wait()
