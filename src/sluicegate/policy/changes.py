"""Two bundles go in, what differs in their policies comes out, clause by clause; the only place that compares them.

Policies are matched by `@id` and compared as trees: where they stand, comments and white space say nothing.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sluicegate.enforcer.bundle import Bundle
from sluicegate.enforcer.policy_text import PolicySource
from sluicegate.policy.strictness import Step, annotation_steps
from sluicegate.policy.tree import Expression, PolicyTree, Scope, Variable, clauses, paths, read_tree, text_of
from sluicegate.schemas.ids import PolicyId

Sign = Literal["+", "-", "~"]
_MORE: Final = "matches more"
_LESS: Final = "matches less"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a policy that was added, dropped or changed; `reach` says whether the policy matches more or less by
    it, as far as that can be told.
    """

    sign: Sign
    text: str
    reach: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChange:
    """A policy that is in one bundle only or says something else; places are `file:line`, None where it is not.

    `trees` are those of before and after, `steps` what changed of its annotations.
    """

    sign: Sign
    policy: PolicyId
    effect: str
    before: str | None
    after: str | None
    parts: tuple[Part, ...]
    steps: tuple[Step, ...]
    trees: tuple[PolicyTree | None, PolicyTree | None]

    @property
    def obligations(self) -> tuple[Step, ...]:
        """What of the obligations of answers goes another way.

        Those of a policy that comes or goes count only where it grants nothing: else it is granting that comes or goes.
        """
        tree = self.trees[0] or self.trees[1]
        grants = tree is None or {name for _, name in tree.action.entities} != {"shape"}
        return () if self.sign != "~" and grants else self.steps


def policy_changes(old: Bundle, new: Bundle) -> tuple[PolicyChange, ...]:
    """Every policy that differs, by id."""
    found = (_change(old.policies.get(each), new.policies.get(each)) for each in sorted({*old.policies, *new.policies}))
    return tuple(each for each in found if each is not None)


def _change(old: PolicySource | None, new: PolicySource | None) -> PolicyChange | None:
    known = new if new is not None else old
    assert known is not None
    before, after = (None if each is None else read_tree(each) for each in (old, new))
    parts: tuple[Part, ...] = ()
    sign: Sign = "+" if old is None else "-"
    if before is not None and after is not None:
        if before.to_json() == after.to_json():
            return None
        sign, parts = "~", tuple(_parts(before, after))
    return PolicyChange(
        sign=sign,
        policy=known.id,
        effect="forbid" if known.forbids else "permit",
        before=None if old is None else old.place(),
        after=None if new is None else new.place(),
        parts=parts,
        steps=annotation_steps(*({} if each is None else each.annotations for each in (old, new))),
        trees=(before, after),
    )


def _parts(old: PolicyTree, new: PolicyTree) -> Iterator[Part]:
    if old.effect != new.effect:
        yield Part(sign="~", text=f"{old.effect} -> {new.effect}")
    for (variable, before), (_, after) in zip(old.scopes(), new.scopes(), strict=True):
        if before != after:
            text = f"{_scope_text(variable, before)} -> {_scope_text(variable, after)}"
            reach = _MORE if after.op == "All" else _LESS if before.op == "All" else ""
            yield Part(sign="~", text=text, reach=reach)
    different = False
    for kind in ("when", "unless"):
        for part in _clauses(kind, _by_text(old, kind), _by_text(new, kind)):
            different = True
            yield part
    if not different and [each.body for each in old.conditions] != [each.body for each in new.conditions]:
        yield Part(sign="~", text="the same clauses stand in another order or grouping")


def _scope_text(variable: Variable, scope: Scope) -> str:
    said = scope.expression(variable)
    return f"any {variable}" if said is None else text_of(said)


def _by_text(tree: PolicyTree, kind: str) -> Mapping[str, Sequence[Expression]]:
    """Every clause of the conditions of one kind, by its text."""
    found: dict[str, list[Expression]] = {}
    for condition in tree.conditions:
        if condition.kind == kind:
            for clause in clauses(condition):
                found.setdefault(text_of(clause), []).append(clause)
    return found


def _clauses(
    kind: str, old: Mapping[str, Sequence[Expression]], new: Mapping[str, Sequence[Expression]]
) -> Iterator[Part]:
    """Clauses that came and went; two that look at the same of a request are one that changed."""
    counts = [Counter({text: len(each) for text, each in found.items()}) for found in (old, new)]
    gone, come = list((counts[0] - counts[1]).elements()), list((counts[1] - counts[0]).elements())
    for text in gone:
        looks_at = paths(old[text][0])
        changed = next((each for each in come if paths(new[each][0]) == looks_at), None)
        if changed is not None:
            come.remove(changed)
            yield Part(sign="~", text=f"{kind} {text} -> {changed}")
        else:
            yield Part(sign="-", text=f"{kind} {text}", reach=_MORE if kind == "when" else "")
    for text in come:
        yield Part(sign="+", text=f"{kind} {text}", reach=_LESS if kind == "when" else "")
