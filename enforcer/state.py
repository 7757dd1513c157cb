"""Signed policy events are folded in, the rules in force at an event time come out; only here is policy state held.

A refused event is a value and leaves everything as it was. A version replaces another whole, from its
`effective_at_ms` on and never before: what was decided at T is decided so again, whatever was published since.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sluicegate.enforcer.access import Rules as Judging
from sluicegate.enforcer.bundle import Bundle, load_bundle
from sluicegate.enforcer.credentials import Credentials, parse_credentials
from sluicegate.enforcer.decide import Decider
from sluicegate.enforcer.directory import Directory, load_directory
from sluicegate.enforcer.seal import StageKey
from sluicegate.enforcer.stage_keys import InvalidKeys, check_succession, read_stage_keys
from sluicegate.enforcer.trust import (
    Domain,
    Kind,
    TrustedContent,
    TrustedRoot,
    Untrusted,
    verify_content,
    verify_root,
)
from sluicegate.schemas.errors import InvalidBundle, InvalidDirectory
from sluicegate.schemas.events import DirectoryChanged, PolicyPublished, PolicyVersion
from sluicegate.schemas.ids import Digest, KeyId
from sluicegate.schemas.strict_json import NotStrict, loads_object

VERSIONS_KEPT: Final = 64  # of a kind; event time that lags behind all of them is not decided
PAIRS_KEPT: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A policy event that now counts."""

    kind: Kind
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A policy event without effect, and why; the state is what it was before."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotReady:
    """No complete policy state is in force, and why: everything is denied."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The policy state at one event time: what judges requests, whose keys prove who asks, and its exact version."""

    judging: Judging
    credentials: Credentials
    version: PolicyVersion


def _judging(bundle: Bundle, directory: Directory) -> Judging:
    return Judging(bundle=bundle, directory=directory, decider=Decider(bundle, directory))


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaders:
    """How content becomes rules. `bundle` may raise `InvalidBundle`, `directory` `InvalidDirectory`."""

    bundle: Callable[[bytes], Bundle] = load_bundle
    directory: Callable[[bytes, Bundle], Directory] = load_directory
    judging: Callable[[Bundle, Directory], Judging] = _judging


@dataclass(frozen=True, slots=True, kw_only=True)
class _BundleVersion:
    trusted: TrustedContent
    bundle: Bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class _DirectoryVersion:
    trusted: TrustedContent
    credentials: Credentials


@dataclass(slots=True, kw_only=True)
class _State:
    root: TrustedRoot | None = None
    keys: TrustedContent | None = None
    stage_keys: Mapping[KeyId, StageKey] = field(default_factory=dict)
    bundles: list[_BundleVersion] = field(default_factory=list)
    directories: list[_DirectoryVersion] = field(default_factory=list)


class PolicyLog:
    """Folds the policy log of one environment and tenant, from its first record.

    `root_digest`: SHA-256 of the metadata of the first root, which is trusted because configuration says so, not
    because it came first.
    """

    def __init__(self, *, domain: Domain, root_digest: Digest, loaders: Loaders | None = None) -> None:
        self._domain = domain
        self._root_digest = root_digest
        self._loaders = loaders or Loaders()
        self._state = _State()
        self._position = -1
        self._pairs: OrderedDict[tuple[int, int], Judging | NotReady] = OrderedDict()
        self._last: tuple[tuple[int, int, int, int], Rules] | None = None

    @property
    def position(self) -> int:
        """The highest offset folded, whatever became of it; -1 before the first."""
        return self._position

    def version_of(self, kind: Kind) -> int:
        """The highest accepted version of a kind, 0 for none: the next to publish is one above."""
        state = self._state
        match kind:
            case Kind.ROOT:
                return state.root.version if state.root else 0
            case Kind.KEYS:
                return state.keys.version if state.keys else 0
            case Kind.BUNDLE:
                return state.bundles[-1].trusted.version if state.bundles else 0
            case Kind.DIRECTORY:
                return state.directories[-1].trusted.version if state.directories else 0

    def expires_ms(self, kind: Kind) -> int | None:
        """When the newest accepted version of a kind expires (T); None where there is none."""
        state = self._state
        newest = {
            Kind.ROOT: state.root,
            Kind.KEYS: state.keys,
            Kind.BUNDLE: state.bundles[-1].trusted if state.bundles else None,
            Kind.DIRECTORY: state.directories[-1].trusted if state.directories else None,
        }[kind]
        return newest.expires_ms if newest else None

    def stage_keys(self, stage: str) -> Mapping[KeyId, StageKey]:
        """Every key that was ever admitted for a stage, revoked ones too: `seal.Verifier` looks at the times."""
        return {key_id: key for key_id, key in self._state.stage_keys.items() if key.stage == stage}

    def bundle(self, digest: str) -> Bundle | None:
        """The accepted bundle with this digest, among those kept; None where there is none."""
        return next((each.bundle for each in reversed(self._state.bundles) if each.trusted.digest == digest), None)

    def replies_at(self, time_ms: int) -> Mapping[str, str] | None:
        """The reply topic of each service by the newest directory in force at `time_ms`; None where there is none.

        One that has expired still says so: it grants nothing, and answers granted before have to go somewhere.
        """
        found = bisect_right(self._state.directories, time_ms, key=lambda version: version.trusted.effective_at_ms)
        return self._state.directories[found - 1].credentials.replies if found else None

    def skip(self, offset: int) -> None:
        """Passes a record that is no policy event.

        Raises:
            ValueError: the offset is not above the last one; a caller's bug.
        """
        if offset <= self._position:
            raise ValueError(f"offset {offset} was folded; the last is {self._position}")
        self._position = offset

    def fold(self, offset: int, event: PolicyPublished | DirectoryChanged, time_ms: int) -> Accepted | Rejected:
        """Takes the next policy event; `time_ms` is the stamp of its record, against which expiry counts.

        Raises:
            ValueError: the offset is not above the last one; a caller's bug.
        """
        self.skip(offset)
        kind = Kind.DIRECTORY if isinstance(event, DirectoryChanged) else Kind(event.kind.value)
        if kind is Kind.ROOT:
            return self._fold_root(event, time_ms)
        if self._state.root is None:
            return Rejected(reason="no root is trusted yet")
        trusted = verify_content(
            kind,
            event.metadata,
            event.content,
            version=event.version,
            domain=self._domain,
            root=self._state.root,
            time_ms=time_ms,
        )
        if isinstance(trusted, Untrusted):
            return Rejected(reason=trusted.reason)
        if trusted.version <= self.version_of(kind):
            return Rejected(reason=f"{kind} version {trusted.version} is not above {self.version_of(kind)}")
        match kind:
            case Kind.KEYS:
                return self._fold_keys(trusted)
            case Kind.BUNDLE:
                return self._fold_bundle(trusted)
            case Kind.DIRECTORY:
                return self._fold_directory(trusted)

    def _fold_root(self, event: PolicyPublished | DirectoryChanged, time_ms: int) -> Accepted | Rejected:
        root = verify_root(
            event.metadata,
            version=event.version,
            domain=self._domain,
            previous=self._state.root,
            pinned=self._root_digest,
            time_ms=time_ms,
        )
        if isinstance(root, Untrusted):
            return Rejected(reason=root.reason)
        if event.content:
            return Rejected(reason="a root carries no content")
        self._state.root = root
        return Accepted(kind=Kind.ROOT, version=root.version)

    def _fold_keys(self, trusted: TrustedContent) -> Accepted | Rejected:
        try:
            keys = read_stage_keys(trusted.content)
            check_succession(self._state.stage_keys, keys)
        except InvalidKeys as error:
            return Rejected(reason=str(error))
        self._state.keys, self._state.stage_keys = trusted, keys
        return Accepted(kind=Kind.KEYS, version=trusted.version)

    def _fold_bundle(self, trusted: TrustedContent) -> Accepted | Rejected:
        versions = self._state.bundles
        if versions and trusted.effective_at_ms <= versions[-1].trusted.effective_at_ms:
            return Rejected(reason="`effective_at_ms` is not after that of the bundle before")
        try:
            bundle = self._loaders.bundle(trusted.content)
        except InvalidBundle as error:
            return Rejected(reason=f"the bundle is not valid: {error}")
        versions.append(_BundleVersion(trusted=trusted, bundle=bundle))
        del versions[:-VERSIONS_KEPT]
        self._prepare()
        return Accepted(kind=Kind.BUNDLE, version=trusted.version)

    def _fold_directory(self, trusted: TrustedContent) -> Accepted | Rejected:
        versions = self._state.directories
        if versions and trusted.effective_at_ms <= versions[-1].trusted.effective_at_ms:
            return Rejected(reason="`effective_at_ms` is not after that of the directory before")
        try:
            credentials = parse_credentials(loads_object(trusted.content))
        except (NotStrict, InvalidDirectory) as error:
            return Rejected(reason=f"the directory is not valid: {error}")
        versions.append(_DirectoryVersion(trusted=trusted, credentials=credentials))
        del versions[:-VERSIONS_KEPT]
        self._prepare()
        return Accepted(kind=Kind.DIRECTORY, version=trusted.version)

    def at(self, time_ms: int) -> Rules | NotReady:
        """The rules in force at event time `time_ms`; one object for as long as nothing changes."""
        root = self._state.root
        if root is None:
            return NotReady(reason="no root is trusted yet")
        pair = self._pair_at(time_ms)
        if isinstance(pair, NotReady):
            return pair
        bundle, directory = pair
        for name, expires_ms in (
            ("root", root.expires_ms),
            ("bundle", bundle.trusted.expires_ms),
            ("directory", directory.trusted.expires_ms),
        ):
            if time_ms >= expires_ms:
                return NotReady(reason=f"the {name} has expired; publish the next version")
        judging = self._judging_of(bundle, directory)
        if isinstance(judging, NotReady):
            return judging
        name_of = (self._position, root.version, bundle.trusted.version, directory.trusted.version)
        if self._last is not None and self._last[0] == name_of:
            return self._last[1]
        rules = Rules(
            judging=judging,
            credentials=directory.credentials,
            version=PolicyVersion(
                position=self._position,
                root_version=root.version,
                bundle_version=bundle.trusted.version,
                bundle_digest=bundle.trusted.digest,
                directory_version=directory.trusted.version,
                directory_digest=directory.trusted.digest,
            ),
        )
        self._last = (name_of, rules)
        return rules

    def _pair_at(self, time_ms: int) -> tuple[_BundleVersion, _DirectoryVersion] | NotReady:
        bundles, directories = self._state.bundles, self._state.directories
        bundle = bisect_right(bundles, time_ms, key=lambda version: version.trusted.effective_at_ms)
        directory = bisect_right(directories, time_ms, key=lambda version: version.trusted.effective_at_ms)
        if bundle == 0:
            return NotReady(reason="no bundle is in force")
        if directory == 0:
            return NotReady(reason="no directory is in force")
        return bundles[bundle - 1], directories[directory - 1]

    def _judging_of(self, bundle: _BundleVersion, directory: _DirectoryVersion) -> Judging | NotReady:
        name = (bundle.trusted.version, directory.trusted.version)
        found = self._pairs.get(name)
        if found is None:
            try:
                entities = self._loaders.directory(directory.trusted.content, bundle.bundle)
                found = self._loaders.judging(bundle.bundle, entities)
            except InvalidDirectory as error:
                found = NotReady(reason=f"directory {name[1]} does not conform to bundle {name[0]}: {error}")
            self._pairs[name] = found
            while len(self._pairs) > PAIRS_KEPT:
                self._pairs.popitem(last=False)
        else:
            self._pairs.move_to_end(name)
        return found

    def _prepare(self) -> None:
        """Builds now what the newest versions will be asked for, so that no request waits for it."""
        for versions in (self._state.bundles, self._state.directories):
            if versions:
                pair = self._pair_at(versions[-1].trusted.effective_at_ms)
                if not isinstance(pair, NotReady):
                    self._judging_of(*pair)
