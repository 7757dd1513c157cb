"""Cedar is asked with the schema, about known entities, and any error denies (DESIGN 4, invariant 7)."""

import json

import cedarpy
import pytest

from sluicegate.enforcer.bundle import bundle_content, load_bundle
from sluicegate.enforcer.decide import REQUEST_INVALID, UNKNOWN_ENTITY, Decider, context_json, entity_json
from sluicegate.enforcer.directory import load_directory
from sluicegate.schemas.ids import entity_uid

ANA, SALARY, EMAIL = (
    entity_uid("User", "ana.support"),
    entity_uid("Field", "people.salary"),
    entity_uid("Field", "tickets.email"),
)
READING = {
    "purpose": entity_json("Purpose", "ticket"),
    "via": entity_json("Service", "helpdesk-app"),
    "model": entity_json("Model", "smollm2"),
}


def test_allow_and_both_denials(heron):
    allowed = heron.decider.rule("read", ANA, EMAIL, context_json(READING))
    assert (allowed.allowed, allowed.policies, allowed.errors) == (True, ("support-reads-contact-data",), ())
    assert (allowed.action, allowed.principal, allowed.resource) == ("read", ANA, EMAIL)
    unmatched = heron.decider.rule("read", ANA, SALARY, context_json(READING))
    assert (unmatched.allowed, unmatched.policies, unmatched.errors) == (False, (), ())
    rogue = context_json({**READING, "via": entity_json("Service", "rogue-app")})
    forbidden = heron.decider.rule("read", ANA, EMAIL, rogue)
    assert (forbidden.allowed, forbidden.policies, forbidden.errors) == (False, ("labels-need-a-voucher",), ())


def test_a_stored_ruling_is_decided_again(heron):
    ruling = heron.decider.rule("read", ANA, EMAIL, context_json(READING))
    again = Decider(heron.bundle, heron.directory, remembered_max=0)
    assert again.rule(ruling.action, ruling.principal, ruling.resource, ruling.context) == ruling


@pytest.mark.parametrize(
    ("action", "principal", "resource", "change", "error"),
    [
        ("read", 'User::"mallory"', EMAIL, {}, UNKNOWN_ENTITY),
        ("read", ANA, 'Field::"tickets.gone"', {}, UNKNOWN_ENTITY),
        ("read", ANA, EMAIL, {"via": entity_json("Service", "gone")}, UNKNOWN_ENTITY),
        ("read", ANA, EMAIL, {"via": {"type": "Service", "id": "gone"}}, UNKNOWN_ENTITY),
        ("read", ANA, EMAIL, {"purpose": entity_json("Purpose", "tickets")}, UNKNOWN_ENTITY),
        ("read", "ana.support", EMAIL, {}, REQUEST_INVALID),
        ("reed", ANA, EMAIL, {}, REQUEST_INVALID),
        ("generate", ANA, EMAIL, {}, REQUEST_INVALID),
        ("read", ANA, EMAIL, {"more": 1}, REQUEST_INVALID),
        ("read", ANA, EMAIL, {"model": 7}, REQUEST_INVALID),
        ("read", EMAIL, EMAIL, {}, REQUEST_INVALID),
    ],
)
def test_what_cannot_be_asked_is_denied(heron, action, principal, resource, change, error):
    ruling = heron.decider.rule(action, principal, resource, context_json({**READING, **change}))
    assert (ruling.allowed, ruling.policies, ruling.errors) == (False, (), (error,))


@pytest.mark.parametrize(
    "context",
    [
        "",
        "[]",
        "{}x",
        json.dumps(READING),
        "{" + context_json(READING)[1:-1] + ',"via":{}}',
        "[" * 100_000,
        '{"a":NaN}',
    ],
)
def test_context_must_be_canonical(heron, context):
    ruling = heron.decider.rule("read", ANA, EMAIL, context)
    assert (ruling.allowed, ruling.errors) == (False, (REQUEST_INVALID,))


def _with_errors(heron_files, heron_directory, policies):
    files = {**heron_files, "more.cedar": policies}
    bundle = load_bundle(bundle_content(files))
    return bundle, load_directory(heron_directory, bundle)


def test_a_failing_policy_denies_where_cedar_alone_allows(heron_files, heron_directory):
    # The forbid overflows, so Cedar skips it and allows; the ruling must not.
    overflow = '@id("b-{}") forbid (principal, action == Action::"generate", resource) when {{ {} > 1 }};\n'
    context = {
        "purpose": entity_json("Purpose", "ticket"),
        "via": entity_json("Service", "helpdesk-app"),
        "clock": {"hour": 9, "weekday": 0},
        "asked": {"outputTokens": 2**62, "stream": False},
    }
    policies = overflow.format("two", "context.asked.outputTokens * 3") + overflow.format(
        "one", "context.asked.outputTokens * 4"
    )
    bundle, directory = _with_errors(heron_files, heron_directory, policies)
    model = entity_uid("Model", "smollm2")
    question = {"principal": ANA, "action": 'Action::"generate"', "resource": model, "context": context_json(context)}
    assert cedarpy.is_authorized(question, bundle.policy_set, directory.entities, bundle.schema).allowed
    ruling = Decider(bundle, directory).rule("generate", ANA, model, context_json(context))
    assert not ruling.allowed
    assert ruling.errors == ("b-one", "b-two")


def test_remembered_rulings_are_bounded_and_equal(heron):
    small = Decider(heron.bundle, heron.directory, remembered_max=2)
    questions = [
        ("read", ANA, entity_uid("Field", name), context_json(READING))
        for name in ("tickets.text", "tickets.email", "people.salary")
    ]
    first = [small.rule(*question) for question in questions]
    assert [small.rule(*question) for question in reversed(questions)] == first[::-1]
    assert [ruling.allowed for ruling in first] == [True, True, False]
    assert small.remembered == 2
