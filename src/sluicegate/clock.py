"""The embedded stack's clock: wall time and an offset kept in the data directory go in, event time in ms comes out.

The only place that moves it, and only forward: an example day can begin at 02:00 at any time of day. A stack on a real
broker has no such clock, there event time is the broker's append time.
"""

import os
import time
from pathlib import Path

from sluicegate.schemas.errors import ConfigurationError

CLOCK_FILE = Path("run") / "clock"
OFFSET_MS_MAX = 10 * 365 * 86_400_000
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


class StackClock:
    """Wall time plus the offset of the stack whose data directory is `root`; None: wall time alone.

    Who can write the data directory can move the clock; who can write it also holds every key of the stack.
    """

    def __init__(self, root: Path | None) -> None:
        self._path = None if root is None else root / CLOCK_FILE

    def now_ms(self) -> int:
        """Milliseconds since 1970 on the stack's clock.

        Raises:
            ConfigurationError: the file holds no offset.
        """
        return time.time_ns() // 1_000_000 + (0 if self._path is None else _read_offset_ms(self._path))


def advance_to_hour(root: Path, hour: int) -> int:
    """Moves the clock of the stack at `root` forward to the next `hour`:00 UTC; returns what it then shows, ms."""
    path = root / CLOCK_FILE
    now = time.time_ns() // 1_000_000 + _read_offset_ms(path)
    step = (hour * _HOUR_MS - now) % _DAY_MS
    _write_offset_ms(path, _read_offset_ms(path) + step)
    return now + step


def reset_clock(root: Path) -> None:
    """Back to wall time: for a stack that starts with an empty log."""
    (root / CLOCK_FILE).unlink(missing_ok=True)


def _read_offset_ms(path: Path) -> int:
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return 0
    if not (text.isascii() and text.isdigit() and int(text) <= OFFSET_MS_MAX):
        raise ConfigurationError(f"`{path}` holds no clock offset in milliseconds: remove it and start the stack again")
    return int(text)


def _write_offset_ms(path: Path, offset_ms: int) -> None:
    staging = path.with_name(path.name + ".new")
    descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, f"{offset_ms}\n".encode())
    finally:
        os.close(descriptor)
    staging.replace(path)
