"""The directory of any time comes out of the audit as it decided then, or not at all."""

import json
from collections.abc import Iterator

import pytest
from policy_events import DOMAIN, NOW_MS, event, root_event
from unit.sinks import heron

from sluicegate.enforcer.directory_change import change_content
from sluicegate.enforcer.history import rules_then
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.state import PolicyLog, Rules
from sluicegate.enforcer.trust import digest_of
from sluicegate.schemas.codec import encode
from sluicegate.schemas.errors import ContinuityError, Unavailable
from sluicegate.schemas.records import Record
from sluicegate.sinks.auditor import LocalAuditor
from sluicegate.sinks.clickhouse import AuditConfig, open_audit
from sluicegate.sinks.policy_history import kept_log
from sluicegate.sinks.rows import Landing, Table
from sluicegate.sinks.sink import Sink

DIRECTORY = json.dumps({**json.loads(heron.DIRECTORY), "service_keys": [], "issuers": []}).encode()
STEP_MS = 1_000
CHANGES = 4


def ana(number: int) -> bytes:
    attrs = {"onLeave": bool(number % 2), "purposes": []}
    return change_content(
        {"put": [{"uid": {"type": "User", "id": f"new-{number // 2}"}, "attrs": attrs, "parents": []}]}
    )


def events() -> list[Record]:
    made = [
        root_event(),
        event(Kind.DIRECTORY, 1, DIRECTORY, effective_at_ms=0),
        event(Kind.BUNDLE, 1, heron.BUNDLE, effective_at_ms=0),
    ]
    stamps = [NOW_MS] * len(made)
    for number in range(CHANGES):
        stamps.append(NOW_MS + (number + 1) * STEP_MS)
        made.append(event(Kind.DIRECTORY, 2 + number, ana(number), effective_at_ms=stamps[-1]))
    return [
        Record(topic=heron.topic(Table.POLICY), partition=0, offset=offset, timestamp_ms=stamp, key=None,
               value=encode(each), headers=())
        for offset, (each, stamp) in enumerate(zip(made, stamps, strict=True))
    ]  # fmt: skip


def empty() -> PolicyLog:
    return PolicyLog(domain=DOMAIN, root_digest=digest_of(root_event().metadata))


@pytest.fixture(scope="module")
def auditor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAuditor]:
    with open_audit(AuditConfig(path=tmp_path_factory.mktemp("history") / "audit")) as opened:
        landings = [Landing(record=each, effective=True) for each in events()]
        Sink(opened, heron.TOPICS).land(heron.EPOCH, heron.topic(Table.POLICY), 0, landings)
        yield LocalAuditor(opened)


def test_the_audit_rebuilds_what_decided(auditor: LocalAuditor) -> None:
    """The digest that a decision carries is that of the worker's own fold at T; each T has another directory."""
    seen = set[str]()
    for number in range(CHANGES + 1):
        # A worker that has read the log up to T and nothing beyond it, as it was when it decided.
        time_ms = NOW_MS + number * STEP_MS + STEP_MS - 1
        carried = rules_then([each for each in events() if each.timestamp_ms <= time_ms], empty(), time_ms).version
        rebuilt = rules_then(kept_log(auditor, time_ms), empty(), time_ms)
        assert isinstance(rebuilt, Rules)
        assert rebuilt.version == carried
        assert rebuilt.version.directory_version == number + 1
        seen.add(carried.directory_digest)
    assert len(seen) == CHANGES + 1


def test_a_time_before_the_log_and_one_before_anything_is_in_force_are_told(auditor: LocalAuditor) -> None:
    with pytest.raises(Unavailable, match="had begun by then"):
        rules_then(kept_log(auditor, NOW_MS - 1), empty(), NOW_MS - 1)


def test_rows_that_the_audit_lacks_are_not_guessed() -> None:
    class Lacking:
        def sql(self, text: str) -> object:
            class Found:
                rows = ((3, NOW_MS),) if "GROUP BY" in text else ((0, "t", NOW_MS, "00"), (2, "t", NOW_MS, "00"))

            return Found

    with pytest.raises(ContinuityError, match="lacks offset 1"):
        list(kept_log(Lacking(), NOW_MS))  # type: ignore[arg-type]
