"""Questions come in by a Unix socket, answers go out; how other processes ask an audit that one process owns.

The socket lies in the audit's folder with mode 0600: whoever may read the folder may ask, nobody else, and no port
is open.
"""

import asyncio
import http.client
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

from sluicegate.schemas.errors import ConfigurationError, SluicegateError, Unavailable
from sluicegate.sinks.auditor import Auditor, LocalAuditor
from sluicegate.sinks.clickhouse import AuditConfig, QuestionRefused, open_audit
from sluicegate.sinks.question import Result
from sluicegate.sinks.story import NoSuchRequest, Story, story

SOCKET_NAME: Final = "audit.sock"
# sun_path of Linux, with its closing zero byte.
SOCKET_PATH_BYTES_MAX: Final = 107
BODY_BYTES_MAX: Final = 200_000
WAIT_S: Final = 60
WAITING_MAX: Final = 16
_ERRORS: Final[dict[str, type[SluicegateError]]] = {
    each.__name__: each for each in (QuestionRefused, NoSuchRequest, Unavailable, ConfigurationError)
}


@asynccontextmanager
async def serving(auditor: Auditor, folder: Path) -> AsyncIterator[Path]:
    """Answers on the folder's socket until left. Questions run in a thread, one at a time, and at most 16 wait.

    Raises:
        ConfigurationError: the folder's path is too long for a socket.
    """
    path = _socket_path(folder)
    path.unlink(missing_ok=True)  # left by a killed owner; the folder's lock says there is no other
    application = web.Application(client_max_size=BODY_BYTES_MAX)
    doors = _Doors(auditor)
    application.add_routes(
        [web.post("/sql", doors.sql), web.post("/show", doors.show), web.get("/health", doors.health)]
    )
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        listener = _bound(path)
        await web.SockSite(runner, listener).start()
        yield path
    finally:
        await runner.cleanup()
        path.unlink(missing_ok=True)


def _bound(path: Path) -> socket.socket:
    """A socket that is private from its first moment; nothing else runs in this thread while the mask is changed."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    return listener


class _Doors:
    """The handlers: JSON in, JSON out, an error as its name and text."""

    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def health(self, _: web.Request) -> web.Response:
        return web.json_response({"ok": True, "pid": os.getpid()})

    async def sql(self, request: web.Request) -> web.Response:
        return await self._answer(request, "sql", lambda text: msgspec.json.encode(self._auditor.sql(text)))

    async def show(self, request: web.Request) -> web.Response:
        return await self._answer(request, "request", lambda name: msgspec.json.encode(story(self._auditor, name)))

    async def _answer(self, request: web.Request, key: str, ask: Callable[[str], bytes]) -> web.Response:
        try:
            text = (await request.json())[key]
        except (ValueError, KeyError, TypeError):
            text = None
        if not isinstance(text, str):
            return _failure(400, QuestionRefused(f"send a JSON object with `{key}` as text"))
        if self._waiting >= WAITING_MAX:
            return _failure(503, Unavailable("too many questions are waiting; try again"))
        self._waiting += 1
        try:
            async with self._turn:
                body = await asyncio.to_thread(ask, text)
        except SluicegateError as error:
            return _failure(503 if isinstance(error, Unavailable) else 422, error)
        finally:
            self._waiting -= 1
        return web.Response(body=body, content_type="application/json")


def _failure(status: int, error: SluicegateError) -> web.Response:
    return web.json_response({"error": type(error).__name__, "text": str(error)}, status=status)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=WAIT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class AuditClient:
    """Asks the process that owns the audit."""

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path

    def is_there(self) -> bool:
        """Whether an owner answers."""
        try:
            return bool(self._call("GET", "/health", None).get("ok"))
        except Unavailable:
            return False

    def sql(self, text: str) -> Result:
        """As `Auditor.sql`."""
        return msgspec.convert(self._call("POST", "/sql", {"sql": text}), Result)

    def show(self, request: str) -> Story:
        """As `story.story`, gathered by the owner."""
        return msgspec.convert(self._call("POST", "/show", {"request": request}), Story)

    def _call(self, method: str, url: str, body: dict[str, str] | None) -> dict[str, object]:
        connection = _UnixConnection(self._path)
        try:
            connection.request(method, url, body=None if body is None else json.dumps(body))
            answer = connection.getresponse()
            found = json.loads(answer.read())
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the owner of the audit does not answer on `{self._path}`; is the sink up?") from error
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise _ERRORS.get(str(found.get("error")), Unavailable)(str(found.get("text")))
        return dict(found)


@contextmanager
def asking(config: AuditConfig) -> Iterator[Auditor]:
    """The owner of the audit where one answers, else the audit itself, opened for as long as the caller stays.

    Raises:
        ConfigurationError, Unavailable: as `open_audit`; also where the embedded audit does not exist yet.
    """
    if config.path is not None:
        client = AuditClient(_socket_path(config.path))
        if client.is_there():
            yield client
            return
        if not (config.path / "store").is_dir():
            raise ConfigurationError(f"there is no audit in `{config.path}` yet; start the stack with `sluicegate up`")
    with open_audit(config) as database:
        yield LocalAuditor(database)


def _socket_path(folder: Path) -> Path:
    path = folder / SOCKET_NAME
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise ConfigurationError(
            f"the path of the audit's folder is too long for a socket (`{path}`); choose a shorter one"
        )
    return path
