"""The audit goes in, what candidates would have said of what was decided comes out: figures, fields, reasons, examples.

Only outcomes that quote their decision as the audit has it are counted; the others are told apart, as is what somebody
without the stage's key wrote to the topic.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final, TypedDict

from sluicegate.sinks.auditor import Auditor

CANDIDATES_MAX: Final = 20
ROWS_MAX: Final = 1_000
EXAMPLES_MAX: Final = 5
_TRUE: Final = "ifNull(as_decided, 0) = 1"
_DECIDED: Final = f"status = 'DECIDED' AND {_TRUE}"
_FIGURES: Final = (
    "count(), countIf(difference = 'SAME'), countIf(difference = 'TIGHTENED'), countIf(difference = 'LOOSENED'), "
    "countIf(difference = 'OTHER'), countIf(active_verdict = 'DENY' AND shadow_verdict = 'ALLOW'), "
    "countIf(active_verdict = 'ALLOW' AND shadow_verdict = 'DENY')"
)
_GROUPS: Final = {
    "role": "arrayJoin(if(empty(roles), ['(none)'], roles))",
    "purpose": "ifNull(purpose, '(none)')",
    "model": "ifNull(model, '(none)')",
}
_PAIR: Final = "ifNull(candidate_digest, ''), ifNull(candidate_version, 0), ifNull(bundle_digest, '')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How many requests were decided in shadow, and how many of them differ in which way."""

    decided: int
    same: int
    tightened: int
    loosened: int
    other: int
    newly_allowed: int
    newly_denied: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The figures of one role, purpose or model. Who has several roles counts in each."""

    kind: str
    name: str
    figures: Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One request that differs: `sluicegate audit show DECISION` tells its story. `before` and `after` are codes."""

    decision: str
    difference: str
    before: str
    after: str
    policies: tuple[str, ...]
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One candidate beside one active bundle. `newly_readable`: fields, with the number of requests in whose prompt
    each would have been; `examples`: at most `EXAMPLES_MAX` of each kind of difference.
    """

    candidate_digest: str
    candidate_version: int
    bundle_digest: str
    first: str
    last: str
    figures: Figures
    newly_readable: tuple[tuple[str, int], ...]
    groups: tuple[Group, ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A reason why a candidate that was to be asked could not, how often, and one decision of it."""

    reason: str
    count: int
    decision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowReport:
    """`not_asked`: decisions for which the gate asked no bundle either. `misquoting`: decision ids of sealed outcomes
    that say of their decision what the audit does not: whoever sealed them is not to be believed. `not_landed`:
    outcomes whose decision the audit does not have yet. `foreign`: records without effect on the topic, by reason.
    """

    compared: tuple[Compared, ...]
    not_asked: int
    failures: tuple[Failure, ...]
    misquoting: tuple[str, ...]
    misquoting_count: int
    not_landed: int
    foreign: tuple[tuple[str, int], ...]

    def as_json(self) -> dict[str, object]:
        """The report for machines."""
        return asdict(self)


class _Rest(TypedDict):
    """What is told of all candidates together."""

    not_asked: int
    failures: tuple[Failure, ...]
    misquoting: tuple[str, ...]
    misquoting_count: int
    not_landed: int
    foreign: tuple[tuple[str, int], ...]


def shadow_report(auditor: Auditor) -> ShadowReport:
    """Everything the audit knows of candidates, the one that decided last first.

    Raises:
        QuestionRefused, Unavailable: as `Auditor.sql`.
    """
    pairs = auditor.sql(
        f"SELECT {_PAIR}, toString(min(time)), toString(max(time)), {_FIGURES} FROM shadow_outcomes "  # noqa: S608
        f"WHERE {_DECIDED} GROUP BY candidate_digest, candidate_version, bundle_digest "
        f"ORDER BY max(time) DESC, candidate_version DESC, bundle_digest LIMIT {CANDIDATES_MAX}"
    ).rows
    fields = _by_pair(
        auditor,
        f"SELECT {_PAIR}, arrayJoin(newly_readable) AS field, count() AS requests FROM shadow_outcomes "  # noqa: S608
        f"WHERE {_DECIDED} GROUP BY candidate_digest, candidate_version, bundle_digest, field "
        f"ORDER BY requests DESC, field LIMIT {ROWS_MAX}",
    )
    groups = {
        kind: _by_pair(
            auditor,
            f"SELECT {_PAIR}, {name} AS name, {_FIGURES} FROM shadow_outcomes WHERE {_DECIDED} "  # noqa: S608
            f"GROUP BY candidate_digest, candidate_version, bundle_digest, name ORDER BY name LIMIT {ROWS_MAX}",
        )
        for kind, name in _GROUPS.items()
    }
    examples = _by_pair(
        auditor,
        f"SELECT {_PAIR}, ifNull(decision_id, ''), difference, active_code, shadow_code, shadow_policies, "  # noqa: S608
        f"newly_readable FROM shadow_outcomes WHERE {_DECIDED} AND difference != 'SAME' "
        "ORDER BY length(newly_readable) DESC, time, decision_id "
        f"LIMIT {EXAMPLES_MAX} BY candidate_digest, candidate_version, bundle_digest, difference LIMIT {ROWS_MAX}",
    )
    return ShadowReport(
        compared=tuple(
            Compared(
                candidate_digest=str(row[0]),
                candidate_version=_int(row[1]),
                bundle_digest=str(row[2]),
                first=str(row[3]),
                last=str(row[4]),
                figures=_figures(row[5:]),
                newly_readable=tuple((str(each[0]), _int(each[1])) for each in fields.get(row[:3], ())),
                groups=tuple(
                    Group(kind=kind, name=str(each[0]), figures=_figures(each[1:]))
                    for kind, found in groups.items()
                    for each in found.get(row[:3], ())
                ),
                examples=tuple(_example(each) for each in examples.get(row[:3], ())),
            )
            for row in pairs
        ),
        **_rest(auditor),
    )


def _rest(auditor: Auditor) -> _Rest:
    (counts,) = auditor.sql(
        f"SELECT countIf(status = 'NOT_ASKED' AND {_TRUE}), countIf(as_decided = 0), "  # noqa: S608
        "countIf(isNull(as_decided)) FROM shadow_outcomes"
    ).rows
    failures = auditor.sql(
        "SELECT ifNull(reason, ''), count() AS failures, any(ifNull(decision_id, '')) FROM shadow_outcomes "  # noqa: S608
        f"WHERE status = 'FAILED' AND {_TRUE} GROUP BY reason ORDER BY failures DESC, reason LIMIT {ROWS_MAX}"
    ).rows
    misquoting = auditor.sql(
        "SELECT ifNull(decision_id, '') AS decision FROM shadow_outcomes WHERE as_decided = 0 "  # noqa: S608
        f"ORDER BY epoch DESC, partition, offset LIMIT {EXAMPLES_MAX}"
    ).rows
    foreign = auditor.sql(
        "SELECT ifNull(void_reason, ''), count() AS records FROM shadow WHERE effective = 0 "  # noqa: S608
        f"GROUP BY void_reason ORDER BY records DESC, void_reason LIMIT {ROWS_MAX}"
    ).rows
    return {
        "not_asked": _int(counts[0]),
        "misquoting_count": _int(counts[1]),
        "not_landed": _int(counts[2]),
        "failures": tuple(Failure(reason=str(row[0]), count=_int(row[1]), decision=str(row[2])) for row in failures),
        "misquoting": tuple(str(row[0]) for row in misquoting),
        "foreign": tuple((str(row[0]), _int(row[1])) for row in foreign),
    }


def _by_pair(auditor: Auditor, sql: str) -> dict[tuple[object, ...], list[tuple[object, ...]]]:
    """The rows of a question whose first three columns are the pair, by the pair."""
    found: dict[tuple[object, ...], list[tuple[object, ...]]] = {}
    for row in auditor.sql(sql).rows:
        found.setdefault(tuple(row[:3]), []).append(tuple(row[3:]))
    return found


def _figures(row: Iterable[object]) -> Figures:
    decided, same, tightened, loosened, other, allowed, denied = (_int(each) for each in row)
    return Figures(
        decided=decided,
        same=same,
        tightened=tightened,
        loosened=loosened,
        other=other,
        newly_allowed=allowed,
        newly_denied=denied,
    )


def _example(row: tuple[object, ...]) -> Example:
    decision, difference, before, after, policies, fields = row
    return Example(
        decision=str(decision),
        difference=str(difference),
        before=str(before),
        after=str(after),
        policies=_names(policies),
        fields=_names(fields),
    )


def _names(value: object) -> tuple[str, ...]:
    return tuple(str(each) for each in value) if isinstance(value, list | tuple) else ()


def _int(value: object) -> int:
    return int(str(value))
