"""A policy goes in, its syntax tree comes out, and back into a bundle; the only reader of Cedar's tree for tools.

The trees are those that the engine writes (its EST in JSON), texts are the engine's own, and what an expression is
worth for a question is asked of the engine: nothing here reads or evaluates Cedar by itself.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Generic, Literal, TypeVar

import cedarpy

from sluicegate.enforcer.access import Rules
from sluicegate.enforcer.bundle import Bundle, digest_of
from sluicegate.enforcer.directory import split_uid
from sluicegate.enforcer.policy_text import PolicySource
from sluicegate.policy.tree_text import document, text_of_json, wrapped
from sluicegate.schemas.events import Ruling
from sluicegate.schemas.ids import EntityUid, PolicyId, entity_uid

Expression = Mapping[str, object]
"""One node of the engine's tree, as JSON: `{"Var": "principal"}`. Never changed in place."""
Entity = tuple[str, str]
"""Cedar type and id."""
Variable = Literal["principal", "action", "resource"]
VARIABLES: Final[tuple[Variable, ...]] = ("principal", "action", "resource")
Name_ = TypeVar("Name_")
_REMEMBERED_MAX: Final = 8_192
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FAILED_ID: Final = re.compile(r"error while evaluating policy `([^`]*)`")
_JUNCTIONS: Final[Mapping[str, str]] = MappingProxyType({"when": "&&", "unless": "||"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What the head of a policy says of one variable: `op` is All, ==, in or is; `many` for a list in brackets."""

    op: str
    entities: tuple[Entity, ...] = ()
    entity_type: str | None = None
    many: bool = False

    def to_json(self) -> dict[str, object]:
        """The node of the engine's tree."""
        entities = [{"type": kind, "id": name} for kind, name in self.entities]
        node: dict[str, object] = {"op": self.op}
        if self.op == "is":
            node["entity_type"] = self.entity_type
            if entities:
                node["in"] = {"entity": entities[0]}
        elif self.many:
            node["entities"] = entities
        elif entities:
            node["entity"] = entities[0]
        return node

    def expression(self, variable: Variable) -> Expression | None:
        """The same as a condition would say it; None where it says nothing."""
        left = {"Var": variable}
        values = [{"Value": {"__entity": {"type": kind, "id": name}}} for kind, name in self.entities]
        if self.op == "All":
            return None
        if self.op == "is":
            inner = {"in": values[0]} if values else {}
            return {"is": {"left": left, "entity_type": self.entity_type, **inner}}
        return {self.op: {"left": left, "right": {"Set": values} if self.many else values[0]}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A `when` or an `unless` and its expression."""

    kind: Literal["when", "unless"]
    body: Expression


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyTree:
    """One policy, whole."""

    id: PolicyId
    effect: Literal["permit", "forbid"]
    principal: Scope
    action: Scope
    resource: Scope
    conditions: tuple[Condition, ...]
    annotations: Mapping[str, str]

    def scopes(self) -> tuple[tuple[Variable, Scope], ...]:
        """Each variable with what the head says of it."""
        return (("principal", self.principal), ("action", self.action), ("resource", self.resource))

    def to_json(self) -> dict[str, object]:
        """The engine's tree of this policy."""
        return {
            "effect": self.effect,
            **{variable: scope.to_json() for variable, scope in self.scopes()},
            "conditions": [{"kind": each.kind, "body": each.body} for each in self.conditions],
            "annotations": dict(self.annotations),
        }

    def to_text(self) -> str:
        """The policy as Cedar text, written by the engine: one line an annotation, one for the rest."""
        return cedarpy.policies_from_json_str(document({"policy0": self.to_json()})).strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The engine could not evaluate an expression for a question: an attribute is missing, a type or number is off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the engine is asked: the very strings that a ruling keeps."""

    action: str
    principal: str
    resource: str
    context: str

    @classmethod
    def of(cls, ruling: Ruling) -> "Question":
        """The question that `ruling` answers."""
        return cls(action=ruling.action, principal=ruling.principal, resource=ruling.resource, context=ruling.context)


def read_tree(source: PolicySource) -> PolicyTree:
    """The tree of a policy that a bundle holds."""
    node = _parsed(source.text)
    conditions = node["conditions"]
    if not isinstance(conditions, list):
        raise TypeError("Cedar's syntax tree changed: `conditions` is no list")
    return PolicyTree(
        id=source.id,
        effect="forbid" if source.forbids else "permit",
        principal=_scope(_object(node["principal"])),
        action=_scope(_object(node["action"])),
        resource=_scope(_object(node["resource"])),
        conditions=tuple(_condition(_object(each)) for each in conditions),
        annotations=source.annotations,
    )


def clauses(condition: Condition) -> tuple[Expression, ...]:
    """What stands between the top-level `&&` of a `when` or `||` of an `unless`, in order."""
    junction = _JUNCTIONS[condition.kind]
    found: list[Expression] = []
    waiting: list[Expression] = [condition.body]
    while waiting:
        node = waiting.pop()
        if junction in node:
            sides = _object(node[junction])
            waiting += [_object(sides["right"]), _object(sides["left"])]
        else:
            found.append(node)
    return tuple(found)


def without_clause(tree: PolicyTree, condition: int, clause: int) -> PolicyTree:
    """The policy without one clause; without the whole condition where that was its only one."""
    kept = [each for index, each in enumerate(clauses(tree.conditions[condition])) if index != clause]
    changed = list(tree.conditions)
    if kept:
        body, junction = kept[0], _JUNCTIONS[changed[condition].kind]
        for each in kept[1:]:
            body = {junction: {"left": body, "right": each}}
        changed[condition] = replace(changed[condition], body=body)
    else:
        del changed[condition]
    return replace(tree, conditions=tuple(changed))


def text_of(expression: Expression) -> str:
    """The expression as Cedar text, by the engine, without the parentheses that it does not need."""
    return text_of_json(json.dumps(expression, sort_keys=True, ensure_ascii=False))


def paths(expression: Expression) -> tuple[str, ...]:
    """What of the question the expression looks at, each once, in order: `principal`, `context.clock.hour`."""
    return tuple(dict.fromkeys(_paths(expression)))


def literals(expression: Expression) -> tuple[Entity, ...]:
    """The entities that the expression names, each once, in order."""
    return tuple(dict.fromkeys((str(each["type"]), str(each["id"])) for each in _entity_values(expression)))


def value_of(expression: Expression, question: Question, rules: Rules) -> bool | Failed:
    """Whether the expression holds for the question, by the engine."""
    return Probe({"asked": expression}).values(question, rules)["asked"]


class Probe(Generic[Name_]):
    """Many expressions, asked of the engine together: each stands as the condition of a policy of its own."""

    __slots__ = ("_literals", "_names", "_policies")

    def __init__(self, expressions: Mapping[Name_, Expression]) -> None:
        """`expressions` by any names."""
        self._names: Final = {str(index): name for index, name in enumerate(expressions)}
        policies = {str(index): wrapped(each) for index, each in enumerate(expressions.values())}
        self._policies: Final = cedarpy.PolicySet.from_json_str(document(policies))
        self._literals: Final = frozenset(found for each in expressions.values() for found in literals(each))

    def values(self, question: Question, rules: Rules) -> dict[Name_, bool | Failed]:
        """For each name whether its expression holds for the question."""
        asker, target = split_uid(question.principal), split_uid(question.resource)
        asked = {
            "principal": {"type": asker[0], "id": asker[1]},
            "action": {"type": "Action", "id": question.action},
            "resource": {"type": target[0], "id": target[1]},
            "context": question.context,
        }
        entities = _reachable(question, self._literals, rules)
        answer = cedarpy.is_authorized(asked, self._policies, entities, rules.bundle.schema)
        if answer.decision is cedarpy.Decision.NoDecision:
            return dict.fromkeys(self._names.values(), Failed())
        held = set(answer.diagnostics.reasons)
        found = (_FAILED_ID.match(text) for text in answer.diagnostics.errors)
        failed = {each[1] for each in found if each is not None}
        return {name: Failed() if each in failed else each in held for each, name in self._names.items()}


def rebuilt(bundle: Bundle, changed: Mapping[PolicyId, PolicyTree | None]) -> Bundle:
    """The bundle with some policies replaced, or dropped where None stands; its digest is no published bundle's.

    Raises:
        KeyError: the bundle holds no policy of that id.
    """
    policies = dict(bundle.policies)
    for policy, tree in changed.items():
        if tree is None:
            del policies[policy]
        else:
            policies[policy] = _source(policies[policy], tree)
    trees: dict[str, object] = {
        policy: tree.to_json() if (tree := changed.get(policy)) is not None else _parsed(source.text)
        for policy, source in policies.items()
    }
    whole = document(trees)
    return replace(
        bundle,
        digest=digest_of(f"{bundle.digest} changed {whole}".encode()),
        policies=MappingProxyType(policies),
        policy_set=cedarpy.PolicySet.from_json_str(whole),
    )


def _source(source: PolicySource, tree: PolicyTree) -> PolicySource:
    return replace(
        source,
        forbids=tree.effect == "forbid",
        actions=tuple(sorted(name for _, name in tree.action.entities)),
        annotations=MappingProxyType(dict(tree.annotations)),
        text=tree.to_text(),
    )


@lru_cache(maxsize=_REMEMBERED_MAX)
def _parsed(text: str) -> Mapping[str, object]:
    """The tree of the one policy of a text that parses."""
    read: object = json.loads(cedarpy.policies_to_json_str(text))
    (node,) = _object(_object(read)["staticPolicies"]).values()
    return {"annotations": {}, **_object(node)}


def _scope(node: Mapping[str, object]) -> Scope:
    entities = node.get("entities", [node["entity"]] if "entity" in node else [])
    if node["op"] == "is" and "in" in node:
        entities = [_object(node["in"])["entity"]]
    if not isinstance(entities, list) or "slot" in node:
        raise TypeError("Cedar's syntax tree changed: a scope names no list of entities")
    entity_type = node.get("entity_type")
    return Scope(
        op=str(node["op"]),
        entities=tuple((str(_object(each)["type"]), str(_object(each)["id"])) for each in entities),
        entity_type=None if entity_type is None else str(entity_type),
        many="entities" in node,
    )


def _condition(node: Mapping[str, object]) -> Condition:
    return Condition(kind="unless" if node["kind"] == "unless" else "when", body=_object(node["body"]))


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError("Cedar's syntax tree changed: an object was expected")
    return value


def _entity_values(node: object) -> Iterator[dict[str, object]]:
    """Every entity that stands as a value below a node."""
    if isinstance(node, list):
        for each in node:
            yield from _entity_values(each)
    elif isinstance(node, dict):
        found = node.get("__entity")
        if isinstance(found, dict):
            yield found
        else:
            for each in node.values():
                yield from _entity_values(each)


def _reachable(question: Question, named: Iterable[Entity], rules: Rules) -> cedarpy.Entities:
    """The entities that an answer can depend on: those named, and all that they lead to by parents and attributes.

    The engine looks at an entity only where it was named or stood in one that was looked at before, so what it says is
    what it says of the whole directory; and a large directory is not parsed for each question.
    """
    waiting = [EntityUid(question.principal), EntityUid(question.resource)]
    waiting += [entity_uid(*each) for each in named]
    context: object = json.loads(question.context)
    waiting += [entity_uid(str(each["type"]), str(each["id"])) for each in _entity_values(context)]
    found: dict[EntityUid, str] = {}
    while waiting:
        uid = waiting.pop()
        entry = rules.directory.entries.get(uid)
        if entry is not None and uid not in found:
            found[uid] = entry.text
            waiting += (*entry.parents, *entry.named)
    texts = ",".join(found.values())
    return cedarpy.Entities.from_json_str(f"[{texts}]", rules.bundle.schema)


def _paths(value: object) -> Iterator[str]:
    """Every chain of attributes from a variable on, at its full length."""
    if isinstance(value, list):
        for each in value:
            yield from _paths(each)
    elif isinstance(value, dict):
        whole = _chain(value)
        if whole is not None:
            yield whole
            return
        for key, inner in value.items():
            if key != "Value":
                yield from _paths(inner)


def _chain(node: Mapping[str, object]) -> str | None:
    """`context.clock.hour` of a node that is such a chain or asks whether there is one; None of any other."""
    if "Var" in node:
        return str(node["Var"])
    for operator in (".", "has"):
        if operator in node:
            inner = _object(node[operator])
            base, name = _chain(_object(inner["left"])), str(inner["attr"])
            if base is None:
                return None
            return f"{base}.{name}" if _IDENTIFIER.fullmatch(name) else f"{base}[{json.dumps(name)}]"
    return None
