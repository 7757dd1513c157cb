"""Signed SHADOW versions go in, the candidate that decides in shadow at an event time comes out; the only place of it.

A candidate is a bundle that stands beside the active one and has no say. So it is loaded only by whoever asks for it:
the gate, which folds the same log, spends nothing on it, and whether a version counts does not rest on its content.
"""

from copy import copy
from dataclasses import dataclass
from typing import Final

from sluicegate.enforcer.access import Rules as Judging
from sluicegate.enforcer.directory_change import DirectoryContent
from sluicegate.enforcer.pairs import LoadedBundle, Loaders, Misfit, Pairs
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.schedule import Scheduled, Timeline
from sluicegate.enforcer.trust import TrustedContent
from sluicegate.schemas.errors import InvalidBundle
from sluicegate.schemas.ids import Digest

CANDIDATES_KEPT: Final = 8  # each holds its content
NOTHING: Final = b""
"""The content of a version that ends the shadow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """What judges in shadow: the candidate of this version and digest, over the directory that is in force."""

    judging: Judging
    version: int
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class NoShadow:
    """Nothing is decided in shadow, and why. `standing`: a candidate was to, and cannot."""

    reason: str
    standing: bool = False


class Candidates:
    """The candidates of one policy log, scheduled as any other version is."""

    def __init__(self, loaders: Loaders) -> None:
        self._loaders = loaders
        self._line: Timeline[TrustedContent] = Timeline(kept_max=CANDIDATES_KEPT)
        self._loaded: dict[int, LoadedBundle | NoShadow] = {}
        # Pairs of its own: the versions of candidates and of bundles are counted apart.
        self._pairs = Pairs(loaders)

    def fork(self) -> "Candidates":
        """The same candidates; what one of the two takes and loads from now on, the other does not hold."""
        other = copy(self)
        other._line, other._loaded, other._pairs = self._line.fork(), self._loaded.copy(), self._pairs.fork()
        return other

    def add(self, trusted: TrustedContent, *, log_ms: int, position: int) -> bool:
        """Takes the next version; not one that is wanted in force no later than the one before it."""
        newest = self._line.newest
        if newest is not None and trusted.effective_at_ms <= newest.effective_at_ms:
            return False
        self._line.add(
            self._line.scheduled(
                trusted,
                version=trusted.version,
                effective_at_ms=trusted.effective_at_ms,
                expires_ms=trusted.expires_ms,
                log_ms=log_ms,
                position=position,
            )
        )
        return True

    def at(self, time_ms: int, directory: Scheduled[DirectoryContent] | None) -> Shadow | NoShadow:
        """What decides in shadow at `time_ms`, over the directory in force then."""
        if self._line.forgot(time_ms):
            return NoShadow(reason="event time lags behind every candidate that is kept", standing=True)
        found = self._line.at(time_ms)
        if found is None or found.value.content == NOTHING:
            return NoShadow(reason="no candidate stands")
        if time_ms >= found.expires_ms:
            return NoShadow(reason="the candidate has expired; start it again")
        if directory is None or time_ms >= directory.expires_ms:
            return NoShadow(reason="no directory is in force", standing=True)
        bundle = self._bundle(found)
        if isinstance(bundle, NoShadow):
            return bundle
        judging = self._pairs.of(
            Scheduled(
                value=bundle,
                version=found.version,
                effective_at_ms=found.effective_at_ms,
                from_ms=found.from_ms,
                expires_ms=found.expires_ms,
                position=found.position,
            ),
            directory,
        )
        if isinstance(judging, Misfit):
            return NoShadow(reason=f"{Kind.SHADOW}: {judging.reason}", standing=True)
        return Shadow(judging=judging, version=found.version, digest=bundle.digest)

    def over(self, time_ms: int) -> bool:
        """Whether nothing stands at `time_ms` or at any later time, by what was added so far."""
        newest = self._line.newest
        if newest is None:
            return True
        ended = newest.value.content == NOTHING and time_ms >= newest.from_ms
        return ended or time_ms >= max(newest.from_ms, newest.expires_ms)

    def _bundle(self, found: Scheduled[TrustedContent]) -> LoadedBundle | NoShadow:
        if found.version not in self._loaded:
            kept = {each.version for each in self._line.kept}
            self._loaded = {version: each for version, each in self._loaded.items() if version in kept}
            self._loaded[found.version] = self._load(found.value)
        return self._loaded[found.version]

    def _load(self, trusted: TrustedContent) -> LoadedBundle | NoShadow:
        try:
            return LoadedBundle(digest=trusted.digest, bundle=self._loaders.bundle(trusted.content))
        except InvalidBundle as error:
            return NoShadow(reason=f"candidate {trusted.version} is not valid: {error}", standing=True)
