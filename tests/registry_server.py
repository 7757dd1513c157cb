"""A schema registry in memory that speaks the REST calls we use, as Confluent's does, and can be told to misbehave."""

import asyncio
import json
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestServer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"


def answer(body: object, status: int = 200) -> web.Response:
    return web.Response(body=json.dumps(body).encode(), status=status, content_type=CONTENT_TYPE)


def error(status: int, code: int) -> web.Response:
    return answer({"error_code": code, "message": "told by the registry"}, status)


@dataclass
class RegistryServer:
    """What it holds: (subject, version) -> schema text, and the ids by text. `override` answers in its place."""

    credentials: str | None = None
    override: Handler | None = None
    subjects: dict[str, list[str]] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def put(self, subject: str, text: str) -> int:
        """Registers `text` whatever stands there."""
        self.subjects.setdefault(subject, []).append(text)
        return self.ids.setdefault(text, 100 + len(self.ids))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        if self.credentials is not None:
            wanted = f"Basic {b64encode(self.credentials.encode()).decode()}"
            if request.headers.get("Authorization") != wanted:
                return error(401, 40101)
        if self.override is not None:
            return await self.override(request)
        if request.content_type != CONTENT_TYPE:
            return error(415, 415)
        subject = request.match_info["subject"]
        text = (await request.json())["schema"]
        known = self.subjects.get(subject)
        if request.path.endswith("/versions"):
            if known and text not in known and json.loads(known[-1])["name"] != json.loads(text)["name"]:
                return error(409, 409)
            if known is None or text not in known:
                self.put(subject, text)
            return answer({"id": self.ids[text]})
        if known is None:
            return error(404, 40401)
        if text not in known:
            return error(404, 40403)
        version = known.index(text) + 1
        return answer({"subject": subject, "version": version, "id": self.ids[text], "schema": text})

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["RegistryServer"]:
        """Serves on a free loopback port."""
        application = web.Application()
        application.router.add_post("/subjects/{subject}", self.handle)
        application.router.add_post("/subjects/{subject}/versions", self.handle)
        server = TestServer(application, scheme="https" if tls else "http")
        await server.start_server(ssl=tls)
        self.url = str(server.make_url("/")).rstrip("/")
        try:
            yield self
        finally:
            await server.close()


def fixed(body: bytes, status: int = 200, **headers: str) -> Handler:
    """A handler that always answers so."""

    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status, headers=headers)

    return handle


async def dripping(request: web.Request) -> web.StreamResponse:
    """A byte now and then, for ever."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.05)
