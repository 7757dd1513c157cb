"""Settings and the directory file go in, the topics and rights that a deployment needs come out, and how the broker
differs from them; the only place that joins the table of topics to one installation.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sluicegate.broker_access import broker_config
from sluicegate.enforcer.credentials import parse_credentials
from sluicegate.schemas.errors import ConfigurationError, InvalidDirectory
from sluicegate.settings import Settings
from sluicegate.streams.rights import Realm, name_users, rights_needed
from sluicegate.streams.topic_admin import TopicAdmin
from sluicegate.streams.topic_plan import Deviation, TopicSpec, compare, strangers, wanted_topics
from sluicegate.streams.topology import Topology

HOUR_MS: Final = 3_600_000
SETTLE_S: Final = 10.0
SETTLE_PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Applications:
    """The services that may publish requests, and the reply topic of each that has one."""

    services: frozenset[str]
    replies: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """How a broker differs from what is wanted; `strangers`: topics under the tenant's prefix that nobody knows."""

    deviations: tuple[Deviation, ...]
    strangers: tuple[str, ...]


def read_applications(directory: Path) -> Applications:
    """The applications that a directory file names: each service with a key or a reply topic.

    Raises:
        ConfigurationError: it cannot be read.
        InvalidDirectory: it is no directory.
    """
    try:
        document = json.loads(read_directory(directory))
    except ValueError as error:
        raise InvalidDirectory((f"the directory `{directory}` is no JSON: {error}",)) from None
    if not isinstance(document, dict):
        raise InvalidDirectory((f"the directory `{directory}` must be a JSON object",))
    # A one-box installation adds keys and issuer itself, so a directory may name neither.
    found = parse_credentials({"service_keys": [], "issuers": [], **document})
    services = {key.service for key in found.service_keys.values()} | set(found.replies)
    return Applications(services=frozenset(services), replies=found.replies)


def read_directory(path: Path) -> bytes:
    """The bytes of a directory file.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"the directory `{path}` cannot be read: {error.strerror}") from None


def topics_wanted(settings: Settings, replies: Mapping[str, str]) -> tuple[TopicSpec, ...]:
    """The tenant's topics as these settings want them."""
    return wanted_topics(
        _topology(settings),
        replication=settings.replication,
        batch_bytes_max=settings.slice_bytes_max,
        request_retention_ms=settings.request_retention_h * HOUR_MS,
        reply_retention_ms=settings.reply_retention_h * HOUR_MS,
        replies=replies,
    )


def realm_of(settings: Settings, applications: Applications, users: Mapping[str, str] | None = None) -> Realm:
    """The rights that this tenant needs; `users`: the broker's name for a role or service, where it is another.

    Raises:
        ConfigurationError: as `name_users`.
    """
    topology = _topology(settings)
    named = name_users(settings.tenant, applications.services, users)
    return Realm(topology=topology, users=named, needed=rights_needed(topology, named, applications.replies))


async def examine(
    settings: Settings, applications: Applications, *, realm: Realm | None, revoke: bool = False
) -> Examined:
    """How the broker differs from what is wanted; without a `realm`, rights are not looked at.

    Raises:
        ConfigurationError: this user may not look.
        Unavailable: the broker does not answer.
    """
    async with TopicAdmin(broker_config(settings, "topics")) as admin:
        return await _examine(admin, settings, applications, realm, revoke=revoke)


async def apply(
    settings: Settings,
    applications: Applications,
    *,
    realm: Realm | None,
    revoke: bool,
    done: Callable[[Deviation], None],
) -> Examined:
    """Mends what can be mended from here, telling `done` after each; returns what is left.

    Raises:
        ConfigurationError: the broker refuses something; what was done stays done.
        Unavailable: the broker does not answer.
    """
    async with TopicAdmin(broker_config(settings, "topics")) as admin:
        left = await _examine(admin, settings, applications, realm, revoke=revoke)
        mended = {id(each.action): each for each in left.deviations}
        actions = [each.action for each in left.deviations if each.action is not None]
        await admin.do_all(actions, lambda action: done(mended[id(action)]))
        # The controller answers before every broker has heard of it.
        deadline = asyncio.get_running_loop().time() + SETTLE_S
        while any(each.action is not None for each in left.deviations):
            left = await _examine(admin, settings, applications, realm, revoke=revoke)
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(SETTLE_PAUSE_S)
        return left


async def ensure(settings: Settings, replies: Mapping[str, str]) -> None:
    """Creates the topics that are missing and mends their settings, as one machine does for itself: without rights.

    The embedded broker knows neither replicas nor settings of a topic, so there only names and partitions are held.

    Raises:
        ConfigurationError: one exists and cannot be mended, or the broker refuses one.
        Unavailable: the broker does not answer.
    """
    wanted = topics_wanted(settings, replies)
    embedded = settings.event_time == "enforcer"
    deadline = asyncio.get_running_loop().time() + SETTLE_S
    async with TopicAdmin(broker_config(settings, "prepare")) as admin:
        while True:
            found = await admin.look(wanted, rights=False, shape_alone=embedded)
            deviations = compare(wanted, found)
            if not deviations:
                return
            for deviation in deviations:
                if deviation.action is None:
                    raise ConfigurationError(f"{deviation.what}: {deviation.how}")
            await admin.do_all([each.action for each in deviations if each.action is not None], lambda _: None)
            if asyncio.get_running_loop().time() > deadline:
                raise ConfigurationError(f"the broker does not keep to what it was told: {deviations[0].what}")
            await asyncio.sleep(SETTLE_PAUSE_S)


async def require_replies(settings: Settings, replies: Mapping[str, str]) -> None:
    """Looks that every reply topic is there before a directory that names it comes into force.

    Raises:
        InvalidDirectory: one is not, or not for every partition.
        Unavailable: the broker does not answer.
    """
    topology = _topology(settings)
    async with TopicAdmin(broker_config(settings, "publish")) as admin:
        found = await admin.topics()
    missing = tuple(
        f"`replies`: `{service}` has no topic `{topology.reply(reply)}` with {topology.partitions} partitions; run "
        "`sluicegate topics apply`"
        for service, reply in sorted(replies.items())
        if (topic := found.get(topology.reply(reply))) is None or topic.partitions != topology.partitions
    )
    if missing:
        raise InvalidDirectory(missing)


async def _examine(
    admin: TopicAdmin, settings: Settings, applications: Applications, realm: Realm | None, *, revoke: bool
) -> Examined:
    wanted = topics_wanted(settings, applications.replies)
    found = await admin.look(wanted, rights=realm is not None, shape_alone=settings.event_time == "enforcer")
    return Examined(
        deviations=compare(wanted, found, realm=realm, revoke=revoke),
        strangers=strangers(wanted, found, _topology(settings)),
    )


def _topology(settings: Settings) -> Topology:
    return Topology(tenant=settings.tenant, partitions=settings.partitions)
