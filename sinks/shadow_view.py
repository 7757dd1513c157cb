"""A report on candidates goes in, its lines for people come out."""

from collections.abc import Iterator

from sluicegate.sinks.shadow_report import Compared, Figures, ShadowReport


def report_lines(found: ShadowReport) -> Iterator[str]:
    """The report for people."""
    if not found.compared:
        yield "no request was decided in shadow yet"
    for each in found.compared:
        yield from _compared(each)
    if found.not_asked:
        yield f"not asked: {found.not_asked} requests that ended before any bundle was asked"
    if found.not_landed:
        yield f"not counted yet: {found.not_landed} outcomes whose decision has not landed in the audit"
    for failure in found.failures:
        yield f"FAILED {failure.count} times, as for {failure.decision}: {failure.reason}"
    if found.misquoting_count:
        yield (
            f"NOT BELIEVED: {found.misquoting_count} sealed outcomes say of their decision what the audit does not "
            f"({', '.join(found.misquoting)}): look at the key of the shadow stage"
        )
    for reason, count in found.foreign:
        yield f"WITHOUT EFFECT: {count} records on the topic ({reason}); they are not counted"


def _compared(each: Compared) -> Iterator[str]:
    yield f"candidate v{each.candidate_version} {each.candidate_digest}"
    yield f"   beside {each.bundle_digest}"
    yield f"  {each.figures.decided} requests decided in shadow, {each.first} to {each.last}"
    for field, count in each.newly_readable:
        yield f"  NEWLY READABLE {field} in {count} requests"
    yield f"  newly allowed {each.figures.newly_allowed}, newly denied {each.figures.newly_denied}"
    yield f"  {_differences(each.figures)}"
    for group in each.groups:
        yield f"    {group.kind} {group.name}: {group.figures.decided} decided, {_differences(group.figures)}"
    for example in each.examples:
        change = example.before if example.before == example.after else f"{example.before} to {example.after}"
        fields = f", reads {', '.join(example.fields)}" if example.fields else ""
        policies = f" by {', '.join(example.policies)}" if example.policies else ""
        yield f"  e.g. {example.decision} {example.difference.lower()}: {change}{policies}{fields}"


def _differences(figures: Figures) -> str:
    return f"same {figures.same}, tightened {figures.tightened}, loosened {figures.loosened}, other {figures.other}"
