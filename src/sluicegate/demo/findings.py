"""The audit of one epoch goes in, what became of each row and the figures of the summary come out: nothing is told from
memory.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sluicegate.demo.attacks import FORGERIES
from sluicegate.demo.cases import Row
from sluicegate.demo.drive import Sent
from sluicegate.demo.judged import decided_part
from sluicegate.enforcer.bundle import Bundle, load_bundle
from sluicegate.enforcer.directory import Directory, load_directory
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.errors import SluicegateError, Unavailable
from sluicegate.schemas.events import DecisionMade, PolicyVersion, ReleaseMade, Verdict
from sluicegate.sinks.auditor import Auditor, literal

LANDING_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.1
LANDED_SQL: Final = """SELECT
    (SELECT count() FROM releases WHERE effective = 1 AND request_offset IS NOT NULL AND epoch = {epoch}),
    (SELECT count() FROM decisions WHERE effective = 0 AND epoch = {epoch}),
    (SELECT count() FROM coverage WHERE epoch = {epoch})"""
# A forged record takes the place that the enforcer sealed its next slice for: that slice is void, and written again.
DISPLACED: Final = "sealed for another offset"
SENT_BEFORE_SQL: Final = """SELECT count() FROM decisions
WHERE effective = 1 AND epoch = {epoch} AND startsWith(ifNull(request_id, ''), 'demo-')"""
COUNTS_SQL: Final = """SELECT
    (SELECT count() FROM requests WHERE epoch = {epoch}) AS requests,
    (SELECT count() FROM releases WHERE effective = 1 AND outcome = 'RELEASED' AND epoch = {epoch}) AS answered,
    (SELECT count() FROM decisions WHERE effective = 1 AND verdict = 'DENY' AND epoch = {epoch}) AS denied,
    (SELECT countIf(void_reason != '{displaced}') FROM decisions
     WHERE effective = 0 AND epoch = {epoch}) AS refused_as_forged,
    (SELECT countIf(void_reason = '{displaced}') FROM decisions WHERE effective = 0 AND epoch = {epoch}) AS displaced,
    (SELECT countIf(endsWith(topic, 'requests')) FROM dead_letters WHERE epoch = {epoch}) AS dead_letters,
    (SELECT sum(last_offset - first_offset + 1) FROM coverage WHERE epoch = {epoch}) AS lost,
    (SELECT count() FROM inferences_without_one_allow WHERE epoch = {epoch}) AS inferences_without_an_allow"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A row, the decision that the audit holds for it and the release that came back; forged grants have neither."""

    row: Row
    decision: DecisionMade | None
    release: ReleaseMade | None

    @property
    def verdict(self) -> str:
        """ALLOW, DENY or, for grants that nobody decided, FORGED."""
        return Code.FORGED.value if self.decision is None else self.decision.verdict.value

    @property
    def answer(self) -> str | None:
        """What the requester saw of an answer."""
        return None if self.release is None else self.release.text

    def as_json(self) -> dict[str, object]:
        """In the form of `expected.yaml`, and where it stands."""
        start: dict[str, object] = {"row": self.row.row, "verdict": self.verdict}
        decision, release = self.decision, self.release
        if decision is None:
            return {**start, "code": Code.FORGED.value}
        found = {
            **start,
            "request_id": decision.request_id,
            "decision_id": decision.decision_id,
            "reason": decision.reason if decision.verdict is Verdict.DENY else None,
            **decided_part(
                code=decision.code.value,
                determining=decision.determining,
                rulings=decision.rulings,
                obligations=decision.obligations,
                withheld=decision.withheld,
                clamps=decision.clamps,
                aliases=decision.aliases,
            ),
        }
        if release is None:
            return found
        return {
            **found,
            "outcome": release.outcome.value,
            "redacted": sorted({each.redaction_class for each in release.redactions}),
            "unsupported": release.unsupported,
            "answer": release.text,
            "finish": release.finish,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The figures of the summary line, each from the audit."""

    requests: int
    answered: int
    denied: int
    refused_as_forged: int
    displaced: int
    dead_letters: int
    lost: int
    inferences_without_an_allow: int


def wait_until_landed(auditor: Auditor, epoch: int, sent: Sequence[Sent]) -> None:
    """Waits until the audit holds the release of every request and every forged grant, and nothing is under way.

    Raises:
        Unavailable: it does not within a minute.
    """
    due = sum(each.key is not None for each in sent)
    forged = FORGERIES * (len(sent) - due)
    deadline = time.monotonic() + LANDING_TIMEOUT_S
    while True:
        row = auditor.sql(LANDED_SQL.format(epoch=epoch)).rows[0]
        landed = _number(row[0]) >= due and _number(row[1]) >= forged
        late = time.monotonic() > deadline
        if landed and (late or not _number(row[2])):  # what is still uncovered by then is lost, and told as lost
            return
        if late:
            raise Unavailable(f"the audit holds {row[0]} of {due} releases after {LANDING_TIMEOUT_S:g} s; see its log")
        time.sleep(POLL_S)


def findings(auditor: Auditor, epoch: int, sent: Sequence[Sent]) -> tuple[Finding, ...]:
    """The decision of every row, from the audit.

    Raises:
        SluicegateError: the audit lacks one.
    """
    rows = auditor.sql(
        f"SELECT partition, source_offset, hex(value) FROM decisions WHERE effective = 1 AND epoch = {epoch}"  # noqa: S608
    ).rows
    decisions = {(_number(partition), _number(offset)): str(value) for partition, offset, value in rows}
    found = []
    for each in sent:
        decision = None
        if each.key is not None:
            value = decisions.get((each.key.partition, each.key.offset))
            if value is None:
                raise SluicegateError(f"the audit holds no decision for row {each.row.row}: see the log of the sink")
            decision = codec.decode(bytes.fromhex(value), DecisionMade)
        found.append(Finding(row=each.row, decision=decision, release=each.release))
    return tuple(found)


def decision_of(auditor: Auditor, decision_id: str) -> DecisionMade:
    """One decision, as soon as the audit holds it.

    Raises:
        Unavailable: it does not within a minute.
    """
    deadline = time.monotonic() + LANDING_TIMEOUT_S
    sql = f"SELECT hex(value) FROM decisions WHERE effective = 1 AND decision_id = {literal(decision_id)}"  # noqa: S608
    while not (rows := auditor.sql(sql).rows):
        if time.monotonic() > deadline:
            raise Unavailable(f"the audit does not hold `{decision_id}` after {LANDING_TIMEOUT_S:g} s; see its log")
        time.sleep(POLL_S)
    return codec.decode(bytes.fromhex(str(rows[0][0])), DecisionMade)


def counts(auditor: Auditor, epoch: int) -> Counts:
    """The figures of one epoch."""
    result = auditor.sql(COUNTS_SQL.format(epoch=epoch, displaced=DISPLACED))
    figures = dict(zip(result.columns, (_number(value) for value in result.rows[0]), strict=True))
    return Counts(**figures)


def rows_before(auditor: Auditor, epoch: int) -> int:
    """How many rows of the demo this epoch has decided already."""
    return _number(auditor.sql(SENT_BEFORE_SQL.format(epoch=epoch)).rows[0][0])


def policy_of(auditor: Auditor, version: PolicyVersion) -> tuple[Bundle, Directory]:
    """The bundle and the directory that made a decision, as the audit holds them.

    Raises:
        Unavailable: it does not hold them within a minute.
    """
    bundle = load_bundle(_content(auditor, version.bundle_digest))
    return bundle, load_directory(_content(auditor, version.directory_digest), bundle)


def _content(auditor: Auditor, digest: str) -> bytes:
    deadline = time.monotonic() + LANDING_TIMEOUT_S
    sql = f"SELECT hex(content) FROM policy WHERE effective = 1 AND content_digest = {literal(digest)} LIMIT 1"  # noqa: S608
    while not (rows := auditor.sql(sql).rows):
        if time.monotonic() > deadline:
            raise Unavailable(f"the audit does not hold the policy `{digest}`; see the log of the sink")
        time.sleep(POLL_S)
    return bytes.fromhex(str(rows[0][0]))


def _number(value: object) -> int:
    """A count; a sum over nothing is none."""
    return int(str(value)) if value is not None else 0
