"""A configuration goes in, clients of the audit database come out; the only place that opens it and translates its
errors.

Embedded: chdb on disk, in this process. One process owns the folder: a lock says who, and everybody else asks its
owner (`serve`). Server: the same client code against a ClickHouse server. Either way tables are made first, with the
right to do so, and the clients that stay open may only INSERT and SELECT.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from ipaddress import ip_network
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlencode

import clickhouse_connect
from chdb.state.sqlitelike import Connection
from clickhouse_connect.driver import options as client_options
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import (
    ClickHouseError,
    DatabaseError,
    OperationalError,
    ProgrammingError,
)

from sluicegate.schemas.errors import ConfigurationError, SluicegateError, Unavailable

# The client looks for pandas at the first insert, only to see that plain rows are no data frame: seconds for nothing.
vars(client_options).setdefault("pd", None)

DATABASE: Final = "sluicegate"
TABLE_FILES: Final = ("requests.sql", "decisions.sql", "generations.sql", "releases.sql", "policy.sql", "shadow.sql")
AUDITOR_ROWS_MAX: Final = 10_000
# What an auditor's question may cost, and how its answer is written.
AUDITOR_SETTINGS: Final[Mapping[str, str | int]] = {
    "implicit_select": 0,
    "max_execution_time": 30,
    "max_memory_usage": 2_000_000_000,
    "limit": AUDITOR_ROWS_MAX + 1,
    "max_result_bytes": 64_000_000,
    "output_format_json_quote_64bit_integers": 0,
    "output_format_json_quote_denormals": 1,
}
# Codes of src/Common/ErrorCodes.cpp.
_DISK_FULL: Final = frozenset({243})
_UNKNOWN: Final = frozenset({81, 192, 193, 194, 516})
_AWAY: Final = frozenset({159, 202, 209, 210, 241, 396})

_ACCOUNT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}", re.ASCII)
_NOISE: Final = re.compile(
    r"Code: \d+\. ?|DB::Exception: ?| ?\(version [^)]*\)\.?|^HTTPDriver for \S+ ?| ?\(for url [^)]*\)"
    r"|^Received ClickHouse exception, (code: \d+, )?(server response: )?"
)


class QuestionRefused(SluicegateError):
    """The database refuses a question as it stands; the text says why. Ask another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditConfig:
    """Where the audit lies: a folder of ours (`path`, embedded) or a ClickHouse server (`host`), exactly one of them.

    `user` writes, `auditor` only reads; both are made by `ddl/users.sql`. Times in seconds.
    """

    path: Path | None = None
    host: str | None = None
    port: int = 8123
    secure: bool = False
    user: str = "sluicegate_sink"
    password: str = ""
    auditor: str = "sluicegate_auditor"
    auditor_password: str = ""
    connect_timeout_s: int = 5
    query_timeout_s: int = 60

    def __post_init__(self) -> None:
        if (self.path is None) == (self.host is None):
            raise ConfigurationError("the audit needs either a folder or a ClickHouse host; set exactly one")


class AuditDatabase:
    """Clients of one audit, each opened when it is first asked for: the writer may INSERT and SELECT, the reader may
    SELECT within limits. Use them through `writing` and `reading`. Close it.

    `classifier` is the embedded engine's parser, None for a server. After a failure a client is opened anew, since the
    embedded engine puts what a failed query had begun to answer in front of the next answer on the same connection
    (chdb 4.4.0, seen with a query that ran out of memory).
    """

    def __init__(
        self,
        *,
        open_writer: Callable[[], Client],
        open_reader: Callable[[], Client],
        classifier: Connection | None,
        held: ExitStack,
    ) -> None:
        self._open: dict[bool, Callable[[], Client]] = {True: open_writer, False: open_reader}
        self._clients: dict[bool, Client] = {}
        self.classifier = classifier
        self._held = held

    @property
    def writer(self) -> Client:
        """The client that may INSERT and SELECT."""
        return self._client(writes=True)

    @property
    def reader(self) -> Client:
        """The client that may SELECT within the limits of auditors."""
        return self._client(writes=False)

    def _client(self, *, writes: bool) -> Client:
        if writes not in self._clients:
            self._clients[writes] = self._open[writes]()
        return self._clients[writes]

    def writing(self) -> AbstractContextManager[Client]:
        """The client that may INSERT and SELECT, its errors translated."""
        return self._lent(writes=True)

    def reading(self) -> AbstractContextManager[Client]:
        """The client that may SELECT within the limits of auditors, its errors translated."""
        return self._lent(writes=False)

    @contextmanager
    def _lent(self, *, writes: bool) -> Iterator[Client]:
        try:
            with translated():
                yield self._client(writes=writes)
        except SluicegateError:
            failed = self._clients.pop(writes, None)
            if failed is not None:
                failed.close()
            raise

    def close(self) -> None:
        """Closes the clients and gives the folder back."""
        while self._clients:
            self._clients.popitem()[1].close()
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_audit(config: AuditConfig) -> AuditDatabase:
    """Opens the audit, making its tables and views where they are missing.

    Raises:
        ConfigurationError: another process owns the folder, it cannot be written, or the account lacks a right.
        Unavailable: the disk is full, or the server does not answer.
    """
    with translated():
        return _open_embedded(config.path) if config.path is not None else _open_server(config)


def statements(name: str) -> tuple[str, ...]:
    """The SQL statements of one file of `ddl/`, without comments between them."""
    text = (resources.files("sluicegate.sinks") / "ddl" / name).read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if not line.startswith("--"))
    return tuple(found.strip(" \n;") for found in "\n".join(lines).split(";\n") if found.strip(" \n;"))


def _open_embedded(path: Path) -> AuditDatabase:
    held = ExitStack()
    try:
        held.callback(os.close, _own(path))
        _private_temporary(path)
        held.callback(setattr, tempfile, "tempdir", None)
        store = str((path / "store").resolve())
        _make(clickhouse_connect.get_client(interface="chdb", path=store))
        options = {"config-file": str(_restrictions(path))}
        # Not `chdb.connect`: two distributions ship `chdb/__init__.py`, and which one stands is the installer's order.
        classifier = Connection(f"{store}?{urlencode(options)}")
        held.callback(classifier.close)

        def client() -> Client:
            return clickhouse_connect.get_client(interface="chdb", path=store, database=DATABASE, chdb_options=options)

        limits = {**AUDITOR_SETTINGS, "readonly": 1}  # last: it shuts the door behind the others
        return AuditDatabase(
            open_writer=client, open_reader=lambda: _limited(client(), limits), classifier=classifier, held=held
        )
    except BaseException:
        held.close()
        raise


def _limited(client: Client, limits: Mapping[str, str | int]) -> Client:
    """The client, held to what an auditor's question may cost."""
    for setting, value in limits.items():
        client.set_client_setting(setting, value)
    return client


def _own(path: Path) -> int:
    """Takes the folder for this process; the kernel gives it back however the process ends."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    lock = os.open(path / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise ConfigurationError(
            f"process {owner} owns the audit in `{path}`; ask it through its socket, or stop it first"
        ) from None
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
    except OSError:
        os.close(lock)
        raise
    return lock


def _private_temporary(path: Path) -> None:
    """A temporary folder of this audit's own, empty: the client leaves files with raw rows there when it is killed.

    It is set for the process, since the client asks `tempfile` and takes no folder of ours.
    """
    folder = path / "tmp"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    tempfile.tempdir = str(folder)


def _restrictions(path: Path) -> Path:
    """Writes the engine's configuration, which names the file of its users, and returns where it stands."""
    users, config = path / "users.xml", path / "engine.xml"
    users.write_text(
        (resources.files("sluicegate.sinks") / "ddl" / "users.xml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    escaped = str(users.resolve()).replace("&", "&amp;").replace("<", "&lt;")
    template = (resources.files("sluicegate.sinks") / "ddl" / "engine.xml").read_text(encoding="utf-8")
    config.write_text(template.replace("USERS_XML", escaped), encoding="utf-8")
    return config


def _make(client: Client) -> None:
    """Makes what is missing with a client that may, and closes it."""
    try:
        client.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
        client.database = DATABASE
        for name in (*TABLE_FILES, "views.sql"):
            for statement in statements(name):
                client.command(statement)
    finally:
        client.close()


def install(config: AuditConfig, *, user: str, password: str, networks: Sequence[str] = ()) -> None:
    """Makes the tables, views and users on a server, as its administrator, apart from the sink; again at any time, to
    change passwords. `networks`: whence sink and auditors may come (CIDR); none given: from anywhere, by password.

    Raises:
        ConfigurationError: the account may not do this, a password is missing, or a network is none.
        Unavailable: the server does not answer.
    """
    users = user_statements(config, networks)
    try:
        _install(config, user, password, users)
    except QuestionRefused as error:
        raise ConfigurationError(f"`{user}` cannot install the audit ({error}); use an administrator") from error


def _install(config: AuditConfig, user: str, password: str, users: Sequence[str]) -> None:
    with translated():
        client = _server_client(config, user, password, database="default")
        try:
            client.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
            for statement in users:
                client.command(statement)
        finally:
            client.close()
        _make(_server_client(config, user, password, database="default"))


def user_statements(config: AuditConfig, networks: Sequence[str] = ()) -> tuple[str, ...]:
    """The statements of `ddl/users.sql` for these accounts; they hold salted hashes, no password.

    Raises:
        ConfigurationError: a password is missing, a name cannot be an account's, or a network is none.
    """
    try:
        hosts = ", ".join(f"IP '{ip_network(each)}'" for each in networks) or "ANY"
    except ValueError:
        raise ConfigurationError(f"`{', '.join(networks)}` are no networks; write them as 10.0.0.0/8") from None
    words = {"FROM_HOSTS": hosts}
    for word, name, password in (
        ("SINK", config.user, config.password),
        ("AUDITOR", config.auditor, config.auditor_password),
    ):
        if not _ACCOUNT.fullmatch(name):
            raise ConfigurationError(f"`{name}` cannot be an account; use letters, digits and `_`")
        if not password:
            raise ConfigurationError(f"`{name}` needs a password; nobody reaches the audit without one")
        salt = secrets.token_hex(16)
        words[word] = name
        words[f"{word}_IDENTITY"] = f"sha256_hash BY '{sha256((password + salt).encode()).hexdigest()}' SALT '{salt}'"
    pattern = re.compile("|".join(sorted(words, key=len, reverse=True)))
    return tuple(pattern.sub(lambda found: words[found[0]], each) for each in statements("users.sql"))


def _open_server(config: AuditConfig) -> AuditDatabase:
    def reader() -> Client:
        client = _server_client(config, config.auditor, config.auditor_password, database=DATABASE)
        return _limited(client, AUDITOR_SETTINGS)  # its account is read-only by itself

    return AuditDatabase(
        open_writer=lambda: _server_client(config, config.user, config.password, database=DATABASE),
        open_reader=reader,
        classifier=None,
        held=ExitStack(),
    )


def _server_client(config: AuditConfig, user: str, password: str, *, database: str) -> Client:
    return clickhouse_connect.get_client(
        host=config.host,
        port=config.port,
        secure=config.secure,
        username=user,
        password=password,
        database=database,
        connect_timeout=config.connect_timeout_s,
        send_receive_timeout=config.query_timeout_s,
    )


@contextmanager
def translated() -> Iterator[None]:
    """Turns what the client raises into errors of ours: mend a setting, ask otherwise, or try again later."""
    try:
        yield
    except OperationalError as error:
        raise Unavailable(f"the audit database does not answer ({_first_line(error)}); is the server up?") from error
    except ClickHouseError as error:
        raise _translation(error) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Unavailable("the disk of the audit is full; free some space, the sink goes on by itself") from error
        raise ConfigurationError(
            f"the audit's folder cannot be used ({error.strerror}); check its path and rights"
        ) from error


def _translation(error: ClickHouseError) -> SluicegateError:
    code = error.code if isinstance(error, DatabaseError) else None
    text = _first_line(error)
    if code in _DISK_FULL or "No space left on device" in str(error):
        return Unavailable("the disk of the audit is full; free some space, the sink goes on by itself")
    if code in _UNKNOWN:
        return ConfigurationError(
            f"the audit database does not let this account in ({text}); mend the password file, or run "
            "`sluicegate audit install`"
        )
    if code in _AWAY:
        return Unavailable(f"the audit database gave up ({text}); try again with less")
    if isinstance(error, ProgrammingError):
        return ConfigurationError(f"the audit database cannot be opened ({text}); is another process using it?")
    return QuestionRefused(text)


def _first_line(error: Exception) -> str:
    """The first line of the database's own words, without codes and versions, and not long."""
    return _NOISE.sub("", str(error).strip().split("\n", 1)[0]).strip().removesuffix(".")[:300]
