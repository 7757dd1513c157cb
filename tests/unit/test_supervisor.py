"""What the supervisor reads and writes, without processes: the readiness line and the last error of a log."""

import json
import os
from pathlib import Path

import pytest

from sluicegate.child import LINE_LENGTH_MAX, TAIL_BYTES, last_error
from sluicegate.readiness import parse_ready, report_ready
from sluicegate.supervisor import RUNNABLE, SHADOW, STAGES, STOP_ORDER


def entry(level: str, text: str, **more: object) -> str:
    return json.dumps({"level": level, "text": text, **more})


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        ("ready\n", ""),
        ("ready SmolLM2-135M cpu\n", "SmolLM2-135M cpu"),
        ("", None),
        ("\n", None),
        ("readyish\n", None),
        ("not ready\n", None),
    ],
)
def test_a_line_says_ready_or_it_does_not(line: str, detail: str | None) -> None:
    assert parse_ready(line) == detail


@pytest.mark.parametrize(
    ("said", "heard"), [("", ""), ("A b", "A b"), ("two\nlines", "two lines"), ("x" * 500, "x" * 80)]
)
def test_what_is_reported_is_what_is_heard(said: str, heard: str) -> None:
    reader, writer = os.pipe()
    report_ready(writer, said)
    with os.fdopen(reader) as pipe:
        assert parse_ready(pipe.readline()) == heard
        assert pipe.read() == "", "the pipe is still open"


def test_a_stage_started_by_hand_and_one_whose_supervisor_died_go_on() -> None:
    report_ready(-1, "x")
    reader, writer = os.pipe()
    os.close(reader)
    report_ready(writer, "x")


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([entry("ERROR", "first"), entry("ERROR", "last"), entry("INFO", "after")], "last"),
        ([entry("CRITICAL", "bug", exception="KeyError")], "bug: KeyError"),
        ([entry("ERROR", "ours"), "a native library complains"], "ours"),
        ([entry("INFO", "fine"), "  Segmentation fault  ", ""], "Segmentation fault"),
        (["[1]", "null", "{broken"], "{broken"),
        ([entry("INFO", "fine")], ""),
        ([], ""),
        ([entry("ERROR", "x" * 5000)], "x" * LINE_LENGTH_MAX),
    ],
)
def test_the_last_error_of_a_log(tmp_path: Path, lines: list[str], found: str) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(lines))
    assert last_error(log) == found


def test_an_error_of_an_earlier_run_is_not_told_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(entry("ERROR", "yesterday") + "\n")
    start = log.stat().st_size
    assert last_error(log, start) == ""
    with log.open("a") as file:
        file.write(entry("ERROR", "today") + "\n")
    assert last_error(log, start) == "today"


def test_only_the_tail_of_a_long_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(entry("ERROR", "far back") + "\n" + (entry("INFO", "fine") + "\n") * (TAIL_BYTES // 20))
    assert last_error(log) != "far back"
    assert last_error(tmp_path / "none") == ""


def test_the_sink_is_the_last_stage_to_stop_and_the_broker_the_last_of_all() -> None:
    assert (*RUNNABLE, "broker") == STOP_ORDER
    assert tuple(each for each in RUNNABLE if each != SHADOW) == STAGES
    assert STAGES[0] == "enforcer"
    assert STAGES[-1] == RUNNABLE[-1] == "sink"
