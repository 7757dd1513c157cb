"""What a replay found, as data, as JSON for machines and as lines for people; fields first, since they leak without a
verdict.

Also the only place that reads `--fail-on`: `newly-readable>0`.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from sluicegate.schemas.errors import ConfigurationError

_EXPRESSION: Final = re.compile(r"\s*([a-z-]+)\s*(>=|==|>)\s*(\d{1,9})\s*")
_SHOWN_MAX: Final = 20
_TEXT_MAX: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """A field that one request would read, or no longer read. `policies` permit it, or did; `places` are theirs in the
    candidate; `text` is what the request held in it and stays out of the JSON.
    """

    field: str
    principal: str
    request: str
    policies: tuple[str, ...]
    places: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictChange:
    """A request whose verdict would be another; `before` and `after` are codes."""

    request: str
    principal: str
    model: str
    before: str
    after: str
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObligationChange:
    """An obligation of a request that stays allowed, with its value and policies before and after."""

    request: str
    principal: str
    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`decided` counts rulings; `mismatches` names what its own bundle decides otherwise today: it must be empty.
    `settled` counts, by code, requests that ended before a bundle was asked: no candidate would change them.
    `prompts_changed` names requests whose prompt would be another; `files_changed` are files of the bundle
    beside policies.
    """

    candidate: str
    recorded: tuple[str, ...]
    requests: int
    decided: int
    mismatches: tuple[str, ...]
    not_replayable: dict[str, int]
    settled: dict[str, int]
    newly_readable: tuple[FieldChange, ...]
    no_longer_readable: tuple[FieldChange, ...]
    newly_allowed: tuple[VerdictChange, ...]
    newly_denied: tuple[VerdictChange, ...]
    obligations_changed: tuple[ObligationChange, ...]
    prompts_changed: tuple[str, ...]
    files_changed: tuple[str, ...]

    def metrics(self) -> dict[str, int]:
        """The figures that `--fail-on` may name."""
        return {
            "newly-readable": len(self.newly_readable),
            "no-longer-readable": len(self.no_longer_readable),
            "newly-allowed": len(self.newly_allowed),
            "newly-denied": len(self.newly_denied),
            "obligations-changed": len(self.obligations_changed),
            "prompts-changed": len(self.prompts_changed),
            "mismatches": len(self.mismatches),
            "not-replayable": sum(self.not_replayable.values()),
        }

    def changes_nothing(self) -> bool:
        """Whether history would have gone the same way, as far as it could be replayed."""
        return not any(self.metrics().values()) and not self.files_changed

    def as_json(self) -> dict[str, object]:
        """The report for machines; no value of a field is in it."""
        return {
            "candidate": self.candidate,
            "recorded": list(self.recorded),
            "requests": self.requests,
            "decided": self.decided,
            "metrics": self.metrics(),
            "mismatches": list(self.mismatches),
            "not_replayable": self.not_replayable,
            "settled": self.settled,
            "newly_readable": [_field_json(each) for each in self.newly_readable],
            "no_longer_readable": [_field_json(each) for each in self.no_longer_readable],
            "newly_allowed": [_verdict_json(each) for each in self.newly_allowed],
            "newly_denied": [_verdict_json(each) for each in self.newly_denied],
            "prompts_changed": list(self.prompts_changed),
            "files_changed": list(self.files_changed),
            "obligations_changed": [
                {
                    "request": each.request,
                    "principal": each.principal,
                    "name": each.name,
                    "before": each.before,
                    "after": each.after,
                }
                for each in self.obligations_changed
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FailOn:
    """A limit on one metric: `metric operator number`."""

    metric: str
    operator: str
    number: int

    def broken_by(self, report: Report) -> str | None:
        """What to say where the report is beyond the limit, else None."""
        found = report.metrics()[self.metric]
        beyond = {">": found > self.number, ">=": found >= self.number, "==": found == self.number}[self.operator]
        return f"FAIL {self.metric} {found} {self.operator} {self.number}" if beyond else None


_METRICS: Final = (
    "newly-readable", "no-longer-readable", "newly-allowed", "newly-denied", "obligations-changed", "prompts-changed",
    "mismatches", "not-replayable",
)  # fmt: skip


def fail_on(expression: str) -> FailOn:
    """Reads `newly-readable>0`: a metric, `>`, `>=` or `==`, and a number.

    Raises:
        ConfigurationError: it is not of that form.
    """
    found = _EXPRESSION.fullmatch(expression)
    if found is None or found[1] not in _METRICS:
        raise ConfigurationError(
            f"`{expression}` is no limit; write a metric ({', '.join(_METRICS)}), `>`, `>=` or `==`, and a number"
        )
    return FailOn(metric=found[1], operator=found[2], number=int(found[3]))


def render(report: Report) -> Text:
    """The report for people: fields, then answers, then verdicts, obligations, and what could not be replayed."""
    lines = [*_counted(report), *_fields(report), *_verdicts(report), *_obligations(report), *_prompts(report)]
    if report.changes_nothing():
        lines.append(("nothing would change", "green"))
    return Text("\n").join(Text(f" {line}", style=style) for line, style in lines)


def _counted(report: Report) -> Iterator[tuple[str, str]]:
    equal = report.decided - len(report.mismatches)
    yield (
        (
            f"{report.decided} rulings of {report.requests} requests decided again "
            f"(as recorded {equal}/{report.decided}, {sum(report.not_replayable.values())} not replayable)"
        ),
        "bold",
    )
    for reason, count in sorted(report.not_replayable.items()):
        yield f"not replayable {count}: {reason}", "yellow"
    if report.settled:
        told = ", ".join(f"{code} {count}" for code, count in sorted(report.settled.items()))
        yield f"settled {sum(report.settled.values())} before a bundle is asked, whatever it says: {told}", ""
    if report.mismatches:
        yield (
            (
                f"MISMATCH: {len(report.mismatches)} differ under their own bundle, first {report.mismatches[0]}; "
                "do not rely on the rest"
            ),
            "bold red",
        )


def _fields(report: Report) -> Iterator[tuple[str, str]]:
    for label, changes, style in (
        ("newly readable", report.newly_readable, "bold red"),
        ("no longer readable", report.no_longer_readable, "yellow"),
    ):
        yield f"fields     {label} {len(changes)}", style if changes else ""
        for each in changes[:_SHOWN_MAX]:
            by = ", ".join(each.policies) + (f" ({', '.join(each.places)})" if each.places else "")
            yield f"             {each.field}  {each.principal}  request {each.request}  by {by or 'no policy'}", style
        yield from _rest(changes)
    for each in report.newly_readable[:_SHOWN_MAX]:
        if each.text:
            shown = each.text if len(each.text) <= _TEXT_MAX else each.text[:_TEXT_MAX] + "..."
            yield f'answers    request {each.request} would have been asked with "{shown}" in the prompt', "red"


def _verdicts(report: Report) -> Iterator[tuple[str, str]]:
    yield f"requests   newly allowed {len(report.newly_allowed)}   newly denied {len(report.newly_denied)}", ""
    for sign, changes in (("+", report.newly_allowed), ("-", report.newly_denied)):
        for each in changes[:_SHOWN_MAX]:
            by = ", ".join(each.policies) or "no policy"
            yield (
                f"           {sign} request {each.request}  {each.principal}  {each.before} -> {each.after}  by {by}",
                "yellow",
            )
        yield from _rest(changes)


def _obligations(report: Report) -> Iterator[tuple[str, str]]:
    changes = report.obligations_changed
    if not changes:
        yield "obligations  changed 0", ""
        return
    names = Counter(each.name for each in changes)
    yield (
        f"obligations  changed {len(changes)}: {', '.join(f'{name} {count}' for name, count in names.most_common())}",
        "yellow",
    )
    for each in changes[:_SHOWN_MAX]:
        yield f"             {each.name}  request {each.request}  {each.before} -> {each.after}", "yellow"
    yield from _rest(changes)


def _prompts(report: Report) -> Iterator[tuple[str, str]]:
    shown = ", ".join(report.prompts_changed[:_SHOWN_MAX])
    yield f"prompts    changed {len(report.prompts_changed)}" + (f": {shown}" if shown else ""), ""
    if report.files_changed:
        yield (
            f"files      {', '.join(report.files_changed)} differ; what they do to an answer is not replayed",
            "yellow",
        )


def _rest(changes: tuple[object, ...]) -> Iterator[tuple[str, str]]:
    if len(changes) > _SHOWN_MAX:
        yield f"             and {len(changes) - _SHOWN_MAX} more; see --json", ""


def _field_json(change: FieldChange) -> dict[str, object]:
    return {
        "field": change.field,
        "principal": change.principal,
        "request": change.request,
        "policies": list(change.policies),
        "places": list(change.places),
    }


def _verdict_json(change: VerdictChange) -> dict[str, object]:
    return {
        "request": change.request,
        "principal": change.principal,
        "model": change.model,
        "before": change.before,
        "after": change.after,
        "policies": list(change.policies),
    }
