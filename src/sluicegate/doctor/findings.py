"""What a check found: the only place that says what good and bad are called."""

from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How bad it is; the worst one found is the verdict."""

    OK = 0
    WARN = 1
    FAIL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at: `what` was found, and for anything but `OK` the line that mends it."""

    check: str
    level: Level
    what: str
    mend: str = ""

    def __post_init__(self) -> None:
        if (self.level is Level.OK) == bool(self.mend):
            raise ValueError("a finding says how to mend it exactly when there is something to mend")


def ok(check: str, what: str) -> Finding:
    """Nothing to mend."""
    return Finding(check=check, level=Level.OK, what=what)


def warn(check: str, what: str, mend: str) -> Finding:
    """It works, and should be mended."""
    return Finding(check=check, level=Level.WARN, what=what, mend=mend)


def fail(check: str, what: str, mend: str) -> Finding:
    """It does not work, or is not safe."""
    return Finding(check=check, level=Level.FAIL, what=what, mend=mend)
