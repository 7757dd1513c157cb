"""The supervisor with real processes and real signals: all or none, in order, and never one left behind."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# A stage in miniature: says ready, writes down when it was told, and ends.
STAGE = """
import os, signal, sys, time
name, folder = sys.argv[1], sys.argv[2]
def note(what):
    with open(folder + "/order", "a") as file:
        file.write(f"{name} {what}\\n")
def stop(*_):
    note("stopped")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, lambda *_: note("interrupted"))
with open(folder + "/" + name + ".pid", "w") as file:
    file.write(str(os.getpid()))
def ready(detail=""):
    os.write(int(os.environ["SLUICEGATE_READY_FD"]), f"ready {detail}\\n".encode())
"""
SERVE = STAGE + "ready(name.upper())\nwhile True: time.sleep(0.05)\n"
LATE = STAGE + "time.sleep(0.3)\nready()\nwhile True: time.sleep(0.05)\n"
STUBBORN = STAGE + "signal.signal(signal.SIGTERM, lambda *_: note('ignored'))\nready()\nwhile True: time.sleep(0.05)\n"
SILENT = STAGE + "while True: time.sleep(0.05)\n"
CLOSES = STAGE + "os.close(int(os.environ['SLUICEGATE_READY_FD']))\nwhile True: time.sleep(0.05)\n"
FAILS = STAGE + textwrap.dedent("""
    import json
    ready()
    while not os.path.exists(folder + "/fail"): time.sleep(0.02)
    print(json.dumps({"level": "ERROR", "text": "the disk is full"}), flush=True)
    print(json.dumps({"level": "INFO", "text": "bye"}), flush=True)
    sys.exit(3)
""")
REFUSES = STAGE + "sys.stderr.write('sluicegate: no model at `x`\\n')\nsys.exit(2)\n"
PARENT_OF = STAGE + textwrap.dedent("""
    import subprocess
    grandchild = subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 60"])
    open(folder + "/grandchild.pid", "w").write(str(grandchild.pid))
    ready()
    while True: time.sleep(0.05)
""")

# What `sluicegate up` does with its stages, with a report of the outcome for the test.
SUPERVISE = """
import asyncio, json, os, sys
from pathlib import Path
from sluicegate.child import Program, spawn
from sluicegate.schemas.errors import SluicegateError
from sluicegate.supervisor import Supervisor
folder, programs, limits = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
def report(**what):
    print(json.dumps(what), flush=True)
states = []
def program(name):
    code = programs[name]
    return Program(name=name, command=(sys.executable, "-c", code, name, str(folder)), environment={},
                   log=folder / f"{name}.log")
async def main():
    def changed(found):
        states.append([child.state for child in found])
    supervisor = Supervisor(stop_timeout_s=limits["stop"], changed=changed)
    async def work():
        if "broker" in programs:
            supervisor.adopt(await spawn(program("broker")))
        stages = [name for name in programs if name != "broker"]
        for name in stages:
            await supervisor.start(program(name), ready_timeout_s=limits["ready"])
        details = [(await supervisor.until_ready(name)).detail for name in stages]
        report(ready=True, details=details)
        await asyncio.Event().wait()
    try:
        await supervisor.run(work())
        report(error=None, killed=supervisor.killed)
    except SluicegateError as error:
        report(error=str(error), killed=supervisor.killed)
asyncio.run(main())
report(states=states)
"""
ALL = ("enforcer", "freshness", "runner", "redactor", "delivery", "sink")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(claim: Callable[[], object], limit_s: float = 8.0) -> None:
    deadline = time.monotonic() + limit_s
    while not claim():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


class Run:
    """One supervisor in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def start(self, programs: dict[str, str], *, stop: float = 5.0, ready: float = 10.0) -> None:
        limits = json.dumps({"stop": stop, "ready": ready})
        command = [sys.executable, "-P", "-c", SUPERVISE, str(self.folder), json.dumps(programs), limits]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)

    def line(self) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        assert text, "the supervisor ended without a word"
        found: dict[str, Any] = json.loads(text)
        return found

    def signal(self, number: signal.Signals, *, group: bool = False) -> None:
        assert self.process is not None
        if group:
            os.killpg(self.process.pid, number)
        else:
            os.kill(self.process.pid, number)

    def pid(self, name: str) -> int:
        path = self.folder / f"{name}.pid"
        until(lambda: path.exists() and path.read_text())
        return int(path.read_text())

    def pids(self) -> list[int]:
        return [int(path.read_text() or 0) for path in self.folder.glob("*.pid")]

    def order(self) -> list[str]:
        path = self.folder / "order"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    found = Run(tmp_path)
    yield found
    if found.process is not None:
        found.process.kill()
        found.process.communicate()
    until(lambda: not any(alive(pid) for pid in found.pids() if pid))


def test_all_come_up_side_by_side_and_stop_in_the_order_of_the_work(run: Run) -> None:
    began = time.monotonic()
    # Started out of order: the order of the stop is the supervisor's own.
    late = dict.fromkeys(("sink", "runner", "delivery", "redactor", "freshness"), LATE)
    run.start({"broker": SILENT, **late, "enforcer": SERVE})
    assert run.line() == {"ready": True, "details": ["", "", "", "", "", "ENFORCER"]}
    assert time.monotonic() - began < 4
    run.signal(signal.SIGTERM)
    assert run.line() == {"error": None, "killed": []}
    assert run.order() == [f"{name} stopped" for name in (*ALL, "broker")]
    assert run.line()["states"][-1] == ["stopped"] * 7


def test_ctrl_c_reaches_the_supervisor_alone(run: Run) -> None:
    run.start(dict.fromkeys(ALL, SERVE))
    run.line()
    run.signal(signal.SIGINT, group=True)
    assert run.line() == {"error": None, "killed": []}
    assert run.order() == [f"{name} stopped" for name in ALL], "a stage heard Ctrl-C"


@pytest.mark.parametrize("name", ["enforcer", "sink"])
def test_one_dies_the_others_are_told_and_it_is_named(run: Run, name: str) -> None:
    run.start({**dict.fromkeys(ALL, SERVE), name: FAILS})
    run.line()
    (run.folder / "fail").touch()
    found = run.line()
    assert found["error"].startswith(f"{name} died (exit 3): the disk is full; see `")
    assert found["killed"] == []
    assert run.order() == [f"{other} stopped" for other in ALL if other != name]


def test_one_that_is_killed_is_named_with_the_signal(run: Run) -> None:
    run.start(dict.fromkeys(ALL, SERVE))
    run.line()
    os.kill(run.pid("runner"), signal.SIGKILL)
    assert run.line()["error"].startswith("runner died (killed by SIGKILL): it logged nothing; see `")


def test_the_broker_is_named_before_the_stages_that_fall_with_it(run: Run) -> None:
    # Its death is seen a moment after that of the stage it took down.
    broker = STAGE + "while not os.path.exists(folder + '/fail'): time.sleep(0.02)\ntime.sleep(0.1)\nsys.exit(4)\n"
    run.start({"broker": broker, "enforcer": FAILS, "runner": STUBBORN, "sink": STUBBORN}, stop=0.5)
    run.line()
    began = time.monotonic()
    (run.folder / "fail").touch()
    found = run.line()
    assert found["error"].startswith("broker died (exit 4)")
    assert sorted(found["killed"]) == ["runner", "sink"]
    # Nothing can land without a broker: all are told at once, so two stubborn ones cost one limit, not two.
    assert time.monotonic() - began < 0.5 + 0.5 + 0.4


def test_one_that_refuses_to_start_is_named_with_its_reason(run: Run) -> None:
    run.start({**dict.fromkeys(ALL, SERVE), "runner": REFUSES})
    found = run.line()
    assert found["error"].startswith("runner died (exit 2): no model at `x`; see `")
    assert "runner stopped" not in run.order()


@pytest.mark.parametrize("code", [SILENT, CLOSES])
def test_one_that_is_never_ready_is_named_after_the_limit(run: Run, code: str) -> None:
    run.start({"enforcer": SERVE, "redactor": code, "sink": SERVE}, ready=1.0)
    found = run.line()
    assert found["error"].startswith("redactor was not ready within 1 s: see `")
    assert "SLUICEGATE_READY_TIMEOUT_S" in found["error"]
    assert run.order() == [f"{name} stopped" for name in ("enforcer", "redactor", "sink")]


def test_one_that_does_not_stop_is_killed_after_the_limit_and_the_rest_still_in_order(run: Run) -> None:
    run.start({**dict.fromkeys(ALL, SERVE), "runner": STUBBORN}, stop=0.6)
    run.line()
    began = time.monotonic()
    run.signal(signal.SIGTERM)
    assert run.line() == {"error": None, "killed": ["runner"]}
    assert 0.6 <= time.monotonic() - began < 3
    ahead = ["enforcer stopped", "freshness stopped", "runner ignored"]
    assert run.order() == [*ahead, *(f"{name} stopped" for name in ALL[3:])]


def test_a_second_ctrl_c_kills(run: Run) -> None:
    run.start({"enforcer": STUBBORN, "runner": STUBBORN, "sink": STUBBORN}, stop=60.0)
    run.line()
    run.signal(signal.SIGINT)
    until(lambda: run.order() == ["enforcer ignored"])
    began = time.monotonic()
    run.signal(signal.SIGINT)
    assert run.line()["error"] is None
    assert time.monotonic() - began < 3
    assert run.order() == ["enforcer ignored"]


def test_a_stop_while_they_start_stops_them(run: Run) -> None:
    run.start(dict.fromkeys(ALL, SILENT))
    pids = [run.pid(name) for name in ALL]
    run.signal(signal.SIGTERM)
    assert run.line() == {"error": None, "killed": []}
    assert [pid for pid in pids if alive(pid)] == []


def test_a_killed_supervisor_leaves_nobody_behind(run: Run) -> None:
    run.start({"broker": SILENT, **dict.fromkeys(ALL, STUBBORN)})
    run.line()
    pids = [run.pid(name) for name in ("broker", *ALL)]
    assert all(alive(pid) for pid in pids)
    run.signal(signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in pids))


def test_what_a_stage_started_goes_with_it(run: Run) -> None:
    run.start({"runner": PARENT_OF, "sink": SERVE}, stop=0.5)
    run.line()
    grandchild = run.pid("grandchild")
    assert alive(grandchild)
    run.signal(signal.SIGTERM)
    assert run.line()["error"] is None
    until(lambda: not alive(grandchild))
