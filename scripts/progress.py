"""A command goes in, its exit code comes out; the only place that says how far a download is and how long it lasts.

`progress.py --what "libraries" --mb 1500 -- uv pip install ...` prints every few seconds what the command has written
so far, of about how much, and the time left at the rate so far. What is counted is `wchar` in /proc/PID/io: the bytes
the process wrote, unpacked, so nothing of the installer's own display is needed. The command's output is kept back
and printed only when it fails. Standard library alone: it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FIRST_LINE_AFTER_S = 2.0
LINE_EVERY_S = 2.0
LINE_EVERY_PLAIN_S = 10.0
POLL_S = 0.1
MB = 1_000_000


def bytes_written(pid: int) -> int | None:
    """Return the bytes process `pid` has written so far, or None where the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/io").read_text(encoding="ascii")
    except OSError:
        return None
    for line in text.splitlines():
        name, _, figure = line.partition(":")
        if name == "wchar":
            return int(figure)
    return None


def progress_line(what: str, written: int | None, expected_mb: int, elapsed_s: float) -> str:
    """Return one line for the screen: size so far, size expected, time left in minutes and seconds."""
    if written is None:
        return f"{what}: about {expected_mb:,} MB, {elapsed_s:.0f} s so far"
    written_mb = written / MB
    so_far = f"{what}: {written_mb:,.0f} of about {expected_mb:,} MB"
    if written_mb < expected_mb * 0.01:
        return f"{so_far}, {elapsed_s:.0f} s so far"
    if written_mb >= expected_mb:
        return f"{so_far}, finishing"
    left_s = elapsed_s * (expected_mb - written_mb) / written_mb
    return f"{so_far}, about {int(left_s) // 60}:{int(left_s) % 60:02d} left"


def run(what: str, expected_mb: int, command: list[str]) -> int:
    """Run `command`, print how far it is, and return its exit code."""
    on_terminal = sys.stderr.isatty()
    every_s = LINE_EVERY_S if on_terminal else LINE_EVERY_PLAIN_S
    started_s = time.monotonic()
    next_line_s = FIRST_LINE_AFTER_S
    print(f"{what}: about {expected_mb:,} MB unpacked where nothing is cached", file=sys.stderr, flush=True)
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT) as child:
            while child.poll() is None:
                elapsed_s = time.monotonic() - started_s
                if elapsed_s >= next_line_s:
                    next_line_s = elapsed_s + every_s
                    line = progress_line(what, bytes_written(child.pid), expected_mb, elapsed_s)
                    print(f"\r\033[K{line}" if on_terminal else line, end="" if on_terminal else "\n", file=sys.stderr)
                    sys.stderr.flush()
                time.sleep(POLL_S)
        elapsed_s = time.monotonic() - started_s
        end = "done" if child.returncode == 0 else "failed"
        print(f"{chr(13) + chr(27) + '[K' if on_terminal else ''}{what}: {end} in {elapsed_s:.0f} s", file=sys.stderr)
        if child.returncode != 0:
            output.seek(0)
            sys.stderr.write(output.read().decode(errors="replace"))
    return child.returncode


def main() -> int:
    """Read the arguments and run the command after `--`."""
    parser = argparse.ArgumentParser(description="run a command and say how far its download is")
    parser.add_argument("--what", required=True, help="what is being fetched, for the screen")
    parser.add_argument("--mb", required=True, type=int, help="about how much will be written, in MB")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- and the command")
    arguments = parser.parse_args()
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        parser.error("no command: put it after `--`")
    return run(arguments.what, arguments.mb, command)


if __name__ == "__main__":
    sys.exit(main())
