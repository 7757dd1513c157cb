"""A nearest miss is no guess: decided again by the gate's own checks it is allowed, and no step of it is needless."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_rules import asked, company_cases, company_rules

from sluicegate.policy.cases import Asked, Case
from sluicegate.policy.near_miss import nearest, reached, replay
from sluicegate.policy.trial import decide
from sluicegate.schemas.events import Verdict

HOUR_MS = 3_600_000


def texts(start: str, wanted: str | None = None) -> list[list[str]]:
    return [[step.text for step in miss.steps] for miss in nearest(asked(start), company_rules(), wanted=wanted)]


def holds(question: Asked, wanted: str | None) -> int:
    """Check the law for one question; return how many nearest misses there were."""
    rules = company_rules()
    assert not reached(decide(question, rules), wanted)
    found = nearest(question, rules, wanted=wanted)
    for miss in found:
        again = replay(miss.steps, question, rules)
        assert again is not None
        assert again == (miss.asked, decide(miss.asked, rules))
        assert reached(again[1], wanted)
        assert again[1] == miss.decision
        assert set(miss.policies) <= {policy for ruling in again[1].rulings for policy in ruling.policies}
        for index in range(len(miss.steps)):
            fewer = replay((*miss.steps[:index], *miss.steps[index + 1 :]), question, rules)
            assert fewer is None or not reached(fewer[1], wanted), "a step is needless"
    return len(found)


DENIED = [case for case in company_cases() if decide(case.asked, company_rules()).verdict is Verdict.DENY]
WITHHELD = [
    (case, field) for case in company_cases() for field in decide(case.asked, company_rules()).withheld
]  # fmt: skip


def test_there_are_denials_and_withheld_fields() -> None:
    assert len(DENIED) > 10
    assert len(WITHHELD) > 5


@pytest.mark.parametrize("case", DENIED, ids=lambda case: case.name)
def test_every_nearest_miss_of_a_denial_flips_it(case: Case) -> None:
    found = holds(case.asked, None)
    assert found or decide(case.asked, company_rules()).code != "DENIED"


@pytest.mark.parametrize(("case", "wanted"), WITHHELD, ids=str)
def test_every_nearest_miss_of_a_field_lets_it_in(case: Case, wanted: str) -> None:
    found = holds(case.asked, wanted)
    assert (found > 0) == (wanted != "incidents.key"), "a secret is for nobody, anything else for somebody"


@settings(max_examples=25)
@given(
    case=st.sampled_from(company_cases()),
    who=st.sampled_from(["ana.support", "ian.intern", "olaf.onleave", "ada.auditor", "una.both"]),
    purpose=st.sampled_from(["ticket", "invoice", "people", "writing", "audit"]),
    hours=st.integers(0, 47),
)
def test_the_law_holds_for_made_up_questions(case: Case, who: str, purpose: str, hours: int) -> None:
    request = replace(case.asked.request, purpose=purpose)
    time_ms = case.asked.time_ms + hours * HOUR_MS
    question = replace(
        case.asked, principal=("User", who), actor=("Service", "helpdesk-app"), request=request, time_ms=time_ms
    )
    decision = decide(question, company_rules())
    if decision.verdict is Verdict.DENY:
        holds(question, None)
    for field in decision.withheld:
        holds(question, field)


@pytest.mark.parametrize(
    ("start", "wanted", "steps"),
    [
        ("support asks no more at 20:00", None, ["ask at 2026-11-21 07:00 UTC"]),
        ("14b:", None, ["let the service `helpdesk-app` carry it"]),
        ("29:", None, ["ask the model `smollm2`"]),
        ("28:", None, ['set `onLeave` of User::"olaf.onleave" to false']),
        ("6:", "people.salary", ['put User::"ian.intern" into Role::"people"']),
        ("21:", "tickets.phone", ["ask for the purpose `ticket`"]),
    ],
)
def test_what_is_nearest(start: str, wanted: str | None, steps: list[str]) -> None:
    assert texts(start, wanted)[0] == steps


def test_what_asks_least_of_the_directory_comes_first() -> None:
    found = nearest(asked("support cannot write"), company_rules())
    assert [[step.of for step in miss.steps] for miss in found] == [["request"], ["directory"], ["directory"]]
    assert len({miss.policies for miss in found}) == 3


def test_nothing_is_near_where_nothing_was_denied_or_nobody_is_known() -> None:
    assert nearest(asked("1:"), company_rules()) == ()
    assert nearest(asked("14c:"), company_rules()) == ()
