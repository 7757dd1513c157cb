"""A running stage writes when it was last well; who asks reads whether that is recent. Only here is its file known.

Well means: ready for work, its loop turns, it follows the policy log, and the broker has just answered it. A stage that
hangs, lost its broker or was never ready writes nothing, so its file grows old.
"""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

EVERY_S: Final = 5.0
OLD_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """When a stage was last well (seconds since 1970), and as which process."""

    pid: int
    at_s: float


def health_file(folder: Path, stage: str) -> Path:
    """Where the stage says it."""
    return folder / f"{stage}.health"


async def report_health(
    file: Path, *, well: Callable[[], Awaitable[bool]], every_s: float = EVERY_S, now_s: Callable[[], float] = time.time
) -> None:
    """Asks `well` every few seconds, and writes the file when it says yes; cancel it to end. The file goes with it."""
    try:
        while True:
            if await well():
                _write(file, Seen(pid=os.getpid(), at_s=now_s()))
            await asyncio.sleep(every_s)
    finally:
        _forget(file)


def _write(file: Path, seen: Seen) -> None:
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(asdict(seen)), encoding="ascii")
    draft.replace(file)


def _forget(file: Path) -> None:
    file.unlink(missing_ok=True)


def problem_of(file: Path, *, now_s: float, old_s: float = OLD_S) -> str | None:
    """Why the stage is not well; None when it is."""
    try:
        seen = Seen(**json.loads(file.read_bytes()))
    except FileNotFoundError:
        return "it does not run, or is not ready yet"
    except (OSError, ValueError, TypeError):
        return f"`{file}` cannot be read"
    age_s = now_s - seen.at_s
    if age_s > old_s:
        return f"it was last well {age_s:.0f} s ago: see its log for the broker or the policy log"
    return None
