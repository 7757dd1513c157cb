"""The content of a directory goes in, the entities that conform to one bundle's schema come out; the only place that
holds entities against a schema.

Each entity is checked by the engine, in chunks that let other threads run. References, cycles and names are checked
here, since Cedar lets them pass or sees them only where all entities stand together. A version that follows another
is checked where the two differ, and what the schema says of the rest stays as it was.
"""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import cedarpy
from rpds import HashTrieMap

from sluicegate.enforcer.bundle import Bundle
from sluicegate.enforcer.directory_change import DirectoryContent, read_whole
from sluicegate.schemas.errors import InvalidDirectory
from sluicegate.schemas.ids import Digest, EntityUid, entity_uid

NAMES_REMEMBERED_MAX: Final = 4_096
CHUNK: Final = 64  # entities that the engine reads in one call: some milliseconds
_UID: Final = re.compile(r'(?P<type>[A-Za-z_]\w*(?:::[A-Za-z_]\w*)*)::"(?P<id>(?:[^"\\]|\\["\\])*)"', re.DOTALL)
# The engine writes a schema in one way, whichever way it was given: one declaration starts a line.
_DECLARED: Final = re.compile(r"\s*entity (?P<names>\w+(?:, \w+)*)[ ;]")
_NAMESPACE: Final = re.compile(r"namespace (?P<name>\w+(?:::\w+)*) \{")
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
Reference = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity that conforms: its JSON with every reference explicit, its parents, and what its attributes name."""

    kind: str
    text: str
    parents: tuple[EntityUid, ...]
    named: tuple[EntityUid, ...]


class Directory:
    """Entities that conform to the schema of one bundle; immutable.

    `digest`, `origin` and `touched` are those of the content, or say what it was compared to; `texts` are its entities
    as they were given; `schema` is the text of the schema they conform to.
    """

    __slots__ = ("_handle", "_referred", "_schema", "digest", "entries", "origin", "schema", "texts", "touched")

    def __init__(
        self,
        content: DirectoryContent,
        bundle: Bundle,
        entries: "HashTrieMap[EntityUid, Entity]",
        referred: "HashTrieMap[EntityUid, int]",
        schema: str,
    ) -> None:
        """`referred`: how often each entity is referred to, closed lists of the schema left out."""
        self.digest: Final[Digest] = content.digest
        self.origin: Final = content.origin
        self.touched: Final = content.touched
        self.texts: Final = content.entities
        self.entries: Final = entries
        self.schema: Final = schema
        self._referred: Final = referred
        self._schema: Final = bundle.schema
        self._handle: cedarpy.Entities | None = None

    def has(self, uid: str) -> bool:
        """Whether the directory holds this entity."""
        return uid in self.entries

    @property
    def uids(self) -> frozenset[EntityUid]:
        """All entities; made anew at each call."""
        return frozenset(self.entries)

    @property
    def types(self) -> Mapping[EntityUid, str]:
        """The type of each entity; made anew at each call."""
        return {uid: entry.kind for uid, entry in self.entries.items()}

    @property
    def entities(self) -> cedarpy.Entities:
        """The engine's handle over all entities, made at the first call: for tools, since it costs all of them."""
        if self._handle is None:
            texts = ",".join(entry.text for entry in self.entries.values())
            self._handle = cedarpy.Entities.from_json_str(f"[{texts}]", self._schema, release_gil=True)
        return self._handle

    def changed(self, content: DirectoryContent, bundle: Bundle) -> "Directory":
        """The directory of content that was changed from this one's, under a bundle of the same schema."""
        read, problems = _read([(uid, content.entities.get(uid)) for uid in sorted(content.touched)], bundle)
        entries, referred = self.entries, dict[EntityUid, int]()
        for uid in content.touched:
            before, after = entries.get(uid), read.get(uid)
            _count(before, -1, bundle, referred)
            _count(after, 1, bundle, referred)
            entries = entries.discard(uid) if after is None else entries.insert(uid, after)
        counts = self._referred
        for uid, more in referred.items():
            counts = counts.insert(uid, counts.get(uid, 0) + more)
        if not problems:
            problems += _dangling(read.items(), entries, bundle)
            problems += _left_behind(content.touched, entries, counts, bundle)
            problems += _cycles(read, entries)
            problems += _misplaced_fields(read.items())
        if problems:
            raise InvalidDirectory(tuple(problems))
        return Directory(content, bundle, entries, counts, self.schema)

    def under(self, content: DirectoryContent, bundle: Bundle) -> "Directory":
        """The same entities under another bundle whose schema is the same."""
        return Directory(content, bundle, self.entries, self._referred, self.schema)


def split_uid(uid: str) -> tuple[str, str]:
    """The entity type and id of a uid as `ids.entity_uid` writes it.

    Raises:
        ValueError: it is not of that form.
    """
    found = _UID.fullmatch(uid)
    if found is None:
        raise ValueError('no entity uid; write it as `Type::"id"`')
    return found["type"], re.sub(r"\\(.)", r"\1", found["id"])


def entity_types(bundle: Bundle) -> frozenset[str]:
    """Every entity type that the bundle's schema declares, with its namespace."""
    namespace, found = "", set[str]()
    for line in str(bundle.schema).splitlines():
        if opened := _NAMESPACE.match(line):
            namespace = f"{opened['name']}::"
        elif line.startswith("}") and namespace:
            namespace = ""
        elif declared := _DECLARED.match(line):
            found |= {f"{namespace}{each}" for each in declared["names"].split(", ")}
    return frozenset(found)


def load_directory(content: bytes, bundle: Bundle) -> Directory:
    """Reads whole content and has each entity conform to the bundle's schema.

    Raises:
        InvalidDirectory: with one line for each problem and what to do.
    """
    return conform(read_whole(content), bundle)


def conform(content: DirectoryContent, bundle: Bundle, *, before: Directory | None = None) -> Directory:
    """The directory of `content` under `bundle`.

    `before`: one made earlier. Where its schema is the same, only the entities that are not the same are checked; the
    entities are the same as without it, and `Directory.origin` and `touched` say what they were compared to.

    Raises:
        InvalidDirectory: with one line for each problem and what to do.
    """
    schema = str(bundle.schema)
    if before is not None and before.schema == schema:
        if before.digest == content.digest:
            return before.under(content, bundle)
        if content.origin is not None and before.digest == content.origin:
            return before.changed(content, bundle)
        compared = replace(content, origin=before.digest, touched=_differing(before, content))
        with contextlib.suppress(InvalidDirectory):  # what is wrong with a whole one is said of all of it
            return before.changed(compared, bundle)
    read, problems = _read(sorted(content.entities.items()), bundle)
    if not problems:
        problems += _dangling(read.items(), read, bundle)
        problems += _cycles(read, read)
        problems += _misplaced_fields(read.items())
    if problems:
        raise InvalidDirectory(tuple(problems))
    referred: dict[EntityUid, int] = {}
    for entry in read.values():
        _count(entry, 1, bundle, referred)
    return Directory(content, bundle, HashTrieMap(read), HashTrieMap(referred), schema)


def _differing(before: Directory, content: DirectoryContent) -> frozenset[EntityUid]:
    """The entities that are not the same in both."""
    put = {uid for uid, text in content.entities.items() if before.texts.get(uid) != text}
    return frozenset(put | {uid for uid in before.texts if uid not in content.entities})


# ---- the engine's reading ------------------------------------------------------------------------------------------


def _read(texts: list[tuple[EntityUid, str | None]], bundle: Bundle) -> tuple[dict[EntityUid, Entity], list[str]]:
    """What the engine makes of each entity; a None is one that was removed."""
    here = [(uid, text) for uid, text in texts if text is not None]
    read: dict[EntityUid, Entity] = {}
    problems: list[str] = []
    for start in range(0, len(here), CHUNK):
        chunk = here[start : start + CHUNK]
        try:
            read.update(_read_chunk(chunk, bundle))
        except ValueError:
            problems += _nonconforming(chunk, bundle)
    return read, problems


def _read_chunk(chunk: list[tuple[EntityUid, str]], bundle: Bundle) -> dict[EntityUid, Entity]:
    """Raises ValueError where the schema refuses one of them; the engine does not say which."""
    given = {uid: json.loads(text) for uid, text in chunk}
    texts = ",".join(text for _, text in chunk)
    handle = cedarpy.Entities.from_json_str(f"[{texts}]", bundle.schema, release_gil=True)
    rendered: list[dict[str, dict[str, object]]] = json.loads(str(handle))
    found: dict[EntityUid, Entity] = {}
    for entity in rendered:
        kind, name = str(entity["uid"]["type"]), str(entity["uid"]["id"])
        uid = entity_uid(kind, name)
        if uid not in given:  # an action, which the engine adds
            continue
        # As given: the engine renders all ancestors as parents, and in another chunk there would be other ones.
        parents = sorted({_parent(parent) for parent in given[uid]["parents"]})
        whole = {**entity, "parents": [{"type": kind, "id": name} for kind, name in parents]}
        found[uid] = Entity(
            kind,
            _CANONICAL.encode(whole),
            tuple(entity_uid(*parent) for parent in parents),
            tuple(entity_uid(*each) for each in sorted(set(references(entity["attrs"])))),
        )
    return found


def _parent(value: object) -> Reference:
    """A parent in either of the forms that the engine takes."""
    if isinstance(value, dict):
        target = value.get("__entity", value)
        if isinstance(target, dict) and isinstance(target.get("type"), str) and isinstance(target.get("id"), str):
            return target["type"], target["id"]
    raise ValueError("a parent needs `type` and `id`")


def _nonconforming(chunk: list[tuple[EntityUid, str]], bundle: Bundle) -> Iterator[str]:
    """Which entities the schema refuses; the engine says only that there is one."""
    found = 0
    for uid, text in chunk:
        try:
            _read_chunk([(uid, text)], bundle)
        except ValueError as error:
            found += 1
            yield f"{uid}: {error}; check its type, attributes, roles and purposes against the schema"
    if not found:  # each alone conforms, so what is wrong is how they stand to each other
        yield f"{chunk[0][0]} to {chunk[-1][0]}: an entity is its own ancestor; take one of the parents away"


def references(value: object) -> Iterator[Reference]:
    """Type and id of every entity that a rendered attribute speaks of."""
    if isinstance(value, dict):
        target = value.get("__entity")
        if isinstance(target, dict):
            yield str(target["type"]), str(target["id"])
        else:
            for inner in value.values():
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


# ---- how entities stand to each other ------------------------------------------------------------------------------

Entries = Mapping[EntityUid, Entity]


def _count(entry: Entity | None, step: int, bundle: Bundle, referred: dict[EntityUid, int]) -> None:
    if entry is not None:
        for uid in {*entry.parents, *entry.named}:
            if not _declared(uid, bundle):
                referred[uid] = referred.get(uid, 0) + step


def _declared(uid: EntityUid, bundle: Bundle) -> bool:
    return uid.partition('::"')[0] in bundle.enums and bundle.declares(*_split_once(uid))


@lru_cache(maxsize=NAMES_REMEMBERED_MAX)
def _split_once(uid: EntityUid) -> Reference:
    return split_uid(uid)  # the same few roles and purposes, for each of many people


def _dangling(read: Iterable[tuple[EntityUid, Entity]], entries: Entries, bundle: Bundle) -> Iterator[str]:
    """References to what neither the directory nor a closed list of the schema holds: Cedar would let them pass."""
    for uid, entry in read:
        for target in sorted({*entry.parents, *entry.named}):
            if target not in entries and not _declared(target, bundle):
                yield f"{uid}: refers to {target}, which is nowhere; add it or correct the name"


def _left_behind(
    touched: frozenset[EntityUid], entries: Entries, counts: Mapping[EntityUid, int], bundle: Bundle
) -> Iterator[str]:
    """Removed entities that others still refer to."""
    for uid in sorted(touched):
        if uid not in entries and counts.get(uid, 0) > 0 and not _declared(uid, bundle):
            by = next((name for name, each in entries.items() if uid in each.parents or uid in each.named), "another")
            yield f"{uid}: cannot be removed, since {by} refers to it; change or remove that too"


def _cycles(read: Entries, entries: Entries) -> Iterator[str]:
    """Entities that are their own ancestor: the engine refuses these, but sees only what stands in one chunk."""
    clear: set[EntityUid] = set()
    for start in read:
        path: set[EntityUid] = set()
        waiting: list[tuple[EntityUid, bool]] = [(start, False)]
        while waiting:
            uid, left = waiting.pop()
            if left:
                path.discard(uid)
                clear.add(uid)
            elif uid in path:
                yield f"{uid}: is its own ancestor; take one of the parents away"
                return
            elif uid not in clear:
                entry = entries.get(uid)
                path.add(uid)
                waiting.append((uid, True))
                waiting += [(parent, False) for parent in entry.parents] if entry else []


def _misplaced_fields(read: Iterable[tuple[EntityUid, Entity]]) -> Iterator[str]:
    """Fields whose id is not DATASET.FIELD of their own dataset: a request finds a field by that name alone."""
    for uid, entry in read:
        if entry.kind not in {"Dataset", "Field"}:
            continue
        name = split_uid(uid)[1]
        if entry.kind == "Dataset":
            if "." in name:
                yield f"{uid}: a dataset's id holds no `.`; rename it"
            continue
        datasets = {split_uid(target)[1] for target in entry.parents if target.startswith('Dataset::"')}
        attributes = json.loads(entry.text)["attrs"]
        datasets |= {target for kind, target in references(attributes.get("dataset")) if kind == "Dataset"}
        if len(datasets) != 1 or not name.startswith(f"{min(datasets)}.") or name.endswith("."):
            yield f"{uid}: must be named DATASET.FIELD after the one dataset that is its parent and its `dataset`"
