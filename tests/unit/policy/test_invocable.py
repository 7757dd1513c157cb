"""`sluicegate models`: a model is listed if and only if the gate allows a plain question to it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from sluicegate.bundle_folder import read_bundle
from sluicegate.commands.models import models
from sluicegate.enforcer.access import Rules, judge
from sluicegate.enforcer.bundle import bundle_content, load_bundle
from sluicegate.enforcer.decide import Decider
from sluicegate.enforcer.directory import load_directory, split_uid
from sluicegate.policy.invocable import invocable, plain_question
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import Parameters

POLICIES = Path(__file__).resolve().parents[3] / "policies"
NINE = 1_767_603_600_000  # Monday 2026-01-05T09:00:00Z
HOUR = 3_600_000


def rules_with(**more: str) -> Rules:
    files = json.loads(read_bundle(POLICIES)) | {f"{name}.cedar": text for name, text in more.items()}
    bundle = load_bundle(bundle_content(files))
    directory = load_directory((POLICIES / "directory.json").read_bytes(), bundle)
    return Rules(bundle=bundle, directory=directory, decider=Decider(bundle, directory))


RULES = rules_with()
PEOPLE = sorted(split_uid(uid) for uid, kind in RULES.directory.types.items() if kind in {"User", "Service"})
SERVICES = [each for each in PEOPLE if each[0] == "Service"]
MODELS = sorted(split_uid(uid)[1] for uid, kind in RULES.directory.types.items() if kind == "Model")
PURPOSES = sorted(RULES.bundle.enums["Purpose"])
PARAMETERS = st.builds(Parameters, max_tokens=st.none() | st.integers(1, 32_768), stream=st.booleans())


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(PEOPLE), st.sampled_from(SERVICES), st.sampled_from(PURPOSES), st.sampled_from(MODELS),
    st.integers(0, 24 * 7), PARAMETERS,
)  # fmt: skip
def test_listed_if_and_only_if_the_gate_allows_it(who, actor, purpose, model, hour, parameters):
    at = NINE + hour * HOUR
    ways = invocable(RULES, who, time_ms=at, actors=(actor,), purposes=(purpose,))
    allowed = judge(RULES, plain_question(who, actor, purpose, model, at, parameters)).code is Code.OK
    assert (model in {each.model for each in ways}) == allowed


def test_the_property_sees_both_answers():
    who = [("User", name) for name in ("ana.support", "olaf.onleave")]
    listed = [bool(invocable(RULES, each, time_ms=NINE, purposes=("ticket",))) for each in who]
    assert True in listed
    assert False in listed


def test_who_may_what():
    (ana,) = invocable(RULES, ("User", "ana.support"), time_ms=NINE)
    assert (ana.model, ana.purpose, ana.actor) == ("smollm2", "ticket", ("Service", "helpdesk-app"))
    assert (ana.policies, ana.granted.max_tokens) == (("support-answers-customers",), 64)
    assert invocable(RULES, ("User", "ana.support"), time_ms=NINE + 12 * HOUR) == ()
    assert invocable(RULES, ("User", "olaf.onleave"), time_ms=NINE) == ()
    (night,) = invocable(RULES, ("Service", "nightly-triage"), time_ms=NINE - 7 * HOUR)
    assert (night.actor, night.granted.choices) == (("Service", "nightly-triage"), ("positive", "negative"))


@pytest.mark.parametrize(
    ("policy", "listed"),
    [
        (('@id("short") forbid (principal, action == Action::"generate", resource) '
         "when { context.asked.outputTokens > 100 };"), True),
        (('@id("streamed") forbid (principal, action == Action::"generate", resource) '
         "unless { context.asked.stream };"), True),
        ('@id("no-shape") forbid (principal, action == Action::"shape", resource);', False),
    ],
)  # fmt: skip
def test_what_can_be_asked_in_some_way_is_listed_and_no_more(policy, listed):
    found = invocable(rules_with(more=policy), ("User", "ana.support"), time_ms=NINE)
    assert bool(found) == listed


def asked(*words):
    return CliRunner().invoke(
        models, [*words, "--bundle", str(POLICIES), "--directory", str(POLICIES / "directory.json")],
        standalone_mode=False,
    )  # fmt: skip


def test_the_command():
    found = asked("--as", "ana.support", "--at", "2026-01-05T09:00:00Z")
    assert found.return_value == 0
    assert found.output.split("\n")[1].split() == [
        "smollm2", "ticket", "helpdesk-app", "64", "support-answers-customers",
    ]  # fmt: skip
    row = json.loads(asked("--as", 'User::"ana.support"', "--at", "2026-01-05T09:00:00Z", "--json").output)
    assert (row["model"], row["via"]) == ("smollm2", 'Service::"helpdesk-app"')
    assert asked("--as", "ana.support", "--at", "2026-01-05T22:00:00Z").return_value == 1
    assert asked("--as", "ana.support", "--via", "rogue-app", "--at", "2026-01-05T09:00:00Z").return_value == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--as", "nobody"), "does not know"),
        (("--as", 'User::"'), "is no entity"),
        (("--as", "ana.support", "--via", "x"), "does not know"),
        (("--as", "ana.support", "--purpose", "x"), "no purpose"),
        (("--as", "ana.support", "--at", "09:00"), "no time"),
        (("--as", "ana.support", "--at", "2026-01-05T09:00:00"), "no time"),
    ],
)
def test_what_the_command_does_not_take(words, text):
    found = asked(*words)
    assert found.exception is not None
    assert text in str(found.exception)
