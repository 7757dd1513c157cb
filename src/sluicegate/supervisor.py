"""Programs go in; they run together or not at all: the only place that decides when a stack's processes start and end.

Each stage says that it is ready by one line on a pipe it inherits (`readiness`). When one ends unasked, all are told.
They are told in the order of the work, its source first and the sink after those it records, so that everything lands.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from sluicegate.child import Child, Program, spawn
from sluicegate.home import ChildState
from sluicegate.readiness import parse_ready
from sluicegate.schemas.errors import SluicegateError
from sluicegate.settings import PREFIX

BROKER = "broker"
STAGES = ("enforcer", "freshness", "runner", "redactor", "delivery", "sink")
SHADOW = "shadow"
"""The one that nothing waits for: it may be started later, and its end ends nothing."""
RUNNABLE = (*STAGES[:-1], SHADOW, STAGES[-1])
# The stages in the order of the work, then what all of them stand on.
STOP_ORDER = (*RUNNABLE, BROKER)
BLAME_S = 0.3
LINE_BYTES_MAX = 4096

logger = logging.getLogger(__name__)


class StageDied(SluicegateError):
    """A process of the stack ended unasked."""

    def __init__(self, child: Child) -> None:
        code = child.exit_code or 0
        how = f"exit {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        super().__init__(f"{child.name} died ({how}): {child.last_error() or 'it logged nothing'}; see `{child.log}`")
        self.name = child.name


class StageNotReady(SluicegateError):
    """A process of the stack runs but did not report ready in time."""

    def __init__(self, child: Child, limit_s: float) -> None:
        super().__init__(
            f"{child.name} was not ready within {limit_s:g} s: see `{child.log}`, or raise `{PREFIX}READY_TIMEOUT_S`"
        )


class Supervisor:
    """The processes of one stack. `run` does everything; `adopt` and `start` are for the work it is given."""

    def __init__(self, *, stop_timeout_s: float, changed: Callable[[tuple[ChildState, ...]], None]) -> None:
        """`changed` hears of every change of a child's state."""
        self._stop_timeout_s = stop_timeout_s
        self._changed = changed
        self._children: dict[str, Child] = {}
        self._states: dict[str, ChildState] = {}
        self._ready: dict[str, asyncio.Task[ChildState]] = {}
        self._watchers: list[asyncio.Task[None]] = []
        self._dead: list[Child] = []
        self._died = asyncio.Event()
        self._asked = asyncio.Event()
        self._stopping = False
        self.killed: list[str] = []
        """Children that had to be killed because they did not end within their time."""

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` until it ends, a child dies or a signal asks to stop; then stop every child, whatever happened.

        SIGINT, SIGTERM and SIGHUP ask to stop; a second one kills. MUST run in the main thread.

        Raises:
            StageDied: a child ended unasked; the broker is named before those that fell with it.
            SluicegateError: what `work` raised.
        """
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in signals:
            loop.add_signal_handler(number, self._on_signal)
        doing = asyncio.create_task(work)
        waits: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._died.wait()),
            asyncio.create_task(self._asked.wait()),
        ]
        try:
            await asyncio.wait({doing, *waits}, return_when=asyncio.FIRST_COMPLETED)
            if not self._asked.is_set():
                await self._find_the_cause(doing)
        finally:
            self._stopping = True
            doing.cancel()
            waits += self._ready.values()
            for task in waits:
                task.cancel()
            await asyncio.wait({doing, *waits})
            await self._stop_all()
            for number in signals:
                loop.remove_signal_handler(number)
        if self._dead and not self._asked.is_set():
            raise StageDied(next((child for child in self._dead if child.name == BROKER), self._dead[0]))
        if not doing.cancelled() and not self._asked.is_set():
            doing.result()

    async def _find_the_cause(self, doing: asyncio.Task[None]) -> None:
        """Wait a moment for the death that explains a failure of the work, or of a child that fell with its broker."""
        failed = doing.done() and not doing.cancelled() and doing.exception() is not None
        if failed or self._dead:
            await asyncio.sleep(BLAME_S)

    def _on_signal(self) -> None:
        if self._asked.is_set() or self._stopping:
            for child in self._children.values():
                child.kill()
        self._asked.set()

    def adopt(self, child: Child) -> None:
        """Take a child that is ready already under supervision."""
        self._take(child, "ready")

    async def start(self, program: Program, *, ready_timeout_s: float) -> None:
        """Start a stage; `until_ready` waits for it, so that several come up side by side."""
        reader, writer = os.pipe()
        try:
            environment = {**program.environment, f"{PREFIX}READY_FD": str(writer)}
            child = await spawn(replace(program, environment=environment), pass_fds=(writer,))
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self._take(child, "starting")
        self._ready[child.name] = asyncio.create_task(self._hear(child, reader, ready_timeout_s))

    def runs(self, name: str) -> bool:
        """Whether the stage `name` was started and has not ended."""
        return name in self._states and self._states[name].state != "stopped"

    async def until_ready(self, name: str) -> ChildState:
        """Wait until the stage `name`, started before, reports ready; return its state.

        Raises:
            StageNotReady: it did not report within its time. (A death is raised by `run`.)
        """
        return await self._ready[name]

    async def _hear(self, child: Child, descriptor: int, limit_s: float) -> ChildState:
        loop = asyncio.get_running_loop()
        lines = asyncio.StreamReader(limit=LINE_BYTES_MAX)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), os.fdopen(descriptor, "rb")
        )
        try:
            async with asyncio.timeout(limit_s):
                detail = parse_ready((await lines.readline()).decode("utf-8", errors="replace"))
                if detail is None:
                    # It closed the pipe or wrote something else: it will never be ready. A death is `run`'s to tell.
                    await child.wait()
                    await asyncio.Event().wait()
                    raise AssertionError("unreachable")
        except (TimeoutError, ValueError):
            raise StageNotReady(child, limit_s) from None
        finally:
            transport.close()
        self._tell(child, "ready", detail)
        return self._states[child.name]

    def _take(self, child: Child, state: str) -> None:
        assert child.name in STOP_ORDER, child.name
        self._children[child.name] = child
        self._tell(child, state)
        self._watchers.append(asyncio.create_task(self._watch(child)))

    async def _watch(self, child: Child) -> None:
        code = await child.wait()
        self._tell(child, "stopped")
        if not self._stopping:
            logger.error("a process died", extra={"stage": child.name, "exit_code": code})
            if child.name != SHADOW:
                self._dead.append(child)
                self._died.set()

    def _tell(self, child: Child, state: str, detail: str = "") -> None:
        self._states[child.name] = ChildState(name=child.name, pid=child.pid, state=state, detail=detail)
        self._changed(tuple(self._states.values()))

    async def _stop_all(self) -> None:
        ordered = [self._children[name] for name in STOP_ORDER if name in self._children]
        if any(child.name == BROKER for child in self._dead):
            # Nothing can land any more: nobody waits for another.
            await asyncio.gather(*(self._stop(child) for child in ordered))
        else:
            for child in ordered:
                await self._stop(child)
        if self._watchers:
            await asyncio.wait(self._watchers)

    async def _stop(self, child: Child) -> None:
        if not await child.stop(limit_s=self._stop_timeout_s):
            self.killed.append(child.name)
