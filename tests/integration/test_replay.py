"""History is decided again, truly, and a change that flips no verdict is found."""

import io
from collections.abc import Iterator
from dataclasses import replace

import cedarpy
import pytest
from rich.console import Console
from unit.sinks import heron
from unit.sinks.replaying import again

from sluicegate.enforcer.bundle import bundle_content
from sluicegate.schemas.errors import InvalidBundle
from sluicegate.schemas.records import Record
from sluicegate.sinks.auditor import LocalAuditor
from sluicegate.sinks.clickhouse import AuditConfig, AuditDatabase, open_audit
from sluicegate.sinks.replay_report import fail_on, render
from sluicegate.sinks.rows import Landing, Table
from sluicegate.sinks.sink import Sink

MODEL = 'Model::"smollm2"'


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditDatabase]:
    with open_audit(AuditConfig(path=tmp_path_factory.mktemp("replay") / "audit")) as opened:
        sink = Sink(opened, heron.TOPICS)
        for table, landings in heron.company().landings.items():
            sink.land(heron.EPOCH, heron.topic(table), 0, landings)
        yield opened


@pytest.fixture
def auditor(database: AuditDatabase) -> LocalAuditor:
    return LocalAuditor(database)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The action of every question that the engine was asked."""
    calls: list[str] = []
    genuine = cedarpy.is_authorized

    def counting(request: dict[str, dict[str, str]], *rest: object) -> object:
        calls.append(request["action"]["id"])
        return genuine(request, *rest)

    monkeypatch.setattr(cedarpy, "is_authorized", counting)
    return calls


def edited(old: str, new: str, file: str) -> bytes:
    files = heron.policy_files()
    assert files[file].count(old) == 1
    return bundle_content(files | {file: files[file].replace(old, new)})


def test_an_unchanged_bundle_changes_nothing_and_every_row_was_decided_again(
    auditor: LocalAuditor, asked: list[str]
) -> None:
    progress: list[tuple[int, int]] = []
    report = again(auditor, heron.BUNDLE, progress=lambda done, total: progress.append((done, total)))
    assert report.changes_nothing()
    assert report.decided == 18
    assert report.requests == 6
    assert report.settled == {"POISON": 1}
    assert progress[-1] == (18, 18)
    # Each row alone and each request whole, under both bundles.
    stored = dict(auditor.sql("SELECT action, count() FROM rulings GROUP BY action").rows)
    assert stored == {"generate": 6, "read": 7, "shape": 5}
    assert {action: asked.count(action) for action in set(asked)} == {
        action: 4 * count for action, count in stored.items()
    }


def test_one_dropped_role_is_found_though_no_verdict_changes(auditor: LocalAuditor) -> None:
    report = again(auditor, bundle_content(heron.leaking(heron.policy_files())))
    assert [(each.field, each.principal, each.request, each.policies) for each in report.newly_readable] == [
        ("people.salary", 'User::"ian.intern"', "demo-06", ("people-team-reads-pay",))
    ]
    assert (report.newly_allowed, report.newly_denied, report.no_longer_readable) == ((), (), ())
    assert (report.mismatches, report.not_replayable, report.obligations_changed) == ((), {}, ())
    assert report.prompts_changed == ("demo-06",)
    assert fail_on("newly-readable>0").broken_by(report) == "FAIL newly-readable 1 > 0"
    assert fail_on("newly-allowed>0").broken_by(report) is None
    console = Console(width=140, file=io.StringIO(), record=True)
    console.print(render(report))
    text = console.export_text()
    assert text.index("newly readable 1") < text.index("newly allowed 0")
    assert 'request demo-06 would have been asked with "41,500 pounds" in the prompt' in text
    assert "41,500" not in str(report.as_json()), "machines get no values"


def test_a_field_that_is_taken_away_is_found(auditor: LocalAuditor) -> None:
    candidate = edited(
        'permit (principal in Role::"finance", action == Action::"read"',
        'permit (principal in Role::"auditor", action == Action::"read"',
        "fields.cedar",
    )
    report = again(auditor, candidate)
    assert [(each.field, each.request) for each in report.no_longer_readable] == [("invoices.iban", "demo-11")]
    assert report.newly_readable == ()


def test_a_denial_that_becomes_an_allow_is_found_with_the_fields_it_would_read(auditor: LocalAuditor) -> None:
    files = heron.policy_files()
    old = "unless { principal.purposes.contains(context.purpose) };"
    assert files["brakes.cedar"].count(old) == 1
    files["brakes.cedar"] = files["brakes.cedar"].replace(old, "when { context.asked.outputTokens < 0 };")
    old = 'permit (principal in Role::"people", action == Action::"generate"'
    assert files["access.cedar"].count(old) == 1
    files["access.cedar"] = files["access.cedar"].replace(old, 'permit (principal, action == Action::"generate"')
    report = again(auditor, bundle_content(files))
    assert [(each.request, each.before, each.after) for each in report.newly_allowed] == [("demo-07", "DENIED", "OK")]
    assert [(each.field, each.request) for each in report.newly_readable] == [("people.job", "demo-07")]


def test_an_allow_that_becomes_a_denial_is_found(auditor: LocalAuditor) -> None:
    candidate = edited(
        'permit (principal in Role::"finance", action == Action::"generate"',
        'permit (principal in Role::"auditor", action == Action::"generate"',
        "access.cedar",
    )
    report = again(auditor, candidate)
    assert [(each.request, each.after) for each in report.newly_denied] == [("demo-11", "DENIED")]


def test_a_changed_obligation_is_found_with_its_values(auditor: LocalAuditor) -> None:
    report = again(auditor, edited('@max_tokens("24")', '@max_tokens("200")', "access.cedar"))
    assert [(each.request, each.name) for each in report.obligations_changed] == [
        ("demo-06", "max_tokens"),
        ("demo-09", "max_tokens"),
    ]
    assert report.obligations_changed[0].before.startswith("24 ")
    assert report.obligations_changed[0].after.startswith("200 ")


def test_a_candidate_that_does_not_validate_is_refused(auditor: LocalAuditor) -> None:
    with pytest.raises(InvalidBundle):
        again(auditor, edited('Role::"people"', 'Role::"peple"', "pay.cedar"))


def test_history_without_its_policy_log_is_counted_never_guessed(
    database: AuditDatabase, auditor: LocalAuditor
) -> None:
    """One decision in each of three epochs: without a policy log, with one that has a hole, with the whole one. There
    also one that names another directory than was in force, and one whose ruling was altered.
    """
    sink = Sink(database, heron.TOPICS)
    history = heron.company()
    before, asked = history.landings[Table.DECISIONS][2], history.landings[Table.REQUESTS][2]
    assert before.record.value is not None
    digest = history.rules().directory.digest.encode()
    other = before.record.value.replace(digest, b"sha256:" + b"0" * 64)
    altered = before.record.value.replace(b"interns-may-practise", b"interns-may-practice")
    values = (before.record.value, other, altered)
    assert len(set(values)) == 3
    log = history.landings[Table.POLICY]
    holed = [log[0], Landing(record=replace(log[1].record, value=None), effective=False), log[2]]
    for epoch, kept, decided in ((60, [], values[:1]), (61, holed, values[:1]), (62, log, values)):
        sink.land(epoch, heron.topic(Table.POLICY), 0, kept)
        landings = [landing(before, offset, value) for offset, value in enumerate(decided)]
        sink.land(epoch, heron.topic(Table.DECISIONS), 0, landings)
        requests = [landing(asked, offset) for offset in range(heron.BEATS[2].number)]
        sink.land(epoch, heron.topic(Table.REQUESTS), 0, requests)
    report = again(auditor, heron.BUNDLE)
    assert report.not_replayable == {
        "the policy log does not say what was in force: no root is trusted yet": 4,
        "the audit lacks offset 1 of the policy log; mend or restore it": 4,
    }
    assert report.decided == 18 + 4 + 4, "the genuine one and the altered one of the last epoch"
    name = "d3-0-2"
    assert report.mismatches == (f"{name} policy in force", f"{name} generate {MODEL}", f"{name} as a whole")
    assert report.newly_readable == ()


def landing(template: Landing, offset: int, value: bytes | None = None) -> Landing:
    record = template.record
    moved = Record(
        topic=record.topic, partition=0, offset=offset, timestamp_ms=record.timestamp_ms, key=record.key,
        value=value or record.value, headers=record.headers,
    )  # fmt: skip
    return Landing(record=moved, effective=True)
