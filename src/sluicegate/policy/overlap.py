"""Policies with their trees go in, what they do to each other comes out: the only place that compares two policies.

Sound, not complete: what is reported as an error is proved from the texts alone, and so is what is not reported as a
conflict; between the two lies what is reported as a warning.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from sluicegate.enforcer.obligations import CATALOGUE, MERGED, Law
from sluicegate.enforcer.policy_text import PolicySource
from sluicegate.policy.boxes import Boxes, common, policy_boxes, unmatched_boxes, without_action
from sluicegate.policy.findings import Finding, Severity
from sluicegate.policy.places import annotation_line
from sluicegate.policy.tree import PolicyTree

EQUAL: Final = tuple(name for name in MERGED if CATALOGUE[name].law is Law.EQUAL)
"""The obligations of which two different values deny."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One policy as the lint looks at it: where it matches, and where, for an action of its own, it does not."""

    source: PolicySource
    tree: PolicyTree
    matched: Boxes
    unmatched: Boxes

    @classmethod
    def of(cls, source: PolicySource, tree: PolicyTree) -> "Known":
        """The policy, looked at."""
        return cls(source=source, tree=tree, matched=policy_boxes(tree), unmatched=unmatched_boxes(tree))

    def bare(self) -> bool:
        """Whether it has no condition."""
        return not self.tree.conditions


def conflicts(policies: Sequence[Known]) -> Iterator[Finding]:
    """Two permits that state different values of one obligation, and can match one request."""
    for name in EQUAL:
        stating = [each for each in policies if name in each.source.annotations and each.matched]
        for first, second in combinations(stating, 2):
            values = (first.source.annotations[name], second.source.annotations[name])
            # `generate` and `shape` permits merge together, so the action tells no two of them apart.
            ours, theirs = without_action(first.matched), without_action(second.matched)
            if values[0] == values[1] or not common(ours, theirs):
                continue
            always = _inside(first, second) or _inside(second, first)
            yield Finding(
                severity=Severity.ERROR if always else Severity.WARNING,
                code="conflict",
                file=second.source.file,
                line=annotation_line(second.source, name),
                text=(
                    f'`@{name}("{values[1]}")` of `{second.source.id}` {"always meets" if always else "can meet"} '
                    f'`@{name}("{values[0]}")` of `{first.source.id}` ({first.source.place()}), '
                    "which denies the request with OBLIGATION_CONFLICT"
                ),
                fix="state one value, or make the two exclude each other by purpose or scope",
            )


def _inside(inner: Known, outer: Known) -> bool:
    """Whether every request that `inner` matches is one of `outer`, whatever the actions."""
    return not common(without_action(inner.matched), without_action(outer.unmatched))


def shadowed(policies: Sequence[Known]) -> Iterator[Finding]:
    """Permits that never have an effect, because one forbid matches whenever they do."""
    forbids = [each for each in policies if each.source.forbids]
    for permit in policies:
        if permit.source.forbids or not permit.matched:
            continue
        for forbid in forbids:
            if _names_actions_of(forbid, permit) and not common(permit.matched, forbid.unmatched):
                how = "unconditional " if forbid.bare() else ""
                yield Finding(
                    severity=Severity.ERROR,
                    code="shadowed",
                    file=permit.source.file,
                    line=permit.source.line,
                    text=(
                        f"`{permit.source.id}` never permits anything: the {how}forbid `{forbid.source.id}` "
                        f"({forbid.source.place()}) matches whenever it does"
                    ),
                    fix="remove the permit, or narrow the forbid",
                )
                break


def _names_actions_of(forbid: Known, permit: Known) -> bool:
    named = set(permit.source.actions)
    return not forbid.source.actions or (bool(named) and named <= set(forbid.source.actions))
