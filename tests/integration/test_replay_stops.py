"""What a stop says of a candidate itself, and a recorded stop that never was."""

from pathlib import Path

import pytest
from policy_events import event, root_event, stops
from unit.sinks import heron
from unit.sinks.lived import House
from unit.sinks.replaying import again

from sluicegate.enforcer.bundle import bundle_content
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.stops import Scope, Stop
from sluicegate.enforcer.trust import digest_of
from sluicegate.schemas.codes import Code
from sluicegate.sinks.auditor import LocalAuditor
from sluicegate.sinks.clickhouse import AuditConfig, open_audit
from sluicegate.sinks.replay_report import Report
from sluicegate.sinks.sink import Sink

FILES = heron.policy_files()
CANDIDATE = bundle_content(
    FILES | {"access.cedar": FILES["access.cedar"].replace('@max_tokens("48")', '@max_tokens("47")')}
)


def house() -> House:
    found = House(epoch=1)
    for each in (
        root_event(),
        event(Kind.BUNDLE, 1, heron.BUNDLE, effective_at_ms=0),
        event(Kind.DIRECTORY, 1, heron.DIRECTORY, effective_at_ms=0),
    ):
        found.publish(each, heron.NOON)
    return found


def replayed(lived: House, candidate: bytes, path: Path) -> Report:
    with open_audit(AuditConfig(path=path / "audit")) as opened:
        lived.land(Sink(opened, heron.TOPICS))
        return again(LocalAuditor(opened), candidate)


@pytest.mark.parametrize(("named", "denied"), [(CANDIDATE, 1), (b"another", 0)], ids=["candidate", "another"])
def test_a_bundle_that_is_stopped_itself_would_allow_nothing(tmp_path: Path, named: bytes, denied: int) -> None:
    lived = house()
    lived.publish(stops(Kind.STOP, 1, Stop(scope=Scope.BUNDLE, name=digest_of(named))), heron.NOON)
    assert lived.ask(0, heron.NOON + 1_000, "pia.people").code is Code.OK
    report = replayed(lived, CANDIDATE, tmp_path)
    assert [(each.before, each.after) for each in report.newly_denied] == [("OK", "STOPPED")] * denied
    assert [each.field for each in report.no_longer_readable] == ["people.salary"] * denied
    assert (report.newly_allowed, report.mismatches) == ((), ())


def test_a_stop_that_the_policy_log_does_not_know_is_a_mismatch(tmp_path: Path) -> None:
    lived = house()
    lived.ask(0, heron.NOON + 1_000, "ian.intern", code=Code.STOPPED)
    assert replayed(lived, heron.BUNDLE, tmp_path).mismatches == ("d1-0-0 not stopped",)
