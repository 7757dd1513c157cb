"""A bundle and the scope of a question go in, the policies that can match it come out as one engine handle; the only
place that leaves policies out.

A policy's scope is the conjunction `principal ... && action ... && resource ...` before its conditions. `==`, `in` and
`is` on what a request names cannot fail in Cedar, so a policy whose scope is false neither matches nor errs, and the
answer without it is the same: decision, determining policies and errors.
"""

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import cedarpy

from sluicegate.enforcer.bundle import Bundle
from sluicegate.schemas.ids import EntityUid, PolicyId, entity_uid

SELECTIONS_MAX: Final = 256  # handles kept; each holds only the policies that can match
# What looks into an entity, and so can lead from it to others.
_LOOKS: Final = frozenset({".", "has", "in", "is", "getTag", "hasTag"})
Tree = Mapping[str, object]
K_ = TypeVar("K_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The policies that can match, and what of the directory their conditions can see.

    `literals`: entities that they name. `attributes`: attribute names that they read. `depth`: how many looks into an
    entity stand inside one another at most, at least 1 for the scopes.
    """

    handle: cedarpy.PolicySet
    policies: tuple[PolicyId, ...]
    literals: frozenset[EntityUid]
    attributes: frozenset[str]
    depth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What the conditions of one policy can see; `text` is its syntax tree as a member of the engine's JSON."""

    id: PolicyId
    text: str
    literals: frozenset[EntityUid]
    attributes: frozenset[str]
    depth: int


class _Scopes:
    """Policies by what one variable of their scopes must be: each answer is a set of policies, as bits."""

    def __init__(self) -> None:
        self.every = 0
        self._equal: dict[EntityUid, int] = {}
        self._under: dict[tuple[str | None, EntityUid], int] = {}
        self._typed: dict[str, int] = {}

    def add(self, bit: int, scope: Tree) -> None:
        match scope:
            case {"op": "All"}:
                self.every |= bit
            case {"op": "==", "entity": {"type": str(kind), "id": str(name)}}:
                self._add(self._equal, entity_uid(kind, name), bit)
            case {"op": "in", "entity": {"type": str(kind), "id": str(name)}}:
                self._add(self._under, (None, entity_uid(kind, name)), bit)
            case {"op": "in", "entities": [*targets]}:
                for target in targets:
                    self.add(bit, {"op": "in", "entity": target})
            case {"op": "is", "entity_type": str(typed), "in": {"entity": {"type": str(kind), "id": str(name)}}}:
                self._add(self._under, (typed, entity_uid(kind, name)), bit)
            case {"op": "is", "entity_type": str(typed)} if "in" not in scope:
                self._add(self._typed, typed, bit)
            case _:  # a scope that is not understood is never left out
                self.every |= bit

    def matching(self, kind: str, uid: EntityUid, ancestors: Iterable[EntityUid]) -> int:
        found = self.every | self._equal.get(uid, 0) | self._typed.get(kind, 0)
        for target in (uid, *ancestors):
            found |= self._under.get((None, target), 0) | self._under.get((kind, target), 0)
        return found

    @staticmethod
    def _add(index: dict[K_, int], key: K_, bit: int) -> None:
        index[key] = index.get(key, 0) | bit


class PolicyIndex:
    """The policies of one bundle by scope. Equal scopes get one handle; the least used are forgotten."""

    def __init__(self, bundle: Bundle) -> None:
        self._seen: Final = tuple(_seen(policy, _tree(source.text)) for policy, source in bundle.policies.items())
        self._principals, self._actions, self._resources = _Scopes(), _Scopes(), _Scopes()
        for index, seen in enumerate(self._seen):
            tree: Tree = json.loads(seen.text)
            for scopes, name in (
                (self._principals, "principal"),
                (self._actions, "action"),
                (self._resources, "resource"),
            ):
                scope = tree[name]
                scopes.add(1 << index, scope if isinstance(scope, dict) else {})
        self._selections: OrderedDict[int, Selection] = OrderedDict()

    def select(
        self,
        action: tuple[EntityUid, Iterable[EntityUid]],
        principal: tuple[str, EntityUid, Iterable[EntityUid]],
        resource: tuple[str, EntityUid, Iterable[EntityUid]],
    ) -> Selection:
        """The policies whose scope holds; each variable is given with all its ancestors."""
        bits = (
            self._actions.matching("Action", *action)
            & self._principals.matching(*principal)
            & self._resources.matching(*resource)
        )
        found = self._selections.get(bits)
        if found is None:
            found = self._selections[bits] = _selection([seen for i, seen in enumerate(self._seen) if bits >> i & 1])
            if len(self._selections) > SELECTIONS_MAX:
                self._selections.popitem(last=False)
        else:
            self._selections.move_to_end(bits)
        return found


def _selection(chosen: list[_Seen]) -> Selection:
    members = ",".join(f"{json.dumps(seen.id)}:{seen.text}" for seen in chosen)
    return Selection(
        handle=cedarpy.PolicySet.from_json_str(
            f'{{"templates":{{}},"templateLinks":[],"staticPolicies":{{{members}}}}}'
        ),
        policies=tuple(seen.id for seen in chosen),
        literals=frozenset().union(*(seen.literals for seen in chosen)),
        attributes=frozenset().union(*(seen.attributes for seen in chosen)),
        depth=max((seen.depth for seen in chosen), default=1),
    )


def _tree(text: str) -> Tree:
    (tree,) = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values()
    if not isinstance(tree, dict):
        raise TypeError("Cedar's syntax tree changed: a policy is no object")
    return tree


def _seen(policy: PolicyId, tree: Tree) -> _Seen:
    literals: set[EntityUid] = set()
    attributes: set[str] = set()
    conditions = tree.get("conditions", [])
    if not isinstance(conditions, list):
        raise TypeError("Cedar's syntax tree changed: `conditions` is no list")
    depth = max((_walk(each["body"], literals, attributes) for each in conditions), default=0)
    return _Seen(
        id=policy,
        text=json.dumps(tree),
        literals=frozenset(literals),
        attributes=frozenset(attributes),
        depth=max(1, depth),
    )


def _walk(node: object, literals: set[EntityUid], attributes: set[str]) -> int:
    """Gathers what an expression names, and says how many looks stand inside one another; too many is harmless."""
    if isinstance(node, list):
        return max((_walk(each, literals, attributes) for each in node), default=0)
    if not isinstance(node, dict):
        return 0
    deepest = 0
    for operator, inner in node.items():
        if operator == "Value":
            literals.update(_literals(inner))
            continue
        if operator == "Record" and isinstance(inner, dict):  # its keys are names, not operators
            inner = list(inner.values())
        if operator in {".", "has"}:
            if not isinstance(inner, dict) or not isinstance(inner.get("attr"), str):
                raise TypeError("Cedar's syntax tree changed: a look into an entity names no attribute")
            attributes.add(inner["attr"])
        deepest = max(deepest, _walk(inner, literals, attributes) + (operator in _LOOKS))
    return deepest


def _literals(value: object) -> Iterator[EntityUid]:
    if isinstance(value, dict):
        target = value.get("__entity")
        if isinstance(target, dict):
            yield entity_uid(str(target["type"]), str(target["id"]))
        for inner in value.values():
            yield from _literals(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _literals(inner)
