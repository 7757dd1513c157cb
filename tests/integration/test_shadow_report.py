"""The report on candidates over an audit: what counts, what is told apart, and what is not believed."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from unit.sinks import heron

from sluicegate.schemas.codec import decode, encode
from sluicegate.schemas.codes import Code
from sluicegate.schemas.shadow_events import ShadowDecided, ShadowStatus
from sluicegate.sinks.auditor import LocalAuditor
from sluicegate.sinks.clickhouse import AuditConfig, AuditDatabase, open_audit
from sluicegate.sinks.rows import Landing, Table
from sluicegate.sinks.shadow_report import shadow_report
from sluicegate.sinks.shadow_view import report_lines
from sluicegate.sinks.sink import Sink


@pytest.fixture
def database(tmp_path: Path) -> Iterator[AuditDatabase]:
    with open_audit(AuditConfig(path=tmp_path / "audit")) as opened:
        yield opened


def land(database: AuditDatabase, **changed: list[Landing]) -> None:
    sink = Sink(database, heron.TOPICS)
    for table, landings in heron.company().landings.items():
        sink.land(heron.EPOCH, heron.topic(table), 0, changed.get(table.value, landings))


def test_what_quotes_its_decision_is_counted_and_the_rest_told_apart(database: AuditDatabase) -> None:
    land(database)
    found = shadow_report(LocalAuditor(database))
    (compared,) = found.compared
    # The edit lets everybody read pay: of those who asked, the intern could not before.
    assert asdict(compared.figures) == {
        "decided": 5, "same": 4, "tightened": 0, "loosened": 1, "other": 0, "newly_allowed": 0, "newly_denied": 0,
    }  # fmt: skip
    assert compared.newly_readable == (("people.salary", 1),)
    assert (compared.candidate_version, compared.candidate_digest == compared.bundle_digest) == (4, False)
    loosened = {(each.kind, each.name) for each in compared.groups if each.figures.loosened}
    assert loosened == {("role", "intern"), ("purpose", "people"), ("model", "smollm2")}
    assert [(each.decision, each.fields) for each in compared.examples] == [("d3-0-2", ("people.salary",))]
    assert found.not_asked == 1
    assert [(each.count, each.decision, each.reason) for each in found.failures] == [
        (1, "d3-0-0", "candidate 3 is not valid: `x`")
    ]
    assert (found.misquoting, found.misquoting_count, found.not_landed) == ((), 0, 0)
    assert found.foreign == (("no seal", 1),)
    assert json.loads(json.dumps(found.as_json()))["compared"][0]["figures"]["loosened"] == 1
    lines = list(report_lines(found))
    assert "  NEWLY READABLE people.salary in 1 requests" in lines
    assert "FAILED 1 times, as for d3-0-0: candidate 3 is not valid: `x`" in lines


def test_an_empty_audit_says_so(database: AuditDatabase) -> None:
    land(database, shadow=[])
    found = shadow_report(LocalAuditor(database))
    assert list(report_lines(found)) == ["no request was decided in shadow yet"]


def told(landing: Landing, number: int, **changes: object) -> Landing:
    """The outcome at another offset, with changes, sealed: by whoever has the stage's key."""
    event = replace(decode(landing.record.value, ShadowDecided), **changes)  # type: ignore[arg-type]
    return replace(landing, record=replace(landing.record, offset=number, value=encode(event)))


def test_an_outcome_that_misquotes_its_decision_is_not_counted(database: AuditDatabase) -> None:
    """A stolen key could make a candidate look harmless; the audit has the decision itself."""
    landings = heron.company().landings[Table.SHADOW]
    first = next(each for each in landings if decode(each.record.value, ShadowDecided).status is ShadowStatus.DECIDED)
    event = decode(first.record.value, ShadowDecided)
    assert event.active is not None
    lies = [
        told(first, 0),
        told(first, 1, active=replace(event.active, code=Code.POISON)),
        told(first, 2, active=replace(event.active, determining=("made-up",))),
        told(first, 3, decision_id="d3-0-0"),
        told(first, 4, bundle_digest="sha256:other"),
        told(first, 5, source=replace(event.source, offset=99)),
    ]
    land(database, shadow=lies)
    found = shadow_report(LocalAuditor(database))
    assert [each.figures.decided for each in found.compared] == [1], "the control: one is told as it was"
    assert (found.misquoting_count, len(found.misquoting), found.not_landed) == (4, 4, 1)
    assert any("NOT BELIEVED: 4 sealed outcomes" in line for line in report_lines(found))
