"""An explanation repeats the gate's decision and says where each part of it comes from."""

import json

import pytest
from policy_rules import asked, asked_of, company_cases, company_rules

from sluicegate.policy.cases import Case
from sluicegate.policy.explain import Ends, Explanation, explain
from sluicegate.policy.explain_json import explanation_json
from sluicegate.policy.trial import decide


def explained(start: str) -> Explanation:
    return explain(asked(start), company_rules())


def ends(found: Explanation) -> dict[str, Ends]:
    return {each.name: each for each in found.ends}


@pytest.mark.parametrize("case", company_cases()[::2], ids=lambda case: case.name)
def test_an_explanation_is_of_the_decision_itself(case: Case) -> None:
    found, decision = explain(case.asked, company_rules()), decide(case.asked, company_rules())
    assert found.decision == decision
    assert tuple(each.policy for each in found.policies) == decision.determining
    for matched in (*found.policies, *found.shape, *(policy for each in found.ends for policy in each.policies)):
        assert matched.place == company_rules().bundle.policies[matched.policy].place()  # type: ignore[index]
        for clause in matched.clauses:
            assert clause.holds is (clause.kind != "unless"), "a policy that matched is met in every clause"
    assert {
        each.name: (json.loads(each.value), tuple(s.policy for s in each.stated if s.decides)) for each in found.duties
    } == {each.name: (json.loads(each.value), each.policies) for each in decision.obligations}
    if not found.allowed:
        return
    fields = {name: each.enters for name, each in ends(found).items() if not name.startswith("message ")}
    assert fields == {**dict.fromkeys(decision.admitted, True), **dict.fromkeys(decision.withheld, False)}
    json.dumps(explanation_json(found))


def test_what_a_condition_saw() -> None:
    (policy,) = explained("2:").policies
    assert (policy.policy, policy.place, policy.effect) == ("support-answers-customers", "access.cedar:3", "permit")
    assert [(each.kind, each.text, each.place, each.holds, each.saw) for each in policy.clauses][2:4] == [
        ("when", 'context.purpose == Purpose::"ticket"', "access.cedar:6", True,
         (("context.purpose", 'Purpose::"ticket"'),)),
        ("when", "context.clock.hour >= 7", "access.cedar:6", True, (("context.clock.hour", "9"),)),
    ]  # fmt: skip


def test_what_tightened_an_obligation() -> None:
    (limit,) = [each for each in explained("34:").duties if each.name == "max_tokens"]
    assert limit.tightened
    assert [(each.policy, each.place, each.value, each.decides) for each in limit.stated] == [
        ("engineering-asks-anything-technical", "access.cedar:19", "256", False),
        ("interns-may-practise", "access.cedar:24", "24", True),
    ]
    (alone,) = [each for each in explained("2:").duties if each.name == "max_tokens"]
    assert not alone.tightened


def test_the_two_ends_of_a_field() -> None:
    iban = ends(explained("11:"))["invoices.iban"]
    assert iban.enters
    assert [each.policy for each in iban.policies] == ["finance-reads-payment-data"]
    assert [(each.redaction_class, each.operator, each.sources) for each in iban.leaves] == [
        ("IBAN", "last4", ("every-answer",))
    ]
    phone = ends(explained("2:"))["tickets.phone"]
    assert (phone.enters, phone.leaves) == (True, ()), "support may see it in the answer too"
    hidden = ends(explained("3:"))["tickets.phone"]
    assert not hidden.enters
    assert hidden.how == "withheld: a label in its place"
    assert hidden.nearest[0].policies == ("support-reads-contact-data",)
    secret = ends(explained("10:"))["incidents.key"]
    assert [each.effect for each in secret.policies] == ["forbid"]
    assert secret.nearest == ()


def test_what_is_pasted_into_a_message_leaves_redacted() -> None:
    pasted = ends(explained("4:"))
    assert [(each.redaction_class, each.operator) for each in pasted["message 1"].leaves] == [("PHONE", "label")]
    assert pasted["message 1"].leaves[0].sources == ("contact-data-stays-with-support",)


def test_a_default_deny_shows_what_was_missed() -> None:
    found = explained("support asks no more at 20:00")
    assert found.policies == ()
    assert not found.allowed
    (missed,) = found.missed
    assert missed.policy == "support-answers-customers"
    assert [each.text for each in missed.clauses if not each.holds] == ["context.clock.hour < 20"]
    assert [step.text for step in found.nearest[0].steps] == ["ask at 2026-11-21 07:00 UTC"]


def test_a_forbid_is_shown_with_its_reason_and_no_permit_as_missed() -> None:
    found = explained("7:")
    (policy,) = found.policies
    assert (policy.effect, policy.reason) == ("forbid", "this purpose is not assigned to you")
    assert found.missed == ()
    assert found.decision.reason == policy.reason


def test_what_policy_permits_and_the_request_spoils() -> None:
    found = explained("42:")
    assert found.decision.code == "SYSTEM_MESSAGE"
    assert (found.policies, found.missed, found.nearest) == ((), (), ())
    assert [each.policy for each in found.shape] == ["contact-data-stays-with-support", "every-answer"]
    assert ends(found)["roadmap.text"].how == "could enter the prompt"


def test_refused_before_any_policy() -> None:
    found = explained("14c:")
    assert (found.policies, found.missed, found.nearest, found.ends) == ((), (), (), ())
    assert found.decision.code == "UNKNOWN_PRINCIPAL"


def test_no_text_of_the_request_stands_in_an_explanation() -> None:
    words = "020 7946 0958 canary-in-a-message"
    document = "{dataset: tickets, id: x, fields: [{phone: canary-in-a-field 020 7946 0958}]}"
    text = (
        f"- {{name: a, who: ana.support, request: {{purpose: ticket, messages: ['{words}'], documents: [{document}]}}"
    )
    found = explain(asked_of(text + ", expect: {verdict: allow}}"), company_rules())
    assert ends(found)["tickets.phone"].enters
    assert "canary" not in json.dumps(explanation_json(found))
