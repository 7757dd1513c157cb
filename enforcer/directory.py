"""The content of a directory goes in, the entities that policies speak of come out; the only place that reads them.

The directory also carries service keys and token issuers; `credentials` reads those from the same content.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import cedarpy

from sluicegate.enforcer.bundle import Bundle, digest_of
from sluicegate.schemas.errors import InvalidDirectory
from sluicegate.schemas.ids import Digest, EntityUid, entity_uid
from sluicegate.schemas.strict_json import JsonObject, NotStrict, loads_object

KEYS: Final = frozenset({"entities", "service_keys", "issuers", "replies"})
_ENTITY_KEYS: Final = frozenset({"uid", "attrs", "parents"})
_UID: Final = re.compile(r'(?P<type>[A-Za-z_]\w*(?:::[A-Za-z_]\w*)*)::"(?P<id>(?:[^"\\]|\\["\\])*)"', re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """Entities that conform to the schema of one bundle: the engine's handle, and which uids there are."""

    digest: Digest
    entities: cedarpy.Entities
    uids: frozenset[EntityUid]
    types: Mapping[EntityUid, str]

    def has(self, uid: str) -> bool:
        """Whether the directory holds this entity."""
        return uid in self.uids


def split_uid(uid: str) -> tuple[str, str]:
    """The entity type and id of a uid as `ids.entity_uid` writes it.

    Raises:
        ValueError: it is not of that form.
    """
    found = _UID.fullmatch(uid)
    if found is None:
        raise ValueError('no entity uid; write it as `Type::"id"`')
    return found["type"], re.sub(r"\\(.)", r"\1", found["id"])


def load_directory(content: bytes, bundle: Bundle) -> Directory:
    """Reads the entities and has each conform to the bundle's schema.

    Raises:
        InvalidDirectory: with one line for each problem and what to do.
    """
    entities = _entities(content)
    uids: dict[EntityUid, str] = {}
    problems: list[str] = []
    for index, entity in enumerate(entities):
        uid = _uid_of(entity)
        if uid is None:
            problems.append(f"entity {index + 1}: needs `uid` of `type` and `id`, `attrs`, `parents` and nothing else")
        elif uid[0] == "Action":
            problems.append(f"{entity_uid(*uid)}: actions are the schema's; remove it")
        elif entity_uid(*uid) in uids:
            problems.append(f"{entity_uid(*uid)}: stands twice; keep one")
        else:
            uids[entity_uid(*uid)] = uid[0]
    if problems:
        raise InvalidDirectory(tuple(problems))
    try:
        handle = cedarpy.Entities.from_json_str(json.dumps(entities), bundle.schema, release_gil=True)
    except ValueError as error:
        raise InvalidDirectory(tuple(_nonconforming(entities, bundle)) or (f"the entities: {error}",)) from None
    rendered: object = json.loads(str(handle))  # every reference in its explicit form, however it was written
    problems += _dangling(rendered, frozenset(uids), bundle)
    problems += _misplaced_fields(rendered)
    if problems:
        raise InvalidDirectory(tuple(problems))
    return Directory(digest=digest_of(content), entities=handle, uids=frozenset(uids), types=MappingProxyType(uids))


def _entities(content: bytes) -> list[JsonObject]:
    try:
        document = loads_object(content)
    except NotStrict as error:
        raise InvalidDirectory((f"the directory must be a JSON object with `entities`: {error}; correct it",)) from None
    if unknown := sorted(document.keys() - KEYS):
        raise InvalidDirectory((f"unknown key `{unknown[0]}`; use {', '.join(sorted(KEYS))}",))
    entities = document.get("entities")
    if not isinstance(entities, list):
        raise InvalidDirectory(("`entities` must be a list of Cedar entities",))
    found = [entity for entity in entities if isinstance(entity, dict)]
    if len(found) < len(entities):
        raise InvalidDirectory(("`entities` must be a list of Cedar entities",))
    return found


def _uid_of(entity: JsonObject) -> tuple[str, str] | None:
    uid = entity.get("uid")
    if entity.keys() != _ENTITY_KEYS or not isinstance(uid, dict) or uid.keys() != {"type", "id"}:
        return None
    entity_type, entity_id = uid["type"], uid["id"]
    if not isinstance(entity_type, str) or not isinstance(entity_id, str) or not entity_id:
        return None
    return entity_type, entity_id


def _nonconforming(entities: list[JsonObject], bundle: Bundle) -> Iterator[str]:
    """Which entities the schema refuses; the engine says only that there is one."""
    for entity in entities:
        uid = _uid_of(entity)
        try:
            cedarpy.Entities.from_json_str(json.dumps([entity]), bundle.schema)
        except ValueError as error:
            name = entity_uid(*uid) if uid else "an entity"
            yield f"{name}: {error}; check its type, attributes, roles and purposes against the schema"


def _references(value: object) -> Iterator[tuple[str, str]]:
    """Every entity that a rendered attribute speaks of."""
    if isinstance(value, dict):
        target = value.get("__entity")
        if isinstance(target, dict):
            yield str(target["type"]), str(target["id"])
        else:
            for inner in value.values():
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _rendered(document: object) -> Iterator[tuple[str, str, dict[str, object], list[tuple[str, str]]]]:
    """Type, id, attributes and parents of every entity that the engine rendered."""
    if not isinstance(document, list):
        raise TypeError("the engine renders entities as a list")
    for entity in document:
        parents = [(str(parent["type"]), str(parent["id"])) for parent in entity["parents"]]
        yield str(entity["uid"]["type"]), str(entity["uid"]["id"]), entity["attrs"], parents


def _dangling(document: object, uids: frozenset[EntityUid], bundle: Bundle) -> Iterator[str]:
    """References to what neither the directory nor a closed list of the schema holds: Cedar would let them pass."""
    for entity_type, entity_id, attributes, parents in _rendered(document):
        if entity_type == "Action":  # the schema's own, which the engine adds
            continue
        for target in sorted({*parents, *_references(attributes)}):
            if entity_uid(*target) not in uids and not bundle.declares(*target):
                yield (
                    f"{entity_uid(entity_type, entity_id)}: refers to {entity_uid(*target)}, which is nowhere; "
                    "add it or correct the name"
                )


def _misplaced_fields(document: object) -> Iterator[str]:
    """Fields whose id is not DATASET.FIELD of their own dataset: a request finds a field by that name alone."""
    for entity_type, entity_id, attributes, parents in _rendered(document):
        uid = entity_uid(entity_type, entity_id)
        if entity_type == "Dataset" and "." in entity_id:
            yield f"{uid}: a dataset's id holds no `.`; rename it"
        if entity_type != "Field":
            continue
        datasets = {target for kind, target in parents if kind == "Dataset"}
        datasets |= {target for kind, target in _references(attributes.get("dataset")) if kind == "Dataset"}
        if len(datasets) != 1 or not entity_id.startswith(f"{min(datasets)}.") or entity_id.endswith("."):
            yield f"{uid}: must be named DATASET.FIELD after the one dataset that is its parent and its `dataset`"
