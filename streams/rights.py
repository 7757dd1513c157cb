"""The table of topics and the names of users go in, the access rights that each of them needs come out, and why a right
that somebody holds is too much: the only place that says who may do what at the broker.

Operations, resource types and patterns carry Kafka's own numbers (its `AclOperation`, `ResourceType`, `PatternType`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from sluicegate.schemas.errors import ConfigurationError
from sluicegate.streams.topology import (
    APPLICATION,
    DELIVERY,
    ENFORCER,
    PRODUCERS,
    PUBLISHER,
    REDACTOR,
    REPLIES,
    RUNNER,
    SHADOW,
    STAGES,
    TABLE,
    Topology,
)

ADMIN: Final = "admin"
"""Whoever runs `topics apply` without being a super user of the broker; it gets nothing from the table."""
ROLES: Final = (*STAGES, PUBLISHER, ADMIN)
GROUPED: Final = (ENFORCER, RUNNER, REDACTOR, DELIVERY, SHADOW)
"""The stages whose workers share partitions in a consumer group; the others share none."""
EVERYBODY: Final = "User:*"
ANYWHERE: Final = "*"
ANY_NAME: Final = "*"
_PREFIX: Final = "User:"


class Resource(IntEnum):
    """What a right is about."""

    UNKNOWN = 0
    ANY = 1
    TOPIC = 2
    GROUP = 3
    CLUSTER = 4
    TRANSACTIONAL_ID = 5
    DELEGATION_TOKEN = 6
    USER = 7

    @classmethod
    def _missing_(cls, value: object) -> "Resource":  # noqa: ARG003 - a newer broker knows more
        return cls.UNKNOWN


class Pattern(IntEnum):
    """Whether a right names one resource (or `*`, all of them) or every name that begins so."""

    UNKNOWN = 0
    ANY = 1
    LITERAL = 3
    PREFIXED = 4

    @classmethod
    def _missing_(cls, value: object) -> "Pattern":  # noqa: ARG003
        return cls.UNKNOWN


class Operation(IntEnum):
    """What may be done; `ALL` is every other one."""

    UNKNOWN = 0
    ANY = 1
    ALL = 2
    READ = 3
    WRITE = 4
    CREATE = 5
    DELETE = 6
    ALTER = 7
    DESCRIBE = 8
    CLUSTER_ACTION = 9
    DESCRIBE_CONFIGS = 10
    ALTER_CONFIGS = 11
    IDEMPOTENT_WRITE = 12
    CREATE_TOKENS = 13
    DESCRIBE_TOKENS = 14
    TWO_PHASE_COMMIT = 15

    @classmethod
    def _missing_(cls, value: object) -> "Operation":  # noqa: ARG003
        return cls.UNKNOWN


class Permission(IntEnum):
    """Which way a right goes; a denial wins."""

    UNKNOWN = 0
    ANY = 1
    DENY = 2
    ALLOW = 3

    @classmethod
    def _missing_(cls, value: object) -> "Permission":  # noqa: ARG003
        return cls.UNKNOWN


ADMIN_MAY: Final = frozenset(
    {
        Operation.CREATE,
        Operation.DESCRIBE,
        Operation.DESCRIBE_CONFIGS,
        Operation.ALTER,
        Operation.ALTER_CONFIGS,
    }
)
# What tells nothing of a tenant's records, and changes nothing.
HARMLESS_ON_CLUSTER: Final = frozenset({Operation.DESCRIBE, Operation.DESCRIBE_CONFIGS, Operation.IDEMPOTENT_WRITE})


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Right:
    """One access control entry of the broker."""

    principal: str
    resource: Resource
    name: str
    operation: Operation
    pattern: Pattern = Pattern.LITERAL
    permission: Permission = Permission.ALLOW
    host: str = ANYWHERE

    def __str__(self) -> str:
        verb = "may" if self.permission is Permission.ALLOW else "may not"
        name = f"{self.name}*" if self.pattern is Pattern.PREFIXED else self.name
        place = "" if self.host == ANYWHERE else f" from {self.host}"
        kind = self.resource.name.lower().replace("_", " ")
        return f"{self.principal} {verb} {self.operation.name} {kind} `{name}`{place}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """The broker's principal of each stage, of the publisher, of the admin and of each application (by service id)."""

    roles: Mapping[str, str]
    applications: Mapping[str, str]

    @property
    def admin(self) -> str:
        """Who creates topics and rights."""
        return self.roles[ADMIN]

    def __contains__(self, principal: object) -> bool:
        return principal in self.roles.values() or principal in self.applications.values()


def name_users(tenant: str, services: Iterable[str], named: Mapping[str, str] | None = None) -> Users:
    """`<tenant>.<role>` for each role and the service id for each application, where `named` says no other name.

    Raises:
        ConfigurationError: `named` names a role or service that there is none of, a service has the name of a role, or
            two have the same principal: whoever is one of them would hold the rights of both.
    """
    services = sorted(set(services))
    named = dict(named or {})
    for service in services:
        if service in ROLES:
            raise ConfigurationError(f"a service cannot be called `{service}`: rename it, a stage has this name")
    for name in named:
        if name not in (*ROLES, *services):
            raise ConfigurationError(
                f"`{name}` is no role and no service of the directory: use one of {', '.join((*ROLES, *services))}"
            )
    roles = {role: principal_of(named.get(role, f"{tenant}.{role}")) for role in ROLES}
    applications = {service: principal_of(named.get(service, service)) for service in services}
    holders: dict[str, str] = {}
    for name, principal in {**roles, **applications}.items():
        if principal in holders:
            raise ConfigurationError(
                f"`{name}` and `{holders[principal]}` have the same user `{principal}`: give each its own"
            )
        holders[principal] = name
    return Users(roles=roles, applications=applications)


def principal_of(name: str) -> str:
    """The broker's principal for a user name; one that says its kind is left alone.

    Raises:
        ConfigurationError: it is empty or means everybody.
    """
    principal = name if name.startswith(_PREFIX) else f"{_PREFIX}{name}"
    if principal in (_PREFIX, EVERYBODY) or not principal.isprintable():
        raise ConfigurationError(f"`{name}` is no user: name one")
    return principal


def rights_needed(topology: Topology, users: Users, replies: Mapping[str, str]) -> frozenset[Right]:
    """What the table grants; `replies`: the reply topic of each service that has one.

    Raises:
        KeyError: a service in `replies` is no application of `users`.
    """
    found: set[Right] = set()
    for row in TABLE:
        topic = topology.topic(row.name)
        for writer in _holders(row.writer, users):
            found |= _may(writer, topic, Operation.WRITE)
        for reader in row.readers:
            for each in _holders(reader, users):
                found |= _may(each, topic, Operation.READ)
    for service, reply in replies.items():
        topic = topology.reply(reply)
        found |= _may(users.roles[REPLIES.writer], topic, Operation.WRITE)
        # Who publishes a directory looks first that the topics it names are there.
        found.add(
            Right(principal=users.roles[PUBLISHER], resource=Resource.TOPIC, name=topic, operation=Operation.DESCRIBE)
        )
        for reader in REPLIES.readers:
            principal = users.applications[service] if reader == APPLICATION else users.roles[reader]
            found |= _may(principal, topic, Operation.READ)
    for stage in GROUPED:
        group = topology.group(stage)
        found.add(Right(principal=users.roles[stage], resource=Resource.GROUP, name=group, operation=Operation.READ))
    return frozenset(found)


def _holders(role: str, users: Users) -> Iterator[str]:
    if role in (PRODUCERS, APPLICATION):
        yield from users.applications.values()
    else:
        yield users.roles[role]


def _may(principal: str, topic: str, operation: Operation) -> set[Right]:
    # Reading and writing imply describing in Apache Kafka's own authorizer, not in every other.
    operations = (operation, Operation.DESCRIBE)
    return {Right(principal=principal, resource=Resource.TOPIC, name=topic, operation=each) for each in operations}


@dataclass(frozen=True, slots=True, kw_only=True)
class Realm:
    """One tenant's part of the broker: what rights there are needed, and whether one that is held is too much."""

    topology: Topology
    users: Users
    needed: frozenset[Right]

    def owns(self, right: Right) -> bool:
        """Whether the right is about this tenant's names alone, so that it may be taken away from here."""
        return right.name.startswith(self._prefixes(right.resource))

    def _prefixes(self, resource: Resource) -> tuple[str, ...]:
        groups = self.topology.group("")
        topics = self.topology.prefix
        match resource:
            case Resource.TOPIC:
                return (topics,)
            case Resource.GROUP:
                return (groups,)
            case Resource.TRANSACTIONAL_ID:
                return (topics, groups)
            case _:
                return ()

    def _touches(self, right: Right) -> bool:
        if right.pattern is Pattern.LITERAL and right.name != ANY_NAME:
            return self.owns(right)
        if right.pattern is Pattern.LITERAL:
            return bool(self._prefixes(right.resource))
        return self.owns(right) or any(each.startswith(right.name) for each in self._prefixes(right.resource))

    def holds(self, held: Iterable[Right]) -> frozenset[Right]:
        """Which of the needed rights are among `held`; one that is held from some hosts only counts."""
        allowed = {_bare(each) for each in held if each.permission is Permission.ALLOW}
        return frozenset(each for each in self.needed if each in allowed)

    def too_much(self, right: Right) -> str | None:
        """Why somebody holds more than the table grants, None where it is none of this tenant's business."""
        if right.permission is not Permission.ALLOW:
            return "it takes away what the table grants" if self._takes_away(right) else None
        if _bare(right) in self.needed:
            return None
        if right.principal == self.users.admin and right.operation in ADMIN_MAY:
            return None
        match right.resource:
            case Resource.TOPIC if self._touches(right):
                return _WHY.get(right.operation, "the table does not grant it")
            case Resource.GROUP if self._touches(right):
                return "it could take partitions from a stage, or move its place"
            case Resource.TRANSACTIONAL_ID if self._touches(right) or self._is_ours(right.principal):
                return "nobody holds a TransactionalId: an open transaction holds up whoever reads committed records"
            case Resource.CLUSTER if self._is_ours(right.principal) and right.operation not in HARMLESS_ON_CLUSTER:
                return "it rules the whole cluster"
            case _:
                return None

    def _is_ours(self, principal: str) -> bool:
        return principal in self.users or principal == EVERYBODY

    def _takes_away(self, right: Right) -> bool:
        return any(
            right.principal in (each.principal, EVERYBODY)
            and right.resource is each.resource
            and right.operation in (each.operation, Operation.ALL)
            and _covers(right, each.name)
            for each in self.needed
        )


_WHY: Final = {
    Operation.WRITE: "a topic has one writer, and this is another",
    Operation.ALL: "a topic has one writer, and this may do everything",
    Operation.READ: "it reads what the table does not let it read",
}


def _bare(right: Right) -> Right:
    """The right without the hosts that it is for."""
    return Right(
        principal=right.principal,
        resource=right.resource,
        name=right.name,
        operation=right.operation,
        pattern=right.pattern,
    )


def _covers(right: Right, name: str) -> bool:
    if right.pattern is Pattern.PREFIXED:
        return name.startswith(right.name)
    return right.name in (name, ANY_NAME)
