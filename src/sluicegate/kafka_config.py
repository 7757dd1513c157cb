"""Ports, a folder and who may use the node go in, the text of `server.properties` comes out: the only place that
configures Apache Kafka.
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from sluicegate.schemas.errors import ConfigurationError
from sluicegate.streams.fetch import Security

HOST: Final = "127.0.0.1"
NODE: Final = 1
SCRAM: Final = "SCRAM-SHA-512"
PLAIN: Final = "PLAIN"
# A name or password of these needs no quoting in properties, in JAAS and in the formatter's own syntax.
WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", re.ASCII)
MODULES: Final[Mapping[str, str]] = {
    SCRAM: "org.apache.kafka.common.security.scram.ScramLoginModule",
    PLAIN: "org.apache.kafka.common.security.plain.PlainLoginModule",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """PEM files of a node: its certificate with what it stands on, its key (PKCS 8), and who vouches for it."""

    certificate: Path
    key: Path
    authority: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAccess:
    """Who may connect to a node; what they may then do is told by ACLs alone, and without one nothing is allowed.

    `users`: name to password. `super_user`: the one of them that no ACL binds. With `tls`, connections are encrypted.
    """

    users: Mapping[str, str] = field(repr=False)
    super_user: str
    mechanism: Literal["SCRAM-SHA-512", "PLAIN"] = "SCRAM-SHA-512"
    tls: Tls | None = None

    def __post_init__(self) -> None:
        """Check that the names and passwords can be written down.

        Raises:
            ConfigurationError: one cannot, or the super user is none of the users.
        """
        for name, password in self.users.items():
            if not WORD.fullmatch(name) or not WORD.fullmatch(password):
                msg = f"user `{name[:50]}` of the broker: name and password take letters, digits, `.`, `_`, `-` alone"
                raise ConfigurationError(msg)
        if self.super_user not in self.users:
            raise ConfigurationError(f"the super user `{self.super_user}` is none of the users: add it to them")

    @property
    def protocol(self) -> str:
        """As Kafka names it."""
        return "SASL_PLAINTEXT" if self.tls is None else "SASL_SSL"

    def security(self, name: str) -> Security:
        """What a client connects with as the user `name`.

        Raises:
            KeyError: there is no such user.
        """
        context = None if self.tls is None else ssl.create_default_context(cafile=str(self.tls.authority))
        return Security(
            protocol=self.protocol,
            mechanism=self.mechanism,
            username=name,
            password=self.users[name],
            context=context,
        )


def server_properties(
    *, port: int, controller_port: int, logs: Path, access: NodeAccess | None, durable: bool = False
) -> str:
    """Return the configuration of one combined node; it holds the passwords of `access`.

    `durable`: an append is on disk before it is acknowledged. Without it, it may be in the kernel's memory alone.

    Raises:
        ConfigurationError: a PEM file cannot be read.
    """
    properties = {
        "process.roles": "broker,controller",
        "node.id": str(NODE),
        # Static voters: nothing on disk remembers a port, so a free one may be taken at each start.
        "controller.quorum.voters": f"{NODE}@{HOST}:{controller_port}",
        "listeners": f"CLIENT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"CLIENT://{HOST}:{port}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(logs),
        # A topic that nobody declared has no retention, no stamp and no ACL that anybody chose.
        "auto.create.topics.enable": "false",
        "unclean.leader.election.enable": "false",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # Groups of one machine: nobody else is about to join, and a session may be as short as our settings allow.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # The cleaner's buffer is taken at the start; the default of 128 MB is a third of this node's heap.
        "log.cleaner.dedupe.buffer.size": str(16 * 1024**2),
    }
    if durable:
        # A node of one has no replica that would still hold what a power cut takes from the kernel's memory.
        properties["log.flush.interval.messages"] = "1"
    if access is not None:
        properties |= _secured(access)
    return "".join(f"{name}={_escaped(value)}\n" for name, value in properties.items())


def _secured(access: NodeAccess) -> dict[str, str]:
    admin, password = access.super_user, access.users[access.super_user]
    login = f'username="{admin}" password="{password}"'
    entries = " ".join(f'user_{name}="{each}"' for name, each in sorted(access.users.items()))
    clients = f"{MODULES[PLAIN]} required {login} {entries};"
    if access.mechanism == SCRAM:
        # Its users stand in the metadata log, written there by the formatter.
        clients = f"{MODULES[SCRAM]} required {login};"
    properties = {
        "listener.security.protocol.map": f"CLIENT:{access.protocol},CONTROLLER:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": access.mechanism,
        "sasl.mechanism.inter.broker.protocol": access.mechanism,
        f"listener.name.client.{access.mechanism.lower()}.sasl.jaas.config": clients,
        # The node speaks to itself there before it can read any user from its log.
        "sasl.mechanism.controller.protocol": PLAIN,
        "listener.name.controller.sasl.enabled.mechanisms": PLAIN,
        "listener.name.controller.plain.sasl.jaas.config": (
            f'{MODULES[PLAIN]} required {login} user_{admin}="{password}";'
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:{admin}",
        "allow.everyone.if.no.acl.found": "false",
    }
    if access.tls is not None:
        properties |= {
            "listener.name.client.ssl.keystore.type": "PEM",
            "listener.name.client.ssl.keystore.certificate.chain": _pem(access.tls.certificate),
            "listener.name.client.ssl.keystore.key": _pem(access.tls.key),
            "listener.name.client.ssl.truststore.type": "PEM",
            "listener.name.client.ssl.truststore.certificates": _pem(access.tls.authority),
        }
    return properties


def _pem(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"`{path}` cannot be read ({type(error).__name__}): name a PEM file") from None


def _escaped(value: str) -> str:
    """Write a value as `java.util.Properties.load` reads it."""
    plain = value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    if plain.startswith(" "):
        plain = "\\" + plain
    return "".join(each if " " <= each <= "~" else "".join(f"\\u{unit:04x}" for unit in _utf16(each)) for each in plain)


def _utf16(character: str) -> list[int]:
    data = character.encode("utf-16-be")
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]
