"""A log record goes in, one JSON line comes out: the only place that sets up logging.

Prompt text, field values, answers and tokens must not reach a log. Three rules hold that here, whoever logs: extras are
short scalars; the text of an exception is written only if it is ours, else its type and where it was raised; of a
library's record only the first line is taken, from warnings up.
"""

import json
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from sluicegate.schemas.errors import SluicegateError

OURS = "sluicegate"
TEXT_LENGTH_MAX = 400
EXTRA_LENGTH_MAX = 160
FRAMES_MAX = 20
BugHook = Callable[[type[BaseException], BaseException, TracebackType | None], None]
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLine(logging.Formatter):
    """Formats a record as one line of JSON: time, level, logger, text, extras, and for exceptions where they arose."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "text": _text(record),
        }
        line |= {name: _scalar(value) for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = describe(record.exc_info[1])
            line["frames"] = _frames(record.exc_info[2])
        return json.dumps(line, ensure_ascii=True)


def describe(error: BaseException) -> str:
    """Return the type of an exception, and its text only where the text is ours and so holds no content."""
    name = type(error).__name__
    return f"{name}: {error}"[:TEXT_LENGTH_MAX] if isinstance(error, SluicegateError) else name


def log_to_stderr(level: str) -> None:
    """Send this process's records to standard error as JSON lines; the supervisor points it at the stage's file."""
    _install(logging.StreamHandler(sys.stderr), level)


def log_to_file(path: Path, level: str) -> None:
    """Append this process's records to `path` as JSON lines: for commands, where stderr is a person's screen."""
    _install(logging.FileHandler(path, encoding="utf-8", delay=True), level)


def _install(handler: logging.Handler, level: str) -> None:
    handler.setFormatter(JsonLine())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(OURS).setLevel(level)
    logging.captureWarnings(True)
    threading.excepthook = _report_thread


def report_bug(say: Callable[[str], None]) -> BugHook:
    """Return a `sys.excepthook`: what nobody expected goes to the log, and `say` gets one line for the screen."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        logging.getLogger(f"{OURS}.bug").critical("unexpected exception", exc_info=(kind, error, trace))
        frames = _frames(trace)
        say(f"unexpected {describe(error)} at {frames[-1] if frames else 'an unknown place'}: this is a bug")

    return hook


def _report_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is None:
        return
    logging.getLogger(f"{OURS}.bug").critical(
        "unexpected exception in a thread",
        exc_info=(arguments.exc_type, arguments.exc_value, arguments.exc_traceback),
    )


def _text(record: logging.LogRecord) -> str:
    """Return the message; exceptions among its arguments are named by type, for their text may hold content."""
    arguments = record.args
    if isinstance(arguments, tuple):
        arguments = tuple(describe(value) if isinstance(value, BaseException) else value for value in arguments)
    try:
        text = str(record.msg) % arguments if arguments else str(record.msg)
    except (TypeError, ValueError, KeyError):
        text = str(record.msg)
    if isinstance(record.msg, BaseException):
        text = describe(record.msg)
    if record.name.split(".")[0] != OURS:
        # asyncio and faust put the repr of a failed task, exception text and all, on the lines that follow.
        text = text.partition("\n")[0]
    return text[:TEXT_LENGTH_MAX]


def _scalar(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value[:EXTRA_LENGTH_MAX]
    return type(value).__name__


def _frames(trace: TracebackType | None) -> list[str]:
    """Return where an exception passed, outermost first: file, line and function, never a source line's values."""
    found = traceback.extract_tb(trace)[-FRAMES_MAX:]
    return ["/".join(Path(frame.filename).parts[-2:]) + f":{frame.lineno} {frame.name}" for frame in found]
