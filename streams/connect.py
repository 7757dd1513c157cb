"""A client's arguments and a connection that failed go in, the reason comes out as one of our errors: the only place
that tells a wrong certificate or password from a broker that is down; the client only says "unable to bootstrap".
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, cast

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from sluicegate.schemas.errors import ConfigurationError, SluicegateError, Unavailable

PROBE_S_MAX: Final = 5.0
_HANDSHAKE: Final = (
    "client_id",
    "request_timeout_ms",
    "ssl_context",
    "security_protocol",
    "sasl_mechanism",
    "sasl_plain_username",
    "sasl_plain_password",
)


@contextlib.asynccontextmanager
async def connecting(arguments: Mapping[str, object]) -> AsyncIterator[None]:
    """Says why the client made with `arguments` cannot connect within this block.

    Raises:
        ConfigurationError: certificate, user, password or protocol are wrong.
        Unavailable: no broker answers there.
    """
    try:
        yield
    except (KafkaError, OSError, TimeoutError) as error:
        nothing = Unavailable(
            f"the broker did not answer at `{arguments['bootstrap_servers']}` ({type(error).__name__})"
        )
        raise await explain(arguments) or nothing from None


async def explain(arguments: Mapping[str, object]) -> SluicegateError | None:
    """What a setting has to do with a connection that failed; None: nothing that can be told."""
    for host, port, _ in collect_hosts(cast(str, arguments["bootstrap_servers"])):
        found = await _knock(f"{host}:{port}", host, port, {name: arguments[name] for name in _HANDSHAKE})
        if found is not None:
            return found
    return None


async def _knock(place: str, host: str, port: int, handshake: Mapping[str, Any]) -> SluicegateError | None:
    """Shakes hands once more, for the error that the client kept to its log; None: it says nothing of a setting."""
    user, mechanism = handshake["sasl_plain_username"], handshake["sasl_mechanism"]
    try:
        async with asyncio.timeout(PROBE_S_MAX):
            connection = await create_conn(host, port, **handshake)
            try:
                # Before a user is known the broker answers what it can do, and closes at any other question.
                await connection.send(MetadataRequest([]))
            finally:
                connection.close()
    except ssl.SSLCertVerificationError as error:
        return ConfigurationError(
            f"the certificate of the broker at `{place}` is not to be trusted ({error.verify_message}): "
            "mend `SLUICEGATE_SSL_CA_FILE` or the broker's certificate"
        )
    except (KafkaConnectionError, ConnectionResetError, ssl.SSLEOFError):
        # It took the connection and closed it without a word: it expected other bytes, or it is being stopped.
        return Unavailable(
            f"the broker at `{place}` closes the connection: it is restarting, or does not speak "
            f"{handshake['security_protocol']} there (`SLUICEGATE_SECURITY_PROTOCOL`)"
        )
    except ssl.SSLError as error:
        return ConfigurationError(
            f"the broker at `{place}` breaks off the TLS handshake ({error.reason or type(error).__name__}): mend "
            "`SLUICEGATE_SECURITY_PROTOCOL`, or the client's certificate"
        )
    except (SaslAuthenticationFailed, AuthenticationFailedError):
        return ConfigurationError(
            f"the broker at `{place}` does not know user `{user}` with this password ({mechanism}): mend "
            "`SLUICEGATE_SASL_USERNAME` or the file at `SLUICEGATE_SASL_PASSWORD_FILE`"
        )
    except UnsupportedSaslMechanismError:
        return ConfigurationError(
            f"the broker at `{place}` does not offer {mechanism}: mend `SLUICEGATE_SASL_MECHANISM`"
        )
    except (KafkaError, OSError, TimeoutError):
        pass
    return None
