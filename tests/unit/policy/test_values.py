"""What is shown beside a clause is what the engine saw there."""

import json

import cedarpy
import pytest
from policy_rules import company_cases, company_rules

from sluicegate.policy.situation import rules_with
from sluicegate.policy.tree import Expression, Question, paths, read_tree, value_of
from sluicegate.policy.trial import decide
from sluicegate.policy.values import Absent, cedar_text, steps_of, text_at, uid_of, value_at


def expression(text: str) -> Expression:
    (node,) = json.loads(cedarpy.policies_to_json_str(f"permit (principal, action, resource) when {{ {text} }};"))[
        "staticPolicies"
    ].values()
    found: Expression = node["conditions"][0]["body"]
    return found


def test_the_engine_finds_the_same_at_every_path_of_every_policy() -> None:
    rules = company_rules()
    read = {
        path
        for source in rules.bundle.policies.values()
        for condition in read_tree(source).conditions
        for path in paths(condition.body)
    }
    assert {"context.via.speaksFor", "resource.dataset.labelledBy", "principal"} <= read
    seen: set[str] = set()
    for case in company_cases()[::3]:
        around = rules_with(rules, case.asked.put)
        for ruling in decide(case.asked, rules).rulings:
            question = Question.of(ruling)
            for path in sorted(read):
                value = value_at(path, question, around)
                if not isinstance(value, Absent):
                    seen.add(path)
                    assert value_of(expression(f"{path} == {cedar_text(value)}"), question, around) is True
    assert seen == read


@pytest.mark.parametrize(
    ("path", "steps"),
    [("principal", ("principal",)), ('context["x y"].z', ("context", "x y", "z"))],
)
def test_paths_are_cut_into_steps(path: str, steps: tuple[str, ...]) -> None:
    assert steps_of(path) == steps


def test_the_principal_is_shown_with_all_that_it_is_in() -> None:
    (case,) = [each for each in company_cases() if each.name.startswith("17:")]
    question = Question.of(decide(case.asked, company_rules()).rulings[0])
    text = 'User::"leo.lead" in [Role::"support", Role::"support-lead"]'
    assert text_at("principal", question, company_rules()) == text
    assert text_at("principal.nothing", question, company_rules()) == "(absent)"
    assert uid_of(value_at("resource", question, company_rules())) == 'Model::"smollm2"'


def test_values_read_as_cedar() -> None:
    assert cedar_text({"a b": [2, "x", True], "t": {"__extn": {"fn": "ip", "arg": "::1"}}}) == (
        '{"a b": ["x", 2, true], "t": ip("::1")}'
    )
