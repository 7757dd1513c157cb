"""A schema registry's address goes in, the ids it gave to our released schemas come out: the only place that asks one.

The registry's REST API as Confluent defined it (Karapace and Apicurio speak it too), with TopicNameStrategy: the schema
of the values of topic `t` stands under subject `t-value`. Ids are asked for once, when a process starts, by the text of
our own schemas; nothing that a registry says later, and no schema that somebody else put there, changes how a record is
read. Redirects are refused, answers are bounded, certificates are verified, and no answer is believed before the schema
in it is ours.
"""

import json
import os
import ssl
import stat
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

import aiohttp
from fastavro.schema import SchemaParseException, UnknownType, fingerprint, to_parsing_canonical_form
from yarl import URL

from sluicegate.schemas import codec
from sluicegate.schemas.errors import ConfigurationError, Unavailable
from sluicegate.schemas.events import Encodable, ReleaseMade, RequestSubmitted
from sluicegate.schemas.strict_json import JsonObject, NotStrict, loads, loads_object
from sluicegate.settings import Settings
from sluicegate.streams.topology import Topology

ANSWER_BYTES_MAX: Final = 1024 * 1024
CREDENTIALS_BYTES_MAX: Final = 4096
CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"
SUBJECT_NOT_FOUND: Final = 40401
SCHEMA_NOT_FOUND: Final = 40403
SETTING: Final = "SLUICEGATE_REGISTRY_URL"
CREDENTIALS_SETTING: Final = "SLUICEGATE_REGISTRY_CREDENTIALS_FILE"
CA_SETTING: Final = "SLUICEGATE_REGISTRY_CA_FILE"
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryConfig:
    """Where the registry is. `credentials_file`: mode 0600, one line `user:password`, for HTTP basic authentication.
    `ca_file`: None, the certificate authorities of the system. `timeout_s`: for one whole exchange.
    """

    url: str
    timeout_s: float = 10.0
    credentials_file: Path | None = None
    ca_file: Path | None = None


def registry_config(settings: Settings) -> RegistryConfig | None:
    """How this installation reaches its registry; None where it has none."""
    if not settings.registry_url:
        return None
    return RegistryConfig(
        url=settings.registry_url,
        timeout_s=settings.request_timeout_s,
        credentials_file=settings.registry_credentials_file,
        ca_file=settings.registry_ca_file,
    )


def subjects(topology: Topology) -> Mapping[str, type[Encodable]]:
    """The events that others write or read, by their subject under TopicNameStrategy. A reply topic holds copies of
    releases, under the ids that those have.
    """
    return {f"{topology.requests}-value": RequestSubmitted, f"{topology.releases}-value": ReleaseMade}


async def ids_at_start(settings: Settings) -> Mapping[int, str]:
    """The names of our schemas by the ids that this installation's registry gave them; empty where it has none.

    Raises:
        ConfigurationError, Unavailable: as `known_ids`.
    """
    config = registry_config(settings)
    if config is None:
        return {}
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    return await known_ids(config, subjects(topology))


def schema_text(name: str) -> str:
    """The text under which the published schema `name` is registered; its documentation is part of it."""
    return json.dumps(codec.schema(name), separators=(",", ":"), ensure_ascii=False)


def versions_of(kind: type[Encodable]) -> tuple[str, ...]:
    """The names of every published version of an event's schema, oldest first."""
    found = [name for name in codec.names() if name.split(".")[0] == kind.__name__]
    return tuple(sorted(found, key=lambda name: int(name.rsplit(".v", 1)[1])))


async def known_ids(config: RegistryConfig, wanted: Mapping[str, type[Encodable]]) -> Mapping[int, str]:
    """The names of our schemas by the ids that the registry gave them. `wanted`: events by their subject.

    Raises:
        ConfigurationError: the address or the credentials are wrong, or the latest version of an event is not
        registered under its subject.
        Unavailable: the registry does not answer.
    """
    ids: dict[int, str] = {}
    async with Registry(config) as registry:
        for subject, kind in wanted.items():
            for name in versions_of(kind):
                found = await registry.lookup(subject, name)
                if found is not None and ids.setdefault(found, name) != name:
                    raise ConfigurationError(
                        f"the schema registry gave `{name}` and `{ids[found]}` the same id; check `{SETTING}`"
                    )
            latest = codec.LATEST[kind]
            if latest not in ids.values():
                raise ConfigurationError(
                    f"`{latest}` is not registered under the subject `{subject}`; run `sluicegate schemas register`"
                )
    return ids


def latest_id(ids: Mapping[int, str], kind: type[Encodable]) -> int | None:
    """The id under which the latest version of an event is written; None where no registry is configured."""
    return next((number for number, name in ids.items() if name == codec.LATEST[kind]), None)


class Registry:
    """One connection to a registry, as an async context manager."""

    def __init__(self, config: RegistryConfig) -> None:
        """Raises ConfigurationError where the address, the credentials or the certificates cannot be used."""
        self._config = config
        self._url = _address(config)
        self._headers = {"Accept": CONTENT_TYPE, "Content-Type": CONTENT_TYPE, "Accept-Encoding": "identity"}
        if config.credentials_file is not None:
            if self._url.scheme != "https" and self._url.host not in _LOOPBACK:
                raise ConfigurationError(f"credentials are sent over TLS alone; make `{SETTING}` an `https` address")
            self._headers["Authorization"] = f"Basic {b64encode(_credentials(config.credentials_file)).decode()}"
        self._tls = _tls(config) if self._url.scheme == "https" else True
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Opens the session."""
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=self._config.timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes it."""
        if self._session is not None:
            await self._session.close()

    async def lookup(self, subject: str, name: str) -> int | None:
        """The id of our schema `name` under `subject`; None where it is not registered there.

        Raises:
            ConfigurationError: the registry refuses us, is none, or answers with another schema.
            Unavailable: it does not answer.
        """
        status, answer = await self._post(f"subjects/{quote(subject, safe='')}", name)
        if status == 404 and answer.get("error_code") in {SUBJECT_NOT_FOUND, SCHEMA_NOT_FOUND}:
            return None
        found = self._id_in(status, answer, subject, name)
        text = answer.get("schema")
        if not isinstance(text, str) or not _is_ours(text, name):
            raise ConfigurationError(
                f"the schema registry answered with another schema than `{name}` for the subject `{subject}`; "
                f"check `{SETTING}`"
            )
        return found

    async def register(self, subject: str, name: str) -> int:
        """Registers our schema `name` under `subject`, where it may stand already: its id.

        Raises:
            ConfigurationError: as `lookup`, or the registry holds something there that is not compatible.
            Unavailable: it does not answer.
        """
        status, answer = await self._post(f"subjects/{quote(subject, safe='')}/versions", name)
        if status == 409:
            raise ConfigurationError(
                f"the schema registry refuses `{name}` under the subject `{subject}`: it holds a schema there that is "
                "not compatible; remove that one, or use another tenant"
            )
        registered = self._id_in(status, answer, subject, name)
        if await self.lookup(subject, name) != registered:
            raise ConfigurationError(
                f"the schema registry does not find `{name}` under the id that it gave it; check `{SETTING}`"
            )
        return registered

    def _id_in(self, status: int, answer: JsonObject, subject: str, name: str) -> int:
        if status in {401, 403}:
            raise ConfigurationError(
                f"the schema registry refuses us ({status}) the subject `{subject}`; check `{CREDENTIALS_SETTING}` and "
                "the rights of its user"
            )
        if status != 200:
            code = answer.get("error_code")
            told = f", error {code}" if isinstance(code, int) else ""
            raise ConfigurationError(f"the schema registry refuses `{name}` under `{subject}` ({status}{told})")
        found = answer.get("id")
        if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= codec.SCHEMA_ID_MAX:
            raise self._no_registry()
        return found

    async def _post(self, path: str, name: str) -> tuple[int, JsonObject]:
        """The status and the JSON object of an answer; the object is empty where an error brought none."""
        if self._session is None:
            raise RuntimeError("a registry is entered before it is asked")
        body = json.dumps({"schema": schema_text(name)}).encode()
        try:
            async with self._session.post(
                self._url.joinpath(path, encoded=True), data=body, allow_redirects=False, ssl=self._tls
            ) as response:
                status, data = response.status, await _bounded(response)
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
            raise ConfigurationError(
                f"the certificate of the schema registry does not verify ({type(error).__name__}); name its authority "
                f"in `{CA_SETTING}`"
            ) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(
                f"the schema registry at `{self._url.host}` does not answer within {self._config.timeout_s:g} s "
                f"({type(error).__name__}); start it, or check `{SETTING}`"
            ) from None
        if 300 <= status < 400:
            raise ConfigurationError(
                f"the schema registry answers with a redirect, which is not followed; make `{SETTING}` its own address"
            )
        if status >= 500 or status == 429:
            raise Unavailable(f"the schema registry at `{self._url.host}` fails ({status}); try again later")
        try:
            return status, loads_object(data or b"")
        except NotStrict:
            if data is None or status in {200, 404}:
                raise self._no_registry() from None
            return status, {}

    def _no_registry(self) -> ConfigurationError:
        return ConfigurationError(
            f"what answers at `{self._url.host}` is no schema registry; make `{SETTING}` the address of its REST API"
        )


async def _bounded(response: aiohttp.ClientResponse) -> bytes | None:
    """The body; None where it is larger than any answer may be."""
    data = b""
    async for chunk in response.content.iter_chunked(64 * 1024):
        data += chunk
        if len(data) > ANSWER_BYTES_MAX:
            response.close()
            return None
    return data


def _is_ours(text: str, name: str) -> bool:
    """Whether the schema in an answer reads the same bytes as ours: equal in Avro's parsing canonical form."""
    try:
        found: object = loads(text.encode("utf-8"))
        if not isinstance(found, dict):
            return False
        return bytes.fromhex(fingerprint(to_parsing_canonical_form(found), "CRC-64-AVRO")) == codec.fingerprint_of(name)
    except (SchemaParseException, UnknownType, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False


def _address(config: RegistryConfig) -> URL:
    try:
        url = URL(config.url)
        port = url.port
    except ValueError:
        raise ConfigurationError(f"`{SETTING}` is no address; use `https://host:port`") from None
    # Never quoted from here on: what stands before the host may be a password.
    if url.user is not None or url.password is not None:
        raise ConfigurationError(
            f"`{SETTING}` holds a user or a password; put `user:password` into a file of mode 0600 and name that in "
            f"`{CREDENTIALS_SETTING}`"
        )
    if url.scheme not in {"http", "https"} or not url.host or port is None or url.query_string or url.fragment:
        raise ConfigurationError(f"`{SETTING}` must be an `http` or `https` address without a query")
    return url


def _credentials(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigurationError(f"`{path}` cannot be read: {error.strerror}; check `{CREDENTIALS_SETTING}`") from None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or stat.S_IMODE(found.st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigurationError(f"`{path}` is open to others; run `chmod 600` on it")
        line = file.read(CREDENTIALS_BYTES_MAX).rstrip(b"\r\n")
    user, colon, password = line.partition(b":")
    if not (user and colon and password) or b"\n" in line:
        raise ConfigurationError(f"`{path}` must hold one line `user:password`")
    return line


def _tls(config: RegistryConfig) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if config.ca_file is None else str(config.ca_file))
    except (OSError, ssl.SSLError):
        raise ConfigurationError(f"`{config.ca_file}` holds no certificate in PEM; check `{CA_SETTING}`") from None
