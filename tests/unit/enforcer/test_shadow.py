"""The shadow decider on the example company: an identical candidate differs never, a planted change always, exactly."""

from dataclasses import replace
from functools import cache

import pytest
from candidates import BUNDLE, START_MS, decided, edited, log_with, traffic
from company import DOMAIN, policy_events

from sluicegate.enforcer.candidate import NoShadow, Shadow
from sluicegate.enforcer.shadow import NotShadowed, ShadowOutcome, shadow_decide
from sluicegate.enforcer.state import Accepted, PolicyLog
from sluicegate.enforcer.trust import digest_of
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import Verdict
from sluicegate.schemas.shadow_events import Difference


@cache
def without_shadow(number: int) -> bytes | None:
    return decided(traffic()[number], log_with(None))[0]


def outcomes(candidate: bytes) -> list[ShadowOutcome]:
    log = log_with(candidate)
    found: list[ShadowOutcome] = []
    for number, each in enumerate(traffic()):
        value, decision = decided(each, log)
        assert value == without_shadow(number)  # what producers get is the same bytes without a shadow
        outcome = shadow_decide(each, decision, log.shadow_at(decision.time_ms), schema_ids={})
        assert isinstance(outcome, ShadowOutcome), outcome
        found.append(outcome)
    return found


def test_an_identical_candidate_differs_never_and_a_planted_change_is_counted_exactly() -> None:
    same = outcomes(BUNDLE)
    allowed = [each for each in same if each.active.verdict is Verdict.ALLOW]
    assert len(same) == 60
    assert 0 < len(allowed) < 60
    assert [each for each in same if each.difference is not Difference.SAME or each.newly_readable] == []
    assert all(each.active == each.shadow for each in same)
    # The control, over the same requests: a tighter limit is seen on those it concerns and on no other.
    tighter = outcomes(edited("access.cedar", '@max_tokens("64")', '@max_tokens("16")'))
    tightened = {each.decision_id for each in tighter if each.difference is Difference.TIGHTENED}
    assert tightened == {each.decision_id for each in allowed}
    assert {each.difference for each in tighter} == {Difference.SAME, Difference.TIGHTENED}


@pytest.mark.parametrize(
    ("file", "old", "new", "difference", "code"),
    [
        ("access.cedar", '@max_tokens("64")', '@max_tokens("65")', Difference.LOOSENED, Code.OK),
        ("access.cedar", '@max_tokens("64")', "", Difference.LOOSENED, Code.OK),
        ("access.cedar", '@max_tokens("64")', '@max_tokens("64") @seed("fixed")', Difference.TIGHTENED, Code.OK),
        ("access.cedar", '@max_tokens("64")', '@max_tokens("65") @seed("fixed")', Difference.OTHER, Code.OK),
        ("access.cedar", '@max_tokens("64")', '@max_tokens("64") @seed("client")', Difference.SAME, Code.OK),
        ("access.cedar", '@system("support-agent")', '@system("finance-assistant")', Difference.OTHER, Code.OK),
        ("access.cedar", '@id("support-answers-customers")', '@id("renamed")', Difference.SAME, Code.OK),
        ("access.cedar", "context.clock.hour >= 7", "context.clock.hour >= 17", Difference.TIGHTENED, Code.DENIED),
    ],
)
def test_each_change_has_its_name(file: str, old: str, new: str, difference: Difference, code: Code) -> None:
    log = log_with(edited(file, old, new))
    value, decision = decided(traffic()[0], log)
    assert value == without_shadow(0)
    outcome = shadow_decide(traffic()[0], decision, log.shadow_at(decision.time_ms), schema_ids={})
    assert isinstance(outcome, ShadowOutcome)
    assert (outcome.difference, outcome.shadow.code, outcome.active.code) == (difference, code, Code.OK)
    assert outcome.shadow.determining == (
        () if code is not Code.OK else ("renamed",) if "renamed" in new else ("support-answers-customers",)
    )


def test_a_field_that_would_be_read_is_named_and_no_text_is_kept() -> None:
    narrow = edited(
        "fields.cedar", '@id("support-reads-contact-data")\npermit', '@id("support-reads-contact-data")\nforbid'
    )
    wide = log_with(narrow)
    _, decision = decided(traffic()[0], wide)
    assert decision.admitted == ("tickets.phone", "tickets.text")
    found = shadow_decide(traffic()[0], decision, wide.shadow_at(decision.time_ms), schema_ids={})
    assert isinstance(found, ShadowOutcome)
    assert (found.difference, found.newly_readable) == (Difference.TIGHTENED, ())
    # The other way round: decided by the narrow bundle, the company's own stands as candidate.
    events = policy_events(narrow)
    log = PolicyLog(domain=DOMAIN, root_digest=digest_of(events[0].metadata))
    for offset, event in enumerate(events):
        assert isinstance(log.fold(offset, event, START_MS), Accepted)
    _, narrowed = decided(traffic()[0], log)
    back = shadow_decide(traffic()[0], narrowed, log_with(BUNDLE).shadow_at(narrowed.time_ms), schema_ids={})
    assert isinstance(back, ShadowOutcome)
    assert (back.difference, back.newly_readable) == (Difference.LOOSENED, ("tickets.phone",))
    assert "Mara" in str(narrowed)  # the control: the decision holds the prompt
    assert "Mara" not in str(back)
    assert "7946" not in str(back)


def test_what_no_bundle_was_asked_or_cannot_be_asked_says_why() -> None:
    log = log_with(BUNDLE)
    genuine = traffic()[0]
    _, decision = decided(genuine, log)
    standing = log.shadow_at(decision.time_ms)
    assert isinstance(standing, Shadow)
    assert isinstance(shadow_decide(genuine, decision, standing, schema_ids={}), ShadowOutcome)
    unproved = replace(genuine, headers=())
    _, denied = decided(unproved, log)
    assert denied.code is Code.PROOF_MISSING
    cases = [
        (unproved, denied, standing, False),
        (genuine, replace(decision, code=Code.STOPPED, verdict=Verdict.DENY), standing, False),
        (traffic()[1], decision, standing, True),  # another request than the decided one
        (genuine, decision, log_with(None).shadow_at(decision.time_ms), False),
        (genuine, decision, log_with(b"no bundle").shadow_at(decision.time_ms), True),
    ]
    for each, made, shadow, failed in cases:
        found = shadow_decide(each, made, shadow, schema_ids={})
        assert isinstance(found, NotShadowed), found
        assert found.failed is failed
    assert isinstance(log_with(b"no bundle").shadow_at(decision.time_ms), NoShadow)
    assert decided(genuine, log_with(b"no bundle"))[0] == without_shadow(0)
