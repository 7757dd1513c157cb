"""The decisions on all test cases go in, what of the policies no case reaches comes out; the only place for that.

A policy is reached where it matched a question. A clause counts as true or false only where the policy's head matched:
anywhere else nobody asked it. A clause that failed was neither.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sluicegate.enforcer.access import Rules
from sluicegate.enforcer.bundle import Bundle
from sluicegate.enforcer.policy_text import PolicySource
from sluicegate.policy.places import condition_line
from sluicegate.policy.situation import rules_with
from sluicegate.policy.tree import (
    Expression,
    Failed,
    PolicyTree,
    Probe,
    Question,
    Variable,
    clauses,
    read_tree,
    text_of,
)
from sluicegate.policy.trial import Outcome
from sluicegate.schemas.events import DecisionMade
from sluicegate.schemas.ids import Digest, PolicyId

Part = tuple[PolicyId, Variable | int, int]
"""A policy and one variable of its head (and 0), or a policy and the number of a condition and of a clause in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One clause and what cases saw of it."""

    policy: PolicyId
    place: str
    kind: str
    text: str
    seen: frozenset[bool]

    def missing(self) -> str:
        """What no case saw: nothing, `true`, `false` or `true or false`."""
        return " or ".join(str(value).lower() for value in (True, False) if value not in self.seen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Every policy by whether a case reached it, and every clause."""

    policies: dict[PolicyId, bool]
    places: dict[PolicyId, str]
    clauses: tuple[Clause, ...]

    @property
    def complete(self) -> bool:
        """Whether every policy was reached and every clause was seen true and false."""
        return all(self.policies.values()) and not any(each.missing() for each in self.clauses)

    def summary(self) -> str:
        """How much was reached, in one line."""
        ends = sum(len(each.seen) for each in self.clauses)
        reached = sum(self.policies.values())
        return f"{reached} of {len(self.policies)} policies, {ends} of {2 * len(self.clauses)} clause outcomes"

    def lines(self) -> Iterator[str]:
        """One line for each thing that no case reaches."""
        for policy, reached in self.policies.items():
            if not reached:
                yield f"{self.places[policy]}: no case reaches `{policy}`"
        for each in self.clauses:
            if self.policies[each.policy] and each.missing():
                yield f"{each.place}: no case sees `{each.text}` of `{each.policy}` ({each.kind}) {each.missing()}"


class Reach:
    """Which parts of a bundle's policies hold for a question, asked once a question and directory.

    Each method takes the rules that the question is asked by: those of the bundle, over any directory.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.trees = {policy: read_tree(source) for policy, source in bundle.policies.items()}
        self.parts: dict[Part, Expression] = {part: each for tree in self.trees.values() for part, each in _parts(tree)}
        self._probe = Probe(self.parts)
        self._known: dict[tuple[Question, Digest], dict[Part, bool | Failed]] = {}

    def values(self, question: Question, rules: Rules) -> dict[Part, bool | Failed]:
        """What each part is worth."""
        key = (question, rules.directory.digest)
        if key not in self._known:
            self._known[key] = self._probe.values(question, rules)
        return self._known[key]

    def heads(self, question: Question, rules: Rules) -> frozenset[PolicyId]:
        """The policies whose head matches."""
        values = self.values(question, rules)
        missed = {part[0] for part, value in values.items() if isinstance(part[1], str) and value is not True}
        return frozenset(self.trees.keys() - missed)

    def matching(self, question: Question, rules: Rules) -> frozenset[PolicyId]:
        """The policies that match, permits beside forbids."""
        values = self.values(question, rules)
        return frozenset(policy for policy in self.heads(question, rules) if _holds(self.trees[policy], values))


def questions_of(decision: DecisionMade) -> tuple[Question, ...]:
    """What was asked of the engine for a decision, each once."""
    return tuple(dict.fromkeys(Question.of(ruling) for ruling in decision.rulings))


def measure(rules: Rules, outcomes: Iterable[Outcome]) -> Coverage:
    """What the decisions on the cases reach of the bundle's policies."""
    known = Reach(rules.bundle)
    seen: dict[Part, set[bool]] = {}
    reached: set[PolicyId] = set()
    for outcome in outcomes:
        asked_by = rules_with(rules, outcome.case.asked.put)
        for question in questions_of(outcome.decision):
            heads = known.heads(question, asked_by)
            reached |= known.matching(question, asked_by)
            for part, value in known.values(question, asked_by).items():
                if isinstance(value, bool) and part[0] in heads:
                    seen.setdefault(part, set()).add(value)
    return Coverage(
        policies={policy: policy in reached for policy in known.trees},
        places={policy: rules.bundle.policies[policy].place() for policy in known.trees},
        clauses=tuple(_clauses(rules.bundle, known, seen)),
    )


def clause_place(source: PolicySource, condition: int) -> str:
    """File and line of a condition."""
    return f"{source.file}:{condition_line(source, condition)}"


def _clauses(bundle: Bundle, reach: Reach, seen: dict[Part, set[bool]]) -> Iterable[Clause]:
    for policy, tree in reach.trees.items():
        for number, condition in enumerate(tree.conditions):
            for index, clause in enumerate(clauses(condition)):
                yield Clause(
                    policy=policy,
                    place=clause_place(bundle.policies[policy], number),
                    kind=condition.kind,
                    text=text_of(clause),
                    seen=frozenset(seen.get((policy, number, index), ())),
                )


def _parts(tree: PolicyTree) -> Iterator[tuple[Part, Expression]]:
    for variable, scope in tree.scopes():
        if (expression := scope.expression(variable)) is not None:
            yield (tree.id, variable, 0), expression
    for number, condition in enumerate(tree.conditions):
        for index, clause in enumerate(clauses(condition)):
            yield (tree.id, number, index), clause


def _holds(tree: PolicyTree, values: dict[Part, bool | Failed]) -> bool:
    """Whether every condition holds. One failing clause is enough to say no: it denies what it does not settle."""
    return all(
        values[tree.id, number, index] is (condition.kind == "when")
        for number, condition in enumerate(tree.conditions)
        for index in range(len(clauses(condition)))
    )
