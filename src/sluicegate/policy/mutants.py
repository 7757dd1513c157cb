"""A bundle and its test cases go in, the changes that no case notices come out; the only place that breaks policies.

Each mutant differs from the bundle in one step: a policy dropped or its effect flipped, an obligation loosened, a
clause dropped. It is killed where any case that passes today fails.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from types import MappingProxyType

from sluicegate.enforcer.access import Rules
from sluicegate.enforcer.bundle import Bundle
from sluicegate.enforcer.decide import Decider
from sluicegate.enforcer.obligations import CATALOGUE, MERGED, Law, parse
from sluicegate.enforcer.policy_text import PolicySource
from sluicegate.policy.coverage import Reach, clause_place, questions_of
from sluicegate.policy.places import annotation_line
from sluicegate.policy.situation import rules_with
from sluicegate.policy.tree import PolicyTree, clauses, read_tree, rebuilt, text_of, without_clause
from sluicegate.policy.trial import Outcome, run_case
from sluicegate.schemas.ids import PolicyId


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One policy changed in one step: `tree` is what it becomes, None where it is dropped; `place` is where."""

    policy: PolicyId
    place: str
    change: str
    tree: PolicyTree | None

    def line(self) -> str:
        """One line for people."""
        return f"{self.place}: no case notices when {self.change} (`{self.policy}`)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutations:
    """How many mutants there were, and those that no case killed."""

    made: int
    survivors: tuple[Mutant, ...]

    @property
    def score(self) -> float:
        """The share that was killed; 1 where there was nothing to break."""
        return 1.0 if not self.made else (self.made - len(self.survivors)) / self.made


def mutants(bundle: Bundle) -> Iterator[Mutant]:
    """Every mutant of a bundle, in the order of its policies."""
    for source in bundle.policies.values():
        tree = read_tree(source)
        yield Mutant(policy=source.id, place=source.place(), change="the policy is dropped", tree=None)
        flipped = replace(tree, effect="permit" if source.forbids else "forbid")
        yield Mutant(policy=source.id, place=source.place(), change=f"it becomes a {flipped.effect}", tree=flipped)
        yield from _loosened(source, tree)
        for number, condition in enumerate(tree.conditions):
            for index, clause in enumerate(clauses(condition)):
                yield Mutant(
                    policy=source.id,
                    place=clause_place(source, number),
                    change=f"`{text_of(clause)}` is dropped from its `{condition.kind}`",
                    tree=without_clause(tree, number, index),
                )


def mutate(rules: Rules, outcomes: Sequence[Outcome]) -> Mutations:
    """Breaks the bundle in every way and runs the cases; `outcomes` are theirs today, all passed.

    A case is run against a mutant only where the head of the mutated policy matches one of the case's questions:
    anywhere else the engine is asked the same and answers the same.
    """
    reach = Reach(rules.bundle)
    asked: dict[PolicyId, list[Outcome]] = {policy: [] for policy in rules.bundle.policies}
    for outcome in outcomes:
        questions, asked_by = questions_of(outcome.decision), rules_with(rules, outcome.case.asked.put)
        matching = frozenset[PolicyId]().union(*(reach.matching(each, asked_by) for each in questions))
        for policy in frozenset[PolicyId]().union(*(reach.heads(each, asked_by) for each in questions)):
            # Where the policy matched a change shows first: those cases stand in front.
            where = 0 if policy in matching else len(asked[policy])
            asked[policy].insert(where, outcome)
    made, survivors = 0, []
    for mutant in mutants(rules.bundle):
        made += 1
        if not _killed(mutant, rules, asked[mutant.policy]):
            survivors.append(mutant)
    return Mutations(made=made, survivors=tuple(survivors))


def _killed(mutant: Mutant, rules: Rules, outcomes: Sequence[Outcome]) -> bool:
    if not outcomes:
        return False
    bundle = rebuilt(rules.bundle, {mutant.policy: mutant.tree})
    changed = Rules(bundle=bundle, directory=rules.directory, decider=Decider(bundle, rules.directory))
    return any(not run_case(outcome.case, changed).passed for outcome in outcomes)


def _loosened(source: PolicySource, tree: PolicyTree) -> Iterator[Mutant]:
    for name, raw in sorted(source.annotations.items()):
        if name not in MERGED:
            continue
        for change, value in _looser(name, raw):
            annotations = {**tree.annotations, name: value}
            kept = {key: text for key, text in annotations.items() if text is not None}
            yield Mutant(
                policy=source.id,
                place=f"{source.file}:{annotation_line(source, name)}",
                change=f'`@{name}("{raw}")` {change}',
                tree=replace(tree, annotations=MappingProxyType(kept)),
            )


def _looser(name: str, raw: str) -> Iterator[tuple[str, str | None]]:
    """Each step by which the value of an obligation can be loosened: what is done, and the value, None for none."""
    entry, value = CATALOGUE[name], parse(name, raw)
    removed: tuple[str, str | None] = ("is removed", None)
    match entry.law:
        case Law.MIN if isinstance(value, int | Decimal):
            more = min(value * 10, entry.most)
            if more > value:
                yield f"becomes {more}", str(more)
            yield removed
        case Law.STRICTEST if isinstance(value, str):
            level = entry.levels.index(value)
            if level > 0:
                yield f"becomes `{entry.levels[level - 1]}`", entry.levels[level - 1]
        case Law.UNION if isinstance(value, frozenset):
            for each in sorted(value):
                kept_texts = sorted(value - {each})
                left = json.dumps(kept_texts) if name == "stop" else ", ".join(kept_texts)
                yield f"loses `{each}`", left if kept_texts else None
        case Law.OPERATORS if isinstance(value, Mapping):
            for each in sorted(value):
                kept = ", ".join(f"{key}={operator}" for key, operator in sorted(value.items()) if key != each)
                yield f"loses `{each}`", kept or None
        case _:
            yield removed
