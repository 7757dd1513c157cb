"""The schema registry: what it says at start is checked before it is believed, and each fault names a way out."""

import asyncio
import datetime
import gzip
import ipaddress
import json
import ssl
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from registry_server import Handler, RegistryServer, dripping, fixed

from sluicegate.cli import main
from sluicegate.registry import (
    ANSWER_BYTES_MAX,
    Registry,
    RegistryConfig,
    ids_at_start,
    known_ids,
    latest_id,
    schema_text,
    subjects,
)
from sluicegate.schemas import codec
from sluicegate.schemas.errors import ConfigurationError, Unavailable
from sluicegate.schemas.events import ReleaseMade, RequestSubmitted
from sluicegate.settings import Settings
from sluicegate.streams.topology import Topology

WANTED = subjects(Topology(tenant="heron", partitions=1))
REQUESTS, RELEASES = "heron.requests-value", "heron.releases-value"
REQUEST, RELEASE = codec.LATEST[RequestSubmitted], codec.LATEST[ReleaseMade]
PASSWORD = "canary-8812"


async def ids_from(server: RegistryServer, **settings: object) -> dict[int, str]:
    config = RegistryConfig(url=server.url, **({"timeout_s": 5.0} | settings))  # type: ignore[arg-type]
    return dict(await known_ids(config, WANTED))


def filled() -> RegistryServer:
    server = RegistryServer()
    server.put("somebody-elses-value", '{"type":"record","name":"Other","fields":[]}')
    server.put(REQUESTS, schema_text(REQUEST))
    server.put(RELEASES, schema_text(RELEASE))
    return server


def test_the_subjects_are_those_of_topic_name_strategy() -> None:
    assert {REQUESTS: RequestSubmitted, RELEASES: ReleaseMade} == WANTED


async def test_ids_come_from_the_registry_by_the_text_of_our_schemas() -> None:
    async with filled().running() as server:
        found = await ids_from(server)
        settings = Settings(tenant="heron", registry_url=server.url + "/")
        assert await ids_at_start(settings) == found
    assert found == {101: REQUEST, 102: RELEASE}
    assert (latest_id(found, RequestSubmitted), latest_id(found, ReleaseMade), latest_id({}, ReleaseMade)) == (
        101, 102, None,
    )  # fmt: skip
    assert await ids_at_start(Settings()) == {}


async def test_registering_is_done_once_and_says_the_id() -> None:
    async with RegistryServer().running() as server, Registry(RegistryConfig(url=server.url)) as registry:
        assert await registry.lookup(REQUESTS, REQUEST) is None
        first = await registry.register(REQUESTS, REQUEST)
        assert await registry.lookup(REQUESTS, REQUEST) == first == await registry.register(REQUESTS, REQUEST)
        assert server.subjects[REQUESTS] == [schema_text(REQUEST)]
        with pytest.raises(ConfigurationError, match=r"is not registered under .* `sluicegate schemas register`"):
            await ids_from(server)


async def test_another_schema_under_the_subject_is_not_taken_for_ours() -> None:
    server = RegistryServer()
    server.put(REQUESTS, json.dumps({"type": "record", "name": "Order", "fields": [{"name": "a", "type": "int"}]}))
    async with server.running():
        with pytest.raises(ConfigurationError, match="is not registered under the subject"):
            await ids_from(server)
        async with Registry(RegistryConfig(url=server.url)) as registry:
            with pytest.raises(ConfigurationError, match="not compatible"):
                await registry.register(REQUESTS, REQUEST)


TRUE = json.dumps({"id": 7, "version": 1, "subject": REQUESTS, "schema": schema_text(REQUEST)}).encode()


def lying(**members: object) -> Handler:
    """A registry that finds our schema, but says something else of it."""
    return fixed(
        json.dumps({"id": 7, "version": 1, "subject": REQUESTS, "schema": schema_text(REQUEST)} | members).encode()
    )


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (lying(schema='{"type":"record","name":"Order","fields":[]}'), "another schema than `RequestSubmitted.v1`"),
        (lying(schema=schema_text(RELEASE)), "another schema"),
        (lying(schema="{"), "another schema"),
        (lying(schema='"string"'), "another schema"),
        (lying(schema='{"type":"record"}'), "another schema"),
        (lying(schema='{"type":"recrd","name":"X"}'), "another schema"),
        (lying(schema=5), "another schema"),
        (lying(id="7"), "no schema registry"),
        (lying(id=True), "no schema registry"),
        (lying(id=-1), "no schema registry"),
        (lying(id=2**31), "no schema registry"),
        (lying(id=None), "no schema registry"),
        (fixed(b"<html>It works!</html>"), "no schema registry"),
        (fixed(b"[]"), "no schema registry"),
        (fixed(b""), "no schema registry"),
        (lying(padding="x" * ANSWER_BYTES_MAX), "no schema registry"),
        (fixed(gzip.compress(TRUE), **{"Content-Encoding": "gzip"}), "no schema registry"),
        (fixed(b"<html>not found</html>", 404), "no schema registry"),
        (fixed(b'{"error_code":404}', 404), r"refuses `RequestSubmitted.v1` .*\(404, error 404\)"),
        (fixed(b'{"error_code":42201}', 422), r"refuses `RequestSubmitted.v1` .*\(422, error 42201\)"),
        (fixed(b"no", 415), r"refuses `RequestSubmitted.v1` .*\(415\)"),
        (fixed(b"", 401), "SLUICEGATE_REGISTRY_CREDENTIALS_FILE"),
        (fixed(b"{}", 403), "the rights of its user"),
    ],
)
async def test_an_answer_is_checked_before_it_is_believed(override: Handler, says: str) -> None:
    async with RegistryServer(override=override).running() as server:
        with pytest.raises(ConfigurationError, match=says) as refused:
            await ids_from(server)
    assert str(refused.value)[0].islower()


async def test_the_same_answer_with_our_schema_is_believed() -> None:
    """Positive control of the lies above: the text may be laid out otherwise, and lack the documentation."""
    bare = {"type": "record", "name": "RequestSubmitted", "namespace": "sluicegate.v1"}
    bare |= {"fields": codec.schema(REQUEST)["fields"]}
    override = lying(schema=json.dumps(bare, indent=2))
    async with (
        RegistryServer(override=override).running() as server,
        Registry(RegistryConfig(url=server.url)) as registry,
    ):
        assert await registry.lookup(REQUESTS, REQUEST) == 7


async def test_one_id_for_two_schemas_is_refused() -> None:
    server = filled()
    server.ids = dict.fromkeys(server.ids, 5)
    async with server.running():
        with pytest.raises(ConfigurationError, match="the same id"):
            await ids_from(server)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_a_registry_that_fails_is_unavailable(status: int) -> None:
    async with RegistryServer(override=fixed(b"{}", status)).running() as server:
        with pytest.raises(Unavailable, match=f"fails \\({status}\\)"):
            await ids_from(server)


async def hanging(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    raise AssertionError("never answered")


async def closing(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


@pytest.mark.parametrize("override", [hanging, dripping, closing])
async def test_a_registry_that_is_slow_or_hangs_up_is_unavailable(override: Handler) -> None:
    async with RegistryServer(override=override).running() as server:
        async with asyncio.timeout(10):
            with pytest.raises(Unavailable, match=r"does not answer within 0\.3 s"):
                await ids_from(server, timeout_s=0.3)


async def test_a_registry_that_is_away_is_unavailable() -> None:
    async with filled().running() as server:
        await ids_from(server)
    with pytest.raises(Unavailable, match="start it, or check `SLUICEGATE_REGISTRY_URL`"):
        await ids_from(server)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    async with filled().running() as target:
        async with RegistryServer(override=fixed(b"", status, Location=target.url)).running() as server:
            with pytest.raises(ConfigurationError, match="redirect, which is not followed"):
                await ids_from(server)
        assert target.asked == []
        await ids_from(target)
        assert len(target.asked) == 2


@pytest.mark.parametrize(
    "url",
    [
        f"https://ada:{PASSWORD}@127.0.0.1:1",
        f"https://{PASSWORD}@127.0.0.1:1",
        f"https://:{PASSWORD}@127.0.0.1:1",
    ],
)
async def test_a_password_in_the_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"file of mode 0600 .* `SLUICEGATE_REGISTRY_CREDENTIALS_FILE`"
    ) as refused:
        Registry(RegistryConfig(url=url))
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize("url", ["registry:8081", "ftp://registry", "http://", "http://a:99999", "http://r/?a=b", "/x"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="SLUICEGATE_REGISTRY_URL"):
        Registry(RegistryConfig(url=url))


def credentials(folder: Path, text: str = f"ada:{PASSWORD}\n", mode: int = 0o600) -> Path:
    path = folder / "registry"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


async def test_credentials_come_from_a_closed_file(tmp_path: Path) -> None:
    server = filled()
    server.credentials = f"ada:{PASSWORD}"
    async with server.running():
        with pytest.raises(ConfigurationError, match=r"refuses us \(401\)") as refused:
            await ids_from(server)
        assert await ids_from(server, credentials_file=credentials(tmp_path)) == {101: REQUEST, 102: RELEASE}
        wrong = credentials(tmp_path, "ada:wrong")
        with pytest.raises(ConfigurationError, match=r"refuses us \(401\)"):
            await ids_from(server, credentials_file=wrong)
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("ada:x", 0o640, "open to others; run `chmod 600`"),
        ("ada:x", 0o604, "open to others"),
        (PASSWORD, 0o600, "one line `user:password`"),
        (f":{PASSWORD}", 0o600, "one line `user:password`"),
        (f"ada:{PASSWORD}\nb:c", 0o600, "one line `user:password`"),
        ("", 0o600, "one line `user:password`"),
    ],
)
def test_a_credentials_file_that_cannot_be_used(tmp_path: Path, text: str, mode: int, says: str) -> None:
    path = credentials(tmp_path, text, mode)
    with pytest.raises(ConfigurationError, match=says) as refused:
        Registry(RegistryConfig(url="http://127.0.0.1:1", credentials_file=path))
    assert PASSWORD not in str(refused.value)


def test_credentials_never_leave_without_tls(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="over TLS alone"):
        Registry(RegistryConfig(url="http://registry:8081", credentials_file=credentials(tmp_path)))
    Registry(RegistryConfig(url="https://registry:8081", credentials_file=credentials(tmp_path)))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Registry(RegistryConfig(url="https://registry:8081", credentials_file=tmp_path / "none"))


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for 127.0.0.1, as a file, and the server's side of it."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry of this test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path, private = folder / "ca.pem", folder / "key.pem"
    path.write_bytes(made.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, private)
    return path, context


async def test_the_certificate_of_the_registry_is_verified(tmp_path: Path) -> None:
    authority, context = certificate(tmp_path)
    async with filled().running(context) as server:
        with pytest.raises(ConfigurationError, match="`SLUICEGATE_REGISTRY_CA_FILE`"):
            await ids_from(server)
        assert server.asked == []
        assert await ids_from(server, ca_file=authority) == {101: REQUEST, 102: RELEASE}
    with pytest.raises(ConfigurationError, match="holds no certificate"):
        Registry(RegistryConfig(url="https://127.0.0.1:1", ca_file=tmp_path / "none.pem"))


def run(*words: str) -> int:
    return main(["schemas", *words])


async def test_the_command_registers_lists_and_writes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("SLUICEGATE_HOME", str(tmp_path))
    monkeypatch.setenv("SLUICEGATE_TENANT", "heron")
    assert await asyncio.to_thread(run, "register") == 2
    assert "set `SLUICEGATE_REGISTRY_URL`" in capsys.readouterr().err
    assert await asyncio.to_thread(run, "list") == 0
    plain = capsys.readouterr().out
    assert all(name in plain and codec.fingerprint_of(name).hex() in plain for name in codec.names())
    assert "subject" not in plain
    async with RegistryServer().running() as server:
        monkeypatch.setenv("SLUICEGATE_REGISTRY_URL", server.url)
        assert await asyncio.to_thread(run, "list") == 0
        assert "100" not in capsys.readouterr().out
        assert await asyncio.to_thread(run, "register") == 0
        assert f"{REQUEST}  {REQUESTS}  id 100" in capsys.readouterr().out
        assert await asyncio.to_thread(run, "list") == 0
        assert RELEASES in (listed := capsys.readouterr().out)
        assert "101" in listed
    assert await asyncio.to_thread(run, "register") == 1
    assert "the schema registry at `127.0.0.1` does not answer" in capsys.readouterr().err
    assert await asyncio.to_thread(run, "write", str(tmp_path / "new" / "folder")) == 0
    assert (tmp_path / "new" / "folder" / "asyncapi" / "sluicegate.yaml").is_file()
    (tmp_path / "file").touch()
    assert await asyncio.to_thread(run, "write", str(tmp_path / "file" / "x")) == 2
