"""A port and a data folder go in, one running Apache Kafka node on 127.0.0.1 comes out: the only place that starts it.

The node is broker and controller in one (KRaft). Its data folder is formatted once, as a draft that is renamed whole:
a folder that is there is formatted. Who formats it may label it, and the label stays with the log.
"""

import asyncio
import base64
import contextlib
import fcntl
import importlib.resources
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sluicegate.broker import (
    HOST,
    OPEN,
    PORT_ATTEMPTS,
    PortInUse,
    RunningBroker,
    is_free,
    take_port,
    until_answers,
)
from sluicegate.child import Child, Program, spawn
from sluicegate.kafka_config import SCRAM, NodeAccess, Tls, server_properties
from sluicegate.kafka_jars import Java, find_java, kafka_jars
from sluicegate.schemas.errors import ConfigurationError, SluicegateError, Unavailable

__all__ = ["NodeAccess", "RunningBroker", "Tls", "kafka_jars", "start_kafka"]

READY_TIMEOUT_S: Final = 60.0
FORMAT_LIMIT_S: Final = 60.0
STOP_LIMIT_S: Final = 30.0
NAME: Final = "broker"
# A node of one machine has small topics and few clients: it starts sooner and weighs less than a server of a fleet.
JVM: Final = (
    "-Xms64m",
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-Xlog:disable",
    "-Xlog:all=error:stderr",
    "-Djava.awt.headless=true",
)
# What Kafka says of each, in its log of this start, and what a person can do about it.
TAKEN: Final = "another node runs on `{data}`: stop it, or name another folder"
CAUSES: Final = (
    ("Failed to acquire lock on file", TAKEN),
    ("No space left on device", "the disk of `{data}` is full: free some space and start again"),
    ("InconsistentClusterIdException", "`{data}` was formatted by another cluster: move it away"),
    ("Permission denied", "a file below `{data}` belongs to somebody else: mend its owner and mode"),
)
BIND: Final = re.compile("Address already in use|Socket server failed to bind")
STACK_LINE: Final = re.compile(r"\s*(at |\.\.\. \d+ more)")
TEXT_MAX: Final = 300

logger = logging.getLogger(__name__)


async def start_kafka(
    *,
    port: int,
    data: Path,
    log: Path,
    tmp: Path,
    ready_timeout_s: float = READY_TIMEOUT_S,
    access: NodeAccess | None = None,
    label: Callable[[], str] = str,
    durable: bool = False,
) -> RunningBroker:
    """Start a node on `port` (0: a free one) over `data`; return when it has answered a metadata request.

    `data` is formatted where it is missing or empty; `label` is called then and only then. The users of `access` are
    written while it is formatted: another start of the same folder takes the same ones. With `durable` what was
    acknowledged outlives a power cut too; without, the end of the process alone.

    Raises:
        PortInUse: something listens on the port.
        ConfigurationError: Java, Maven or space is missing, or the folder is another node's.
        Unavailable: it does not answer within `ready_timeout_s` seconds.
    """
    machine = _Machine(java=await asyncio.to_thread(find_java), jars=kafka_jars(), tmp=_absolute(tmp), archive=None)
    machine = replace(machine, archive=await _archive(machine))
    node = _Node(data=_absolute(data), log=log, access=access, durable=durable)
    fresh = not _has_content(node.data)
    if fresh:
        await _format(machine, node, label)
    card = _read_card(node)
    for attempt in range(PORT_ATTEMPTS):
        chosen = take_port(port)
        try:
            child = await _start(machine, node, chosen, card["cluster"], ready_timeout_s)
            bootstrap = f"{HOST}:{chosen}"
            return RunningBroker(child=child, bootstrap=bootstrap, label=card["label"], fresh=fresh)
        except PortInUse as error:
            # A free port may be taken by somebody else between our look and the node's bind.
            if error.port == port or attempt == PORT_ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    """What runs a node; files for the time of a start go into `tmp`."""

    java: Java
    jars: Path
    tmp: Path
    archive: Path | None

    def command(self, *words: str, jvm: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return the command line that runs a class with arguments."""
        jars = ":".join(str(jar) for jar in sorted(self.jars.glob("*.jar")))
        shared = () if self.archive is None else (f"-XX:SharedArchiveFile={self.archive}",)
        with importlib.resources.as_file(importlib.resources.files("sluicegate")) as package:
            log4j = f"-Dlog4j2.configurationFile={package / 'kafka' / 'log4j2.xml'}"
        own = (*JVM, *shared, *jvm, f"-Djava.io.tmpdir={self.tmp}", log4j)
        return (str(self.java.path), *own, "-cp", jars, *words)

    @property
    def environment(self) -> dict[str, str]:
        """Return the whole environment of a node."""
        return {"LANG": "C.UTF-8", "TMPDIR": str(self.tmp)}

    @contextlib.contextmanager
    def private_file(self, name: str, text: str) -> Iterator[Path]:
        """Return a file for the block's time that this user alone can read."""
        path = self.tmp / f"kafka-{secrets.token_hex(4)}-{name}"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            yield path
        finally:
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """Whose log and configuration: `logs` is Kafka's own folder, `card` is ours."""

    data: Path
    log: Path
    access: NodeAccess | None = None
    durable: bool = False

    @property
    def logs(self) -> Path:
        return self.data / "log"

    @property
    def card(self) -> Path:
        return self.data / "node.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Return a descriptor that holds the folder for this process and for a child that inherits it, while one lives.

        Kafka's own lock comes too late: the controller of a second node has written to the first one's metadata log
        before the broker beside it looks, and from then on the first cannot end by itself.

        Raises:
            ConfigurationError: another node holds it, or it cannot be locked.
        """
        with contextlib.ExitStack() as stack:
            try:
                descriptor = os.open(self.data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigurationError(TAKEN.format(data=self.data)) from None
            except OSError as error:
                why = (error.strerror or "unknown").lower()
                raise ConfigurationError(f"`{self.data}` cannot be locked ({why}): mend that and start again") from None
            yield descriptor


async def _start(machine: _Machine, node: _Node, port: int, cluster: str, ready_timeout_s: float, *jvm: str) -> Child:
    controller_port = take_port(0)
    text = server_properties(
        port=port, controller_port=controller_port, logs=node.logs, access=node.access, durable=node.durable
    )
    with node.locked() as lock, machine.private_file("server.properties", text) as properties:
        child = await spawn(
            Program(
                name=NAME,
                command=machine.command("kafka.Kafka", str(properties), jvm=jvm),
                environment=machine.environment,
                log=node.log,
                folder=node.data,
            ),
            pass_fds=(lock,),
        )

        def why() -> SluicegateError:
            if any(BIND.search(line) for line in child.last_lines()) or not is_free(port):
                return PortInUse(controller_port if is_free(port) else port)
            return _failure(f"Apache Kafka ended at its start (exit {child.exit_code})", child, node.data)

        await until_answers(
            child,
            port=port,
            cluster=cluster,
            why=why,
            ready_timeout_s=ready_timeout_s,
            security=OPEN if node.access is None else node.access.security(node.access.super_user),
        )
    return child


async def _format(machine: _Machine, node: _Node, label: Callable[[], str]) -> None:
    """Make the node's folder: Kafka's storage and our card, or nothing."""
    cluster = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
    # An id that starts with a dash is read as an option by the formatter.
    cluster = f"s{cluster[1:]}"
    mark = f".{node.data.name}-"
    draft = replace(node, data=node.data.with_name(mark + secrets.token_hex(4)))
    text = server_properties(port=1, controller_port=2, logs=draft.logs, access=node.access)
    try:
        node.data.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in node.data.parent.glob(f"{mark}*"):
            shutil.rmtree(left)  # the draft of a start that was killed
        draft.data.mkdir(mode=0o700)
        with (
            machine.private_file("server.properties", text) as properties,
            # In a file, for everybody can read the arguments of a process, and these hold passwords.
            machine.private_file("format.args", _arguments(cluster, properties, node.access)) as arguments,
            machine.private_file("format.log", "") as output,
        ):
            program = Program(
                name="broker format",
                command=machine.command(f"@{arguments}"),
                environment=machine.environment,
                log=output,
                folder=draft.data,
            )
            await _run(program, node.data)
        draft.card.write_text(json.dumps({"cluster": cluster, "label": label()}) + "\n", encoding="ascii")
        _sync(draft.card)
        draft.data.rename(node.data)
        _sync(node.data.parent)
    except OSError as error:
        why = (error.strerror or "unknown").lower()
        raise ConfigurationError(f"`{node.data}` cannot be formatted ({why}): mend that and start again") from None
    finally:
        shutil.rmtree(draft.data, ignore_errors=True)


def _arguments(cluster: str, properties: Path, access: NodeAccess | None) -> str:
    words = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)]
    if access is not None and access.mechanism == SCRAM:
        for name, password in sorted(access.users.items()):
            words += ["--add-scram", f"{SCRAM}=[name={name},password={password}]"]
    quoted = (word.replace("\\", "\\\\").replace('"', '\\"') for word in words)
    return "".join(f'"{word}"\n' for word in quoted)


async def _run(program: Program, data: Path) -> None:
    child = await spawn(program)
    try:
        async with asyncio.timeout(FORMAT_LIMIT_S):
            code = await child.wait()
    except TimeoutError:
        raise Unavailable(f"Apache Kafka did not format `{data}` within {FORMAT_LIMIT_S:g} s: try again") from None
    finally:
        child.kill()
        await child.wait()
    if code != 0:
        raise _failure(f"Apache Kafka cannot format its folder (exit {code})", child, data)


async def _archive(machine: _Machine) -> Path | None:
    """Return the archive of loaded classes that belongs to these jars and this Java; None where it cannot be made.

    It is made once, by a node that is started and stopped for it; with it the next ones start in a third of the time.
    Source: JEP 350, dynamic archives; the JVM checks that jars and build are the same and else leaves it alone.
    """
    place = machine.jars / f"node-{machine.java.digest}.jsa"
    if place.exists():
        return place
    logger.info("preparing Apache Kafka to start faster, once")
    scratch = machine.tmp / f"kafka-{secrets.token_hex(4)}"
    draft = machine.jars / f".draft-{secrets.token_hex(4)}.jsa"
    node = _Node(data=scratch / "data", log=scratch / "log")
    try:
        await _format(machine, node, str)
        jvm = f"-XX:ArchiveClassesAtExit={draft}"
        child = await _start(machine, node, take_port(0), _read_card(node)["cluster"], READY_TIMEOUT_S, jvm)
        if not await child.stop(limit_s=STOP_LIMIT_S) or not draft.exists():
            return None
        draft.replace(place)
        return place
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        draft.unlink(missing_ok=True)


def _has_content(data: Path) -> bool:
    """Return whether the folder is a node's; an empty one is taken away for a draft to stand there.

    Raises:
        ConfigurationError: it holds something else.
    """
    try:
        if (data / "node.json").exists():
            return True
        if data.exists():
            data.rmdir()
    except OSError as error:
        why = (error.strerror or "unknown").lower()
        msg = f"`{data}` is not a folder that was formatted here ({why}): name an empty one, or move it away"
        raise ConfigurationError(msg) from None
    return False


def _read_card(node: _Node) -> dict[str, str]:
    """Return the cluster and the label of a formatted folder, checked against what Kafka wrote.

    Raises:
        ConfigurationError: they are not readable or not those of the log beside them.
    """
    try:
        card = json.loads(node.card.read_bytes())
        kept = (node.logs / "meta.properties").read_text(encoding="ascii")
        found = re.search(r"^cluster\.id=(\S+)$", kept, re.MULTILINE)
        cluster, label = card["cluster"], card["label"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"`{node.data}` is no whole data folder of a node ({type(error).__name__}): bring its files back"
        raise ConfigurationError(msg) from None
    if found is None or found[1] != cluster or not isinstance(label, str):
        msg = f"`{node.logs}` was formatted by another cluster than `{node.card}` names: bring the right one back"
        raise ConfigurationError(msg)
    return {"cluster": cluster, "label": label}


def _failure(what: str, child: Child, data: Path) -> ConfigurationError:
    lines = child.last_lines()
    for mark, cause in CAUSES:
        if any(mark in line for line in lines):
            return ConfigurationError(cause.format(data=data))
    told = child.last_error()
    if STACK_LINE.match(told):
        told = next((line.strip() for line in reversed(lines) if line.strip() and not STACK_LINE.match(line)), "")
    return ConfigurationError(f"{what}: {told[:TEXT_MAX] or 'it says nothing'}")


def _absolute(path: Path) -> Path:
    return path.absolute()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
