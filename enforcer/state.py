"""Signed policy events are folded in, the rules in force at an event time come out; only here is policy state held.

A refused event is a value and leaves everything as it was. A version replaces another whole, from the time on that
`schedule` says and never before: what was decided at T is decided so again, whatever was published since. Who may sign
changes with the place in the log: a root or a roles version counts for everything that stands after it.
"""

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import Final, TypeVar

from sluicegate.enforcer.bundle import Bundle
from sluicegate.enforcer.candidate import Candidates, NoShadow, Shadow
from sluicegate.enforcer.directory_change import PSEUDO_TYPES, Change, DirectoryContent, read_content
from sluicegate.enforcer.pairs import LoadedBundle, Loaders, Misfit, Pairs
from sluicegate.enforcer.policy_answers import Accepted, NotReady, Rejected, Rules, backdated
from sluicegate.enforcer.policy_kinds import Event, Fault, Kind, delegated_role, directory_role, kind_of
from sluicegate.enforcer.schedule import DELAY_MS, FOREVER_MS, Line, Scheduled, Span, Timeline, reading_ms
from sluicegate.enforcer.seal import StageKey
from sluicegate.enforcer.stage_keys import InvalidKeys, check_succession, read_stage_keys
from sluicegate.enforcer.stops import NO_STOPS, InvalidStops, Stops, read_stops
from sluicegate.enforcer.trust import (
    Domain,
    TrustedContent,
    TrustedRoles,
    TrustedRoot,
    Untrusted,
    verify_content,
    verify_roles,
    verify_root,
)
from sluicegate.schemas.errors import InvalidBundle, InvalidDirectory
from sluicegate.schemas.events import PolicyVersion
from sluicegate.schemas.ids import Digest, KeyId

__all__ = ["Accepted", "Event", "NotReady", "PolicyLog", "Rejected", "Rules"]

VERSIONS_KEPT: Final = 64  # of a kind; event time that lags behind all of them is not decided
CHANGES_KEPT: Final = 4096  # of directories and stops, which are many, and share what they did not change
EARLY: Final = frozenset({Kind.ROOT, Kind.KEYS, Kind.BUNDLE, Kind.DIRECTORY})
"""Nothing is decided without these: the first version of each may be in force from before it was published."""
V_ = TypeVar("V_")


class PolicyLog:
    """Folds the policy log of one environment and tenant, from its first record. `root_digest`: SHA-256 of the metadata
    of the first root, which is trusted because configuration says so, not because it came first.
    """

    def __init__(self, *, domain: Domain, root_digest: Digest, loaders: Loaders | None = None) -> None:
        self._domain = domain
        self._root_digest = root_digest
        self._loaders = loaders or Loaders()
        self._pairs = Pairs(self._loaders)
        self._roots: Timeline[TrustedRoot] = Timeline(kept_max=VERSIONS_KEPT, early=True)
        self._roles: Timeline[TrustedRoles] = Timeline(kept_max=VERSIONS_KEPT)
        self._keys: Timeline[Mapping[KeyId, StageKey]] = Timeline(kept_max=VERSIONS_KEPT, early=True)
        self._bundles: Timeline[LoadedBundle] = Timeline(kept_max=VERSIONS_KEPT, early=True)
        self._directories: Timeline[DirectoryContent] = Timeline(kept_max=CHANGES_KEPT, early=True)
        self._stops: Timeline[Stops] = Timeline(kept_max=CHANGES_KEPT)
        self._lines: Mapping[Kind, Line] = self._all_lines()
        self._versions: dict[Kind, tuple[int, int]] = {}
        self.candidates = Candidates(self._loaders)
        self._position = self._forked_at = -1
        self._log_ms = 0
        self._last: tuple[int, int, Rules] | None = None

    def _all_lines(self) -> Mapping[Kind, Line]:
        held = (self._roots, self._roles, self._keys, self._bundles, self._directories, self._stops)
        kinds = (Kind.ROOT, Kind.ROLES, Kind.KEYS, Kind.BUNDLE, Kind.DIRECTORY, Kind.STOP)
        return dict(zip(kinds, held, strict=True))

    def fork(self) -> "PolicyLog":
        """A log that has folded the same, for `fold` to go on with elsewhere; this one says what it said until it
        adopts it. The two share what never changes, and memos.
        """
        other = copy(self)
        other._roots, other._roles, other._keys = self._roots.fork(), self._roles.fork(), self._keys.fork()
        other._bundles, other._directories = self._bundles.fork(), self._directories.fork()
        other._stops, other.candidates, other._pairs = self._stops.fork(), self.candidates.fork(), self._pairs.fork()
        other._versions = self._versions.copy()
        other._lines, other._forked_at = other._all_lines(), self._position
        return other

    def adopt(self, fork: "PolicyLog") -> None:
        """Becomes what `fork` has become; it is used no more.

        Raises:
            ValueError: this log was folded on meanwhile; a caller's bug.
        """
        if fork._forked_at != self._position:
            raise ValueError(f"the fork was taken at offset {fork._forked_at}; the last is {self._position}")
        self.__dict__.update(fork.__dict__)

    @property
    def position(self) -> int:
        """The highest offset folded, whatever became of it; -1 before the first."""
        return self._position

    @property
    def log_ms(self) -> int:
        """The log's own time: the highest stamp of an accepted event; 0 before the first."""
        return self._log_ms

    @property
    def root(self) -> TrustedRoot | None:
        """The newest root accepted; None before the first."""
        return self._roots.newest.value if self._roots.newest else None

    @property
    def roles(self) -> TrustedRoles | None:
        """The newest roles accepted, by which the next event is judged; None before the first."""
        return self._roles.newest.value if self._roles.newest else None

    def span(self, kind: Kind, time_ms: int) -> Span:
        """From when until when the version of a kind holds that is in force at `time_ms`, and where it stands."""
        return self._lines[kind].span(time_ms)

    def version_of(self, kind: Kind) -> int:
        """The highest accepted version of a kind, 0 for none: the next to publish is one above."""
        return self._versions.get(kind, (0, 0))[0]

    def expires_ms(self, kind: Kind) -> int | None:
        """When the newest accepted version of a kind expires (T); None where there is none."""
        found = self._versions.get(kind)
        return found[1] if found else None

    def stage_keys(self, stage: str) -> Mapping[KeyId, StageKey]:
        """Every key that was ever admitted for a stage, revoked ones too: `seal.Verifier` looks at the times."""
        return {key_id: key for key_id, key in self._stage_keys().items() if key.stage == stage}

    def _stage_keys(self) -> Mapping[KeyId, StageKey]:
        return self._keys.newest.value if self._keys.newest else {}

    def bundle(self, digest: str) -> Bundle | None:
        """The accepted bundle with this digest, among those kept; None where there is none."""
        kept = reversed(self._bundles.kept)
        return next((each.value.bundle for each in kept if each.value.digest == digest), None)

    def directory_at(self, time_ms: int) -> Scheduled[DirectoryContent] | None:
        """The directory in force at `time_ms`, or the one that has expired since; None where there is none."""
        return self._directories.at(time_ms)

    def forget(self, time_ms: int) -> None:
        """Drops what was in force only before `time_ms`, for one who asks of no earlier time again."""
        for line in self._lines.values():
            line.forget(time_ms)

    @property
    def directory(self) -> DirectoryContent | None:
        """The newest directory accepted; None before the first."""
        return self._directories.newest.value if self._directories.newest else None

    @property
    def _entities(self) -> int:
        return len(self.directory.entities) if self.directory else 0

    @property
    def stops(self) -> Stops:
        """Everything stopped by what was folded, at once and not only from its time on: runner and redactor obey so."""
        return self._stops.newest.value if self._stops.newest else NO_STOPS

    def skip(self, offset: int) -> None:
        """Passes a record that is no policy event.

        Raises:
            ValueError: the offset is not above the last one; a caller's bug.
        """
        if offset <= self._position:
            raise ValueError(f"offset {offset} was folded; the last is {self._position}")
        self._position = offset

    def earliest_ms(self, event: Event, time_ms: int, *, next_: bool) -> int:
        """Before which event time an event that is not folded yet changes nothing, whatever becomes of it. `next_`:
        nothing stands between it and what is folded; `time_ms` as in `fold`.
        """
        kind, entities = kind_of(event), self._entities if next_ else 0
        if kind in EARLY and not self.version_of(kind):
            return 0
        return max(self._log_ms, time_ms) + DELAY_MS + reading_ms(kind, len(event.content), entities=entities)

    def fold(self, offset: int, event: Event, time_ms: int) -> Accepted | Rejected:
        """Takes the next policy event; `time_ms` is the stamp of its record. Expiry counts against the log's own time.

        Raises:
            ValueError: the offset is not above the last one; a caller's bug.
        """
        self.skip(offset)
        kind = kind_of(event)
        log_ms = max(self._log_ms, time_ms)
        expires_ms = self._fold(kind, event, log_ms)
        if isinstance(expires_ms, Rejected):
            return expires_ms
        self._log_ms = log_ms
        self._versions[kind] = (event.version, expires_ms)
        self._last = None
        return Accepted(kind=kind, version=event.version)

    def _fold(self, kind: Kind, event: Event, log_ms: int) -> int | Rejected:
        """When the version expires, once it is taken."""
        if kind is Kind.ROOT:
            return self._fold_root(event, log_ms)
        root = self.root
        if root is None:
            return Rejected(code=Fault.NO_ROOT, reason="no root is trusted yet")
        if kind is Kind.ROLES:
            return self._fold_roles(event, root, log_ms)
        trusted = verify_content(
            kind,
            event.metadata,
            event.content,
            version=event.version,
            domain=self._domain,
            root=root,
            roles=self.roles,
            time_ms=log_ms,
        )
        if isinstance(trusted, Untrusted):
            return Rejected(code=trusted.fault, reason=trusted.reason)
        if (older := self._older(kind, trusted.version)) is not None:
            return older
        try:
            match kind:
                case Kind.KEYS:
                    keys = read_stage_keys(trusted.content)
                    check_succession(self._stage_keys(), keys)
                    self._keys.add(self._scheduled(self._keys, keys, trusted, log_ms))
                case Kind.BUNDLE:
                    return self._fold_bundle(trusted, log_ms)
                case Kind.DIRECTORY:
                    return self._fold_directory(trusted, log_ms)
                case Kind.STOP | Kind.RESUME:
                    named = read_stops(trusted.content)
                    stops = self.stops.stopped(named) if kind is Kind.STOP else self.stops.resumed(named)
                    # As soon as it can be: a stop does not wait for the time that an end of others was set to.
                    start = replace(trusted, effective_at_ms=0, expires_ms=FOREVER_MS)
                    self._stops.add(self._scheduled(self._stops, stops, start, log_ms))
                case Kind.SHADOW:
                    if not self.candidates.add(trusted, log_ms=log_ms, position=self._position):
                        return backdated(kind)
        except (InvalidKeys, InvalidStops) as error:
            return Rejected(code=Fault.INVALID, reason=str(error))
        return trusted.expires_ms

    def _older(self, kind: Kind, version: int) -> Rejected | None:
        if version > self.version_of(kind):
            return None
        return Rejected(code=Fault.OLDER, reason=f"{kind} version {version} is not above {self.version_of(kind)}")

    def _fold_root(self, event: Event, log_ms: int) -> int | Rejected:
        root = verify_root(
            event.metadata,
            version=event.version,
            domain=self._domain,
            previous=self._roots.newest.value if self._roots.newest else None,
            pinned=self._root_digest,
            time_ms=log_ms,
        )
        if isinstance(root, Untrusted):
            return Rejected(code=root.fault, reason=root.reason)
        if event.content:
            return Rejected(code=Fault.MALFORMED, reason="a root carries no content")
        self._roots.add(self._scheduled(self._roots, root, root, log_ms))
        return root.expires_ms

    def _fold_roles(self, event: Event, root: TrustedRoot, log_ms: int) -> int | Rejected:
        roles = verify_roles(event.metadata, version=event.version, domain=self._domain, root=root, time_ms=log_ms)
        if isinstance(roles, Untrusted):
            return Rejected(code=roles.fault, reason=roles.reason)
        if event.content:
            return Rejected(code=Fault.MALFORMED, reason="roles carry no content")
        if (older := self._older(Kind.ROLES, roles.version)) is not None:
            return older
        before = self._roles.newest
        if before is not None and roles.effective_at_ms <= before.effective_at_ms:
            return backdated(Kind.ROLES)
        self._roles.add(self._scheduled(self._roles, roles, roles, log_ms))
        return roles.expires_ms

    def _fold_bundle(self, trusted: TrustedContent, log_ms: int) -> int | Rejected:
        before = self._bundles.newest
        if before is not None and trusted.effective_at_ms <= before.effective_at_ms:
            return backdated(Kind.BUNDLE)
        try:
            bundle = self._loaders.bundle(trusted.content)
        except InvalidBundle as error:
            return Rejected(code=Fault.INVALID, reason=f"the bundle is not valid: {error}")
        loaded = LoadedBundle(digest=trusted.digest, bundle=bundle)
        self._bundles.add(self._scheduled(self._bundles, loaded, trusted, log_ms))
        self._prepare()
        return trusted.expires_ms

    def _fold_directory(self, trusted: TrustedContent, log_ms: int) -> int | Rejected:
        before = self._directories.newest
        if before is not None and trusted.effective_at_ms <= before.effective_at_ms:
            return backdated(Kind.DIRECTORY)
        try:
            found = read_content(trusted.content)
        except InvalidDirectory as error:
            return Rejected(code=Fault.INVALID, reason=f"the directory is not valid: {error}")
        if isinstance(found, Change):
            return self._fold_change(trusted, found, log_ms)
        if delegated_role(Kind.DIRECTORY) not in trusted.signed_as:
            return Rejected(code=Fault.NOT_DELEGATED, reason="a whole directory needs those who speak for all of it")
        self._directories.add(self._scheduled(self._directories, found, trusted, log_ms))
        self._prepare()
        return trusted.expires_ms

    def _fold_change(self, trusted: TrustedContent, change: Change, log_ms: int) -> int | Rejected:
        """A change counts only on the very version before it, and only where the outcome fits what is in force."""
        before, newest = self._directories.newest, self._bundles.newest
        foreign = sorted(each for each in change.types if directory_role(each) not in trusted.signed_as)
        if foreign and delegated_role(Kind.DIRECTORY) not in trusted.signed_as:
            reason = f"the signers of the change do not speak for `{foreign[0]}`"
            return Rejected(code=Fault.NOT_DELEGATED, reason=reason)
        if before is None or trusted.version != before.version + 1:
            return Rejected(code=Fault.OUT_OF_ORDER, reason="the directory that this change follows is not there")
        known = None if newest is None else self._loaders.types(newest.value.bundle) | PSEUDO_TYPES
        unknown = sorted(change.types - known) if known is not None else []
        if unknown:
            return Rejected(code=Fault.UNKNOWN_TYPE, reason=f"the bundle knows no entity type `{unknown[0]}`")
        try:
            content = before.value.changed(change)
        except InvalidDirectory as error:
            return Rejected(code=Fault.INVALID, reason=f"the change is not valid: {error}")
        scheduled = self._scheduled(self._directories, content, trusted, log_ms)
        for bundle in (self._bundles.at(scheduled.from_ms), newest):
            built = None if bundle is None else self._pairs.of(bundle, scheduled)
            if isinstance(built, Misfit):
                self._pairs.forget(scheduled)
                return Rejected(code=Fault.INVALID, reason=built.reason)
        self._directories.add(scheduled)
        self._prepare()
        return trusted.expires_ms

    def _scheduled(
        self, line: Timeline[V_], value: V_, trusted: TrustedContent | TrustedRoles | TrustedRoot, log_ms: int
    ) -> Scheduled[V_]:
        read_ms = 0
        if isinstance(trusted, TrustedContent):
            read_ms = reading_ms(trusted.kind, len(trusted.content), entities=self._entities)
        return line.scheduled(
            value,
            version=trusted.version,
            effective_at_ms=trusted.effective_at_ms,
            expires_ms=trusted.expires_ms,
            log_ms=log_ms,
            position=self._position,
            reading_ms=read_ms,
        )

    def at(self, time_ms: int) -> Rules | NotReady:
        """The rules in force at event time `time_ms`; one object for as long as nothing changes."""
        if self._last is not None and self._last[0] <= time_ms < self._last[1]:
            return self._last[2]
        root, bundle, directory = self._roots.at(time_ms), self._bundles.at(time_ms), self._directories.at(time_ms)
        if root is None:
            return NotReady(reason="no root is trusted yet")
        if any(line.forgot(time_ms) for line in self._lines.values()):
            return NotReady(reason="event time lags behind every version that is kept")
        if bundle is None:
            return NotReady(reason="no bundle is in force")
        if directory is None:
            return NotReady(reason="no directory is in force")
        roles, stops = self._roles.at(time_ms), self._stops.at(time_ms)
        for name, each in (("root", root), ("roles", roles), ("bundle", bundle), ("directory", directory)):
            if each is not None and time_ms >= each.expires_ms:
                return NotReady(reason=f"the {name} has expired; publish the next version")
        judging = self._pairs.of(bundle, directory)
        if isinstance(judging, Misfit):
            return NotReady(reason=judging.reason)
        spans = [line.span(time_ms) for line in self._lines.values()]
        rules = Rules(
            judging=judging,
            credentials=directory.value.credentials,
            stops=stops.value if stops else NO_STOPS,
            version=PolicyVersion(
                position=max(span.position for span in spans),
                root_version=root.version,
                bundle_version=bundle.version,
                bundle_digest=bundle.value.digest,
                directory_version=directory.version,
                directory_digest=directory.value.digest,
            ),
        )
        self._last = (max(span.from_ms for span in spans), min(span.until_ms for span in spans), rules)
        return rules

    def shadow_at(self, time_ms: int) -> Shadow | NoShadow:
        """What decides in shadow at `time_ms`; nothing that `at` says rests on it."""
        return self.candidates.at(time_ms, self._directories.at(time_ms))

    def _prepare(self) -> None:
        """Builds now what the newest versions will be asked for, so that no request waits for it."""
        for newest in (self._bundles.newest, self._directories.newest):
            if newest is not None:
                bundle, directory = self._bundles.at(newest.from_ms), self._directories.at(newest.from_ms)
                if bundle is not None and directory is not None:
                    self._pairs.of(bundle, directory)
