"""The grant: the only thing that starts a model call, and the only way to get one is an effective allow.

Checks 10 of the way through the house. The type guards against mistakes, not against code that runs in the runner's
process.
"""

from typing import Final

from sluicegate.enforcer.seal import Effective, Void, source_digest
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import DecisionMade, Granted, Source, Verdict
from sluicegate.schemas.records import Record

_MINT: Final = object()


class Grant:
    """An allow that is effective, with the source that its generation must name. Made by `verify_grant` alone."""

    __slots__ = ("decision", "granted", "source")

    def __init__(self, mint: object, decision: DecisionMade, granted: Granted, source: Source) -> None:
        if mint is not _MINT:
            raise TypeError("a grant is made by `verify_grant` from an effective allow, and by nothing else")
        self.decision = decision
        self.granted = granted
        self.source = source


class Passed:
    """An effective denial, or a record without effect: there is nothing to generate, and why."""

    __slots__ = ("code", "decision_id", "denied", "source")

    def __init__(self, *, code: Code, denied: bool, source: Source, decision_id: str | None) -> None:
        self.code = code
        self.denied = denied
        self.source = source
        self.decision_id = decision_id


def source_of(record: Record) -> Source:
    """The source that an output for `record` names."""
    return Source(
        offset=record.offset,
        count=1,
        digest=source_digest(record.key, record.value),
        timestamp_ms=record.timestamp_ms,
    )


def verify_grant(verdict: Effective | Void) -> Grant | Passed:
    """10 verify the grant: an effective allow becomes a grant; anything else passes without a model call.

    Raises:
        CodecError: an effective decision that cannot be decoded: the enforcer's key signed nonsense, which is a bug.
    """
    source = source_of(verdict.record)
    if isinstance(verdict, Void):
        return Passed(code=Code.FORGED, denied=False, source=source, decision_id=None)
    decision = codec.decode(verdict.record.value, DecisionMade)
    if decision.verdict is not Verdict.ALLOW:
        return Passed(code=decision.code, denied=True, source=source, decision_id=decision.decision_id)
    if decision.granted is None or not decision.prompt or decision.code is not Code.OK:
        return Passed(code=Code.FORGED, denied=False, source=source, decision_id=decision.decision_id)
    return Grant(_MINT, decision, decision.granted, source)
