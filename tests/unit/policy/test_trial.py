"""A case passes exactly where the decision is as expected, and what differs is said place by place."""

import pytest
from policy_rules import asked, company_cases, company_rules

from sluicegate.policy.cases import Case, read_cases
from sluicegate.policy.trial import decide, run_case
from sluicegate.schemas.errors import InvalidBundle
from sluicegate.schemas.events import Verdict

HEAD = "defaults: {via: helpdesk-app, at: 2026-11-20T09:00:00Z, model: smollm2}\ncases:\n"
ASK = (
    "- name: a\n  who: ana.support\n  request: {purpose: ticket, messages: ['Hello?'], parameters: {max_tokens: 200}}\n"
)


def case(expect: str) -> Case:
    (found,) = read_cases({"tests/x.yaml": f"{HEAD}{ASK}  expect: {{{expect}}}\n"})
    return found


@pytest.mark.parametrize(
    ("expect", "places"),
    [
        ("verdict: allow", []),
        ("verdict: deny", ["verdict"]),
        ("verdict: allow, code: DENIED", ["code"]),
        ("verdict: allow, policies: [support-answers-customers]", []),
        ("verdict: allow, policies: []", ["policies"]),
        ("verdict: allow, clamps: {max_tokens: {asked: 200, granted: 64, from: [support-answers-customers]}}", []),
        ("verdict: allow, clamps: {max_tokens: {asked: 200, granted: 65, from: []}}",
         ["clamps.max_tokens.granted", "clamps.max_tokens.from"]),
        ("verdict: allow, clamps: {}", ["clamps.max_tokens"]),
        ("verdict: allow, record: {granted: {max_tokens: 64}, check: 0}", []),
        ("verdict: allow, record: {granted: {max_tokens: 63}}", ["record.granted.max_tokens"]),
        ("verdict: allow, record: {check: false}", ["record.check"]),
        ("verdict: allow, record: {nothing: 1}", ["record.nothing"]),
        ("verdict: allow, fields: {people.salary: []}", ["fields.people.salary"]),
        ("verdict: allow, prompt: [{role: user, text: 'Hello?'}]", ["prompt"]),
    ],
)  # fmt: skip
def test_what_is_expected_is_compared(expect: str, places: list[str]) -> None:
    outcome = run_case(case(expect), company_rules())
    assert [each.place for each in outcome.differences] == places
    assert outcome.passed == (not places)


def test_a_difference_reads_as_a_diff() -> None:
    outcome = run_case(case("verdict: deny, policies: [on-leave]"), company_rules())
    assert [line for each in outcome.differences for line in each.lines()] == [
        "verdict:", "  - deny", "  + allow", "policies:", "  - on-leave", "  + support-answers-customers",
    ]  # fmt: skip


def test_of_a_long_prompt_only_the_lines_that_differ_are_marked() -> None:
    system = "{role: system, text: You are a helpful support assistant of Heron Cycles}"
    outcome = run_case(case(f"verdict: allow, prompt: [{system}, {{role: user, text: 'Hello!'}}]"), company_rules())
    (difference,) = outcome.differences
    assert list(difference.lines()) == ["prompt.1.text:", "  - Hello!", "  + Hello?"]


def test_a_record_is_compared_as_the_audit_keeps_it() -> None:
    """Lists are lists there and words are texts: among Python's own values `[]` is no `()`."""
    (found,) = [each for each in company_cases() if each.name.startswith("a purpose nobody declared")]
    assert found.expected.record is not None
    assert found.expected.record["rulings"] == []
    assert run_case(found, company_rules()).passed


def test_a_case_can_change_the_directory() -> None:
    question = asked("somebody of the people team who practises")
    assert decide(question, company_rules()).determining == ("interns-may-practise",)
    assert decide(asked("5:"), company_rules()).determining == ("people-team-asks-about-people",), "only for itself"


def test_entities_that_do_not_conform_are_a_problem_of_the_case() -> None:
    who = "  directory: [{uid: {type: User, id: x}, attrs: {onLeave: 1}}]\n"
    (bad,) = read_cases({"tests/x.yaml": f"{HEAD}{ASK}{who}  expect: {{verdict: deny}}\n"})
    with pytest.raises(InvalidBundle, match=r"tests/x\.yaml:3: `directory`: User::"):
        run_case(bad, company_rules())


def test_a_decision_is_the_same_each_time() -> None:
    found = [decide(asked("11:"), company_rules()) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0].verdict is Verdict.ALLOW
