"""A change of policy that no case notices survives and is counted; one that a case notices does not."""

from dataclasses import replace

import pytest
from policy_rules import company_cases, company_rules

from sluicegate.policy.cases import Expected
from sluicegate.policy.mutants import Mutations, mutants, mutate
from sluicegate.policy.trial import Outcome, run_case


def outcomes(*, but: str = "\0") -> list[Outcome]:
    rules = company_rules()
    return [run_case(case, rules) for case in company_cases() if not case.name.startswith(but)]


def test_every_kind_of_change_is_made() -> None:
    changes = {(each.policy, each.change) for each in mutants(company_rules().bundle)}
    assert {
        ("on-leave", "the policy is dropped"),
        ("on-leave", "it becomes a permit"),
        ("on-leave", "`principal.onLeave` is dropped from its `when`"),
        ("every-answer", '`@redact("CARD=label, IBAN=last4, SECRET=label")` loses `IBAN`'),
        ("every-answer", '`@numbers("from_context")` becomes `free`'),
        ("interns-may-practise", '`@max_tokens("24")` becomes 240'),
        ("interns-may-practise", '`@max_tokens("24")` is removed'),
        ("interns-may-practise", '`@seed("fixed")` becomes `client`'),
        ("unreleased-names-stay-inside", '`@alias("unreleased-bikes")` loses `unreleased-bikes`'),
    } <= changes


def test_each_mutant_is_another_policy() -> None:
    made = list(mutants(company_rules().bundle))
    texts = [(each.policy, each.tree.to_text() if each.tree else None) for each in made]
    assert len(set(texts)) == len(texts) > 70


@pytest.mark.parametrize(
    ("but", "survivor"),
    [
        ("a producer that may not vouch", ("labels-need-a-voucher", "the policy is dropped")),
        ("support asks no more at 20:00", ("support-answers-customers",
                                           "`context.clock.hour < 20` is dropped from its `when`")),
    ],
)  # fmt: skip
def test_without_its_case_a_change_survives(but: str, survivor: tuple[str, str]) -> None:
    found = mutate(company_rules(), outcomes(but=but))
    assert survivor in [(each.policy, each.change) for each in found.survivors]
    assert found.score == (found.made - len(found.survivors)) / found.made < 1


def test_cases_that_expect_little_notice_little() -> None:
    loose = [
        run_case(replace(each.case, expected=Expected(verdict=each.case.expected.verdict)), company_rules())
        for each in outcomes()
    ]
    assert all(each.passed for each in loose)
    found = mutate(company_rules(), loose)
    assert 0.3 < found.score < 0.7
    assert any("@redact" in each.change for each in found.survivors)


def test_nothing_to_break_is_nothing_missed() -> None:
    assert Mutations(made=0, survivors=()).score == 1.0
    assert mutate(company_rules(), []).score == 0.0
