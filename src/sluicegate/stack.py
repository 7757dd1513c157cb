"""Settings and a data directory go in, a running stack comes out: the only place that knows the order of its start.

Broker, then topics and keys, then the policy, then the stages: a stage never starts on half a state. Afterwards edits
of the bundle are published as they are saved; one that does not validate is told, and the version before stays in
force.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import watchfiles

from sluicegate.broker import RunningBroker, require_broker, start_tansu
from sluicegate.broker_access import broker_config
from sluicegate.child import Program
from sluicegate.home import ChildState, Home, StackState
from sluicegate.kafka_node import start_kafka
from sluicegate.schemas.errors import ConfigurationError, InvalidBundle, InvalidDirectory, SluicegateError
from sluicegate.settings import GIVEN, Settings
from sluicegate.supervisor import BROKER, RUNNABLE, SHADOW, STAGES, Supervisor

# What the status line calls a stage.
LABELS = {
    "enforcer": "gate",
    "freshness": "freshness",
    "runner": "runner",
    "redactor": "redactor",
    "delivery": "delivery",
    "sink": "audit",
}
DIGEST_LENGTH = len("sha256:4be1")
DEBOUNCE_MS = 200
SHADOW_POLL_S = 0.5
SHADOW_PAUSE_S = 5.0
PROBLEMS_MAX = 20

logger = logging.getLogger(__name__)


class Publication(Protocol):
    """What a publication put in force."""

    @property
    def version(self) -> int:
        """Rises by one with each change of the bundle."""

    @property
    def digest(self) -> str:
        """`sha256:...` of the bundle."""

    @property
    def policies(self) -> int:
        """How many policies the bundle holds."""

    @property
    def directory_version(self) -> int:
        """Rises by one with each change of the directory."""

    @property
    def changed(self) -> bool:
        """False where all this was in force before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What the stack is made of, given by the command so that this module depends on no stage.

    `prepare` creates topics and keys. `publish` MUST raise InvalidBundle or InvalidDirectory before it writes anything,
    and MUST return the version in force, unchanged, when nothing changed.
    """

    prepare: Callable[[Settings], Awaitable[None]]
    publish: Callable[[Settings, Path, Path], Awaitable[Publication]]
    programs: Callable[[Settings], Mapping[str, Program]]


class Stack:
    """One stack, from its start to its end."""

    def __init__(self, settings: Settings, home: Home, steps: Steps, *, say: Callable[[str], None]) -> None:
        """`say` prints a piece of text for a person, with no line end of its own."""
        self._settings = settings
        self._home = home
        self._steps = steps
        self._say = say
        self._state = StackState(pid=0, started_s=0.0, bootstrap=settings.bootstrap, epoch=settings.epoch, ready=False)
        self._in_line = False
        self._supervisor = Supervisor(stop_timeout_s=settings.stop_timeout_s, changed=self._children_changed)

    async def run(self, *, pid: int, watch: bool, ready: Callable[[], None]) -> None:
        """Start everything, call `ready`, go on until told to stop. MUST be called as the owner of the data directory.

        Raises:
            SluicegateError: something could not start, or ended unasked; everything else has been stopped.
        """
        self._home.empty_tmp()
        self._home.forget_state()
        self._update(pid=pid, started_s=time.time())
        ending = ""
        try:
            await self._supervisor.run(self._work(watch=watch, ready=ready))
        except SluicegateError as error:
            ending = str(error)
            raise
        finally:
            self._end_line()
            self._home.forget_state(ending)
            for name in self._supervisor.killed:
                self._say(f"  {name} did not end within {self._settings.stop_timeout_s:g} s and was killed\n")
        self._say("  stopped\n")

    async def _work(self, *, watch: bool, ready: Callable[[], None]) -> None:
        settings = await self._start_broker()
        await self._steps.prepare(settings)
        await self._publish(settings)
        self._piece(f"policy {self._state.policy}")
        programs = self._steps.programs(settings)
        for name in STAGES:
            await self._supervisor.start(programs[name], ready_timeout_s=settings.ready_timeout_s)
        for name in STAGES:
            child = await self._supervisor.until_ready(name)
            if name == STAGES[-1]:
                self._update(ready=True)  # before the line says so: who reads it may ask at once
            self._piece(" ".join(word for word in (LABELS[name], child.detail, "ok") if word))
        self._end_line()
        ready()
        shadow = asyncio.create_task(
            self._shadow_when_wanted(programs[SHADOW], ready_timeout_s=settings.ready_timeout_s)
        )
        try:
            if watch:
                await self._publish_edits(settings)
            await asyncio.Event().wait()
        finally:
            shadow.cancel()

    async def _shadow_when_wanted(self, program: Program, *, ready_timeout_s: float) -> None:
        """Runs the shadow stage from the first candidate on, and again where it ended: nothing else notices either."""
        while True:
            if self._home.shadow_wanted.exists() and not self._supervisor.runs(SHADOW):
                await self._supervisor.start(program, ready_timeout_s=ready_timeout_s)
                ready = asyncio.create_task(self._supervisor.until_ready(SHADOW))
                while self._supervisor.runs(SHADOW) and not ready.done():
                    await asyncio.wait({ready}, timeout=SHADOW_POLL_S)
                ready.cancel()
                (found,) = await asyncio.gather(ready, return_exceptions=True)
                if isinstance(found, SluicegateError):
                    logger.error("shadow is not ready", extra={"why": str(found)})
                await asyncio.sleep(SHADOW_PAUSE_S)
            await asyncio.sleep(SHADOW_POLL_S)

    async def _start_broker(self) -> Settings:
        settings = self._settings
        if settings.bootstrap:
            await require_broker(broker_config(settings, "up"))
            self._update(broker=GIVEN)
        elif settings.security_protocol != "PLAINTEXT":
            msg = (
                f"`SLUICEGATE_SECURITY_PROTOCOL` is {settings.security_protocol}, and the broker that `up` starts "
                "listens on loopback without it: name a broker with `SLUICEGATE_BOOTSTRAP`, or unset the protocol"
            )
            raise ConfigurationError(msg)
        else:
            started = await (self._start_kafka() if settings.broker == "kafka" else self._start_tansu())
            self._supervisor.adopt(started.child)
            home = self._home
            # On disk before anything is written to a new log.
            epoch = home.epoch_labelled(started.label) if started.label else home.raise_epoch()
            settings = settings.attached(bootstrap=started.bootstrap, epoch=epoch)
            self._update(bootstrap=settings.bootstrap, epoch=epoch, broker=settings.broker)
            if started.fresh:
                home.shadow_wanted.unlink(missing_ok=True)  # the candidate went with its log
            if started.fresh and epoch > 1:
                what = "Apache Kafka starts with an empty log" if started.label else "the embedded broker starts anew"
                self._say(f"  {what}: epoch {epoch} ")
                self._say("(the history of earlier epochs stays in the audit)\n")
        self._say("  sluicegate up:")
        self._in_line = True
        self._piece("broker ok", before=" ")
        return settings

    async def _start_tansu(self) -> RunningBroker:
        home = self._home
        return await start_tansu(
            port=self._settings.broker_port, log=home.log_file(BROKER), folder=home.run, tmp=home.tmp
        )

    async def _start_kafka(self) -> RunningBroker:
        home = self._home
        return await start_kafka(
            port=self._settings.broker_port,
            data=home.kafka,
            log=home.log_file(BROKER),
            tmp=home.tmp,
            label=lambda: str(home.raise_epoch()),
            durable=True,
        )

    async def _publish(self, settings: Settings) -> Publication:
        """Publish the bundle and the directory; return what is in force now."""
        done = await self._steps.publish(settings, settings.bundle_dir, settings.directory)
        self._update(policy=f"v{done.version} {done.digest[:DIGEST_LENGTH]}.. ({done.policies} policies)", problems=())
        return done

    async def _publish_edits(self, settings: Settings) -> None:
        folders = {settings.bundle_dir, settings.directory.parent}
        async for _ in watchfiles.awatch(*folders, debounce=DEBOUNCE_MS, rust_timeout=500, yield_on_timeout=False):
            try:
                await self._steps.prepare(settings)  # a new service has a new reply topic
                done = await self._publish(settings)
                if done.changed:
                    logger.info("policy published", extra={"version": done.version, "digest": done.digest})
                    self._say(f"  published: policy {self._state.policy}, directory v{done.directory_version}\n")
            except (InvalidBundle, InvalidDirectory) as error:
                self._refused(error.problems)
            except SluicegateError as error:
                self._refused((str(error),))

    def _refused(self, problems: tuple[str, ...]) -> None:
        """Tell why an edit was not published. The texts name policies and lines of the bundle, never a request."""
        version = self._state.policy.partition(" ")[0]
        logger.error("an edit of the policy was refused", extra={"problems": len(problems), "version": version})
        for problem in problems[:PROBLEMS_MAX]:
            self._say(f"  policy not published: {' '.join(problem.split())}\n")
        if len(problems) > PROBLEMS_MAX:
            self._say(f"  policy not published: {len(problems) - PROBLEMS_MAX} more problems\n")
        self._say(f"  policy {version} stays in force\n")
        self._update(problems=problems[:PROBLEMS_MAX])

    def _piece(self, text: str, *, before: str = "  ") -> None:
        self._say(before + text)

    def _end_line(self) -> None:
        if self._in_line:
            self._in_line = False
            self._say("\n")

    def _children_changed(self, children: tuple[ChildState, ...]) -> None:
        # Once one has stopped the stack takes no requests any more; the shadow takes none.
        ready = self._state.ready and all(child.state == "ready" for child in children if child.name != SHADOW)
        self._update(children=children, ready=ready)

    def _update(self, **changes: object) -> None:
        self._state = replace(self._state, **changes)  # type: ignore[arg-type]
        self._home.write_state(self._state)


def stage_programs(settings: Settings, home: Home) -> dict[str, Program]:
    """Return how each stage is run: `python -m sluicegate run STAGE`, with these settings as its whole environment."""
    environment = settings.environment() | {"TMPDIR": str(home.tmp)}
    return {
        name: Program(
            name=name,
            # -P: the folder it is started in may hold an `enforcer/` of its own.
            command=(sys.executable, "-P", "-m", "sluicegate", "run", name),
            environment=environment,
            log=home.log_file(name),
        )
        for name in RUNNABLE
    }


def require_bundle(settings: Settings) -> None:
    """Check that the bundle's folder and the directory are there, before anything is started.

    Raises:
        ConfigurationError: one is missing.
    """
    if not settings.bundle_dir.is_dir():
        msg = f"no bundle at `{settings.bundle_dir}`: name its folder with `--bundle` or `SLUICEGATE_BUNDLE_DIR`"
        raise ConfigurationError(msg)
    if not settings.directory.is_file():
        msg = f"no directory at `{settings.directory}`: put it there, or set `SLUICEGATE_DIRECTORY_PATH`"
        raise ConfigurationError(msg)
