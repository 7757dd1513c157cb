"""Invariant 8, versions never go back: however policy events are withheld, swapped, doubled and replayed on the log.

Worker A has read the log as far as it must have for an event time T: everything stamped up to the delay before T.
Worker B has read all of it. What they say of T must be the same, and over rising T no version may fall.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluicegate.enforcer import schedule
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.state import Accepted, Event, PolicyLog, Rules
from sluicegate.enforcer.stops import Scope, Stop
from tests.policy_events import (
    NOW_MS,
    event,
    policy_log,
    put,
    roles_event,
    root_event,
    speakers,
    stops,
    whole,
)

SCHEDULES = 1_000
ANA, ALL = Stop(scope=Scope.PRINCIPAL, name='User::"ana"'), Stop(scope=Scope.ALL)
START = [root_event(), event(Kind.BUNDLE, 1, b"b1"), event(Kind.DIRECTORY, 1, whole("u1"))]
CHAINS: list[list[Event]] = [
    [event(Kind.BUNDLE, each, f"b{each}".encode(), effective_at_ms=NOW_MS + 350 * each) for each in range(2, 5)],
    [
        event(Kind.DIRECTORY, each, whole(f"w{each}") if each == 3 else put(f"u{each}"), effective_at_ms=NOW_MS + each)
        for each in range(2, 6)
    ],
    [stops(Kind.STOP, 1, ANA), stops(Kind.STOP, 2, ALL)],
    [stops(Kind.RESUME, 1, ANA)],
    [root_event(2)],
    [roles_event(each, {"keys": speakers("ana")}, effective_at_ms=NOW_MS + each) for each in (1,)],
]
ATTACKS = ("withhold", "swap", "double", "replay")


@dataclass(frozen=True)
class Entry:
    """One record of the policy log."""

    event: Event
    stamp_ms: int


def log_of(seed: int, attacks: list[str]) -> list[Entry]:
    """A log as an honest publisher would have written it, after these attacks; stamps step back now and then."""
    chance = random.Random(seed)
    chains = [list(chain) for chain in CHAINS]
    honest: list[Event] = []
    while any(chains):
        honest.append(chance.choice([chain for chain in chains if chain]).pop(0))
    for attack in attacks:
        place = chance.randrange(len(honest))
        other = chance.randrange(len(honest))
        if attack == "withhold" and len(honest) > 1:
            del honest[place]
        elif attack == "swap":
            honest[place], honest[other] = honest[other], honest[place]
        elif attack == "double":
            honest.insert(place, honest[place])
        else:
            honest.append(honest[place])
    entries = [Entry(each, NOW_MS) for each in START]
    now_ms = NOW_MS
    for each in honest:
        now_ms += chance.randrange(400)
        entries.append(Entry(each, now_ms - (chance.randrange(300) if chance.random() < 0.2 else 0)))
    return entries


def said(log: PolicyLog, time_ms: int) -> object:
    """What a worker would decide by at T, and what it would write into the decision."""
    rules = log.at(time_ms)
    return (rules.judging, rules.version, rules.stops) if isinstance(rules, Rules) else rules


def violations(entries: list[Entry], seed: int) -> Iterator[str]:
    """Each way in which a schedule broke a law."""
    chance = random.Random(seed)
    reader, whole_log = policy_log(), policy_log()
    for offset, entry in enumerate(entries):
        before = {kind: whole_log.version_of(kind) for kind in Kind}
        whole_log.fold(offset, entry.event, entry.stamp_ms)
        if any(whole_log.version_of(kind) < version for kind, version in before.items()):
            yield "a lower version was accepted"
    for offset, entry in enumerate(entries[: len(START)]):
        assert isinstance(reader.fold(offset, entry.event, entry.stamp_ms), Accepted)
    last: Rules | None = None
    moments = sorted(NOW_MS + chance.randrange(4_000) for _ in range(16))
    read = len(START)
    for time_ms in moments:
        # As far as freshness makes a worker read before it decides T, and often a little further.
        must = max(
            (at + 1 for at, each in enumerate(entries) if each.stamp_ms <= time_ms - schedule.DELAY_MS), default=0
        )
        while read < len(entries) and (read < must or chance.random() < 0.2):
            reader.fold(read, entries[read].event, entries[read].stamp_ms)
            read += 1
        if said(reader, time_ms) != said(whole_log, time_ms):
            yield "two workers disagree at one T"
        rules = reader.at(time_ms)
        if isinstance(rules, Rules):
            if last is not None and _fell(last, rules):
                yield "a version fell"
            last = rules


def _fell(before: Rules, after: Rules) -> bool:
    old, new = before.version, after.version
    return (
        new.position < old.position
        or new.root_version < old.root_version
        or new.bundle_version < old.bundle_version
        or new.directory_version < old.directory_version
    )


@given(seed=st.integers(0, 2**32), attacks=st.lists(st.sampled_from(ATTACKS), max_size=6))
@settings(max_examples=SCHEDULES, deadline=None)
def test_no_attack_on_the_log_makes_a_version_fall_or_workers_disagree(seed: int, attacks: list[str]) -> None:
    assert not list(violations(log_of(seed, attacks), seed))


def counted(seeds: range) -> Counter[str]:
    found: Counter[str] = Counter()
    for seed in seeds:
        chance = random.Random(seed)
        attacks = [chance.choice(ATTACKS) for _ in range(chance.randrange(1, 8))]
        found.update(set(violations(log_of(seed, attacks), seed)))
    return found


def test_the_schedules_reach_what_they_are_about() -> None:
    """The positive control: versions do change on these logs, stops come and go, and attacks are refused."""
    log, refused = policy_log(), 0
    for offset, entry in enumerate(log_of(7, ["double", "replay", "replay"])):
        refused += not isinstance(log.fold(offset, entry.event, entry.stamp_ms), Accepted)
    answers = [log.at(time_ms) for time_ms in range(NOW_MS, NOW_MS + 9_000, 50)]
    rules = [each for each in answers if isinstance(each, Rules)]
    assert len(rules) == len(answers)
    assert len({each.version.bundle_version for each in rules}) >= 3
    assert len({each.version.directory_version for each in rules}) >= 3
    assert len({each.stops for each in rules}) >= 2
    assert refused >= 3
    assert counted(range(40)) == Counter()


@pytest.mark.parametrize("fault", ["whatever is loaded", "no delay", "versions not compared"])
def test_a_planted_fault_is_counted(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "whatever is loaded":
        monkeypatch.setattr(schedule.Timeline, "at", lambda self, _: self.newest)
        assert counted(range(20))["two workers disagree at one T"] >= 10
    elif fault == "no delay":
        take = schedule.Timeline.scheduled

        def early(self: schedule.Timeline[object], value: object, **given: int) -> schedule.Scheduled[object]:
            return take(self, value, **{**given, "log_ms": given["log_ms"] - schedule.DELAY_MS})

        monkeypatch.setattr(schedule.Timeline, "scheduled", early)
        assert counted(range(40))["two workers disagree at one T"] >= 5
    else:
        monkeypatch.setattr(PolicyLog, "_older", lambda *_: None)
        assert counted(range(40))["a lower version was accepted"] >= 5
