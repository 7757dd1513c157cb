"""What no case reaches is said, and nothing else."""

from policy_rules import company_cases, company_rules

from sluicegate.policy.coverage import Coverage, measure
from sluicegate.policy.trial import run_case


def coverage(*starts: str) -> Coverage:
    cases = [case for case in company_cases() if case.name.startswith(starts)]
    return measure(company_rules(), [run_case(case, company_rules()) for case in cases])


def test_all_cases_together_reach_everything() -> None:
    found = coverage("")
    assert found.complete
    assert list(found.lines()) == []
    assert found.summary() == "18 of 18 policies, 36 of 36 clause outcomes"


def test_one_case_reaches_what_it_asks() -> None:
    found = coverage("2:")
    assert {name for name, reached in found.policies.items() if reached} == {
        "support-answers-customers", "open-fields", "support-reads-contact-data", "every-answer",
        "unreleased-names-stay-inside",
    }  # fmt: skip
    lines = list(found.lines())
    assert "fields.cedar:14: no case reaches `secrets-never-enter-a-prompt`" in lines
    assert "access.cedar:6: no case sees `context.clock.hour >= 7` of `support-answers-customers` (when) false" in lines
    assert not found.complete


def test_a_second_case_sees_the_other_side() -> None:
    lines = list(coverage("2:", "15:", "support asks no more").lines())
    assert not any("context.clock.hour" in line and "support-answers" in line for line in lines)


def test_a_clause_is_seen_only_where_the_head_matched() -> None:
    (clause,) = [each for each in coverage("2:").clauses if each.policy == "people-team-asks-about-people"]
    assert clause.seen == frozenset(), "ana is not of the people team, so nobody asked for the purpose"
    assert clause.missing() == "true or false"


def test_no_case_reaches_nothing() -> None:
    found = coverage("no such case")
    assert not any(found.policies.values())
    assert len(list(found.lines())) == len(found.policies)
