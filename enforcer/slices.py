"""A directory, the policies that can match and what a question names go in, the entities that its answer can depend on
come out as one engine handle; the only place that leaves entities and attributes out.

Why the answer is the same. Cedar looks into an entity only where an expression reads an attribute of it, or asks if
it is in another. Such a value is the principal, the resource, an entity of the context, one that the policy names, or
stood in an attribute that was read before: no operator makes an entity out of anything else. Each step along an
attribute costs one look inside another, so with at most `depth` looks inside one another no entity further than
`depth - 1` steps is looked into, and only attributes that some policy names are read. `in` needs an entity's ancestors
and nothing of theirs, so they stand as its parents and not as entities. What is missing was never asked about, and what
is missing from the directory too is missing for Cedar in either case. A policy that fails fails alike.
"""

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import cedarpy

from sluicegate.enforcer.bundle import Bundle
from sluicegate.enforcer.directory import Directory, references, split_uid
from sluicegate.enforcer.policy_index import Selection
from sluicegate.schemas.ids import EntityUid, entity_uid

SLICES_MAX: Final = 1_024
ANCESTORS_KEPT: Final = 4_096
PIECES_KEPT: Final = 8_192
_Key = tuple[frozenset[EntityUid], frozenset[str], int]


@dataclass(frozen=True, slots=True)
class Slice:
    """A handle over few entities, and every entity that it, and so an answer given from it, depends on."""

    handle: cedarpy.Entities
    depends: frozenset[EntityUid]


class Actions:
    """The actions of a schema with all their ancestors: the engine adds them where it is given the schema."""

    def __init__(self, bundle: Bundle) -> None:
        rendered = json.loads(str(cedarpy.Entities.from_json_str("[]", bundle.schema)))
        self.ancestors: Final = {_named(action["uid"]): tuple(map(_named, action["parents"])) for action in rendered}
        self.texts: Final = tuple(json.dumps(action) for action in rendered if action["parents"] or action["attrs"])


class Slices:
    """The slices of one directory, made when they are first asked for; the least used are forgotten."""

    def __init__(self, directory: Directory, actions: Actions, before: "Slices | None" = None) -> None:
        """`before`: slices of the directory that this one was changed from; those that it did not touch are kept."""
        self._directory: Final = directory
        self._actions: Final = actions
        self._slices: OrderedDict[_Key, Slice] = OrderedDict()
        self._ancestors: dict[EntityUid, tuple[EntityUid, ...]] = {}
        self._pieces: dict[tuple[EntityUid, frozenset[str]], _Piece] = {}
        if before is not None:
            kept = before._slices.copy().items()
            touched = directory.touched
            self._slices.update((key, each) for key, each in kept if touched.isdisjoint(each.depends))

    def ancestors(self, uid: EntityUid) -> tuple[EntityUid, ...]:
        """All ancestors of an entity; none of one that the directory does not hold."""
        found = self._ancestors.get(uid)
        if found is None:
            seen: dict[EntityUid, None] = {}
            waiting = [uid]
            while waiting:
                entry = self._directory.entries.get(waiting.pop())
                if entry is not None:
                    waiting += [parent for parent in entry.parents if parent not in seen]
                    seen.update(dict.fromkeys(entry.parents))
            found = tuple(seen)
            if len(self._ancestors) >= ANCESTORS_KEPT:
                self._ancestors.clear()
            self._ancestors[uid] = found
        return found

    def of(self, roots: Iterable[EntityUid], selection: Selection) -> Slice:
        """The slice for a question that names `roots`, decided by the policies of `selection`."""
        key = (frozenset((*roots, *selection.literals)), selection.attributes, selection.depth)
        found = self._slices.get(key)
        if found is None:
            found = self._slices[key] = self._made(*key)
            if len(self._slices) > SLICES_MAX:
                self._slices.popitem(last=False)
        else:
            self._slices.move_to_end(key)
        return found

    def _made(self, roots: frozenset[EntityUid], attributes: frozenset[str], depth: int) -> Slice:
        texts = list(self._actions.texts)
        depends: set[EntityUid] = set(roots)
        looked: set[EntityUid] = set()
        edge: Iterable[EntityUid] = roots
        for _ in range(depth):
            named: set[EntityUid] = set()
            for uid in edge:
                looked.add(uid)
                piece = self._pieces.get((uid, attributes)) or self._piece(uid, attributes)
                if piece.text:
                    texts.append(piece.text)
                    depends.update(piece.ancestors)
                    named.update(piece.named)
            depends |= looked
            edge = named - looked
        return Slice(cedarpy.Entities.from_json_str(f"[{','.join(texts)}]"), frozenset(depends))

    def _piece(self, uid: EntityUid, attributes: frozenset[str]) -> "_Piece":
        entry = self._directory.entries.get(uid)
        piece = _Piece("", (), ())
        if entry is not None:
            ancestors = self.ancestors(uid)
            attrs = {name: each for name, each in json.loads(entry.text)["attrs"].items() if name in attributes}
            named = tuple(entity_uid(*each) for each in references(attrs))
            piece = _Piece(_text(uid, ancestors, attrs), ancestors, named)
        if len(self._pieces) >= PIECES_KEPT:
            self._pieces.clear()
        self._pieces[uid, attributes] = piece
        return piece


@dataclass(frozen=True, slots=True)
class _Piece:
    """One entity of a slice, its ancestors, and what its attributes name; no text where there is no such entity."""

    text: str
    ancestors: tuple[EntityUid, ...]
    named: tuple[EntityUid, ...]


def _text(uid: EntityUid, ancestors: Iterable[EntityUid], attrs: Mapping[str, object]) -> str:
    return json.dumps({"uid": _reference(uid), "attrs": attrs, "parents": [_reference(each) for each in ancestors]})


def _reference(uid: EntityUid) -> dict[str, str]:
    kind, name = split_uid(uid)
    return {"type": kind, "id": name}


def _named(reference: Mapping[str, str]) -> EntityUid:
    return entity_uid(reference["type"], reference["id"])
