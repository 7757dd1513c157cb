"""The tree of a policy is the engine's: it goes there and back, and what a clause is worth the engine says."""

import json
from dataclasses import replace
from pathlib import Path

import cedarpy
import pytest
from company import POLICIES

from sluicegate.bundle_folder import read_bundle
from sluicegate.enforcer.access import Rules
from sluicegate.enforcer.bundle import load_bundle
from sluicegate.enforcer.decide import Decider, context_json, entity_json
from sluicegate.enforcer.directory import load_directory
from sluicegate.enforcer.policy_text import PolicySource, statements
from sluicegate.policy.tree import (
    Condition,
    Expression,
    Failed,
    PolicyTree,
    Question,
    clauses,
    paths,
    read_tree,
    rebuilt,
    text_of,
    value_of,
    without_clause,
)
from sluicegate.schemas.ids import PolicyId, entity_uid

# One policy with every node that Cedar's text can hold.
EVERY_NODE = r"""
@id("every-node") @reason("a \"quoted\" \\ reason")
forbid (principal is Org::User in Role::"a \" b", action in [Action::"generate", Action::"shape"],
        resource == Model::"m")
when { context.a.b >= 7 && (context["x y"] - 2) * 3 < -4 || !(principal has manager.name) && resource has "a b" }
unless { context.q like "a*\*b" || [1, 2].containsAny(context.n) || principal.s.contains("x)(") || context.t.isEmpty() }
when { if context.p then principal is Org::User in Role::"a" else principal.getTag("t") == {"k": true, "l l": [1]} }
when { ip("10.0.0.1").isInRange(ip(context.net)) && decimal("1.5").lessThan(context.d) && principal.hasTag("t") };
"""


def trees_of(text: str) -> dict[str, PolicyTree]:
    found = {}
    for _, statement in statements(text):
        (node,) = json.loads(cedarpy.policies_to_json_str(statement))["staticPolicies"].values()
        source = PolicySource(
            id=PolicyId(node["annotations"]["id"]),
            file="x.cedar",
            line=1,
            forbids=node["effect"] == "forbid",
            actions=(),
            annotations=node["annotations"],
            text=statement,
        )
        found[source.id] = read_tree(source)
    return found


def company_trees() -> dict[str, PolicyTree]:
    return trees_of("\n".join(path.read_text(encoding="utf-8") for path in sorted(POLICIES.glob("*.cedar"))))


def engine_tree(text: str) -> dict[str, object]:
    (node,) = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values()
    return {"annotations": {}, **node}


def expression(text: str) -> Expression:
    (tree,) = trees_of(f'@id("x") permit (principal, action, resource) when {{ {text} }};').values()
    return tree.conditions[0].body


ALL = {**company_trees(), **trees_of(EVERY_NODE)}


@pytest.fixture(scope="module")
def rules() -> Rules:
    bundle = load_bundle(read_bundle(POLICIES))
    directory = load_directory((POLICIES / "directory.json").read_bytes(), bundle)
    return Rules(bundle=bundle, directory=directory, decider=Decider(bundle, directory))


def question(person: str = "ana.support", purpose: str = "ticket", hour: int = 12) -> Question:
    context = context_json(
        {
            "purpose": entity_json("Purpose", purpose),
            "via": entity_json("Service", "helpdesk-app"),
            "clock": {"hour": hour, "weekday": 4},
            "asked": {"outputTokens": 32, "stream": False},
        }
    )
    return Question(
        action="generate",
        principal=entity_uid("User", person),
        resource=entity_uid("Model", "smollm2"),
        context=context,
    )


@pytest.mark.parametrize("name", list(ALL))
def test_a_tree_goes_to_text_and_back(name: str) -> None:
    tree = ALL[name]
    assert engine_tree(tree.to_text()) == tree.to_json()
    assert trees_of(tree.to_text()) == {name: tree}


def test_the_comparison_of_trees_sees_a_change() -> None:
    tree = ALL["on-leave"]
    assert engine_tree(replace(tree, effect="permit").to_text()) != tree.to_json()


@pytest.mark.parametrize("name", list(ALL))
def test_the_text_of_a_condition_parses_to_the_same(name: str) -> None:
    for condition in ALL[name].conditions:
        assert expression(text_of(condition.body)) == condition.body


@pytest.mark.parametrize(
    "text",
    [
        "context.clock.hour >= 7 && context.clock.hour < 20",
        '[Purpose::"incident", Purpose::"writing"].contains(context.purpose)',
        "(context.a || context.b) && !(context.c || context.d)",
        "1 - (2 - 3) == (1 + 2) * 3",
        '"a (b) \\"c" == context["x y"]',
        'ip("10.0.0.1").isInRange(context.net)',
        "if context.a then context.b else context.c",
    ],
)
def test_texts_hold_only_the_parentheses_they_need(text: str) -> None:
    assert text_of(expression(text)) == text


@pytest.mark.parametrize(
    ("kind", "text", "found"),
    [
        ("when", "context.a && context.b && context.c", ["context.a", "context.b", "context.c"]),
        ("when", "context.a && (context.b && context.c)", ["context.a", "context.b", "context.c"]),
        ("when", "context.a || context.b", ["context.a || context.b"]),
        ("unless", "context.a || context.b && context.c", ["context.a", "context.b && context.c"]),
        ("unless", "context.a && context.b", ["context.a && context.b"]),
        ("when", "true", ["true"]),
    ],
)
def test_clauses(kind: str, text: str, found: list[str]) -> None:
    condition = Condition(kind="unless" if kind == "unless" else "when", body=expression(text))
    assert [text_of(each) for each in clauses(condition)] == found


def test_a_thousand_clauses_are_no_deeper_than_one() -> None:
    body: Expression = {"Value": True}
    for _ in range(5_000):
        body = {"&&": {"left": body, "right": {"Value": True}}}
    assert len(clauses(Condition(kind="when", body=body))) == 5_001


def test_a_clause_is_dropped() -> None:
    tree = ALL["support-answers-customers"]
    kept = without_clause(tree, 0, 1)
    assert [text_of(each.body) for each in kept.conditions] == [
        'context.purpose == Purpose::"ticket" && context.clock.hour < 20'
    ]
    assert without_clause(ALL["on-leave"], 0, 0).conditions == ()
    assert trees_of(kept.to_text()) == {kept.id: kept}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("context.clock.hour >= 7 && context.clock.hour < context.asked.outputTokens",
         ("context.clock.hour", "context.asked.outputTokens")),
        ('principal in Role::"support" && principal.purposes.contains(context.purpose)',
         ("principal", "principal.purposes", "context.purpose")),
        ('context["x y"].z == {"a": resource.b}', ('context["x y"].z', "resource.b")),
        ("principal has a && principal has b.c", ("principal.a", "principal.b", "principal.b.c")),
        ('"principal.a" like "*" || action == Action::"read"', ("action",)),
    ],
)  # fmt: skip
def test_paths(text: str, found: tuple[str, ...]) -> None:
    assert paths(expression(text)) == found


@pytest.mark.parametrize("name", [each for each in ALL if each != "every-node"])
@pytest.mark.parametrize(("person", "purpose", "hour"), [("ana.support", "ticket", 12), ("ian.intern", "people", 3)])
def test_scope_and_conditions_hold_exactly_where_the_policy_matches(
    name: str, person: str, purpose: str, hour: int, rules: Rules
) -> None:
    tree, asked = ALL[name], question(person, purpose, hour)
    holds = [value_of(each, asked, rules) for variable, scope in tree.scopes() if (each := scope.expression(variable))]
    for condition in tree.conditions:
        values = [value_of(each, asked, rules) for each in clauses(condition)]
        holds.append(all(values) if condition.kind == "when" else not any(values))
    permitted = {PolicyId(name): replace(tree, effect="permit")}
    alone = rebuilt(rules.bundle, {**dict.fromkeys(rules.bundle.policies), **permitted})
    ruling = Decider(alone, rules.directory).rule(asked.action, asked.principal, asked.resource, asked.context)
    assert ruling.allowed == all(holds)
    assert ruling.policies == ((name,) if all(holds) else ())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("context.clock.hour == 12", True),
        ("context.clock.hour == 13", False),
        ('principal in Role::"support"', True),
        ("principal.nothing", Failed()),
        ("context.clock.hour", Failed()),
        ("9223372036854775807 + context.clock.hour > 0", Failed()),
    ],
)
def test_the_engine_says_what_a_clause_is_worth(text: str, value: bool | Failed, rules: Rules) -> None:
    assert value_of(expression(text), question(), rules) == value


def test_a_question_that_cannot_be_put_gives_no_value(rules: Rules) -> None:
    assert value_of(expression("true"), replace(question(), context='{"more":1}'), rules) == Failed()


def test_a_rebuilt_bundle_decides_by_what_was_changed(rules: Rules) -> None:
    asked, policy = question(hour=3), PolicyId("support-answers-customers")
    rule = (asked.action, asked.principal, asked.resource, asked.context)
    assert not rules.decider.rule(*rule).allowed
    tree = read_tree(rules.bundle.policies[policy])
    loose = rebuilt(rules.bundle, {policy: without_clause(tree, 0, 1)})
    assert Decider(loose, rules.directory).rule(*rule).policies == (policy,)
    assert read_tree(loose.policies[policy]) == without_clause(tree, 0, 1)
    assert loose.policies[policy].place() == rules.bundle.policies[policy].place()
    assert loose.digest != rules.bundle.digest
    gone = rebuilt(loose, {policy: None})
    assert not Decider(gone, rules.directory).rule(*rule).allowed
    assert policy not in gone.policies
    assert list(rebuilt(rules.bundle, {}).policies) == list(rules.bundle.policies)
    with pytest.raises(KeyError):
        rebuilt(gone, {policy: None})


def test_the_examples_are_all_read() -> None:
    assert len(ALL) == sum(path.read_text().count("@id(") for path in Path(POLICIES).glob("*.cedar")) + 1
