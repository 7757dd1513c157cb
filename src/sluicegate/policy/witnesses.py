"""Two sets of rules over one directory go in, requests that they decide otherwise come out; nothing else comes out.

Requests are made up (`space.py`) where the head of a changed policy matches, judged by the gate's own checks 4 to 7
under both, and each that is given back was judged again by deciders that remember nothing.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from sluicegate.enforcer.access import Rules, judge
from sluicegate.enforcer.decide import Decider, context_json, entity_json
from sluicegate.enforcer.directory import split_uid
from sluicegate.enforcer.obligations import Value
from sluicegate.policy.changes import PolicyChange
from sluicegate.policy.space import Asking, People, When, spread, whens
from sluicegate.policy.strictness import Direction, Step, steps
from sluicegate.policy.tree import PolicyTree, read_tree
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import Obligation, Ruling
from sluicegate.schemas.ids import EntityUid, entity_uid

BUDGET: Final = 10_000  # made-up requests, and as many reads: about 1 ms each
PRINCIPALS_MAX: Final = 50
TIMES_MAX: Final = 64  # times and numbers of tokens that are looked at for a request that is answered
_ASKING: Final = frozenset({"generate", "shape"})


class Kind(IntEnum):
    """What a reviewer looks at first."""

    FIELD_READABLE = 0
    ALLOWED = 1
    LOOSENED = 2
    FIELD_WITHHELD = 3
    DENIED = 4
    TIGHTENED = 5
    OTHER = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What policy says of a request: code, reason, policies, obligations, and for its field who permits or forbids."""

    code: Code
    reason: str | None
    policies: tuple[str, ...]
    obligations: tuple[Obligation, ...]
    admitted: tuple[str, ...]
    withheld: tuple[str, ...]
    readers: tuple[str, ...]

    @property
    def allowed(self) -> bool:
        """Whether the request is answered at all."""
        return self.code is Code.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """A request and what it gets before and after; `alike` is how many others of those tried changed the same way."""

    kind: Kind
    asking: Asking
    before: Outcome
    after: Outcome
    alike: int = 0

    @property
    def steps(self) -> tuple[Step, ...]:
        """What of its merged obligations changed; nothing where it is not answered under both."""
        return _steps(self.before, self.after)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """A field that is read by other people than before: each of them by a request that was judged under both.

    `more` counts those beyond the first `PRINCIPALS_MAX`, whom no policy can tell from one of them.
    """

    field: EntityUid
    readable: bool
    principals: tuple[EntityUid, ...]
    more: int
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One witness of each way in which a decision changed, the worst first.

    `tried` made-up requests were judged; `sampled`: there are more, and the budget was spent.
    """

    witnesses: tuple[Witness, ...]
    fields: tuple[FieldChange, ...]
    tried: int
    sampled: bool


def outcome_of(asking: Asking, rules: Rules) -> Outcome:
    """What the gate says of a made-up request."""
    found = judge(rules, asking.ask())
    return Outcome(
        code=found.code,
        reason=found.reason,
        policies=found.determining,
        obligations=found.obligations,
        admitted=found.admitted,
        withheld=found.withheld,
        readers=tuple(policy for ruling in found.rulings if ruling.action == "read" for policy in ruling.policies),
    )


def find(
    old: Rules, new: Rules, changes: Sequence[PolicyChange], *, everything: bool = False, budget: int = BUDGET
) -> Found:
    """Every way in which made-up requests are decided otherwise.

    `everything`: look also where no changed policy matches, as after a change of the schema.
    """
    return _Search(old, new, changes, everything=everything).run(budget)


class _Search:
    """The space between two sets of rules."""

    def __init__(self, old: Rules, new: Rules, changes: Sequence[PolicyChange], *, everything: bool) -> None:
        self._old, self._new, self._everything = old, new, everything
        self._changed: Final = tuple(tree for each in changes for tree in each.trees if tree is not None)
        trees = [read_tree(source) for rules in (old, new) for source in rules.bundle.policies.values()]
        self._people: Final = People(new.directory, trees)
        self._whens: Final = whens(trees)
        self._purposes: Final = tuple(
            sorted(frozenset[str]().union(*(rules.bundle.enums.get("Purpose", frozenset()) for rules in (old, new))))
        )
        self._sampled = False
        self._heads: Final[dict[tuple[frozenset[str], EntityUid, EntityUid], bool]] = {}

    def run(self, budget: int) -> Found:
        principals = self._people.of("User", "Service")
        actors, models = self._people.of("Service"), self._people.of("Model")
        sizes = [len(principals), len(actors), len(self._purposes), len(models)]
        found: dict[object, Witness] = {}
        tried = 0
        for asking in self._askings(principals, actors, models, [*sizes, len(self._whens)], budget):
            tried += 1
            self._note(found, asking)
        by_field: dict[tuple[bool, EntityUid], dict[EntityUid, Witness]] = {}
        for asking, readable in self._reads(principals, actors, models, sizes, budget):
            tried += 1
            witness = self._note(found, asking)
            if witness is not None and asking.field is not None and readable is not None:
                by_field.setdefault((readable, asking.field), {}).setdefault(asking.principal, witness)
        ordered = sorted(found.values(), key=lambda each: (each.kind, _order(each.asking)))
        # Those that are newly readable first.
        fields = [
            self._field(field, by_field[readable, field], readable=readable)
            for readable, field in sorted(by_field, key=lambda each: (not each[0], each[1]))
        ]
        old, new = _fresh(self._old), _fresh(self._new)
        witnesses = tuple(_again(each, old, new) for each in ordered)
        return Found(witnesses=witnesses, fields=tuple(fields), tried=tried, sampled=self._sampled)

    def _field(self, field: EntityUid, seen: Mapping[EntityUid, Witness], *, readable: bool) -> FieldChange:
        """What was seen of one person holds for those who are alike; of the first ones it is asked."""
        people: list[EntityUid] = []
        policies: set[str] = set()
        more = 0
        for who, witness in sorted(seen.items(), key=lambda each: each[0]):
            policies.update(witness.after.readers if readable else witness.before.readers)
            for other in self._people.alike(who):
                if len(people) >= PRINCIPALS_MAX:
                    more += 1
                    continue
                by = other if witness.asking.actor == who else witness.asking.actor
                asking = replace(witness.asking, principal=other, actor=by)
                was, now = (
                    field in map(_field_uid, outcome_of(asking, rules).admitted) for rules in (self._old, self._new)
                )
                if was is not now and now is readable:
                    people.append(other)
        return FieldChange(
            field=field, readable=readable, principals=tuple(people), policies=tuple(sorted(policies)), more=more
        )

    def _askings(
        self,
        principals: Sequence[EntityUid],
        actors: Sequence[EntityUid],
        models: Sequence[EntityUid],
        sizes: Sequence[int],
        budget: int,
    ) -> Iterator[Asking]:
        """Requests without documents that a changed `generate` or `shape` may decide."""
        concerned = [who for who in principals if any(self._concerns(_ASKING, who, model) for model in models)]
        sizes = [len(concerned), *sizes[1:]]
        self._sampled |= math.prod(sizes) > budget
        for index in spread(sizes, budget):
            who, by, model = concerned[index[0]], actors[index[1]], models[index[3]]
            if _carried(who, by) and self._concerns(_ASKING, who, model):
                yield Asking(
                    principal=who, actor=by, purpose=self._purposes[index[2]], model=model, when=self._whens[index[4]]
                )

    def _reads(
        self,
        principals: Sequence[EntityUid],
        actors: Sequence[EntityUid],
        models: Sequence[EntityUid],
        sizes: Sequence[int],
        budget: int,
    ) -> Iterator[tuple[Asking, bool | None]]:
        """Requests for a field whose `read` is decided otherwise, at a time when they are answered, and whether it is
        newly readable, no longer readable, or neither.
        """
        fields, action = self._people.of("Field"), frozenset({"read"})
        concerned = [who for who in principals if any(self._concerns(action, who, field) for field in fields)]
        times: dict[tuple[EntityUid, EntityUid, str, EntityUid], When | None] = {}
        sizes = [len(concerned), *sizes[1:]]
        # Finding out when someone is answered costs as many decisions as there are times to ask at.
        at_most = min(len(self._whens), TIMES_MAX)
        budget = budget if math.prod(sizes) * at_most <= budget else max(1, budget // at_most)
        sizes.append(len(fields))
        self._sampled |= math.prod(sizes) > budget
        for index in spread(sizes, budget):
            who, by, field = concerned[index[0]], actors[index[1]], fields[index[4]]
            purpose, model = self._purposes[index[2]], models[index[3]]
            if not (_carried(who, by) and self._concerns(action, who, field)):
                continue
            key = (who, by, purpose, model)
            if key not in times:
                times[key] = self._answered(*key)
            when = times[key]
            if when is None:
                continue
            old, new = self._read(*key, field)
            if old != new:
                asking = Asking(principal=who, actor=by, purpose=purpose, model=model, when=when, field=field)
                yield asking, new.allowed if old.allowed != new.allowed else None

    def _answered(self, who: EntityUid, by: EntityUid, purpose: str, model: EntityUid) -> When | None:
        """When such a request is answered under both, else under one of them; None: never."""
        once: When | None = None
        for (index,) in spread([len(self._whens)], TIMES_MAX):
            asking = Asking(principal=who, actor=by, purpose=purpose, model=model, when=self._whens[index])
            answers = [outcome_of(asking, rules).allowed for rules in (self._new, self._old)]
            if all(answers):
                return asking.when
            if any(answers) and once is None:
                once = asking.when
        return once

    def _read(
        self, who: EntityUid, by: EntityUid, purpose: str, model: EntityUid, field: EntityUid
    ) -> tuple[Ruling, Ruling]:
        """Whether the field may enter a prompt, before and after."""
        context = {
            "purpose": entity_json("Purpose", purpose),
            "via": entity_json(*split_uid(by)),
            "model": entity_json(*split_uid(model)),
        }
        question = ("read", who, field, context_json(context))
        return self._old.decider.rule(*question), self._new.decider.rule(*question)

    def _concerns(self, actions: frozenset[str], principal: EntityUid, resource: EntityUid) -> bool:
        """Whether the head of a changed policy matches."""
        key = (actions, principal, resource)
        if key not in self._heads:
            self._heads[key] = self._everything or any(
                _for_one_of(tree, actions)
                and self._people.within(tree.principal, principal)
                and self._people.within(tree.resource, resource)
                for tree in self._changed
            )
        return self._heads[key]

    def _note(self, found: dict[object, Witness], asking: Asking) -> Witness | None:
        """The witness that a request is, if it is one; the first of its way is kept, the others are counted."""
        before, after = outcome_of(asking, self._old), outcome_of(asking, self._new)
        if before == after:
            return None
        witness = Witness(kind=_kind(before, after), asking=asking, before=before, after=after)
        key = (asking.field, before, after)
        kept = found.get(key)
        if kept is None:
            found[key] = witness
        else:
            found[key] = replace(kept, alike=kept.alike + 1)
        return witness


def _fresh(rules: Rules) -> Rules:
    """The same rules, by a decider without memory."""
    decider = Decider(rules.bundle, rules.directory, remembered_max=0)
    return Rules(bundle=rules.bundle, directory=rules.directory, decider=decider)


def _again(witness: Witness, old: Rules, new: Rules) -> Witness:
    """The witness, judged once more under both."""
    if (outcome_of(witness.asking, old), outcome_of(witness.asking, new)) != (witness.before, witness.after):
        raise RuntimeError("a request was decided in two ways under one bundle; report this")
    return witness


def _field_uid(name: str) -> EntityUid:
    return entity_uid("Field", name)


def _order(asking: Asking) -> tuple[str, ...]:
    when = asking.when
    return (asking.field or "", asking.principal, asking.actor, asking.purpose, asking.model,
            f"{when.weekday} {when.hour:02} {when.max_tokens or 0:05} {when.stream}")  # fmt: skip


def _carried(principal: EntityUid, actor: EntityUid) -> bool:
    """Whether such a request can be: a service that asks for itself carries its own request."""
    return principal == actor or split_uid(principal)[0] != "Service"


def _for_one_of(tree: PolicyTree, actions: frozenset[str]) -> bool:
    names = {name for _, name in tree.action.entities}
    # A name that is none of the three may be a group of actions.
    return tree.action.op == "All" or bool(names & actions) or not names <= {"generate", "shape", "read"}


def _kind(before: Outcome, after: Outcome) -> Kind:
    if before.allowed != after.allowed:
        if after.allowed and after.admitted:
            return Kind.FIELD_READABLE
        return Kind.ALLOWED if after.allowed else Kind.DENIED
    if set(after.admitted) - set(before.admitted):
        return Kind.FIELD_READABLE
    directions = {each.direction for each in _steps(before, after)}
    if Direction.LOOSENED in directions:
        return Kind.LOOSENED
    if set(before.admitted) - set(after.admitted):
        return Kind.FIELD_WITHHELD
    return Kind.TIGHTENED if Direction.TIGHTENED in directions else Kind.OTHER


def _steps(before: Outcome, after: Outcome) -> tuple[Step, ...]:
    if not (before.allowed and after.allowed):
        return ()
    old, new = ({each.name: _value(each.value) for each in side.obligations} for side in (before, after))
    return tuple(step for name in sorted({*old, *new}) for step in steps(name, old.get(name), new.get(name)))


def _value(text: str) -> Value:
    """A merged value, as it was before a decision kept it as JSON."""
    match json.loads(text):
        case list() as names:
            return frozenset(str(each) for each in names)
        case dict() as operators:
            return {str(each): str(operator) for each, operator in operators.items()}
        case int() | str() as value:
            return value
        case _:
            raise TypeError("a merged obligation is of no known type")
