"""The tree of exceptions that Sluicegate raises, split by what the caller must do.

    SluicegateError
    +-- ConfigurationError      mend a setting, a file or a port, then start again
    +-- InvalidBundle           mend the policy files; the version before stays in force
    +-- InvalidDirectory        mend the directory; the version before stays in force
    +-- CodecError              the bytes are not what they say they are; keep them and refuse the record
    +-- ContinuityError         a log was cut, recreated or rewritten; stop, and take a new epoch only when told
    +-- Unavailable             a broker, database or model does not answer; try again later

Bad *input* never raises past the gate: it becomes a sealed decision with a `Code` (see `codes` and `meanings`).
"""

from typing import Self


class SluicegateError(Exception):
    """Base of every error that Sluicegate raises on purpose."""


class ConfigurationError(SluicegateError):
    """A setting, file, port or installed package is wrong; the text says which and what to do."""


class Problem(str):
    """One line for a person, `file:line: text; what to do`, that also says for tools where it is and of which kind.

    `code` is a stable slug; `file` is relative to the bundle's folder, empty for the bundle as a whole; `line` counts
    from 1, 0 where it is not known.
    """

    __slots__ = ("code", "file", "line")
    code: str
    file: str
    line: int

    def __new__(cls, code: str, text: str, *, file: str = "", line: int = 0) -> Self:
        """The line made of its parts; `text` ends with what to do, after a semicolon."""
        place = f"{file}:{line}: " if line else f"{file}: " if file else ""
        made = super().__new__(cls, place + text)
        made.code, made.file, made.line = code, file, line
        return made

    def said(self) -> str:
        """The text without its place."""
        place = f"{self.file}:{self.line}: " if self.line else f"{self.file}: " if self.file else ""
        return str(self).removeprefix(place)


class InvalidBundle(SluicegateError):
    """A policy bundle does not validate; `problems` holds one line for each thing to mend.

    Those that `bundle.load_bundle` found are each a `Problem`.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class InvalidDirectory(SluicegateError):
    """A directory does not conform to the bundle's schema; `problems` holds one line for each thing to mend."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class CodecError(SluicegateError):
    """Bytes that cannot be read as the event they claim to be."""


class ContinuityError(SluicegateError):
    """A log no longer holds what was sealed about it: it was truncated, recreated or rewritten."""


class Unavailable(SluicegateError):
    """A peer does not answer within its time limit."""
