"""A program goes in, a process bound to this one comes out: the only place that starts, stops and kills processes.

A child stands in a session of its own, so Ctrl-C at the terminal reaches the supervisor alone, and dies with its parent
whatever ends that (`tether`). Both of its output streams go to its log file.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sluicegate import tether
from sluicegate.schemas.errors import ConfigurationError

LOG_BYTES_MAX = 16 * 1024**2
TAIL_BYTES = 64 * 1024
LINE_LENGTH_MAX = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run: the command's first word is a path, the environment is the whole of it."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    folder: Path | None = None


class Child:
    """A running program."""

    def __init__(self, program: Program, process: asyncio.subprocess.Process, log_start: int) -> None:
        self.name = program.name
        self.log = program.log
        self._process = process
        self._log_start = log_start

    @property
    def pid(self) -> int:
        """The process id, which is the id of its group too."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number where one ended it."""
        return self._process.returncode

    async def wait(self) -> int:
        """Return the exit code once it has ended."""
        return await self._process.wait()

    async def stop(self, *, limit_s: float) -> bool:
        """Tell it to finish (SIGTERM) and wait; after `limit_s` seconds kill it. Return whether it ended by itself."""
        if self.exit_code is None:
            self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.shield(self._process.wait()), limit_s)
        except TimeoutError:
            self.kill()
            await self._process.wait()
            return False
        finally:
            if self.exit_code is not None:
                # What it started and left behind.
                self._signal(signal.SIGKILL)
        return True

    def kill(self) -> None:
        """End it, and whatever it started, at once."""
        if self.exit_code is None:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def last_error(self) -> str:
        """Return the last line of its log that tells an error, of this run alone; empty when it wrote nothing."""
        return last_error(self.log, self._log_start)

    def last_lines(self) -> list[str]:
        """Return the end of its log, of this run alone."""
        return _last_lines(self.log, self._log_start)


async def spawn(program: Program, *, pass_fds: tuple[int, ...] = ()) -> Child:
    """Start `program`. MUST be called from the main thread: the kernel binds the child to the thread that forks it.

    Raises:
        ConfigurationError: the log cannot be written or no process can be started.
    """
    command = (sys.executable, "-I", "-S", str(Path(tether.__file__)), str(os.getpid()), *program.command)
    try:
        if program.log.exists() and program.log.stat().st_size > LOG_BYTES_MAX:
            program.log.replace(program.log.with_suffix(".old.log"))
        with program.log.open("ab") as log:
            start = log.tell()
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(program.environment),
                cwd=program.folder,
                pass_fds=pass_fds,
                start_new_session=True,
            )
    except OSError as error:
        msg = f"`{program.name}` cannot be started ({(error.strerror or 'unknown').lower()}): mend that and start again"
        raise ConfigurationError(msg) from None
    return Child(program, process, start)


def last_error(log: Path, start: int = 0) -> str:
    """Return the text of the last error among the JSON lines after byte `start`, else the last other line."""
    other = ""
    for line in reversed(_last_lines(log, start)):
        try:
            entry = json.loads(line)
        except ValueError:
            other = other or line.strip().removeprefix("sluicegate: ")
            continue
        if isinstance(entry, dict) and entry.get("level") in {"ERROR", "CRITICAL"}:
            text = (
                f"{entry.get('text', '')}: {entry['exception']}"
                if entry.get("exception")
                else str(entry.get("text", ""))
            )
            return text[:LINE_LENGTH_MAX]
    return other[:LINE_LENGTH_MAX]


def _last_lines(log: Path, start: int) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - TAIL_BYTES))
            return file.read(TAIL_BYTES).decode("utf-8", errors="replace").splitlines()
    except OSError:
        return []
