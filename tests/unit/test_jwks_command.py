"""`sluicegate jwks fetch` against a provider on this machine: what it makes of its keys, and whom it does not ask."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from certificates import Authority
from producers import IDP, ed25519

from sluicegate import cli
from sluicegate.enforcer.credentials import parse_credentials
from sluicegate.enforcer.directory_change import read_change
from sluicegate.enforcer.jwks import JWKS_BYTES_MAX
from sluicegate.jwks_source import Provider, fetch, read_file
from sluicegate.keys import public_jwk
from sluicegate.schemas.errors import ConfigurationError, SluicegateError, Unavailable

OLD, NEW = public_jwk(IDP, "idp-1"), public_jwk(ed25519(44), "idp-2")
QUICK = Provider(timeout_s=0.3)
NEW_ISSUER = ("--audience", "gate", "--bind", "azp")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def keys_of_a_realm(request: web.Request) -> web.StreamResponse:
    return web.json_response({"keys": [OLD, {**NEW, "use": "enc"}]})


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_get("/{path:.*}", handler)
    server = TestServer(application, scheme="https" if tls else "http")
    await server.start_server(ssl=tls)
    try:
        yield str(server.make_url("/")).rstrip("/")
    finally:
        await server.close()


@dataclass(frozen=True)
class Typed:
    code: int
    out: str
    err: str


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "directory.json"
    path.write_text(json.dumps({"entities": [], "service_keys": [], "issuers": []}))
    return path


@pytest.fixture
def typed(directory: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Awaitable[Typed]]:
    async def call(*words: str) -> Typed:
        code = await asyncio.to_thread(cli.main, ["jwks", "fetch", "--directory", str(directory), *words])
        found = capsys.readouterr()
        return Typed(code, found.out, found.err)

    return call


def content(path: Path) -> bytes:
    return path.read_bytes()


def left_over(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def document(tmp_path: Path, *keys: dict[str, Any]) -> str:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": list(keys)}))
    return str(path)


# ---- the command


async def test_the_keys_at_an_address_become_a_change(typed: Callable[..., Awaitable[Typed]]) -> None:
    async with serving(keys_of_a_realm) as url:
        found = await typed("--issuer", "https://id.example", "--url", f"{url}/certs", *NEW_ISSUER)
    assert found.code == 0
    change = read_change(found.out.rstrip("\n").encode())
    assert {name: set(each.keys) for name, each in change.issuers.items()} == {"https://id.example": {"idp-1"}}
    assert change.issuers["https://id.example"].principal_claim == "sub"
    assert "new      `idp-1`" in found.err
    assert "left out `idp-2`: it is not for signatures" in found.err


async def test_the_address_is_what_the_issuers_metadata_say(typed: Callable[..., Awaitable[Typed]]) -> None:
    lies = False

    async def realm(request: web.Request) -> web.StreamResponse:
        issuer = str(request.url.origin()) + "/realms/heron"
        if request.path == "/realms/heron/.well-known/openid-configuration":
            return web.json_response(
                {"issuer": issuer + ("x" if lies else ""), "jwks_uri": f"{issuer}/protocol/openid-connect/certs"}
            )
        if request.path == "/realms/heron/protocol/openid-connect/certs":
            return web.json_response({"keys": [OLD]})
        return web.json_response({}, status=404)

    async with serving(realm) as url:
        found = await typed("--issuer", f"{url}/realms/heron", *NEW_ISSUER)
        assert (found.code, '"kid":"idp-1"' in found.out) == (0, True)
        lies = True
        refused = await typed("--issuer", f"{url}/realms/heron", *NEW_ISSUER)
    assert (refused.code, refused.out) == (2, "")
    assert "of another issuer" in refused.err


async def test_a_rotation_is_written_into_the_directory_and_told(
    typed: Callable[..., Awaitable[Typed]], tmp_path: Path, directory: Path
) -> None:
    words = ("--issuer", "https://id.example", "--write", "--file")
    told = []
    for keys in ((OLD,), (OLD, NEW), (NEW,), (NEW,)):
        found = await typed(*words, document(tmp_path, *keys), *(NEW_ISSUER if not told else ()))
        assert (found.code, found.out) == (0, "")
        told.append([line.split()[:2] for line in found.err.splitlines() if line.split()[0] in {"new", "same", "gone"}])
    assert told == [
        [["new", "`idp-1`"]],
        [["new", "`idp-2`"], ["same", "`idp-1`"]],
        [["same", "`idp-2`"], ["gone", "`idp-1`"]],
        [["same", "`idp-2`"]],
    ]
    written = parse_credentials(json.loads(content(directory)))
    assert set(written.issuers["https://id.example"].keys) == {"idp-2"}
    assert left_over(tmp_path) == []


async def test_a_check_tells_by_its_exit_code_and_leaves_all_as_it_is(
    typed: Callable[..., Awaitable[Typed]], tmp_path: Path, directory: Path
) -> None:
    words = ("--issuer", "https://id.example", "--file")
    await typed(*words, document(tmp_path, OLD), *NEW_ISSUER, "--write")
    before = content(directory)
    assert (await typed(*words, document(tmp_path, OLD), "--check")).code == 0
    differs = await typed(*words, document(tmp_path, OLD, NEW), "--check")
    assert (differs.code, differs.out) == (1, "")
    assert content(directory) == before


async def test_nobody_guesses_who_may_send_the_tokens_of_a_new_issuer(
    typed: Callable[..., Awaitable[Typed]], tmp_path: Path
) -> None:
    words = ("--issuer", "https://id.example", "--file", document(tmp_path, OLD))
    for given, missing in ((("--audience", "gate"), "--bind"), (("--bind", "azp"), "--audience")):
        found = await typed(*words, *given)
        assert (found.code, found.out, missing in found.err) == (2, "", True)


async def test_a_document_with_a_private_key_changes_nothing(
    typed: Callable[..., Awaitable[Typed]], tmp_path: Path, directory: Path
) -> None:
    before = content(directory)
    found = await typed(
        "--issuer", "https://id.example", "--write", *NEW_ISSUER, "--file", document(tmp_path, {**OLD, "d": "c2VjcmV0"})
    )
    assert (found.code, found.out) == (1, "")
    assert "private or secret" in found.err
    assert "c2VjcmV0" not in found.err
    assert content(directory) == before


# ---- whom it does not ask, and what it does not take


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example/jwks", "http://10.0.0.1/jwks", "ftp://127.0.0.1/x", "file:///etc/passwd", "https://", "x",
        "https://ana:secret@id.example/jwks", "https://id.example/jwks#x", "https://id.example:99999/", "",
        "http://127.0.0.1.evil.example/jwks", "http://localhost@evil.example/",
    ],
)  # fmt: skip
async def test_an_address_that_is_never_asked(url: str) -> None:
    with pytest.raises(ConfigurationError, match="address") as caught:
        await fetch(url, QUICK)
    assert "secret" not in str(caught.value)


def status(code: int, **headers: str) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.json_response({"keys": [OLD]}, status=code, headers=headers)

    return handle


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(4 * JWKS_BYTES_MAX // 4096):
        await response.write(b" " * 4096)
    return response


async def silent(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(5)
    return web.json_response({"keys": [OLD]})


async def dripping(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(50):
        await response.write(b" ")
        await asyncio.sleep(0.1)
    return response


@pytest.mark.parametrize(
    ("handler", "error", "why"),
    [
        (status(302, Location="/certs"), ConfigurationError, "redirect"),
        (status(307, Location="https://id.example/"), ConfigurationError, "redirect"),
        (status(404), ConfigurationError, "no such document"),
        (status(204), ConfigurationError, "no such document"),
        (status(500), Unavailable, "later"),
        (status(429), Unavailable, "later"),
        (endless, ConfigurationError, "bytes"),
        (silent, Unavailable, "does not answer"),
        (dripping, Unavailable, "does not answer"),
    ],
)
async def test_an_answer_that_is_not_taken(handler: Handler, error: type[SluicegateError], why: str) -> None:
    async with serving(handler) as url:
        with pytest.raises(error, match=why):
            await fetch(f"{url}/jwks", QUICK)
    async with serving(status(200)) as url:
        assert json.loads(await fetch(f"{url}/jwks", QUICK)) == {"keys": [OLD]}


async def test_a_provider_is_asked_over_tls_that_verifies(tmp_path: Path) -> None:
    authority, stranger = Authority.make(tmp_path / "ca", "house"), Authority.make(tmp_path / "other", "other")
    certificate, key = authority.issue("id")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    async with serving(keys_of_a_realm, tls) as url:
        found = await fetch(f"{url}/jwks", Provider(ca_file=authority.certificate_file))
        assert json.loads(found)["keys"][0] == OLD
        for ca_file in (stranger.certificate_file, None):
            with pytest.raises(ConfigurationError, match="does not verify"):
                await fetch(f"{url}/jwks", Provider(ca_file=ca_file))
    with pytest.raises(ConfigurationError, match="no certificate"):
        await fetch("https://127.0.0.1:1/", Provider(ca_file=key.parent / "nothing.pem"))


def test_a_file_is_not_read_without_end(tmp_path: Path) -> None:
    path = tmp_path / "jwks"
    path.write_bytes(b" " * (3 * JWKS_BYTES_MAX))
    assert len(read_file(path)) == JWKS_BYTES_MAX + 1
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_file(tmp_path / "none")
