"""A question that was denied goes in, the fewest steps after which it is allowed come out; the only place that searches
for counterfactuals.

A search by number of steps: each step removes one thing that stood in the way (an unmet clause of one permit, or a
forbid), as the engine says after the step. What is returned was decided again whole, by the gate's own checks, and no
step can be left out of it. That a shorter way exists outside the steps of `edits` cannot be excluded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from sluicegate.enforcer.access import Rules
from sluicegate.policy.cases import Asked
from sluicegate.policy.coverage import Part, Reach
from sluicegate.policy.edits import Edit, Steps, edits
from sluicegate.policy.situation import rules_with
from sluicegate.policy.tree import Failed, Question
from sluicegate.policy.trial import decide
from sluicegate.schemas.codes import Code
from sluicegate.schemas.errors import InvalidDirectory
from sluicegate.schemas.events import DecisionMade, Ruling, Verdict
from sluicegate.schemas.ids import PolicyId, entity_uid

STEPS_MAX: Final = 4
TRIES_MAX: Final = 1_000  # decisions made in one search
SHOWN_MAX: Final = 3
_WEIGHTS: Final = {"request": 0, "directory": 1, "requester": 2}  # whose leave a step needs
_STUCK: Final = frozenset({Code.DENIED, Code.SHAPE_DENIED, Code.OK})


@dataclass(frozen=True, slots=True, kw_only=True)
class NearMiss:
    """Steps after which it is allowed: `decision` is what the gate says then, `policies` what permits it."""

    steps: tuple[Edit, ...]
    policies: tuple[str, ...]
    asked: Asked
    decision: DecisionMade


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    asked: Asked
    decision: DecisionMade
    rules: Rules
    steps: tuple[Edit, ...] = ()
    permit: PolicyId | None = None


@dataclass(slots=True)
class _Search:
    rules: Rules
    reach: Reach
    wanted: str | None
    tries: int = 0
    seen: set[Asked] = field(default_factory=set)


def nearest(
    asked: Asked, rules: Rules, *, wanted: str | None = None, reach: Reach | None = None
) -> tuple[NearMiss, ...]:
    """The ways of fewest steps to an allow, or with `wanted`, DATASET.FIELD, to an allow that admits this field.

    At most `SHOWN_MAX`, each by other policies; those that ask less of the directory come first. Empty where there is
    nothing to change, or no way was found within `STEPS_MAX` steps and `TRIES_MAX` decisions.
    """
    search = _Search(rules=rules, reach=Reach(rules.bundle) if reach is None else reach, wanted=wanted)
    start = _State(asked=asked, decision=decide(asked, rules), rules=rules_with(rules, asked.put))
    search.seen.add(asked)
    level = [start]
    if reached(start.decision, wanted):
        return ()
    for _ in range(STEPS_MAX):
        level = [after for state in level for after in _after(state, search)]
        found = [state for state in level if reached(state.decision, wanted)]
        if found:
            return _best(found, asked, search)
    return ()


def reached(decision: DecisionMade, wanted: str | None) -> bool:
    """Whether a decision is the one that was looked for."""
    return decision.verdict is Verdict.ALLOW and (wanted is None or wanted in decision.admitted)


def _best(found: Sequence[_State], start: Asked, search: _Search) -> tuple[NearMiss, ...]:
    shortest = [_without_needless(state, start, search) for state in found]
    misses: dict[tuple[str, ...], NearMiss] = {}
    for state in sorted(shortest, key=lambda each: (len(each.steps), sum(_WEIGHTS[step.of] for step in each.steps))):
        policies = _deciding(state.decision, search.wanted)
        misses.setdefault(
            policies, NearMiss(steps=state.steps, policies=policies, asked=state.asked, decision=state.decision)
        )
    return tuple(misses.values())[:SHOWN_MAX]


def _without_needless(state: _State, start: Asked, search: _Search) -> _State:
    """The same way without the steps that it does not need."""
    for index in range(len(state.steps) if len(state.steps) > 1 else 0):
        shorter = replay((*state.steps[:index], *state.steps[index + 1 :]), start, search.rules)
        if shorter is not None and reached(shorter[1], search.wanted):
            steps = (*state.steps[:index], *state.steps[index + 1 :])
            asked, decision = shorter
            return _without_needless(replace(state, steps=steps, asked=asked, decision=decision), start, search)
    return state


def replay(steps: Sequence[Edit], asked: Asked, rules: Rules) -> tuple[Asked, DecisionMade] | None:
    """What is asked after the steps, and the decision; None where they cannot be taken."""
    try:
        for step in steps:
            asked = step.take(asked, rules_with(rules, asked.put))
        return asked, decide(asked, rules)
    except InvalidDirectory:
        return None


def _deciding(decision: DecisionMade, wanted: str | None) -> tuple[str, ...]:
    ruling = _ruling(decision, wanted)
    return decision.determining if ruling is None else ruling.policies


def _after(state: _State, search: _Search) -> Iterator[_State]:
    """What can stand after one step that removes something of what stands in the way."""
    ruling = _obstacle(state.decision, search.wanted)
    if ruling is None or ruling.errors:
        return
    question = Question.of(ruling)
    values = search.reach.values(question, state.rules)
    if ruling.policies:
        # One forbid after the other. Any one of its parts that turns takes it away.
        forbid = PolicyId(ruling.policies[0])
        for part in _parts(forbid, search.reach):
            yield from _turned(state, part, question, search, permit=state.permit)
        return
    for policy in _permits(values, search.reach):
        if state.permit is None or state.permit == policy:
            unmet = [part for part in _parts(policy, search.reach) if not _met(part, values, search.reach)]
            ways = [list(edits(search.reach.parts[part], state.asked, question, state.rules)) for part in unmet]
            if all(ways):
                met = [part for part in _parts(policy, search.reach) if part not in unmet]
                yield from _turned(state, unmet[0], question, search, permit=policy, ways=ways[0], met=met)


def _turned(
    state: _State,
    part: Part,
    question: Question,
    search: _Search,
    *,
    permit: PolicyId | None,
    ways: Sequence[Steps] | None = None,
    met: Sequence[Part] = (),
) -> Iterator[_State]:
    """The situations in which `part` is worth the opposite, by one step each, and those `met` what they were."""
    before = search.reach.values(question, state.rules)[part]
    alternatives = edits(search.reach.parts[part], state.asked, question, state.rules) if ways is None else ways
    for steps in alternatives:
        for step in steps:
            after = _taken(state, step, search, permit)
            if after is None:
                continue
            ruling = _same_question(after.decision, question)
            if ruling is None:  # denied before it came to this question: what stands in the way now is another thing
                yield after
                continue
            values = search.reach.values(Question.of(ruling), after.rules)
            turned = not isinstance(values[part], Failed) and values[part] is not before
            if turned and all(_met(each, values, search.reach) for each in met):
                yield after
                break


def _taken(state: _State, step: Edit, search: _Search, permit: PolicyId | None) -> _State | None:
    """The situation after a step; None where it was seen, is not possible, or enough was tried."""
    asked = step.take(state.asked, state.rules)
    if asked in search.seen or search.tries >= TRIES_MAX:
        return None
    search.seen.add(asked)
    search.tries += 1
    try:
        rules = rules_with(search.rules, asked.put)
        decision = decide(asked, search.rules)
    except InvalidDirectory:
        return None
    return _State(asked=asked, decision=decision, rules=rules, steps=(*state.steps, step), permit=permit)


def _permits(values: dict[Part, bool | Failed], reach: Reach) -> Iterator[PolicyId]:
    """The permits that are about this action."""
    for policy, tree in reach.trees.items():
        if tree.effect == "permit" and values.get((policy, "action", 0), True) is True:
            yield policy


def _parts(policy: PolicyId, reach: Reach) -> Iterator[Part]:
    for part in reach.parts:
        if part[0] == policy and part[1] != "action":
            yield part


def _met(part: Part, values: dict[Part, bool | Failed], reach: Reach) -> bool:
    return values[part] is wanted_value(part, reach)


def wanted_value(part: Part, reach: Reach) -> bool:
    """What a part must be worth for its policy to match: false for what stands in an `unless`."""
    return isinstance(part[1], str) or reach.trees[part[0]].conditions[part[1]].kind == "when"


def _obstacle(decision: DecisionMade, wanted: str | None) -> Ruling | None:
    """The ruling that stands in the way; None where none does."""
    if decision.code not in _STUCK or not decision.rulings:
        return None
    if decision.verdict is Verdict.DENY:
        return None if decision.rulings[-1].allowed else decision.rulings[-1]
    return _ruling(decision, wanted)


def _ruling(decision: DecisionMade, wanted: str | None) -> Ruling | None:
    if wanted is None:
        return None
    field_uid = entity_uid("Field", wanted)
    return next((each for each in decision.rulings if each.action == "read" and each.resource == field_uid), None)


def _same_question(decision: DecisionMade, question: Question) -> Ruling | None:
    """The ruling on what was asked before: about the same field, or the one `generate` or `shape` of the request."""
    for ruling in decision.rulings:
        if ruling.action == question.action and (ruling.action != "read" or ruling.resource == question.resource):
            return ruling
    return None
