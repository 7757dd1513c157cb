"""The data directory: private, owned by one, with an epoch that only rises; a full disk is told before a start."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sluicegate.home import AlreadyRunning, ChildState, StackState, open_home
from sluicegate.schemas.errors import ConfigurationError, Unavailable

HOLD = """
import sys, time
from pathlib import Path
from sluicegate.home import open_home
with open_home(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def state(pid: int, *, ready: bool = True) -> StackState:
    child = ChildState(name="runner", pid=5, state="ready", detail="SmolLM2-135M cpu")
    return StackState(
        pid=pid, started_s=1.5, bootstrap="127.0.0.1:9", epoch=2, ready=ready, problems=("a", "b"), children=(child,)
    )


def test_every_folder_is_private_even_where_it_was_not(tmp_path: Path) -> None:
    home = open_home(tmp_path / "data")
    home.keys.chmod(0o755)
    home = open_home(tmp_path / "data")
    for folder in (home.root, home.keys, home.audit, home.models, home.run, home.logs, home.tmp):
        assert mode(folder) == 0o700, folder


def test_a_folder_that_holds_other_things_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    before = mode(tmp_path)
    with pytest.raises(ConfigurationError, match="holds other things"):
        open_home(tmp_path)
    assert mode(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_file_or_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="SLUICEGATE_HOME"):
        open_home(tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(ConfigurationError, match="not a folder of this user"):
        open_home(tmp_path / "link")


def test_one_process_owns_it_and_a_killed_one_no_more(tmp_path: Path) -> None:
    home = open_home(tmp_path / "data")
    assert home.owner() is None
    with subprocess.Popen([sys.executable, "-P", "-c", HOLD, str(home.root)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert home.owner() == holder.pid
        with pytest.raises(AlreadyRunning, match=f"pid {holder.pid}") as caught, home.lock():
            pass
        assert caught.value.pid == holder.pid
        holder.kill()
    with home.lock():
        pass


def test_the_owner_gives_it_back_at_the_end_of_the_block(tmp_path: Path) -> None:
    home = open_home(tmp_path / "data")
    with home.lock():
        assert home.owner() == os.getpid()
    assert home.owner() is None


@pytest.mark.parametrize(
    ("label", "taken"), [("1", True), ("2", True), ("3", False), ("0", False), ("", False), ("x", False)]
)
def test_a_log_that_was_kept_has_an_epoch_that_was_counted_here(tmp_path: Path, label: str, taken: bool) -> None:
    home = open_home(tmp_path / "data")
    home.raise_epoch()
    home.raise_epoch()
    if taken:
        assert home.epoch_labelled(label) == int(label)
        return
    with pytest.raises(ConfigurationError, match="belongs to another data directory"):
        home.epoch_labelled(label)


def test_the_epoch_rises_by_one_and_is_kept(tmp_path: Path) -> None:
    assert open_home(tmp_path / "data").epoch() == 0
    assert [open_home(tmp_path / "data").raise_epoch() for _ in range(3)] == [1, 2, 3]
    assert open_home(tmp_path / "data").epoch() == 3


@pytest.mark.parametrize("content", ["", "x", "-1", "0", "1.5", "٣", "99999999999", "1\n2"])
def test_an_epoch_that_cannot_be_read_is_not_guessed(tmp_path: Path, content: str) -> None:
    home = open_home(tmp_path / "data")
    (home.root / "epoch").write_text(content)
    with pytest.raises(ConfigurationError, match="holds no epoch"):
        home.raise_epoch()


def test_what_runs_is_found_only_while_its_owner_lives(tmp_path: Path) -> None:
    home = open_home(tmp_path / "data")
    with pytest.raises(Unavailable, match="start it with `sluicegate up`"):
        home.running()
    with home.lock():
        with pytest.raises(Unavailable, match="is starting"):
            home.running()
        home.write_state(state(os.getpid(), ready=False))
        with pytest.raises(Unavailable, match="starting or stopping"):
            home.running()
        assert home.running(ready=False).ready is False
        home.write_state(state(os.getpid()))
        assert home.running() == state(os.getpid())
    with pytest.raises(Unavailable, match="no stack runs"):
        home.running()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": 1}', '{"children": [{"x": 1}], "problems": []}'])
def test_a_state_of_another_release_is_not_believed(tmp_path: Path, content: str) -> None:
    home = open_home(tmp_path / "data")
    (home.run / "state.json").write_text(content)
    with home.lock(), pytest.raises(Unavailable):
        home.running()


def test_a_state_left_by_another_process_is_not_believed(tmp_path: Path) -> None:
    home = open_home(tmp_path / "data")
    home.write_state(state(os.getpid() + 1))
    with home.lock(), pytest.raises(Unavailable):
        home.running()


def test_why_the_last_one_ended_is_told_until_the_next(tmp_path: Path) -> None:
    home = open_home(tmp_path / "data")
    home.forget_state("runner died\n(exit 3)")
    with pytest.raises(Unavailable, match=r"the last one ended: runner died \(exit 3\)"):
        home.running()
    home.forget_state()
    with pytest.raises(Unavailable, match=r"`sluicegate up`$"):
        home.running()


def test_tmp_is_emptied(tmp_path: Path) -> None:
    home = open_home(tmp_path / "data")
    (home.tmp / "rows").mkdir()
    (home.tmp / "rows" / "raw").write_text("x")
    home.empty_tmp()
    assert list(home.tmp.iterdir()) == []
    assert mode(home.tmp) == 0o700


def test_a_full_disk_is_told_with_what_to_do(tmp_path: Path) -> None:
    home = open_home(tmp_path / "data")
    home.require_disk(1)
    with pytest.raises(ConfigurationError, match=r"MB left, 1000000000 are needed: free some"):
        home.require_disk(1_000_000_000)


def test_a_look_at_the_owner_does_not_keep_a_start_away(tmp_path: Path) -> None:
    import fcntl
    import threading

    home = open_home(tmp_path / "data")
    with home.lock():
        pass
    descriptor = os.open(home.run / "lock", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    timer = threading.Timer(0.1, os.close, [descriptor])
    timer.start()
    began = time.monotonic()
    with home.lock():
        assert time.monotonic() - began >= 0.05
    timer.join()
