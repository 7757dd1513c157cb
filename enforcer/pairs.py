"""A bundle and a directory in force go in, what judges requests by both comes out; built once a pair, and only here.

What was built last is handed on, so that a change of the directory costs what changed and not the whole.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sluicegate.enforcer.access import Rules as Judging
from sluicegate.enforcer.bundle import Bundle, load_bundle
from sluicegate.enforcer.decide import Decider
from sluicegate.enforcer.directory import Directory, conform, entity_types
from sluicegate.enforcer.directory_change import DirectoryContent
from sluicegate.enforcer.schedule import Scheduled
from sluicegate.schemas.errors import InvalidDirectory
from sluicegate.schemas.ids import Digest

PAIRS_KEPT: Final = 8


def _directory(content: DirectoryContent, bundle: Bundle, before: Directory | None) -> Directory:
    return conform(content, bundle, before=before)


def _judging(bundle: Bundle, directory: Directory, before: Judging | None) -> Judging:
    decider = Decider(bundle, directory, before=before.decider if before else None)
    if before is not None and before.decider.bundle_digest != bundle.digest:
        decider.warm(before.decider)
    return Judging(bundle=bundle, directory=directory, decider=decider)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaders:
    """How content becomes rules. `bundle` may raise `InvalidBundle`, `directory` `InvalidDirectory`; the last argument
    of `directory` and `judging` is what they made before, or None. `types`: the entity types that a bundle knows.
    """

    bundle: Callable[[bytes], Bundle] = load_bundle
    types: Callable[[Bundle], frozenset[str]] = entity_types
    directory: Callable[[DirectoryContent, Bundle, Directory | None], Directory] = _directory
    judging: Callable[[Bundle, Directory, Judging | None], Judging] = _judging


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedBundle:
    """A bundle and the digest of the content that it was loaded from."""

    digest: Digest
    bundle: Bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """The directory does not conform to the bundle, and why."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Built:
    directory: Directory
    judging: Judging


class Pairs:
    """The pairs built so far; the least used are forgotten, and built again where event time lags."""

    def __init__(self, loaders: Loaders) -> None:
        self._loaders = loaders
        self._built: OrderedDict[tuple[int, int], _Built | Misfit] = OrderedDict()
        self._last: _Built | None = None

    def fork(self) -> "Pairs":
        """The same pairs; what one of the two builds from now on, the other builds for itself."""
        other = Pairs(self._loaders)
        other._built, other._last = self._built.copy(), self._last
        return other

    def of(self, bundle: Scheduled[LoadedBundle], directory: Scheduled[DirectoryContent]) -> Judging | Misfit:
        """What judges by these two."""
        name = (bundle.version, directory.version)
        found = self._built.get(name)
        if found is None:
            found = self._build(bundle, directory)
            self._built[name] = found
            while len(self._built) > PAIRS_KEPT:
                self._built.popitem(last=False)
        else:
            self._built.move_to_end(name)
        return found if isinstance(found, Misfit) else found.judging

    def _build(self, bundle: Scheduled[LoadedBundle], directory: Scheduled[DirectoryContent]) -> _Built | Misfit:
        before = self._built.get((bundle.version, directory.version - 1))
        if not isinstance(before, _Built):
            before = self._last
        loaded = bundle.value.bundle
        try:
            entities = self._loaders.directory(directory.value, loaded, before.directory if before else None)
        except InvalidDirectory as error:
            return Misfit(reason=f"directory {directory.version} does not conform to bundle {bundle.version}: {error}")
        judging = self._loaders.judging(loaded, entities, before.judging if before else None)
        self._last = _Built(directory=entities, judging=judging)
        return self._last

    def forget(self, directory: Scheduled[DirectoryContent]) -> None:
        """Drops the pairs of a directory that was not accepted: its version may come again with other content."""
        for name in [each for each in self._built if each[1] == directory.version]:
            del self._built[name]
