"""Log lines: one JSON object each, and what a request holds reaches none of them, whoever logs it."""

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sluicegate import logs
from sluicegate.schemas.errors import Unavailable

CANARY = "MARA-LIND-020-7946-0958"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[dict[str, object]]]]:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    root, ours = logging.getLogger(), logging.getLogger(logs.OURS)
    before = (root.handlers[:], root.level, ours.level)
    logs.log_to_stderr("INFO")
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.captureWarnings(False)
    for handler in root.handlers:
        if handler not in before[0]:
            handler.close()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def failing(error: Exception) -> Exception:
    try:
        raise error
    except type(error) as caught:
        return caught


def test_a_line_holds_time_level_text_and_ids(lines: Callable[[], list[dict[str, object]]]) -> None:
    logging.getLogger("sluicegate.x").info("decided", extra={"offset": 3, "code": "OK", "late": False})
    [line] = lines()
    assert {name: line[name] for name in ("level", "logger", "text", "offset", "code", "late")} == {
        "level": "INFO", "logger": "sluicegate.x", "text": "decided", "offset": 3, "code": "OK", "late": False,
    }  # fmt: skip
    assert str(line["time"]).endswith("+00:00")


def test_no_way_of_logging_an_exception_writes_its_text(lines: Callable[[], list[dict[str, object]]]) -> None:
    error = failing(ValueError(CANARY))
    for name in ("sluicegate.x", "faust", "asyncio"):
        log = logging.getLogger(name)
        log.error("failed", exc_info=error)
        log.error("failed: %s", error)
        log.error("failed: %r", error)
        log.error(error)
        log.error("failed", extra={"reason": error, "record": {"text": CANARY}})
    found = lines()
    assert len(found) == 15
    assert CANARY not in json.dumps(found)
    assert "ValueError" in json.dumps(found)


def test_the_lines_after_the_first_of_a_library_are_left_out(lines: Callable[[], list[dict[str, object]]]) -> None:
    logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: %s", CANARY)
    [line] = lines()
    assert line["text"] == "Task exception was never retrieved"


def test_our_own_errors_are_told(lines: Callable[[], list[dict[str, object]]]) -> None:
    logging.getLogger("sluicegate.x").error("failed", exc_info=failing(Unavailable("the broker does not answer")))
    [line] = lines()
    assert line["exception"] == "Unavailable: the broker does not answer"
    assert "test_logs.py" in str(line["frames"])


def test_long_texts_are_cut_and_libraries_speak_from_warnings_up(lines: Callable[[], list[dict[str, object]]]) -> None:
    logging.getLogger("aiokafka").info("chatter")
    logging.getLogger("sluicegate.x").debug("chatter")
    logging.getLogger("sluicegate.x").info("x" * 10_000, extra={"id": "y" * 10_000})
    [line] = lines()
    assert len(str(line["text"])) == logs.TEXT_LENGTH_MAX
    assert len(str(line["id"])) == logs.EXTRA_LENGTH_MAX


def test_arguments_that_do_not_fit_their_text_are_left_out() -> None:
    record = logging.makeLogRecord({"name": "sluicegate.x", "msg": "%d of %d", "args": (CANARY,)})
    assert json.loads(logs.JsonLine().format(record))["text"] == "%d of %d"


def test_a_bug_is_one_line_on_the_screen_and_frames_in_the_log(lines: Callable[[], list[dict[str, object]]]) -> None:
    said: list[str] = []
    error = failing(ValueError(CANARY))
    logs.report_bug(said.append)(type(error), error, error.__traceback__)
    assert len(said) == 1
    assert "unexpected ValueError at unit/test_logs.py" in said[0]
    assert "\n" not in said[0]
    assert CANARY not in said[0] + json.dumps(lines())
    assert lines()[0]["exception"] == "ValueError"


def test_a_log_file_holds_the_same_lines(tmp_path: Path, lines: Callable[[], list[dict[str, object]]]) -> None:
    logs.log_to_file(tmp_path / "x.log", "INFO")
    logging.getLogger("sluicegate.x").info("to the file")
    assert json.loads((tmp_path / "x.log").read_text())["text"] == "to the file"
    assert lines() == []
