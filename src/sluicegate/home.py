"""The data directory: its layout, its one owner, its epoch and what runs, and the only place that knows their files.

    keys/ audit/ models/    kept from start to start
    kafka/                  the log of an Apache Kafka node that `up` runs, with its epoch; kept
    run/                    `lock` (held by the one stack that runs here), `state.json` (what runs)
    logs/                   one file a process, JSON lines
    tmp/                    TMPDIR of every process of the stack; emptied at each start
    epoch                   how many logs were begun here: each start of a memory-only broker, each folder formatted

Everything is readable by its owner alone.
"""

import contextlib
import fcntl
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sluicegate.schemas.errors import ConfigurationError, SluicegateError, Unavailable
from sluicegate.schemas.ids import Epoch

FOLDERS = ("keys", "audit", "models", "run", "logs", "tmp")
EPOCH_MAX = 2**31 - 1
MB = 1024**2
LOCK_ATTEMPTS = 6


class AlreadyRunning(SluicegateError):
    """Another stack holds this data directory; `pid` is its supervisor."""

    def __init__(self, home: Path, pid: int) -> None:
        super().__init__(
            f"a stack runs already in `{home}` (pid {pid}): `sluicegate status` shows it, `sluicegate down` stops it"
        )
        self.pid = pid


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildState:
    """One process of the stack as `sluicegate status` shows it; `state` is starting, ready or stopped."""

    name: str
    pid: int
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackState:
    """What runs: written by the supervisor on every change, read by every other command to find the stack."""

    pid: int
    started_s: float
    """Seconds since 1970."""
    bootstrap: str
    epoch: int
    ready: bool
    broker: str = ""
    """`embedded`, `kafka` or `given`; empty before it is known."""
    policy: str = ""
    """`v1 sha256:4be1.. (24 policies)`, empty before the first publication."""
    problems: tuple[str, ...] = ()
    """Why the last edit of the bundle was not published; empty when it was."""
    children: tuple[ChildState, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """An existing data directory; make one with `open_home`."""

    root: Path

    @property
    def keys(self) -> Path:
        """Private keys of stages, services and publishers."""
        return self.root / "keys"

    @property
    def audit(self) -> Path:
        """The database's files."""
        return self.root / "audit"

    @property
    def models(self) -> Path:
        """Graphs built from weights."""
        return self.root / "models"

    @property
    def kafka(self) -> Path:
        """The data of the Apache Kafka node; missing before its first start."""
        return self.root / "kafka"

    @property
    def shadow_wanted(self) -> Path:
        """There while a candidate was started from here and not stopped: the stack runs the shadow stage then."""
        return self.root / "shadow.wanted"

    @property
    def run(self) -> Path:
        """Lock, state and sockets of what runs."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """One log file a process."""
        return self.root / "logs"

    @property
    def tmp(self) -> Path:
        """The private TMPDIR."""
        return self.root / "tmp"

    def log_file(self, name: str) -> Path:
        """Where the process `name` logs."""
        return self.logs / f"{name}.log"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Own this directory for the block's time; the kernel gives it back when the process dies, however it dies.

        Raises:
            AlreadyRunning: another process owns it.
        """
        descriptor = os.open(self.run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            for attempt in range(LOCK_ATTEMPTS):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if attempt == LOCK_ATTEMPTS - 1:
                        raise AlreadyRunning(self.root, _pid(os.pread(descriptor, 32, 0))) from None
                    # It may be `owner` of another command, which holds it for a moment.
                    time.sleep(0.05)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def owner(self) -> int | None:
        """Return the pid of the process that owns this directory, None when nobody does."""
        try:
            descriptor = os.open(self.run / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            # Shared, so that two commands that look at the same moment do not see each other.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _pid(os.pread(descriptor, 32, 0))
        else:
            return None
        finally:
            os.close(descriptor)

    def epoch(self) -> Epoch:
        """Return the epoch of the last log that was begun here, 0 before the first.

        Raises:
            ConfigurationError: the file holds no epoch; guessing one would let two histories share their ids.
        """
        path = self.root / "epoch"
        try:
            text = path.read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            return Epoch(0)
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= EPOCH_MAX):
            msg = f"`{path}` holds no epoch: write the highest epoch of the audit into it, or move `{self.root}` away"
            raise ConfigurationError(msg)
        return Epoch(int(text))

    def raise_epoch(self) -> Epoch:
        """Take the next epoch for a broker that starts with an empty log; on disk before it is returned."""
        epoch = Epoch(self.epoch() + 1)
        _replace(self.root / "epoch", f"{epoch}\n".encode())
        return epoch

    def epoch_labelled(self, label: str) -> Epoch:
        """Return the epoch that a log which was kept is labelled with.

        Raises:
            ConfigurationError: it was not begun in this data directory, so its epoch may be another log's here.
        """
        if not (label.isascii() and label.isdigit() and 1 <= int(label) <= self.epoch()):
            msg = (
                f"the log in `{self.kafka}` says epoch `{label[:20]}` and `{self.root}` has counted {self.epoch()}: "
                "it belongs to another data directory; bring the right one back, or move it away"
            )
            raise ConfigurationError(msg)
        return Epoch(int(label))

    def write_state(self, state: StackState) -> None:
        """Record what runs."""
        _replace(self.run / "state.json", json.dumps(asdict(state), indent=1).encode())

    def forget_state(self, ending: str = "") -> None:
        """Record that nothing runs, and why the last stack ended where it was not told to (one line)."""
        (self.run / "state.json").unlink(missing_ok=True)
        if ending:
            _replace(self.run / "ending", f"{' '.join(ending.split())}\n".encode())
        else:
            (self.run / "ending").unlink(missing_ok=True)

    def _ending(self) -> str:
        try:
            text = (self.run / "ending").read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return ""
        return f" (the last one ended: {text})"

    def running(self, *, ready: bool = True) -> StackState:
        """Return the state of the stack that runs here; with `ready`, only of one that takes requests.

        Raises:
            Unavailable: none runs, or it is still starting.
        """
        owner = self.owner()
        state = self._read_state() if owner is not None else None
        if state is None or state.pid != owner:
            if owner is not None:
                msg = f"the stack in `{self.root}` is starting (pid {owner}): try again in a moment"
                raise Unavailable(msg)
            msg = f"no stack runs in `{self.root}`: start it with `sluicegate up`{self._ending()}"
            raise Unavailable(msg)
        if ready and not state.ready:
            msg = f"the stack in `{self.root}` is starting or stopping (pid {owner}): try again in a moment"
            raise Unavailable(msg)
        return state

    def _read_state(self) -> StackState | None:
        try:
            found = json.loads((self.run / "state.json").read_bytes())
            children = tuple(ChildState(**child) for child in found.pop("children"))
            return StackState(children=children, problems=tuple(found.pop("problems")), **found)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def empty_tmp(self) -> None:
        """Remove what a killed process left in `tmp`: it may hold raw rows. Call it only as the owner."""
        shutil.rmtree(self.tmp)
        self.tmp.mkdir(mode=0o700)

    def require_disk(self, mb_min: int) -> None:
        """Check that `mb_min` MB are free where this directory lies.

        Raises:
            ConfigurationError: less is free.
        """
        free_mb = shutil.disk_usage(self.root).free // MB
        if free_mb < mb_min:
            msg = f"`{self.root}` has {free_mb} MB left, {mb_min} are needed: free some, or set `SLUICEGATE_HOME`"
            raise ConfigurationError(msg)


def open_home(root: Path) -> Home:
    """Return the data directory at `root`, made with mode 0700 where it is missing; its path is made absolute.

    Raises:
        ConfigurationError: it cannot be made, belongs to somebody else or is no folder.
    """
    root = root.absolute()
    try:
        if root.is_dir() and not (root / "run").is_dir() and any(root.iterdir()):
            # Its mode is set below and `tmp` is emptied at each start: not in a folder that holds something else.
            msg = f"`{root}` holds other things than a stack's data: set `SLUICEGATE_HOME` to a new or empty folder"
            raise ConfigurationError(msg)
        for folder in (root, *(root / name for name in FOLDERS)):
            folder.mkdir(mode=0o700, parents=folder == root, exist_ok=True)
            _make_private(folder)
    except OSError as error:
        why = (error.strerror or "unknown").lower()
        msg = f"`{root}` cannot be the data directory ({why}): set `SLUICEGATE_HOME` to another folder"
        raise ConfigurationError(msg) from None
    return Home(root=root)


def _make_private(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        msg = f"`{folder}` is not a folder of this user: set `SLUICEGATE_HOME` to another place"
        raise ConfigurationError(msg)
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a start after power loss, sees the old content or the new, never a part."""
    staging = path.with_name(path.name + ".new")
    try:
        with staging.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        why = (error.strerror or "unknown").lower()
        msg = f"`{path}` cannot be written ({why}): free space, or set `SLUICEGATE_HOME`"
        raise ConfigurationError(msg) from None


def _pid(content: bytes) -> int:
    text = content.decode("ascii", errors="replace").strip()
    return int(text) if text.isdigit() else 0
