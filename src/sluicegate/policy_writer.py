"""Content and a publisher's key go in, signed versions stand on the policy log: the only place that appends to it.

Nothing is appended that the stages' own fold would reject. What was admitted, and when, is read from the log itself.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, Literal

from securesystemslib.signer import Signer  # type: ignore[attr-defined]

from sluicegate.broker_access import broker_config
from sluicegate.clock import StackClock
from sluicegate.enforcer.bundle import Bundle
from sluicegate.enforcer.history import decode_policy_event
from sluicegate.enforcer.policy_kinds import FIXES, Kind
from sluicegate.enforcer.seal import StageKey
from sluicegate.enforcer.stage_keys import STAGES, read_stage_keys
from sluicegate.enforcer.state import Accepted, PolicyLog, Rejected
from sluicegate.enforcer.stops import Stop, Stops, read_stops, stops_content
from sluicegate.enforcer.trust import digest_of
from sluicegate.enforcer.trust_make import sign_targets
from sluicegate.home import Home
from sluicegate.installation import EXPIRES_MS, Installation
from sluicegate.keys import signer_of
from sluicegate.loaded_bundles import LOADERS
from sluicegate.schemas import codec
from sluicegate.schemas.errors import CodecError, InvalidBundle, InvalidDirectory
from sluicegate.schemas.events import DirectoryChanged, PolicyKind, PolicyPublished
from sluicegate.schemas.ids import KeyId
from sluicegate.schemas.records import Unsent
from sluicegate.settings import Settings
from sluicegate.streams.kafka import Broker
from sluicegate.streams.policy_tail import PARTITION
from sluicegate.streams.topology import POLICY_BYTES_MAX, Topology

VALUE_BYTES_MAX: Final = POLICY_BYTES_MAX - 4096
"""Of one policy event; what is left is for the batch around it."""
REMEMBERED: Final = "published.json"
STANDING: Final = "standing"
EMBEDDED_LEAD_MS: Final = 200
"""A broker that stamps appends itself stamps them as they land. Where it keeps our stamp, that one is made before, and
freshness must not promise in between that nothing comes: the stamp is ahead by more than an append takes.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What the policy log says of one key. Times in milliseconds: `since_ms` the stamp of the version that admitted it,
    `until_ms` the event time of a stage key's revocation, or the stamp of the directory that lists it no more.
    """

    kind: Literal["stage", "service"]
    owner: str
    since_ms: int
    until_ms: int | None = None


class PolicyWriter:
    """The policy log as it stands, and how to append to it. Versions rise across epochs: the home remembers them."""

    def __init__(
        self, settings: Settings, installation: Installation, broker: Broker, *, publisher: Signer | None = None
    ) -> None:
        home = Home(root=settings.home)
        self._installation = installation
        self._publisher = publisher
        self._broker = broker
        self._topic = Topology(tenant=settings.tenant, partitions=settings.partitions).policy
        self._clock = StackClock(home.root if settings.event_time == "enforcer" else None)
        self._lead_ms = EMBEDDED_LEAD_MS if settings.event_time == "enforcer" else 0
        self._state = PolicyLog(domain=installation.domain, root_digest=installation.root_digest(), loaders=LOADERS)
        self._file = home.root / REMEMBERED
        self._digests: dict[Kind, str] = {}
        self._stamp_ms = 0
        self.admissions: dict[str, Admission] = {}

    def now_ms(self) -> int:
        """Event time now, as far as it can be known here: this clock, and never before the log's last stamp."""
        return max(self._clock.now_ms(), self._stamp_ms)

    @property
    def stage_keys(self) -> Mapping[KeyId, StageKey]:
        """Every stage key that was ever admitted."""
        return {key_id: key for stage in STAGES for key_id, key in self._state.stage_keys(stage).items()}

    @property
    def directory(self) -> bytes | None:
        """The newest directory, whole, whatever changes led to it."""
        return self._state.directory.whole() if self._state.directory else None

    @property
    def bundle(self) -> Bundle | None:
        """The newest bundle; None before the first."""
        return self._state.bundle(self._digests[Kind.BUNDLE]) if Kind.BUNDLE in self._digests else None

    @property
    def stops(self) -> Stops:
        """Everything that is stopped."""
        return self._state.stops

    async def catch_up(self) -> None:
        """Folds the log as it stands."""
        start = await self._broker.start_offset(self._topic, PARTITION)
        async for batch in self._broker.read(self._topic, PARTITION, start=start):
            for record in batch:
                try:
                    event = decode_policy_event(record)
                except CodecError:
                    self._state.skip(record.offset)
                    continue
                found = self._state.fold(record.offset, event, record.timestamp_ms)
                if isinstance(found, Accepted):
                    self._stamp_ms = max(self._stamp_ms, record.timestamp_ms)
                    self._note(found.kind, event.content, record.timestamp_ms)
                    if found.kind is Kind.ROOT:
                        self._installation.keep_root(found.version, event.metadata)

    def _note(self, kind: Kind, content: bytes, stamp_ms: int) -> None:
        self._digests[kind] = digest_of(content)
        if kind is Kind.KEYS:
            for key_id, key in read_stage_keys(content).items():
                first = Admission(kind="stage", owner=key.stage, since_ms=stamp_ms)
                self.admissions[key_id] = replace(self.admissions.get(key_id, first), until_ms=key.revoked_at_ms)
        if kind is Kind.DIRECTORY and self._state.directory is not None:
            self._digests[kind] = self._state.directory.digest
            credentials = self._state.directory.credentials
            listed = {kid: key.service for kid, key in credentials.service_keys.items()}
            for kid, service in listed.items():
                first = Admission(kind="service", owner=service, since_ms=stamp_ms)
                self.admissions[kid] = replace(self.admissions.get(kid, first), until_ms=None)
            for kid, known in self.admissions.items():
                if known.kind == "service" and kid not in listed and known.until_ms is None:
                    self.admissions[kid] = replace(known, until_ms=stamp_ms)

    def check_service_keys(self, content: bytes) -> None:
        """A key that was taken out never comes back: whoever has it since could sign again.

        Raises:
            InvalidDirectory: the content lists such a key.
        """
        back = [
            f"`service_keys`: `{kid}` was taken out before; run `sluicegate keys new service {service}` and list that"
            for kid, service in service_keys(content).items()
            if kid in self.admissions and self.admissions[kid].until_ms is not None
        ]
        if back:
            raise InvalidDirectory(tuple(back))

    async def root(self) -> None:
        """The roots that this installation knows and the log has not: all of them where it is begun anew."""
        for version, metadata in enumerate(self._installation.roots(), 1):
            if version > self._state.version_of(Kind.ROOT):
                await self._append(
                    PolicyPublished(kind=PolicyKind.ROOT, version=version, metadata=metadata, content=b"")
                )

    async def content(self, kind: Kind, content: bytes) -> tuple[int, bool]:
        """The version of `kind` that holds `content`, and whether it had to be published.

        Raises:
            InvalidBundle, InvalidDirectory: the stages would reject it; nothing was appended.
            ConfigurationError: the publisher's key is missing.
        """
        digest, current = digest_of(content), self._state.version_of(kind)
        if current and self._digests[kind] == digest:
            return current, False
        remembered = self._remembered().get(kind.value, {})
        same = not current and remembered.get("digest") == digest
        version = max(current, int(remembered.get("version", 0))) + (0 if same else 1)
        await self._publish(kind, content, version=version, effective_at_ms=self.now_ms() if current else 0)
        return version, True

    async def change_directory(self, content: bytes) -> int:
        """Publishes a change of the newest directory, and returns its version: the next, for it counts on no other.

        Raises:
            InvalidDirectory: the stages would reject it; nothing was appended.
            ConfigurationError: the publisher's key is missing.
        """
        version = self._state.version_of(Kind.DIRECTORY) + 1
        await self._publish(Kind.DIRECTORY, content, version=version, effective_at_ms=self.now_ms())
        return version

    async def change_stops(self, kind: Kind, stops: frozenset[Stop], *, signers: Sequence[Signer] = ()) -> int:
        """Publishes a STOP or a RESUME of these, and returns its version. `signers`: who signs, else the publisher.

        Raises:
            InvalidBundle: the stages would reject it; nothing was appended.
            ConfigurationError: the publisher's key is missing.
        """
        remembered = self._remembered().get(kind.value, {})
        version = max(self._state.version_of(kind), int(remembered.get("version", 0))) + 1
        content = stops_content(stops)
        await self._publish(kind, content, version=version, effective_at_ms=self.now_ms(), signers=signers)
        return version

    @property
    def shadowed(self) -> bool:
        """Whether a candidate stands, or is to."""
        return not self._state.candidates.over(self.now_ms())

    async def change_shadow(
        self, content: bytes, *, expires_ms: int = EXPIRES_MS, signers: Sequence[Signer] = ()
    ) -> int:
        """Publishes a candidate, or with no content the end of one, and returns its version. `signers`: who signs, else
        the publisher.

        Raises:
            InvalidBundle: the stages would reject it; nothing was appended.
            ConfigurationError: the publisher's key is missing.
        """
        remembered = self._remembered().get(Kind.SHADOW.value, {})
        version = max(self._state.version_of(Kind.SHADOW), int(remembered.get("version", 0))) + 1
        await self._publish(
            Kind.SHADOW,
            content,
            version=version,
            effective_at_ms=self.now_ms(),
            expires_ms=expires_ms,
            signers=signers,
        )
        return version

    async def restore_stops(self) -> None:
        """Stops again what stood when the log was last written: one that is begun anew has forgotten it.

        Raises:
            ConfigurationError, InvalidBundle: as `change_stops`.
        """
        content = str(self._remembered().get(STANDING, {}).get("content", ""))
        if content and self._state.version_of(Kind.STOP) == 0:
            await self.change_stops(Kind.STOP, read_stops(content.encode()))

    async def _publish(
        self,
        kind: Kind,
        content: bytes,
        *,
        version: int,
        effective_at_ms: int,
        expires_ms: int = EXPIRES_MS,
        signers: Sequence[Signer] = (),
    ) -> None:
        metadata = sign_targets(
            kind,
            content,
            domain=self._installation.domain,
            version=version,
            effective_at_ms=effective_at_ms,
            expires_ms=expires_ms,
            signers=signers or (self._publisher or signer_of(self._installation.keys.publisher()),),
        )
        if kind is Kind.DIRECTORY:
            await self._append(DirectoryChanged(version=version, metadata=metadata, content=content))
        else:
            await self._append(
                PolicyPublished(kind=PolicyKind(kind.value), version=version, metadata=metadata, content=content)
            )

    async def signed(self, event: PolicyPublished | DirectoryChanged) -> int | Rejected:
        """Appends an event that others signed, and returns its offset; or why the stages would reject it."""
        return await self._offer(event)

    async def _append(self, event: PolicyPublished | DirectoryChanged) -> None:
        """Appends only what the same fold that the stages run accepts.

        Raises:
            InvalidBundle, InvalidDirectory: it would be rejected.
        """
        found = await self._offer(event)
        if isinstance(found, Rejected):
            problem = (f"the policy log would reject this version: {found.reason} ({found.code}); {FIXES[found.code]}",)
            raise InvalidDirectory(problem) if isinstance(event, DirectoryChanged) else InvalidBundle(problem)

    async def _offer(self, event: PolicyPublished | DirectoryChanged) -> int | Rejected:
        """The offset at which it stands. What must be remembered is on disk before: a log can be begun anew."""
        stamp_ms, value = self.now_ms() + self._lead_ms, codec.encode(event)
        if len(value) > VALUE_BYTES_MAX:
            problem = (
                f"this version has {len(value)} bytes, and one record takes {VALUE_BYTES_MAX}; change it in parts",
            )
            raise InvalidDirectory(problem) if isinstance(event, DirectoryChanged) else InvalidBundle(problem)
        found = self._state.fold(self._state.position + 1, event, stamp_ms)
        if isinstance(found, Rejected):
            return found
        self._note(found.kind, event.content, stamp_ms)
        self._remember(found.kind, found.version, digest_of(event.content))
        if found.kind is Kind.ROOT:
            self._installation.keep_root(found.version, event.metadata)
        unsent = [Unsent(key=None, value=value)]
        offset = await self._broker.append(self._topic, PARTITION, unsent, timestamp_ms=stamp_ms)
        if found.kind in {Kind.STOP, Kind.RESUME}:
            standing = stops_content(self.stops.standing).decode() if self.stops.standing else ""
            self._write({**self._remembered(), STANDING: {"content": standing}})
        return offset

    def _remembered(self) -> dict[str, dict[str, str | int]]:
        try:
            found: dict[str, dict[str, str | int]] = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def _remember(self, kind: Kind, version: int, digest: str) -> None:
        self._write({**self._remembered(), kind.value: {"version": version, "digest": digest}})

    def _write(self, known: Mapping[str, Mapping[str, str | int]]) -> None:
        temporary = self._file.with_suffix(".new")
        temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")
        temporary.replace(self._file)


def service_keys(content: bytes) -> dict[str, str]:
    """The ids of a directory's service keys, each with its service."""
    listed = json.loads(content).get("service_keys", [])
    return {str(each["kid"]): str(each["service"]) for each in listed}


@asynccontextmanager
async def policy_writer(
    settings: Settings, installation: Installation, *, publisher: Signer | None = None
) -> AsyncIterator[PolicyWriter]:
    """A writer that has folded the log of `settings.bootstrap`. `publisher`: who signs, where its key is no file here.

    Raises:
        ConfigurationError, Unavailable: there is no root of trust, or the broker does not answer.
    """
    config = broker_config(settings, "publish")
    config = replace(config, batch_bytes_max=max(config.batch_bytes_max, POLICY_BYTES_MAX))
    async with Broker(config) as broker:
        writer = PolicyWriter(settings, installation, broker, publisher=publisher)
        await writer.catch_up()
        yield writer
