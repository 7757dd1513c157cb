"""The screen during a download: what is said is true, and a failure is not swallowed."""

import os
import sys
from pathlib import Path

import pytest
from progress import MB, bytes_written, progress_line, run


@pytest.mark.parametrize(
    ("written", "elapsed_s", "line"),
    [
        (0, 3.0, "x: 0 of about 200 MB, 3 s so far"),
        (50 * MB, 30.0, "x: 50 of about 200 MB, about 1:30 left"),
        (200 * MB, 30.0, "x: 200 of about 200 MB, finishing"),
        (None, 30.0, "x: about 200 MB, 30 s so far"),
    ],
)
def test_the_line_says_how_much_and_how_long(written: int | None, elapsed_s: float, line: str) -> None:
    assert progress_line("x", written, 200, elapsed_s) == line


def test_what_a_process_wrote_is_counted() -> None:
    before = bytes_written(os.getpid())
    if before is None:
        pytest.skip("this system does not tell what a process wrote")
    with Path(os.devnull).open("wb") as sink:
        sink.write(b"x" * 100_000)
    after = bytes_written(os.getpid())
    assert after is not None
    assert after - before >= 100_000


def test_a_failure_is_passed_on_with_its_output(capfd: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-c", "import sys; print('no such wheel'); sys.exit(7)"]
    assert run("x", 1, command) == 7
    assert "no such wheel" in capfd.readouterr().err


def test_a_success_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("x", 1, [sys.executable, "-c", "print('chatter')"]) == 0
    assert "chatter" not in capfd.readouterr().err
