"""History under directories that changed, bundles that were replaced and stops that held is decided again as it was."""

from collections.abc import Iterator

import pytest
from policy_events import event, root_event, stops
from unit.sinks import heron
from unit.sinks.lived import House, person
from unit.sinks.replaying import again

from sluicegate.enforcer.bundle import bundle_content
from sluicegate.enforcer.directory_change import change_content
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.state import Accepted, Rejected
from sluicegate.enforcer.stops import Scope, Stop
from sluicegate.enforcer.trust import digest_of
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import DecisionMade
from sluicegate.sinks.auditor import LocalAuditor
from sluicegate.sinks.clickhouse import AuditConfig, open_audit
from sluicegate.sinks.replay_report import fail_on
from sluicegate.sinks.sink import Sink

EPOCH = 5
START = heron.NOON
FILES = heron.policy_files()
OPEN = bundle_content(
    FILES
    | {
        "access.cedar": FILES["access.cedar"].replace(
            'permit (principal in Role::"people", action == Action::"generate"',
            'permit (principal, action == Action::"generate"',
        )
    }
)
"""Whoever has the purpose may ask about people."""
LATER = bundle_content(
    FILES | {"access.cedar": FILES["access.cedar"].replace('@max_tokens("48")', '@max_tokens("47")')}
)
LEAKING = bundle_content(heron.leaking(FILES))
IAN = Stop(scope=Scope.PRINCIPAL, name='User::"ian.intern"')


def put(*people: object) -> bytes:
    return change_content({"put": list(people)})


def live() -> tuple[House, dict[str, DecisionMade]]:
    """A house in which nia comes, changes her role twice and goes, with two partitions whose times interleave."""
    house, said = House(epoch=EPOCH), dict[str, DecisionMade]()

    def change(version: int, content: bytes, at: int) -> object:
        stamp_ms = START + at
        return house.publish(event(Kind.DIRECTORY, version, content, effective_at_ms=stamp_ms), stamp_ms)

    house.publish(root_event(), START)
    house.publish(event(Kind.BUNDLE, 1, heron.BUNDLE, effective_at_ms=0), START)
    house.publish(event(Kind.DIRECTORY, 1, heron.DIRECTORY, effective_at_ms=0), START)
    said["not yet"] = house.ask(0, START + 400, "nia")
    assert isinstance(change(2, put(person("nia", "people")), 1_000), Accepted)
    said["announced"] = house.ask(1, START + 1_200, "nia")
    said["reads"] = house.ask(0, START + 2_000, "nia")
    assert isinstance(change(3, put(person("nia", "intern")), 3_000), Accepted)
    assert isinstance(change(4, change_content({"remove": ['User::"nobody"']}), 3_100), Rejected)
    said["withheld"] = house.ask(1, START + 4_000, "nia")
    assert isinstance(change(4, put(person("nia", "support")), 4_400), Accepted)
    said["denied"] = house.ask(1, START + 5_000, "nia")
    house.publish(event(Kind.BUNDLE, 2, LATER, effective_at_ms=START + 5_100), START + 5_100)
    assert isinstance(house.publish(stops(Kind.STOP, 1, IAN), START + 6_000), Accepted)
    said["before the stop"] = house.ask(0, START + 6_400, "ian.intern")
    said["stopped"] = house.ask(0, START + 7_000, "ian.intern")
    assert isinstance(house.publish(stops(Kind.RESUME, 1, IAN), START + 8_000), Accepted)
    said["resumed"] = house.ask(0, START + 9_000, "ian.intern")
    assert isinstance(change(5, change_content({"remove": ['User::"nia"']}), 10_000), Accepted)
    said["gone"] = house.ask(1, START + 11_000, "nia")
    for number, code in enumerate(EARLY):
        house.ask(number % 2, START + 12_000 + number, "pia.people", code=code)
    return house, said


EARLY = (
    Code.POISON, Code.POLICY_STALE, Code.PROOF_SIGNATURE, Code.DUPLICATE_OF, Code.EXPIRED, Code.EXPIRED,
)  # fmt: skip
HOUSE, SAID = live()


@pytest.fixture(scope="module")
def auditor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAuditor]:
    with open_audit(AuditConfig(path=tmp_path_factory.mktemp("replay") / "audit")) as opened:
        HOUSE.land(Sink(opened, heron.TOPICS))
        yield LocalAuditor(opened)


def test_the_history_is_what_it_says() -> None:
    """The control: each change and each stop had its effect when it was decided."""
    assert {name: str(each.code) for name, each in SAID.items()} == {
        "not yet": "UNKNOWN_PRINCIPAL", "announced": "UNKNOWN_PRINCIPAL", "reads": "OK", "withheld": "OK",
        "denied": "DENIED", "before the stop": "OK", "stopped": "STOPPED", "resumed": "OK", "gone": "UNKNOWN_PRINCIPAL",
    }  # fmt: skip
    assert SAID["reads"].admitted == ("people.salary",)
    assert SAID["withheld"].withheld == ("people.salary",)
    digests = {each.policy.directory_digest for each in SAID.values() if each.policy is not None}
    assert len(digests) == 5, "every version decided something, four of them changed ones"


def test_every_decision_is_decided_again_as_it_was(auditor: LocalAuditor) -> None:
    report = again(auditor, heron.BUNDLE)
    assert (report.mismatches, report.not_replayable) == ((), {})
    assert report.requests == len(SAID) - 1, "all but the stopped one"
    assert report.decided == sum(len(each.rulings) for each in SAID.values())
    assert report.recorded == tuple(sorted({digest_of(heron.BUNDLE), digest_of(LATER)}))
    assert (report.newly_readable, report.newly_allowed, report.newly_denied) == ((), (), ())


def test_what_no_bundle_decides_is_counted_apart(auditor: LocalAuditor) -> None:
    expected = {"STOPPED": 1, "POISON": 1, "POLICY_STALE": 1, "PROOF_SIGNATURE": 1, "DUPLICATE_OF": 1, "EXPIRED": 2}
    for candidate in (heron.BUNDLE, OPEN):
        assert again(auditor, candidate).settled == expected


def test_a_stop_is_undone_by_no_bundle(auditor: LocalAuditor) -> None:
    """The control: the same person's like requests before and after the stop would read pay under this bundle."""
    report = again(auditor, LEAKING)
    names = {name: SAID[name].request_id for name in ("before the stop", "stopped", "resumed", "withheld")}
    assert {each.request for each in report.newly_readable} == set(names.values()) - {names["stopped"]}
    assert (report.newly_allowed, report.newly_denied, report.mismatches) == ((), (), ())


def test_a_denial_is_found_that_would_be_an_allow_and_no_other(auditor: LocalAuditor) -> None:
    report = again(auditor, OPEN)
    assert [(each.request, each.before) for each in report.newly_allowed] == [(SAID["denied"].request_id, "DENIED")]
    assert fail_on("newly-allowed>0").broken_by(report) is not None
    assert (report.mismatches, report.not_replayable) == ((), {})
