"""As much of a ClickHouse server as its own client needs, over HTTP, with the real engine (chdb) behind it.

Accounts are what `CREATE USER` and `GRANT` made them: passwords are held against the salted hashes that were sent, and
each account's queries run on the engine under exactly the grants and settings that were sent, which it enforces itself.
The embedded engine keeps no accounts of its own, so these statements are read here; `HOST` is not held.
"""

import base64
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit
from xml.sax.saxutils import escape

import clickhouse_connect
import lz4.frame
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

ADMIN: Final = "default"
ADMIN_PASSWORD: Final = "the administrator's"
# What the protocol itself takes from the address; everything else there is a setting.
PROTOCOL: Final = {
    "database", "query", "query_id", "session_id", "default_format", "client_protocol_version", "wait_end_of_query",
    "enable_http_compression", "buffer_size", "compress", "decompress", "send_progress_in_http_headers",
    "http_headers_progress_interval_ms", "cancel_http_readonly_queries_on_client_close",
}  # fmt: skip
USER: Final = re.compile(
    r"(?:CREATE USER IF NOT EXISTS|ALTER USER) (\w+) IDENTIFIED WITH sha256_hash BY '([0-9a-f]{64})' SALT '(\w+)' "
    r"HOST (ANY|IP '[^']+'(?:, IP '[^']+')*)(?: SETTINGS (\w+) = (\w+))?"
)
GRANT: Final = re.compile(r"GRANT ([A-Z, ]+) ON (\S+) TO (\w+)")
FORMAT: Final = re.compile(r"\sFORMAT\s+(\w+)\s*;?\s*\Z", re.IGNORECASE)
READING: Final = re.compile(r"[\s(]*(SELECT|WITH|EXPLAIN|SHOW|DESCRIBE|EXISTS)\b", re.IGNORECASE)
INSERT: Final = re.compile(r"\s*INSERT\s+INTO\s+(\S+)\s*(?:\(([^)]*)\))?", re.IGNORECASE)


@dataclass(kw_only=True)
class Account:
    digest: str = ""
    salt: str = ""
    hosts: str = ""
    grants: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)

    def opens_with(self, password: str) -> bool:
        return sha256((password + self.salt).encode()).hexdigest() == self.digest


class Refused(Exception):
    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {text} (version 26.9.2.1)")
        self.status = status
        self.code = code


class ClickHouse:
    """The engine with its accounts. One query at a time; another account's grants mean another start of the engine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._client: tuple[str, Client] | None = None
        salt = "of the administrator"
        self.accounts = {
            ADMIN: Account(digest=sha256((ADMIN_PASSWORD + salt).encode()).hexdigest(), salt=salt, hosts="ANY")
        }
        self.statements: list[tuple[str, str]] = []
        self.settings_seen: dict[str, dict[str, str]] = {}
        self.down = False

    def answer(
        self, account: str, password: str, sql: str, body: bytes, database: str, settings: Mapping[str, str]
    ) -> bytes:
        known = self.accounts.get(account)
        if known is None or not known.opens_with(password):
            raise Refused(403, 516, f"{account}: Authentication failed: password is incorrect, or there is no user.")
        with self._lock:
            self.statements.append((account, sql))
            self.settings_seen[account] = dict(settings)
            if self._administers(account, sql):
                return b""
            client = self._client_of(account, database)
            try:
                return self._run(client, sql, body, settings)
            except DatabaseError as error:
                code = error.code or 1000
                raise Refused(500, code, re.sub(r"^.*?DB::Exception: ", "", str(error))) from error

    def _run(self, client: Client, sql: str, body: bytes, settings: Mapping[str, str]) -> bytes:
        inserted = INSERT.match(sql)
        if inserted:
            names = [each.strip(" `") for each in inserted[2].split(",")] if inserted[2] else None
            client.raw_insert(inserted[1].replace("`", ""), names, body, fmt="Native", settings=dict(settings))
            return b""
        found = FORMAT.search(sql)
        asked = FORMAT.sub("", sql).rstrip(" ;\n")
        if not READING.match(asked):
            client.command(asked, settings=dict(settings))
            return b""
        return client.raw_query(asked, fmt=found[1] if found else "TabSeparated", settings=dict(settings))

    def _administers(self, account: str, sql: str) -> bool:
        made, granted = USER.fullmatch(sql.strip()), GRANT.fullmatch(sql.strip())
        if made is None and granted is None:
            if re.match(r"\s*(CREATE|ALTER|DROP)\s+USER|\s*(GRANT|REVOKE)\b", sql, re.IGNORECASE):
                raise Refused(500, 62, f"Syntax error: {sql[:40]}")
            return False
        if account != ADMIN:
            raise Refused(500, 497, f"{account}: Not enough privileges.")
        if made is not None:
            if sql.startswith("CREATE") and made[1] in self.accounts:
                return True
            before = self.accounts.get(made[1], Account())
            before.digest, before.salt, before.hosts = made[2], made[3], made[4]
            before.settings = {made[5]: made[6]} if made[5] else {}
            self.accounts[made[1]] = before
        if granted is not None:
            self.accounts[granted[3]].grants.append(f"GRANT {granted[1]} ON {granted[2]}")
        self._close()
        return True

    def _client_of(self, account: str, database: str) -> Client:
        if self._client is None or self._client[0] != account:
            self._close()
            options = {} if account == ADMIN else {"chdb_options": {"config-file": str(self._restrictions(account))}}
            path = str(self._folder / "store")
            self._client = (account, clickhouse_connect.get_client(interface="chdb", path=path, **options))
        self._client[1].database = database or None
        return self._client[1]

    def _restrictions(self, account: str) -> Path:
        known = self.accounts[account]
        grants = "".join(f"<query>{escape(each)}</query>" for each in known.grants)
        profile = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in known.settings.items())
        users, config = self._folder / f"{account}.users.xml", self._folder / f"{account}.xml"
        users.write_text(
            "<clickhouse><users><default><password></password><networks><ip>::/0</ip></networks>"
            "<profile>default</profile><quota>default</quota><grants>" + grants + "</grants></default></users>"
            "<profiles><default>" + profile + "</default></profiles><quotas><default/></quotas></clickhouse>"
        )
        config.write_text(f"<clickhouse><users_config>{users}</users_config></clickhouse>")
        return config

    def _close(self) -> None:
        if self._client is not None:
            self._client[1].close()
            self._client = None

    def close(self) -> None:
        with self._lock:
            self._close()


def handler(engine: ClickHouse) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve(b"")

        def do_POST(self) -> None:
            self._serve(self._body())

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                body = b"".join(parts)
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            encoding = self.headers.get("Content-Encoding")
            assert encoding in (None, "lz4"), encoding
            return lz4.frame.decompress(body) if encoding == "lz4" else body

        def _serve(self, body: bytes) -> None:
            if engine.down:
                self.close_connection = True
                return
            where = urlsplit(self.path)
            if where.path == "/ping":
                self._send(200, b"Ok.\n", {})
                return
            given = dict(parse_qsl(where.query, keep_blank_values=True))
            said, data = (given["query"].encode(), body) if "query" in given else (body, b"")
            if INSERT.match(said[:4096].decode("utf-8", "replace")) and not data:
                said, _, data = said.partition(b"\n")  # the rows follow the statement
            sql = said.decode()
            word, _, credentials = self.headers.get("Authorization", "").partition(" ")
            user, _, password = (
                base64.b64decode(credentials).decode().partition(":") if word == "Basic" else ("", "", "")
            )
            settings = {name: value for name, value in given.items() if name not in PROTOCOL}
            try:
                found = engine.answer(user, password, sql, data, given.get("database", ""), settings)
            except Refused as error:
                self._send(error.status, str(error).encode(), {"X-ClickHouse-Exception-Code": str(error.code)})
                return
            named = FORMAT.search(sql)
            self._send(200, found, {"X-ClickHouse-Format": named[1]} if named else {})

        def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in {"X-ClickHouse-Timezone": "UTC", "X-ClickHouse-Summary": "{}", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def clickhouse_server(folder: Path) -> Iterator[tuple[ClickHouse, int]]:
    """The engine and its port on 127.0.0.1."""
    engine = ClickHouse(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(engine))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield engine, server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
        engine.close()
