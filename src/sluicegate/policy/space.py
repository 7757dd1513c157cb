"""A directory and the trees of policies go in, requests worth deciding come out; the only place that makes them up.

Of entities that no policy can tell apart (type, parents, attributes, who names them) one is asked for. Of the hours,
days and tokens between two numbers that a policy compares with, one is enough. A space that is larger than the budget
is walked evenly, in an order that depends on nothing but its size.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sluicegate.enforcer.directory import Directory, split_uid
from sluicegate.enforcer.judgement import Ask
from sluicegate.enforcer.parameters import OUTPUT_TOKENS_MAX
from sluicegate.policy.tree import Expression, PolicyTree, Scope, paths
from sluicegate.schemas.events import Document, FieldText, Message, Parameters, RequestSubmitted, Role
from sluicegate.schemas.ids import EntityUid, entity_uid

ASKED: Final = "..."
"""What every request asks, and every field holds: no policy sees it."""
MONDAY_MS: Final = 1_767_571_200_000  # 2026-01-05T00:00:00Z, a Monday
_HOUR_MS: Final = 3_600_000
_GOLDEN: Final = (math.sqrt(5) - 1) / 2
_HOUR: Final = "context.clock.hour"
_WEEKDAY: Final = "context.clock.weekday"
_TOKENS: Final = "context.asked.outputTokens"
_STREAM: Final = "context.asked.stream"
_FROM_HERE: Final = frozenset({">=", "<"})
_FROM_NEXT: Final = frozenset({">", "<="})
_TURNED: Final = {">=": "<=", "<": ">", ">": "<", "<=": ">="}


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """What a request asks besides whom, for what and with which documents: hour and day (Monday is 0), tokens."""

    hour: int = 0
    weekday: int = 0
    max_tokens: int | None = None
    stream: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """One made-up request; `field` is the one that its document holds, by uid."""

    principal: EntityUid
    actor: EntityUid
    purpose: str
    model: EntityUid
    when: When
    field: EntityUid | None = None

    @property
    def time_ms(self) -> int:
        """Event time."""
        return MONDAY_MS + (24 * self.when.weekday + self.when.hour) * _HOUR_MS

    def ask(self) -> Ask:
        """The request as the gate judges it."""
        documents: tuple[Document, ...] = ()
        if self.field is not None:
            dataset, _, name = split_uid(self.field)[1].partition(".")
            documents = (Document(dataset=dataset, document_id="1", fields=(FieldText(name=name, text=ASKED),)),)
        request = RequestSubmitted(
            request_id="r1",
            model=split_uid(self.model)[1],
            purpose=self.purpose,
            messages=(Message(role=Role.USER, content=ASKED),),
            documents=documents,
            parameters=Parameters(max_tokens=self.when.max_tokens, stream=self.when.stream),
        )
        return Ask(
            principal=split_uid(self.principal),
            actor=split_uid(self.actor),
            request=request,
            time_ms=self.time_ms,
            default_seed=0,
        )


class People:
    """The entities of a directory, by type, one of each group that no policy of `trees` can tell apart."""

    __slots__ = ("_alike", "_directory", "_of")

    def __init__(self, directory: Directory, trees: Iterable[PolicyTree]) -> None:
        self._directory: Final = directory
        named = frozenset(uid for tree in trees for uid in _named(tree.to_json()))
        referrers: dict[str, list[str]] = {}
        for uid, entry in directory.entries.items():
            for each in {*entry.parents, *entry.named}:
                referrers.setdefault(each, []).append(uid)
        groups: dict[tuple[str, str, str, str, str], list[EntityUid]] = {}
        for uid, entry in directory.entries.items():
            attributes = _canonical(json.loads(entry.text).get("attrs"))
            own = uid if uid in named else ""
            above, beside = (json.dumps(sorted(each)) for each in (entry.parents, referrers.get(uid, ())))
            key = (entry.kind, own, above, attributes, beside)
            groups.setdefault(key, []).append(uid)
        self._alike: Final[dict[EntityUid, tuple[EntityUid, ...]]] = {}
        self._of: Final[dict[str, list[EntityUid]]] = {}
        for (kind, *_), uids in sorted(groups.items(), key=lambda each: min(each[1])):
            self._of.setdefault(kind, []).append(min(uids))
            self._alike[min(uids)] = tuple(sorted(uids))

    def of(self, *kinds: str) -> tuple[EntityUid, ...]:
        """Those of some types, sorted."""
        return tuple(uid for kind in kinds for uid in self._of.get(kind, ()))

    def alike(self, uid: EntityUid) -> tuple[EntityUid, ...]:
        """The whole group of one that `of` returned, with it, sorted."""
        return self._alike[uid]

    def within(self, scope: Scope, uid: EntityUid) -> bool:
        """Whether the head of a policy that says `scope` of it matches an entity."""
        kind = split_uid(uid)[0]
        wanted = {str(entity_uid(*each)) for each in scope.entities}
        match scope.op:
            case "All":
                return True
            case "==":
                return uid in wanted
            case "in":
                return not wanted.isdisjoint(self._above(uid))
            case _:
                return kind == scope.entity_type and (not wanted or not wanted.isdisjoint(self._above(uid)))

    def _above(self, uid: EntityUid) -> frozenset[str]:
        """The entity and all that it belongs to."""
        found: set[str] = {uid}
        waiting: list[EntityUid] = [uid]
        while waiting:
            entry = self._directory.entries.get(waiting.pop())
            for parent in () if entry is None else entry.parents:
                if parent not in found:
                    found.add(parent)
                    waiting.append(parent)
        return frozenset(found)


def whens(trees: Iterable[PolicyTree]) -> tuple[When, ...]:
    """Every hour, day and number of tokens that some clause could tell from the others, combined."""
    bodies = [condition.body for tree in trees for condition in tree.conditions]
    hours = _cells(bodies, _HOUR, 0, 23)
    weekdays = _cells(bodies, _WEEKDAY, 0, 6)
    # Who asks for no number asks for the release's own, which is in one of the cells.
    tokens: list[int | None] = [*_cells(bodies, _TOKENS, 1, OUTPUT_TOKENS_MAX)]
    if len(tokens) == 1:
        tokens = [None]
    streams = (False, True) if any(_STREAM in paths(body) for body in bodies) else (False,)
    return tuple(
        When(hour=hour, weekday=weekday, max_tokens=token, stream=stream)
        for weekday in weekdays
        for token in tokens
        for stream in streams
        for hour in hours
    )


def spread(sizes: Sequence[int], budget: int) -> Iterator[tuple[int, ...]]:
    """Indexes into dimensions of these sizes: all of them in order, or `budget` of them, evenly, in order."""
    total = math.prod(sizes)
    if total <= budget:
        chosen: Iterable[int] = range(total)
    else:
        step = max(1, int(total * _GOLDEN))
        while math.gcd(step, total) != 1:
            step += 1
        chosen = sorted(number * step % total for number in range(budget))
    for number in chosen:
        left, indexes = number, []
        for size in reversed(sizes):
            left, index = divmod(left, size)
            indexes.append(index)
        yield tuple(reversed(indexes))


def _canonical(value: object) -> str:
    """A value of an attribute as text; a list in JSON is a set in Cedar, so its order says nothing."""
    match value:
        case dict():
            return f"{{{','.join(f'{json.dumps(name)}:{_canonical(value[name])}' for name in sorted(value))}}}"
        case list():
            return f"[{','.join(sorted(map(_canonical, value)))}]"
        case _:
            return json.dumps(value)


def _cells(bodies: Iterable[Expression], path: str, low: int, high: int) -> list[int]:
    """The first value of each range between two numbers that `path` is compared with."""
    cuts = {cut for body in bodies for cut in _cuts(body, path)}
    return sorted({low, *(cut for cut in cuts if low < cut <= high)})


def _cuts(node: object, path: str) -> Iterator[int]:
    """The numbers from which on an expression may be worth something else."""
    if isinstance(node, list):
        for each in node:
            yield from _cuts(each, path)
    if not isinstance(node, dict):
        return
    for operator, operands in node.items():
        match operands:
            case {"left": dict() as left, "right": {"Value": int() as value}} if paths(left) == (path,) and "." in left:
                yield from _cut(operator, value)
            case {"left": {"Value": int() as value}, "right": dict() as right} if (
                paths(right) == (path,) and "." in right
            ):
                yield from _cut(_TURNED.get(str(operator), str(operator)), value)
            case dict() if operator in {"&&", "||", "!", "if-then-else"}:
                for each in operands.values():
                    yield from _cuts(each, path)
            case _ if operator != "Value" and path in paths(node):
                for value in _numbers(operands):
                    yield from (value, value + 1)


def _cut(operator: str, value: int) -> tuple[int, ...]:
    if operator in _FROM_HERE:
        return (value,)
    return (value + 1,) if operator in _FROM_NEXT else (value, value + 1)


def _numbers(node: object) -> Iterator[int]:
    match node:
        case {"Value": int() as value} if not isinstance(value, bool):
            yield value
        case dict():
            for each in node.values():
                yield from _numbers(each)
        case list():
            for each in node:
                yield from _numbers(each)


def _named(node: object) -> Iterator[EntityUid]:
    """Every entity that a tree names."""
    match node:
        case {"type": str() as kind, "id": str() as name}:
            yield entity_uid(kind, name)
        case dict():
            for each in node.values():
                yield from _named(each)
        case list():
            for each in node:
                yield from _named(each)
