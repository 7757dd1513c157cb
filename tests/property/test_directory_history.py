"""The state as of any T is rebuilt from the audit: random logs of whole directories, changes and refused versions."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_events import NOW_MS, PUBLISHER, STRANGER, event, policy_log, root_event, stops
from unit.sinks import heron

from sluicegate.enforcer.directory_change import change_content
from sluicegate.enforcer.history import PolicyHistory, fold_record, rules_then
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.state import Accepted, Event, NotReady, PolicyLog, Rules
from sluicegate.enforcer.stops import Scope, Stop
from sluicegate.schemas.codec import encode
from sluicegate.schemas.errors import Unavailable
from sluicegate.schemas.records import Record
from sluicegate.sinks.auditor import LocalAuditor
from sluicegate.sinks.clickhouse import AuditConfig, open_audit
from sluicegate.sinks.policy_history import policy_log as kept
from sluicegate.sinks.rows import Landing, Table
from sluicegate.sinks.sink import Sink

NAMES = ("ana", "ben", 'q"uo\\te', "cleo")
ROLES = ("support", "people")
EPOCHS = count(1)
EPOCH_MS = 1_000_000  # each history in an epoch of its own, that begins so long after the one before
SEEN = {"changed": 0, "refused": 0, "compared": 0, "without rules": 0, "removed": 0}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One policy event: what it says, how long after the one before it is stamped, and how far ahead it is wanted."""

    kind: str
    people: tuple[tuple[str, tuple[str, ...]], ...]
    gone: tuple[str, ...]
    after_ms: int
    lead_ms: int
    forged: bool
    skips: int


PEOPLE = st.dictionaries(st.sampled_from(NAMES), st.sets(st.sampled_from(ROLES)).map(sorted).map(tuple), max_size=3)
STEP = st.builds(
    Step,
    kind=st.sampled_from(["whole", "change", "change", "change", "bundle", "stop"]),
    people=PEOPLE.map(lambda found: tuple(found.items())),
    gone=st.sets(st.sampled_from(NAMES), max_size=1).map(tuple),
    after_ms=st.integers(0, 2_000),
    lead_ms=st.integers(-500, 3_000),
    forged=st.sampled_from([False] * 7 + [True]),
    skips=st.sampled_from([0] * 7 + [1]),
)


BEGINNING = tuple(
    Step(kind=kind, people=(("ana", ("support",)),), gone=(), after_ms=0, lead_ms=0, forged=False, skips=0)
    for kind in ("whole", "bundle")
)
LOG = st.tuples(st.sampled_from([(), BEGINNING, BEGINNING]), st.lists(STEP, min_size=1, max_size=12)).map(
    lambda found: [*found[0], *found[1]]
)


def entity(name: str, roles: tuple[str, ...]) -> Mapping[str, object]:
    parents = [{"type": "Role", "id": role} for role in roles]
    return {"uid": {"type": "User", "id": name}, "attrs": {}, "parents": parents}


def uid(name: str) -> str:
    return 'User::"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def event_of(step: Step, state: PolicyLog, stamp_ms: int) -> Event:
    signers = (STRANGER if step.forged else PUBLISHER,)
    put = [entity(*each) for each in step.people]
    match step.kind:
        case "stop":
            named = Stop(scope=Scope.MODEL, name=str(stamp_ms))
            return stops(Kind.STOP, state.version_of(Kind.STOP) + 1, named, signers=signers)
        case "bundle":
            kind, content = Kind.BUNDLE, b"bundle"
        case "whole":
            kind = Kind.DIRECTORY
            content = json.dumps({"entities": put, "service_keys": [], "issuers": []}).encode()
        case _:
            kind = Kind.DIRECTORY
            gone = sorted({uid(name) for name in step.gone} - {uid(name) for name, _ in step.people})
            content = change_content({"put": put, "remove": gone})
    version = state.version_of(kind) + 1 + step.skips
    effective_at_ms = stamp_ms + step.lead_ms if state.version_of(kind) else 0
    return event(kind, version, content, signers=signers, effective_at_ms=effective_at_ms)


def records_of(steps: list[Step], base_ms: int) -> tuple[list[Record], list[bool]]:
    """The log, and which records count."""
    state, records, counted = policy_log(), list[Record](), list[bool]()
    stamp_ms = base_ms
    for number in range(len(steps) + 1):
        if number:
            stamp_ms += steps[number - 1].after_ms
        made = root_event() if not number else event_of(steps[number - 1], state, stamp_ms)
        found = state.fold(number, made, stamp_ms)
        SEEN["refused"] += not isinstance(found, Accepted)
        SEEN["changed"] += isinstance(found, Accepted) and number > 0 and steps[number - 1].kind == "change"
        counted.append(isinstance(found, Accepted))
        records.append(
            Record(
                topic=heron.topic(Table.POLICY), partition=0, offset=number, timestamp_ms=stamp_ms, key=None,
                value=encode(made), headers=(),
            )
        )  # fmt: skip
    return records, counted


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sink, LocalAuditor]]:
    with open_audit(AuditConfig(path=tmp_path_factory.mktemp("history") / "audit")) as opened:
        yield Sink(opened, heron.TOPICS), LocalAuditor(opened)
    assert min(SEEN.values()) > 0, f"every kind of log was met: {SEEN}"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=LOG, times=st.lists(st.integers(0, 20_000), min_size=3, max_size=5))
def test_the_state_of_any_time_is_rebuilt_from_the_audit(
    audit: tuple[Sink, LocalAuditor], steps: list[Step], times: list[int]
) -> None:
    sink, auditor = audit
    epoch = next(EPOCHS)
    base_ms = NOW_MS + epoch * EPOCH_MS
    records, counted = records_of(steps, base_ms)
    landings = [Landing(record=each, effective=good) for each, good in zip(records, counted, strict=True)]
    sink.land(epoch, heron.topic(Table.POLICY), 0, landings)
    history = PolicyHistory(kept(auditor, epoch), policy_log())
    for time_ms in sorted(base_ms + each for each in times):
        # The worker of that time: it has read what was stamped up to T, and nothing beyond.
        worker = policy_log()
        for record in records:
            if record.timestamp_ms <= time_ms:
                fold_record(worker, record)
        lived = worker.at(time_ms)
        if isinstance(lived, NotReady):
            SEEN["without rules"] += 1
            with pytest.raises(Unavailable):
                rules_then(
                    [each for each in kept(auditor, epoch) if each.timestamp_ms <= time_ms], policy_log(), time_ms
                )
            continue
        SEEN["compared"] += 1
        assert rules_then(kept(auditor, epoch), policy_log(), time_ms) == lived
        rebuilt = history.at(time_ms, position=lived.version.position)
        assert rebuilt == lived
        assert isinstance(rebuilt, Rules)
        held = history.state.directory_at(time_ms)
        assert held is not None
        history.state.forget(time_ms)
        told = auditor.sql(
            f"WITH fromUnixTimestamp64Milli({time_ms}) AS then "
            f"SELECT uid, entity, from_version, until_version FROM directory_entities WHERE epoch = {epoch} "
            "AND valid_from <= then AND valid_until > then"
        ).rows
        assert {str(row[0]): json.loads(str(row[1])) for row in told} == {
            name: json.loads(text) for name, text in held.value.entities.items()
        }
        version = lived.version.directory_version
        assert all(int(str(row[2])) <= version < int(str(row[3])) for row in told)
        SEEN["removed"] += any(step.kind == "change" and step.gone for step in steps)
