"""An address or a file goes in, the bytes of a provider's JWKS come out; the only place that asks identity providers.

It runs beside the stack, never in it: the gate believes what the directory says and fetches nothing. Only TLS with a
verified certificate (or this machine itself) is asked, nothing is followed, and nothing is read without end.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
from yarl import URL

from sluicegate.enforcer.jwks import JWKS_BYTES_MAX
from sluicegate.schemas.errors import ConfigurationError, Unavailable
from sluicegate.schemas.strict_json import NotStrict, loads_object

TIMEOUT_S: Final = 10.0
DISCOVERY: Final = ".well-known/openid-configuration"
_LOOPBACK: Final = {"127.0.0.1", "::1", "localhost"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """How a provider is reached. `ca_file`: certificate authorities in PEM; None: those of the system."""

    ca_file: Path | None = None
    timeout_s: float = TIMEOUT_S


def read_file(path: Path) -> bytes:
    """A document that was carried here; one byte more than is allowed at most, for the reader to refuse.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(JWKS_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"`{path}` cannot be read: {error.strerror}") from None


async def fetch(url: str, provider: Provider) -> bytes:
    """The document at an address.

    Raises:
        ConfigurationError: the address is not allowed, or what answers there is not what is wanted.
        Unavailable: it does not answer in time, or says to ask later.
    """
    address = _address(url)
    tls = _tls(provider) if address.scheme == "https" else True
    async with aiohttp.ClientSession(
        headers={"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=provider.timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    ) as session:
        try:
            async with session.get(address, allow_redirects=False, ssl=tls) as response:
                status, data = response.status, await _bounded(response)
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
            raise ConfigurationError(
                f"the certificate of `{address.host}` does not verify ({type(error).__name__}); name its authority "
                "with `--ca-file`"
            ) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(
                f"`{address.host}` does not answer within {provider.timeout_s:g} s ({type(error).__name__}); try again"
            ) from None
    if 300 <= status < 400:
        raise ConfigurationError(
            f"`{address.host}` answers with a redirect, which is not followed; give its own address"
        )
    if status == 429 or status >= 500:
        raise Unavailable(f"`{address.host}` fails ({status}); try again later")
    if status != 200:
        raise ConfigurationError(f"`{address.host}` has no such document ({status}); check the address")
    if data is None:
        raise ConfigurationError(
            f"`{address.host}` answers with over {JWKS_BYTES_MAX} bytes; that is no JWKS of one issuer"
        )
    return data


async def discover(issuer: str, provider: Provider) -> str:
    """The address of an issuer's JWKS, from its own metadata (OpenID Connect Discovery 1.0, section 4).

    Raises:
        ConfigurationError, Unavailable: as `fetch`; or the metadata are another issuer's or name no address.
    """
    data = await fetch(f"{issuer.rstrip('/')}/{DISCOVERY}", provider)
    try:
        found = loads_object(data)
    except NotStrict as error:
        raise ConfigurationError(f"the metadata of `{issuer}` are no JSON of one reading: {error}") from None
    if found.get("issuer") != issuer:  # section 4.3: exactly, or one tenant could answer for another
        raise ConfigurationError(f"the metadata at `{issuer}` are of another issuer; write the name as it is there")
    address = found.get("jwks_uri")
    if not isinstance(address, str):
        raise ConfigurationError(f"the metadata of `{issuer}` name no `jwks_uri`; give the address with `--url`")
    return address


def _address(url: str) -> URL:
    try:
        address = URL(url)
        port = address.port
    except ValueError:
        raise ConfigurationError("the address of the JWKS cannot be read; use `https://host/path`") from None
    # Never quoted: what stands before the host may be a password.
    if address.user is not None or address.password is not None:
        raise ConfigurationError("the address of the JWKS holds a user or a password; a JWKS is public, leave them out")
    if not address.host or port is None or address.fragment:
        raise ConfigurationError("the address of the JWKS must be `https://host/path`")
    if address.scheme != "https" and (address.scheme != "http" or address.host not in _LOOPBACK):
        raise ConfigurationError(
            "the address of the JWKS must be `https`: whoever can change it on the way signs tokens"
        )
    return address


def _tls(provider: Provider) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if provider.ca_file is None else str(provider.ca_file))
    except (OSError, ssl.SSLError):
        raise ConfigurationError(f"`{provider.ca_file}` holds no certificate in PEM; check `--ca-file`") from None


async def _bounded(response: aiohttp.ClientResponse) -> bytes | None:
    """The body; None where it is larger than any JWKS may be."""
    data = b""
    async for chunk in response.content.iter_chunked(16 * 1024):
        data += chunk
        if len(data) > JWKS_BYTES_MAX:
            response.close()
            return None
    return data
