"""Signed candidates: who may set one, when it stands, what is refused, and that nothing else rests on one."""

from dataclasses import replace

import pytest
from policy_events import (
    ANA,
    CLEO,
    FAR_MS,
    NOW_MS,
    PUBLISHER,
    STRANGER,
    event,
    policy_log,
    roles_event,
    root_event,
    speakers,
    whole,
)

from sluicegate.enforcer.candidate import NoShadow, Shadow
from sluicegate.enforcer.policy_kinds import Fault, Kind
from sluicegate.enforcer.schedule import DELAY_MS
from sluicegate.enforcer.state import Accepted, Event, PolicyLog, Rejected, Rules
from sluicegate.enforcer.trust import Domain, digest_of

LATER_MS = NOW_MS + 10
IN_FORCE_MS = LATER_MS + DELAY_MS
FIRST = event(Kind.SHADOW, 1, b"c", signers=(CLEO,), effective_at_ms=LATER_MS)


def house(*, delegated: bool = True) -> PolicyLog:
    log = policy_log()
    events = [root_event(), event(Kind.BUNDLE, 1, b"b"), event(Kind.DIRECTORY, 1, whole("ana"))]
    for each in [*events, *([roles_event(1, {"shadow": speakers("cleo")})] if delegated else [])]:
        accept(log, each, NOW_MS)
    return log


def accept(log: PolicyLog, each: Event, time_ms: int = LATER_MS) -> None:
    assert isinstance(log.fold(log.position + 1, each, time_ms), Accepted)


def code_of(log: PolicyLog, each: Event) -> Fault | None:
    found = log.fold(log.position + 1, each, LATER_MS)
    return found.code if isinstance(found, Rejected) else None


def test_a_candidate_stands_from_half_a_second_after_its_place_until_it_is_ended() -> None:
    log = house()
    assert log.shadow_at(FAR_MS - 1) == NoShadow(reason="no candidate stands")
    assert log.candidates.over(0)
    accept(log, FIRST)
    assert not log.candidates.over(0), "one is to stand later"
    assert log.shadow_at(IN_FORCE_MS - 1) == NoShadow(reason="no candidate stands")
    found = log.shadow_at(IN_FORCE_MS)
    assert found == Shadow(judging=("c", "ana"), version=1, digest=digest_of(b"c"))  # type: ignore[arg-type]
    end = event(Kind.SHADOW, 2, b"", signers=(CLEO,), effective_at_ms=IN_FORCE_MS + 100)
    accept(log, end)
    assert log.shadow_at(IN_FORCE_MS + 99) == found
    assert log.shadow_at(IN_FORCE_MS + 100) == NoShadow(reason="no candidate stands")
    assert [log.candidates.over(IN_FORCE_MS + each) for each in (0, 99, 100)] == [False, False, True]


def test_what_judges_never_rests_on_a_candidate() -> None:
    with_one, without = house(), house()
    accept(with_one, FIRST)
    accept(with_one, event(Kind.SHADOW, 2, b"d", signers=(CLEO,), effective_at_ms=LATER_MS + 1))
    assert isinstance(with_one.shadow_at(IN_FORCE_MS), Shadow)
    for time_ms in (NOW_MS, LATER_MS, IN_FORCE_MS, IN_FORCE_MS + 1, IN_FORCE_MS + 100_000):
        assert with_one.at(time_ms) == without.at(time_ms)
    rules = with_one.at(IN_FORCE_MS + 1)
    assert isinstance(rules, Rules)
    assert rules.judging == ("b", "ana")
    # The positive control: a bundle is seen by the same comparison.
    accept(with_one, event(Kind.BUNDLE, 2, b"b2", effective_at_ms=LATER_MS))
    assert with_one.at(IN_FORCE_MS + 1) != without.at(IN_FORCE_MS + 1)


def test_versions_of_candidates_and_bundles_are_counted_apart() -> None:
    log = house()
    rules = log.at(IN_FORCE_MS)
    accept(log, FIRST)
    found = log.shadow_at(IN_FORCE_MS)
    assert isinstance(found, Shadow)
    assert found.judging == ("c", "ana")
    assert log.at(IN_FORCE_MS) == rules
    assert (log.version_of(Kind.SHADOW), log.version_of(Kind.BUNDLE)) == (1, 1)


SECOND = event(Kind.SHADOW, 2, b"c2", signers=(CLEO,), effective_at_ms=LATER_MS + 1)


@pytest.mark.parametrize(
    ("each", "code"),
    [
        (event(Kind.SHADOW, 2, b"c2", signers=(), effective_at_ms=LATER_MS + 1), Fault.UNSIGNED),
        (event(Kind.SHADOW, 2, b"c2", signers=(STRANGER, ANA), effective_at_ms=LATER_MS + 1), Fault.UNSIGNED),
        (event(Kind.SHADOW, 2, b"c2", signers=(PUBLISHER,), effective_at_ms=LATER_MS + 1), Fault.UNSIGNED),
        (replace(SECOND, content=b"c3"), Fault.TAMPERED),
        (replace(SECOND, content=b""), Fault.TAMPERED),
        (replace(SECOND, metadata=b"{}"), Fault.MALFORMED),
        (replace(SECOND, version=3), Fault.FOREIGN),
        (
            event(
                Kind.SHADOW,
                2,
                b"c2",
                signers=(CLEO,),
                effective_at_ms=LATER_MS + 1,
                domain=Domain(env="prod", tenant="heron"),
            ),
            Fault.FOREIGN,
        ),
        # Signed as a bundle, sent as a candidate, by who may sign both.
        (replace(SECOND, metadata=event(Kind.BUNDLE, 2, b"c2", signers=(CLEO, PUBLISHER)).metadata), Fault.FOREIGN),
        (event(Kind.SHADOW, 1, b"c0", signers=(CLEO,), effective_at_ms=LATER_MS + 1), Fault.OLDER),
        (FIRST, Fault.OLDER),
        (event(Kind.SHADOW, 2, b"c2", signers=(CLEO,), effective_at_ms=LATER_MS), Fault.BACKDATED),
        (event(Kind.SHADOW, 2, b"c2", signers=(CLEO,), effective_at_ms=LATER_MS + 1, expires_ms=NOW_MS), Fault.EXPIRED),
        # The other way round: who may only set candidates publishes no bundle.
        (event(Kind.BUNDLE, 2, b"c2", signers=(CLEO,), effective_at_ms=LATER_MS + 1), Fault.UNSIGNED),
    ],
)
def test_a_bad_candidate_is_refused_and_the_one_before_stands(each: Event, code: Fault) -> None:
    log = house()
    accept(log, FIRST)
    before, rules = log.shadow_at(IN_FORCE_MS + 1), log.at(IN_FORCE_MS + 1)
    assert code_of(log, each) is code
    assert (log.shadow_at(IN_FORCE_MS + 1), log.at(IN_FORCE_MS + 1)) == (before, rules)
    # The positive control: the genuine successor is taken after it.
    assert code_of(log, SECOND) is None
    assert log.shadow_at(IN_FORCE_MS + 1) != before


def test_publishers_set_candidates_where_nobody_was_given_that() -> None:
    log = house(delegated=False)
    assert code_of(log, FIRST) is Fault.UNSIGNED
    assert code_of(log, event(Kind.SHADOW, 1, b"c", effective_at_ms=LATER_MS)) is None


def test_a_candidate_that_cannot_decide_says_so_and_the_active_bundle_decides_on() -> None:
    log = house()
    accept(log, event(Kind.SHADOW, 1, b"c", signers=(CLEO,), effective_at_ms=LATER_MS, expires_ms=NOW_MS + 2_000))
    assert isinstance(log.shadow_at(NOW_MS + 1_999), Shadow)
    assert not log.candidates.over(NOW_MS + 1_999)
    assert log.candidates.over(NOW_MS + 2_000)
    gone = log.shadow_at(NOW_MS + 2_000)
    assert isinstance(gone, NoShadow)
    assert (gone.standing, "expired" in gone.reason) == (False, True)
    # Neither bundle can hold a directory with this user in it.
    odd = whole("odd")
    accept(log, event(Kind.DIRECTORY, 2, odd, effective_at_ms=LATER_MS))
    misfit = log.shadow_at(IN_FORCE_MS + 10)
    assert isinstance(misfit, NoShadow)
    assert (misfit.standing, "does not conform" in misfit.reason) == (True, True)
    assert code_of(log, event(Kind.DIRECTORY, 3, whole("ana", "eve"), effective_at_ms=LATER_MS + 1)) is None
    again = log.shadow_at(IN_FORCE_MS + 10)
    assert isinstance(again, Shadow)
    assert again.judging == ("c", "ana eve")
