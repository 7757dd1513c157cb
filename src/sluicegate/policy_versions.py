"""Settings go in, every version of the policy log comes out and what became of each event: the log as people see it."""

from dataclasses import dataclass
from typing import Final

from sluicegate.broker_access import broker_config
from sluicegate.clock import StackClock
from sluicegate.enforcer.history import decode_policy_event
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.schedule import FOREVER_MS
from sluicegate.enforcer.state import Accepted, PolicyLog, Rejected
from sluicegate.enforcer.trust import digest_of
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.loaded_bundles import LOADERS
from sluicegate.schemas.errors import CodecError
from sluicegate.schemas.events import DirectoryChanged
from sluicegate.schemas.ids import Digest
from sluicegate.schemas.records import Record
from sluicegate.settings import Settings
from sluicegate.streams.kafka import Broker
from sluicegate.streams.policy_tail import PARTITION
from sluicegate.streams.topology import Topology

EXPIRY_WARN_MS: Final = 30 * 24 * 3600 * 1000
"""How long before its end a version is told to expire soon."""
_TIMED: Final = frozenset(Kind) - {Kind.SHADOW}


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """An accepted version. `digest`: of a directory that of the whole after a change; of a root its metadata's."""

    kind: Kind
    version: int
    digest: Digest
    content: bytes
    position: int
    stamp_ms: int
    expires_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An event of the log without effect."""

    kind: Kind
    version: int
    position: int
    rejected: Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyView:
    """The policy log as it stood when it was read. `state` may be folded on: it is nobody else's.

    `now_ms`: event time as far as it can be known here, and never before the log's last stamp.
    """

    state: PolicyLog
    versions: tuple[Version, ...]
    refused: tuple[Refused, ...]
    now_ms: int

    def of(self, kind: Kind) -> tuple[Version, ...]:
        """The versions of a kind, oldest first."""
        return tuple(each for each in self.versions if each.kind is kind)

    def in_force(self, kind: Kind, time_ms: int | None = None) -> tuple[Version, int] | None:
        """The version of a kind in force at `time_ms` (now), expired or not, and since when; None before the first."""
        span = self.state.span(kind, self.now_ms if time_ms is None else time_ms)
        found = next((each for each in self.versions if each.position == span.position), None)
        return None if found is None else (found, span.from_ms)

    def starts_ms(self, version: Version) -> int | None:
        """From when on a version is in force (T); None where it never is, or that is not known of its kind."""
        if version.kind not in _TIMED:
            return None
        # A stop is lifted by a version of its own kind, and both make one line.
        kind = Kind.STOP if version.kind is Kind.RESUME else version.kind
        span = self.state.span(kind, FOREVER_MS)
        while span.position > version.position:
            span = self.state.span(kind, span.from_ms - 1)
        return span.from_ms if span.position == version.position else None


async def read_policy(settings: Settings) -> PolicyView:
    """The policy log of `settings.bootstrap`, folded as every stage folds it.

    Raises:
        ConfigurationError, Unavailable: there is no root of trust, or the broker does not answer.
    """
    home = Home(root=settings.home)
    installation = Installation(settings, home)
    state = PolicyLog(domain=installation.domain, root_digest=installation.root_digest(), loaders=LOADERS)
    topic = Topology(tenant=settings.tenant, partitions=settings.partitions).policy
    versions: list[Version] = []
    refused: list[Refused] = []
    async with Broker(broker_config(settings, "publish")) as broker:
        start = await broker.start_offset(topic, PARTITION)
        async for batch in broker.read(topic, PARTITION, start=start):
            for record in batch:
                found = _folded(state, record)
                if isinstance(found, Version):
                    versions.append(found)
                elif found is not None:
                    refused.append(found)
    clock = StackClock(home.root if settings.event_time == "enforcer" else None)
    return PolicyView(
        state=state, versions=tuple(versions), refused=tuple(refused), now_ms=max(clock.now_ms(), state.log_ms)
    )


def _folded(state: PolicyLog, record: Record) -> Version | Refused | None:
    try:
        event = decode_policy_event(record)
    except CodecError:
        state.skip(record.offset)
        return None
    found = state.fold(record.offset, event, record.timestamp_ms)
    if isinstance(found, Accepted):
        return Version(
            kind=found.kind,
            version=found.version,
            digest=_digest(state, found.kind, event.content or event.metadata),
            content=event.content,
            position=record.offset,
            stamp_ms=record.timestamp_ms,
            expires_ms=state.expires_ms(found.kind) or 0,
        )
    kind = Kind.DIRECTORY if isinstance(event, DirectoryChanged) else Kind(event.kind.value)
    return Refused(kind=kind, version=event.version, position=record.offset, rejected=found)


def _digest(state: PolicyLog, kind: Kind, content: bytes) -> Digest:
    if kind is Kind.DIRECTORY and state.directory is not None:
        return state.directory.digest
    return digest_of(content)
