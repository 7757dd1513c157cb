"""What a candidate bundle would have said, as a frozen dataclass; `avro/` documents each field. It has no effect, so
what takes any event of a request's way does not take this one.
"""

from dataclasses import dataclass
from enum import StrEnum

from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import Source, Verdict


class ShadowStatus(StrEnum):
    """Whether a candidate was asked of a decision."""

    DECIDED = "DECIDED"
    NOT_ASKED = "NOT_ASKED"
    FAILED = "FAILED"
    PASSED = "PASSED"


class Difference(StrEnum):
    """How what a candidate says differs from what was decided; `enforcer.shadow` says what each means."""

    SAME = "SAME"
    TIGHTENED = "TIGHTENED"
    LOOSENED = "LOOSENED"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One of two answers to a request. `obligations`: digest of their names and values, whichever policies they come
    from.
    """

    verdict: Verdict
    code: Code
    determining: tuple[str, ...]
    obligations: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowDecided:
    """What a candidate bundle would have said of a request, beside what was decided; it has no effect."""

    source: Source
    status: ShadowStatus
    reason: str | None = None
    decision_id: str | None = None
    request_id: str | None = None
    time_ms: int | None = None
    bundle_digest: str | None = None
    candidate_digest: str | None = None
    candidate_version: int | None = None
    active: Said | None = None
    shadow: Said | None = None
    difference: Difference | None = None
    newly_readable: tuple[str, ...] = ()
