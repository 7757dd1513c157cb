"""What is long is given longer to be read, and when it starts at the earliest is known before it is read."""

import pytest

from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.schedule import DELAY_MS, reading_ms
from sluicegate.enforcer.state import Accepted, Event, PolicyLog, Rules
from tests.policy_events import NOW_MS, event, policy_log, root_event, whole

LATER_MS = NOW_MS + 10_000


@pytest.mark.parametrize(
    ("kind", "size", "entities", "wanted_ms"),
    [
        (Kind.DIRECTORY, 499, 10_000, 0),
        (Kind.DIRECTORY, 2_200_000, 10_000, 4_400),
        (Kind.BUNDLE, 66_000, 0, 660),
        (Kind.BUNDLE, 66_000, 10_000, 2_660),
        (Kind.STOP, 66_000, 10_000, 0),
    ],
)
def test_what_is_long_is_given_longer(kind: Kind, size: int, entities: int, wanted_ms: int) -> None:
    assert reading_ms(kind, size, entities=entities) == wanted_ms


def log_of(*events: Event) -> PolicyLog:
    log = policy_log()
    for offset, each in enumerate(events):
        assert isinstance(log.fold(offset, each, NOW_MS), Accepted)
    return log


def judging(log: PolicyLog, time_ms: int) -> object:
    found = log.at(time_ms)
    assert isinstance(found, Rules), found
    return found.judging


def test_a_long_version_starts_later_and_never_before_it_was_said_to() -> None:
    log = log_of(root_event(), event(Kind.BUNDLE, 1, b"b"), event(Kind.DIRECTORY, 1, whole("d")))
    text = "x" * 70_000
    long = event(Kind.BUNDLE, 2, text.encode(), effective_at_ms=NOW_MS + 1)
    earliest_ms = log.earliest_ms(long, LATER_MS, next_=True)
    assert earliest_ms == LATER_MS + DELAY_MS + 700
    fork = log.fork()
    assert isinstance(fork.fold(3, long, LATER_MS), Accepted)
    assert [judging(fork, each_ms) for each_ms in (earliest_ms - 1, earliest_ms)] == [("b", "d"), (text, "d")]
    assert judging(log, earliest_ms) == ("b", "d"), "a fork changes nothing until it is adopted"
    log.adopt(fork)
    assert judging(log, earliest_ms) == (text, "d")
    assert log.earliest_ms(event(Kind.KEYS, 1, b""), LATER_MS, next_=True) == 0, "its first version may start early"
