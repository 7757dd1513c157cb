"""Policies go in, conditions that are never true or always true come out: windows that close before they open."""

from collections.abc import Iterator, Mapping, Sequence

from sluicegate.policy.boxes import boxes
from sluicegate.policy.findings import Finding, Severity
from sluicegate.policy.overlap import Known
from sluicegate.policy.places import condition_line
from sluicegate.policy.tree import Expression, paths, text_of


def never_true(policies: Sequence[Known]) -> Iterator[Finding]:
    """Whole policies, and parts of their conditions, that no request can make true; alternatives that all are."""
    for policy in policies:
        parts = [*_parts(policy)]
        yield from parts
        if not policy.matched and not any(each.code == "never-true" for each in parts):
            yield Finding(
                severity=Severity.ERROR,
                code="never-true",
                file=policy.source.file,
                line=policy.source.line,
                text=f"`{policy.source.id}` matches no request: its scope and conditions exclude each other",
                fix="correct the conditions, or remove the policy",
            )


def _parts(policy: Known) -> Iterator[Finding]:
    for index, condition in enumerate(policy.tree.conditions):
        line = condition_line(policy.source, index)
        for part, holds in _settled(condition.body):
            exempts = condition.kind == "unless" and part is condition.body and not holds
            yield Finding(
                severity=Severity.WARNING if holds else Severity.ERROR,
                code="always-true" if holds else "never-true",
                file=policy.source.file,
                line=line,
                text=f"`{text_of(part)}` in `{policy.source.id}` is {'always' if holds else 'never'} true"
                + (", so it exempts nothing" if exempts else ""),
                fix=_fix(part, holds=holds),
            )


def _settled(expression: Expression) -> Iterator[tuple[Expression, bool]]:
    """The outermost parts of which it is known whether they hold. Alone, only `||` can be always true by mistake."""
    if not boxes(expression):
        yield expression, False
    elif "||" in expression and not boxes(expression, holds=False):
        yield expression, True
    else:
        for inner in _operands(expression):
            yield from _settled(inner)


def _operands(expression: Expression) -> Iterator[Expression]:
    """What stands between the connectives of an expression."""
    ((operator, operands),) = expression.items()
    if operator in ("&&", "||", "!", "if-then-else") and isinstance(operands, Mapping):
        yield from operands.values()


def _fix(part: Expression, *, holds: bool) -> str:
    if holds:
        return "join what must hold together with `&&`"
    if "context.clock.hour" in paths(part):
        return "join the ends of a window over midnight with `||`; `hour` is UTC, 0 to 23"
    if "context.clock.weekday" in paths(part):
        return "correct the days; `weekday` is 0 (Monday) to 6"
    return "correct the comparison, or remove it"
