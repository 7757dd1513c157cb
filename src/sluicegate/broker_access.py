"""Settings go in, how a process reaches the broker comes out: the only place that reads the broker's password and
certificates. The password goes into `Security` alone: settings, environment and arguments hold the path of its file.
"""

import ssl
import stat
from pathlib import Path
from typing import Final

from sluicegate.keys import read_secret
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.settings import Settings
from sluicegate.streams.fetch import BrokerConfig, Security
from sluicegate.streams.topology import BATCH_OVERHEAD_BYTES

_OPEN_TO_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def broker_config(settings: Settings, client: str) -> BrokerConfig:
    """How `client`, a process of this installation, reaches the broker.

    Raises:
        ConfigurationError: as `broker_security`.
    """
    return BrokerConfig(
        bootstrap=settings.bootstrap,
        client_id=f"sluicegate-{client}",
        request_timeout_s=settings.request_timeout_s,
        fetch_wait_ms=settings.fetch_wait,
        batch_bytes_max=settings.slice_bytes_max + BATCH_OVERHEAD_BYTES,
        replication=settings.replication,
        session_timeout_s=settings.session_timeout_s,
        instance_id=settings.instance_id or None,
        security=broker_security(settings),
    )


def broker_security(settings: Settings) -> Security:
    """How the broker is spoken to, with user, password and certificates where the settings name them.

    Raises:
        ConfigurationError: settings contradict each other, a file cannot be read, or others can read a secret.
    """
    protocol = settings.security_protocol
    sasl, tls = protocol.startswith("SASL_"), protocol.endswith("SSL")
    username, password_file = settings.sasl_username, settings.sasl_password_file
    if sasl and not username:
        raise ConfigurationError(f"{protocol} needs a user: set `SLUICEGATE_SASL_USERNAME`")
    if sasl and password_file is None:
        raise ConfigurationError(f"{protocol} needs a password: set `SLUICEGATE_SASL_PASSWORD_FILE` to its file")
    if not sasl and (username or password_file is not None):
        raise ConfigurationError(
            f"a user of the broker is set, and {protocol} knows none: set `SLUICEGATE_SECURITY_PROTOCOL` to SASL_SSL"
        )
    certificates = (settings.ssl_ca_file, settings.ssl_cert_file, settings.ssl_key_file)
    if not tls and any(each is not None for each in certificates):
        raise ConfigurationError(
            f"a certificate is set, and {protocol} uses none: set `SLUICEGATE_SECURITY_PROTOCOL` to SSL or SASL_SSL"
        )
    return Security(
        protocol=protocol,
        mechanism=settings.sasl_mechanism,
        username=username if sasl else None,
        password=read_secret(password_file) if sasl and password_file is not None else None,
        context=_context(settings.ssl_ca_file, settings.ssl_cert_file, settings.ssl_key_file) if tls else None,
    )


def _context(authorities: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """A context that checks the broker's certificate and its name, and shows ours where we have one."""
    if (certificate is None) != (key is None):
        missing = "SLUICEGATE_SSL_KEY_FILE" if key is None else "SLUICEGATE_SSL_CERT_FILE"
        raise ConfigurationError(f"half a client certificate is set: set `{missing}` too, or neither")
    for path in (authorities, certificate):
        if path is not None and not path.is_file():
            raise ConfigurationError(f"there is no certificate file `{path}`: mend its path")
    try:
        context = ssl.create_default_context(cafile=None if authorities is None else str(authorities))
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(f"`{authorities}` holds no certificates in PEM ({_word(error)})") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None and key is not None:
        _private_key(key)
        try:
            # An empty password: a key under one would else ask for it on the terminal.
            context.load_cert_chain(str(certificate), str(key), password="")
        except (ssl.SSLError, OSError) as error:
            raise ConfigurationError(
                f"`{certificate}` and `{key}` are no certificate with its key in PEM, or the key has a password "
                f"({_word(error)})"
            ) from None
    return context


def _private_key(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        why = (error.strerror or "unknown").lower()
        raise ConfigurationError(f"`{path}` cannot be read ({why}): mend its path or owner") from None
    if mode & _OPEN_TO_OTHERS:
        raise ConfigurationError(f"others can read the key in `{path}`: `chmod 600 {path}`, and make a new one")


def _word(error: OSError) -> str:
    reason = getattr(error, "reason", None) or error.strerror
    return str(reason or type(error).__name__).lower()
