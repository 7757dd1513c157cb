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


class SluicegateError(Exception):
    """Base of every error that Sluicegate raises on purpose."""


class ConfigurationError(SluicegateError):
    """A setting, file, port or installed package is wrong; the text says which and what to do."""


class InvalidBundle(SluicegateError):
    """A policy bundle does not validate; `problems` holds one line for each thing to mend."""

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
