r"""The content of a directory event goes in, a whole `DirectoryContent` or a `Change` of one comes out; the only place
that says what a change may say and what it makes of the content before.

A change names what it touches and nothing else, so who may sign it can be told from `Change.types` alone. It is
canonical JSON in one order, so that one change has one digest:

    {"change": {"put": [entity, ...], "remove": ["User::\"ana\"", ...],
                "service_keys": {"put": [...], "remove": [kid, ...]},
                "issuers": {"put": [...], "remove": [issuer, ...]},
                "replies": {"put": [...], "remove": [service, ...]}}}

Content of one version shares with that of the version before everything that did not change (persistent maps).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, TypeVar

from rpds import HashTrieMap

from sluicegate.enforcer.bundle import digest_of
from sluicegate.enforcer.credentials import (
    ISSUERS_MAX,
    REPLIES_MAX,
    SERVICE_KEYS_MAX,
    Credentials,
    Issuer,
    ServiceKey,
    parse_credentials,
)
from sluicegate.schemas.errors import InvalidDirectory
from sluicegate.schemas.ids import Digest, EntityUid, entity_uid
from sluicegate.schemas.strict_json import JsonObject, JsonValue, NotStrict, loads_object

KEYS: Final = frozenset({"entities", "service_keys", "issuers", "replies"})
CHANGE: Final = "change"
CHANGES_MAX: Final = 100_000  # entities put or removed by one change, which is one event and so in force at once or not
_ENTITY_KEYS: Final = frozenset({"uid", "attrs", "parents"})
# Member of a directory -> what names an entry of it, and the pseudo type by which its signing is delegated.
_LISTS: Final = MappingProxyType(
    {"service_keys": ("kid", "ServiceKey"), "issuers": ("issuer", "Issuer"), "replies": ("service", "Reply")}
)
PSEUDO_TYPES: Final = frozenset(kind for _, kind in _LISTS.values())
_LISTED_MAX: Final = {"service_keys": SERVICE_KEYS_MAX, "issuers": ISSUERS_MAX, "replies": REPLIES_MAX}
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
_NONE: Final = Credentials(service_keys={}, issuers={}, replies={})
Entries = Mapping[str, JsonObject]
V_ = TypeVar("V_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one directory event puts and removes; nothing in it contradicts anything else in it.

    `put`: the canonical JSON of each entity, by uid. `entries`: the entries put, by list and name; `gone`: the names
    removed, by list. `types`: Cedar types and the pseudo types `ServiceKey`, `Issuer` and `Reply` that it touches.
    """

    digest: Digest
    types: frozenset[str]
    put: Mapping[EntityUid, str]
    remove: frozenset[EntityUid]
    entries: Mapping[str, Entries]
    gone: Mapping[str, frozenset[str]]
    service_keys: Mapping[str, ServiceKey]
    issuers: Mapping[str, Issuer]

    @property
    def touched(self) -> frozenset[EntityUid]:
        """Every entity put or removed."""
        return frozenset(self.put) | self.remove


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryContent:
    """A whole directory, read but not yet held against any schema; immutable.

    `digest`: of a whole content its SHA-256, of a changed one that of (digest before + digest of the change).
    `origin` and `touched`: the digest of the content that this one was changed from, and the entities that differ.
    """

    digest: Digest
    entities: "HashTrieMap[EntityUid, str]"
    entries: Mapping[str, Entries]
    credentials: Credentials
    origin: Digest | None = None
    touched: frozenset[EntityUid] = field(default=frozenset())

    @property
    def types(self) -> frozenset[str]:
        """The Cedar types and pseudo types of all that is in it."""
        kinds = {uid.partition('::"')[0] for uid in self.entities}
        return frozenset(kinds) | {_LISTS[name][1] for name, listed in self.entries.items() if listed}

    def changed(self, change: Change) -> "DirectoryContent":
        """The content after the change. Costs what the change costs, not what the directory holds.

        Raises:
            InvalidDirectory: it removes what is not there, or the lists would not be valid together.
        """
        absent = sorted(uid for uid in change.remove if uid not in self.entities)
        problems = [f"{uid}: is not there; take it out of `remove`" for uid in absent]
        for name, gone in change.gone.items():
            missing = sorted(gone - self.entries[name].keys())
            problems += [f"`{name}`: `{each}` is not there; take it out of `remove`" for each in missing]
        entities = self.entities
        for uid in change.remove:
            entities = entities.discard(uid)
        for uid, text in change.put.items():
            entities = entities.insert(uid, text)
        entries = {name: _merged(self.entries[name], change.entries[name], change.gone[name]) for name in _LISTS}
        for name, listed in entries.items():
            if len(listed) > _LISTED_MAX[name]:
                problems.append(f"`{name}` would hold {len(listed)} entries; at most {_LISTED_MAX[name]} are allowed")
        if problems:
            raise InvalidDirectory(tuple(problems))
        return DirectoryContent(
            digest=digest_of(f"{self.digest}{change.digest}".encode()),
            entities=entities,
            entries=MappingProxyType(entries),
            credentials=self._credentials(change, entities, entries),
            origin=self.digest,
            touched=change.touched,
        )

    def _credentials(
        self, change: Change, entities: "HashTrieMap[EntityUid, str]", entries: Mapping[str, Entries]
    ) -> Credentials:
        """Only keys that changed are parsed again; replies are held against each other and the services."""
        before, gone = self.credentials, change.gone
        replies = before.replies
        if {"Reply", "Service"} & change.types:
            services = [
                {"uid": {"type": "Service", "id": service}}
                for service in entries["replies"]
                if entity_uid("Service", service) in entities
            ]
            document = {"entities": services, "service_keys": [], "issuers": []}
            replies = parse_credentials({**document, "replies": list(entries["replies"].values())}).replies
        return replace(
            before,
            service_keys=_merged(before.service_keys, change.service_keys, gone["service_keys"]),
            issuers=_merged(before.issuers, change.issuers, gone["issuers"]),
            replies=replies,
        )

    def whole(self) -> bytes:
        """This directory as whole content, canonical; its digest is another where changes led here."""
        entities: list[object] = [json.loads(self.entities[uid]) for uid in sorted(self.entities)]
        listed = {name: [entries[each] for each in sorted(entries)] for name, entries in self.entries.items()}
        return _CANONICAL.encode({"entities": entities, **listed}).encode()


def _merged(before: Mapping[str, V_], put: Mapping[str, V_], gone: frozenset[str]) -> Mapping[str, V_]:
    if not put and not gone:
        return before
    return {**{name: value for name, value in before.items() if name not in gone}, **put}


def read_content(content: bytes) -> DirectoryContent | Change:
    """The content of a directory event, whichever of the two it is; a whole one must list its keys and issuers.

    Raises:
        InvalidDirectory: with one line for each problem and what to do.
    """
    document = _document(content)
    if CHANGE in document:
        return _read_change(document, content)
    return _read_whole(document, content, credentials=parse_credentials(document))


def read_whole(content: bytes) -> DirectoryContent:
    """A whole directory, or the entities of one that lists neither keys nor issuers, as tools read them.

    Raises:
        InvalidDirectory: with one line for each problem and what to do; among them, that it is a change.
    """
    document = _document(content)
    if CHANGE in document:
        raise InvalidDirectory(("this is a change of a directory; give the whole directory",))
    credentials = parse_credentials(document) if document.keys() & _LISTS.keys() else _NONE
    return _read_whole(document, content, credentials=credentials)


def read_change(content: bytes) -> Change:
    """A change of a directory.

    Raises:
        InvalidDirectory: with one line for each problem and what to do; among them, that it is a whole directory.
    """
    document = _document(content)
    if CHANGE not in document:
        raise InvalidDirectory(("this is no change of a directory; write `change` with what to put and remove",))
    return _read_change(document, content)


def change_content(change: Mapping[str, object]) -> bytes:
    """The canonical content of a change, given as the member `change` in any order; `read_change` judges it."""
    return _CANONICAL.encode({CHANGE: _in_order(change)}).encode()


# ---- reading -------------------------------------------------------------------------------------------------------


def _document(content: bytes) -> JsonObject:
    try:
        return loads_object(content)
    except NotStrict as error:
        raise InvalidDirectory((f"the directory must be a JSON object with `entities`: {error}; correct it",)) from None


def _read_whole(document: JsonObject, content: bytes, *, credentials: Credentials) -> DirectoryContent:
    if unknown := sorted(document.keys() - KEYS):
        raise InvalidDirectory((f"unknown key `{unknown[0]}`; use {', '.join(sorted(KEYS))}",))
    found, problems = _entities(document.get("entities"), "entities")
    if problems:
        raise InvalidDirectory(tuple(problems))
    return DirectoryContent(
        digest=digest_of(content),
        entities=HashTrieMap(found),
        entries=MappingProxyType({name: _named(name, document.get(name, [])) for name in _LISTS}),
        credentials=credentials,
    )


def _read_change(document: JsonObject, content: bytes) -> Change:
    change = document[CHANGE]
    if document.keys() != {CHANGE} or not isinstance(change, dict):
        raise InvalidDirectory(("a change is an object `change` and nothing beside it; correct it",))
    if unknown := sorted(change.keys() - {"put", "remove", *_LISTS}):
        raise InvalidDirectory((f"unknown key `{unknown[0]}` in `change`; use put, remove, {', '.join(_LISTS)}",))
    put, problems = _entities(change.get("put", []), "put")
    remove = _names(change.get("remove", []), "remove", problems)
    problems += [f"{uid}: is put and removed; do one of them" for uid in sorted(put.keys() & remove)]
    kinds = {uid.partition('::"')[0] for uid in (*put, *remove)}
    if "Action" in kinds and any(uid.startswith("Action::") for uid in remove):
        problems.append("`remove`: actions are the schema's; take them out")
    entries: dict[str, Entries] = {}
    gone: dict[str, frozenset[str]] = {}
    for name, (_, kind) in _LISTS.items():
        listed, names = _listed(change.get(name, {}), name, problems)
        gone[name] = names
        entries[name] = listed
        if listed or names:
            kinds.add(kind)
    if not kinds and not problems:
        problems.append("the change changes nothing; put or remove something")
    if len(put) + len(remove) > CHANGES_MAX:
        problems.append(f"the change touches over {CHANGES_MAX} entities; make several changes of it")
    if problems:
        raise InvalidDirectory(tuple(problems))
    if _CANONICAL.encode({CHANGE: _in_order(change)}).encode() != content:
        raise InvalidDirectory(("the change is not in canonical form and order; write it with `change_content`",))
    # Replies can be held only against the services of the whole, in `DirectoryContent.changed`.
    keys = {name: list(entries[name].values()) for name in ("service_keys", "issuers")}
    credentials = parse_credentials({"entities": [], **keys})
    return Change(
        digest=digest_of(content),
        types=frozenset(kinds),
        put=MappingProxyType(put),
        remove=frozenset(EntityUid(uid) for uid in remove),
        entries=MappingProxyType(entries),
        gone=MappingProxyType(gone),
        service_keys=credentials.service_keys,
        issuers=credentials.issuers,
    )


def _entities(value: JsonValue, where: str) -> tuple[dict[EntityUid, str], list[str]]:
    """The canonical JSON of each entity by its uid, and what is wrong with their form."""
    if not isinstance(value, list):
        return {}, [f"`{where}` must be a list of Cedar entities"]
    found: dict[EntityUid, str] = {}
    problems: list[str] = []
    for index, entity in enumerate(value):
        if not isinstance(entity, dict):
            return {}, [f"`{where}` must be a list of Cedar entities"]
        named = _uid_of(entity)
        if named is None:
            problems.append(f"entity {index + 1}: needs `uid` of `type` and `id`, `attrs`, `parents` and nothing else")
            continue
        uid = entity_uid(*named)
        if named[0] == "Action":
            problems.append(f"{uid}: actions are the schema's; remove it")
        elif uid in found:
            problems.append(f"{uid}: stands twice; keep one")
        else:
            found[uid] = _CANONICAL.encode(entity)
    return found, problems


def _uid_of(entity: JsonObject) -> tuple[str, str] | None:
    uid = entity.get("uid")
    if entity.keys() != _ENTITY_KEYS or not isinstance(uid, dict) or uid.keys() != {"type", "id"}:
        return None
    entity_type, entity_id = uid["type"], uid["id"]
    if not isinstance(entity_type, str) or not isinstance(entity_id, str) or not entity_id:
        return None
    return entity_type, entity_id


def _names(value: JsonValue, where: str, problems: list[str]) -> frozenset[EntityUid]:
    names = [each for each in value if isinstance(each, str)] if isinstance(value, list) else None
    if names is None or not isinstance(value, list) or len(names) != len(value):
        problems.append(f"`{where}` must be a list of names")
        return frozenset()
    if len(set(names)) != len(names):
        problems.append(f"`{where}` names something twice; keep one")
    return frozenset(map(EntityUid, names))


def _listed(value: JsonValue, name: str, problems: list[str]) -> tuple[Entries, frozenset[str]]:
    """What one of the lists puts, by name, and the names that it removes."""
    if not isinstance(value, dict) or value.keys() - {"put", "remove"}:
        problems.append(f"`{name}` of a change must be an object of `put` and `remove`")
        return {}, frozenset()
    put, gone = value.get("put", []), _names(value.get("remove", []), f"{name}.remove", problems)
    listed = _named(name, put)
    if not isinstance(put, list) or len(listed) != len(put):
        problems.append(f"`{name}.put` must be a list of entries, each with its own `{_LISTS[name][0]}`")
    problems += [f"`{name}`: `{each}` is put and removed; do one of them" for each in sorted(listed.keys() & gone)]
    return listed, frozenset(gone)


def _named(name: str, entries: JsonValue) -> Entries:
    key = _LISTS[name][0]
    listed = entries if isinstance(entries, list) else []
    return {str(each[key]): each for each in listed if isinstance(each, dict) and isinstance(each.get(key), str)}


def _in_order(change: Mapping[str, object]) -> dict[str, object]:
    """The same change with every list in the order of its names."""
    ordered: dict[str, object] = {}
    for name, value in change.items():
        if name in _LISTS and isinstance(value, Mapping):
            ordered[name] = {key: _sorted(each, _key_of(_LISTS[name][0])) for key, each in value.items()}
        else:
            ordered[name] = _sorted(value, _key_of("uid"))
    return ordered


def _sorted(value: object, key: Callable[[object], str]) -> object:
    return sorted(value, key=key) if isinstance(value, list) else value


def _key_of(member: str) -> Callable[[object], str]:
    def key(entry: object) -> str:
        if not isinstance(entry, Mapping):
            return str(entry)
        named = entry.get(member)
        if isinstance(named, Mapping):
            return entity_uid(str(named.get("type")), str(named.get("id")))
        return str(named)

    return key
