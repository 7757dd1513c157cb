"""What two bundles do otherwise: every planted change is found with a request that shows it, and nothing else is."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import cedarpy
import pytest

from sluicegate.bundle_folder import read_bundle
from sluicegate.enforcer.access import Rules
from sluicegate.enforcer.bundle import Bundle, bundle_content, load_bundle
from sluicegate.enforcer.decide import Decider
from sluicegate.enforcer.directory import load_directory
from sluicegate.enforcer.obligations import MERGED, MergedObligations, merge
from sluicegate.policy.changes import policy_changes
from sluicegate.policy.contents import content_changes
from sluicegate.policy.plan import Plan, plan_json, plan_lines
from sluicegate.policy.witnesses import find
from sluicegate.schemas.ids import PolicyId

POLICIES = Path(__file__).parents[2] / "policies"
# Fewer people than the company has: as many as show every difference.
LEFT_OUT = {"una.both", "leo.lead", "sam.two", "ada.auditor", "lab-7b"}
ENTITIES: list[dict[str, Any]] = [
    each
    for each in json.loads((POLICIES / "directory.json").read_bytes())["entities"]
    if each["uid"]["id"] not in LEFT_OUT
]
BUDGET = 3_000

Json = dict[str, Any]
Files = dict[str, str]


@cache
def files() -> Mapping[str, str]:
    """The company's bundle without its test cases."""
    document: dict[str, str] = json.loads(read_bundle(POLICIES))
    return {path: text for path, text in document.items() if not path.startswith("tests/")}


@cache
def bundle_of(content: bytes) -> Bundle:
    return load_bundle(content)


def directory_bytes(*more: Mapping[str, object]) -> bytes:
    return json.dumps({"entities": [*ENTITIES, *more]}).encode()


def edited(changed: Files) -> bytes:
    return bundle_content({**files(), **changed})


def replaced(file: str, old: str, new: str) -> bytes:
    """The company's bundle with one text in one file replaced."""
    assert files()[file].count(old) == 1, f"{file} holds {files()[file].count(old)} of it"
    return edited({file: files()[file].replace(old, new)})


def rules_of(bundle: Bundle, directory: bytes) -> Rules:
    known = load_directory(directory, bundle)
    return Rules(bundle=bundle, directory=known, decider=Decider(bundle, known))


def planned(new: bytes, old: bytes | None = None, *, budget: int = BUDGET, directory: bytes | None = None) -> Plan:
    bundles = [bundle_of(content) for content in (edited({}) if old is None else old, new)]
    known = directory_bytes() if directory is None else directory
    rules = [rules_of(bundle, known) for bundle in bundles]
    changes = policy_changes(*bundles)
    contents = content_changes(*bundles)
    everything = any(each.kind == "schema" for each in contents)
    found = find(*rules, changes, everything=everything, budget=budget)
    return Plan(digests=(bundles[0].digest, bundles[1].digest), policies=changes, contents=contents, found=found)


def requests(plan: Plan) -> list[Json]:
    shown = plan_json(plan, 1_000)["requests"]
    assert isinstance(shown, list)
    return shown


# ---- deciding again, by Cedar alone --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    verdict: str
    policies: tuple[str, ...]
    obligations: Mapping[str, object]
    admitted: tuple[str, ...]


@cache
def engine_entities(content: bytes) -> cedarpy.Entities:
    return cedarpy.Entities.from_json_str(json.dumps(ENTITIES), bundle_of(content).schema)


def decided(asks: Json, content: bytes) -> Answer:
    """The engine, asked about all policies and entities at once: no index, slice, memo or gate between."""
    bundle = bundle_of(content)
    entities = engine_entities(content)
    at = datetime.fromisoformat(str(asks["at"]))
    request = asks["request"]
    assert isinstance(request, dict)
    parameters = request.get("parameters", {})
    context: Json = {
        "purpose": {"__entity": {"type": "Purpose", "id": request["purpose"]}},
        "via": {"__entity": _parts(str(asks["via"]))},
    }
    model = {"type": "Model", "id": request["model"]}
    asking = {
        **context,
        "clock": {"hour": at.hour, "weekday": at.weekday()},
        "asked": {"outputTokens": parameters.get("max_tokens", 256), "stream": parameters.get("stream", False)},
    }

    def ask(action: str, resource: Json, about: Json) -> tuple[bool, tuple[str, ...]]:
        question = {
            "principal": _parts(str(asks["who"])),
            "action": {"type": "Action", "id": action},
            "resource": resource,
            "context": about,
        }
        found = cedarpy.is_authorized(question, bundle.policy_set, entities, bundle.schema)
        assert not found.diagnostics.errors
        return found.allowed, tuple(sorted(found.diagnostics.reasons))

    allowed, policies = ask("generate", model, asking)
    if not allowed:
        return Answer("deny", policies, {}, ())
    admitted = []
    for document in request.get("documents", ()):
        for field in document["fields"]:
            name = f"{document['dataset']}.{field['name']}"
            if ask("read", {"type": "Field", "id": name}, {**context, "model": {"__entity": model}})[0]:
                admitted.append(name)
    shaped, shaping = ask("shape", model, asking)
    if not shaped:
        return Answer("deny", shaping, {}, ())
    merged = merge(
        (each, name, raw)
        for each in map(PolicyId, (*policies, *shaping))
        for name, raw in bundle.policies[each].annotations.items()
        if name in MERGED
    )
    if not isinstance(merged, MergedObligations):
        return Answer("deny", (), {}, ())
    obligations = {
        each.name: {"value": json.loads(each.value), "from": list(each.policies)} for each in merged.recorded
    }
    return Answer("allow", policies, obligations, tuple(admitted))


def _parts(uid: str) -> Json:
    kind, _, name = uid.partition("::")
    return {"type": kind, "id": json.loads(name)}


def holds(plan: Plan, old: bytes, new: bytes) -> None:
    """Every request of the plan gets what the plan says, and not the same before and after."""
    for each in requests(plan):
        asks, said = each["asks"], (each["before"], each["after"])
        assert isinstance(asks, dict)
        answers = [decided(asks, content) for content in (old, new)]
        for side, answer in zip(said, answers, strict=True):
            assert isinstance(side, dict)
            assert (side["verdict"], tuple(side["policies"]), side["obligations"], tuple(side["admitted"])) == (
                answer.verdict, answer.policies, answer.obligations, answer.admitted,
            )  # fmt: skip
        assert said[0] != said[1]


# ---- nothing -------------------------------------------------------------------------------------------------------


def _turned(text: str) -> str:
    """The statements of a Cedar file, the last first."""
    return "\n".join(f"{each.strip()};" for each in reversed([part for part in text.split(";\n") if "@id" in part]))


SAME: dict[str, Callable[[], bytes]] = {
    "identical": lambda: edited({}),
    "line endings": lambda: bundle_content({path: text.replace("\n", "\r\n") for path, text in files().items()}),
    "comments": lambda: edited({"pay.cedar": "// more\n\n" + files()["pay.cedar"].replace("permit", "// why\npermit")}),
    "another file": lambda: bundle_content(
        {**{path: text for path, text in files().items() if path != "pay.cedar"}, "aaa.cedar": files()["pay.cedar"]}
    ),
    "another order": lambda: edited({"access.cedar": _turned(files()["access.cedar"])}),
}


@pytest.mark.parametrize("name", SAME)
def test_what_says_the_same_is_no_difference(name: str) -> None:
    plan = planned(SAME[name]())
    assert plan.empty
    assert list(plan_lines(plan, 20)) == ["No differences."]
    assert plan.found is not None
    assert plan.found.tried == 0


# ---- planted changes -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planted:
    new: Callable[[], bytes]
    kind: str
    who: str
    lines: tuple[str, ...]


PLANTED: dict[str, Planted] = {
    "a policy dropped": Planted(
        lambda: replaced("access.cedar", FINANCE, ""),
        "newly denied",
        'User::"finn.finance"',
        ("  - finance-reads-invoices (permit, access.cedar:8)",),
    ),
    "a policy added": Planted(
        lambda: edited({"more.cedar": WRITING}),
        "newly allowed",
        'User::"ana.support"',
        ("  + support-writes (permit, more.cedar:1)",),
    ),
    "a window widened": Planted(
        lambda: replaced("access.cedar", "context.clock.hour < 20", "context.clock.hour <= 21"),
        "newly allowed",
        'User::"ana.support"',
        ("      ~ when context.clock.hour < 20 -> context.clock.hour <= 21",),
    ),
    "a condition dropped": Planted(
        lambda: replaced("access.cedar", " && context.clock.hour >= 7", ""),
        "newly allowed",
        'User::"ana.support"',
        ("      - when context.clock.hour >= 7  (matches more)",),
    ),
    "a condition added": Planted(
        lambda: replaced("access.cedar", '"invoice" }', '"invoice" && context.asked.outputTokens < 99 }'),
        "newly denied",
        'User::"finn.finance"',
        ("      + when context.asked.outputTokens < 99  (matches less)",),
    ),
    "an effect flipped": Planted(
        lambda: replaced("fields.cedar", SECRETS, SECRETS.split("\n")[1].replace("forbid", "permit")),
        "newly readable field",
        'User::"eva.eng"',
        ("      ~ forbid -> permit", "  + incidents.key newly readable, by secrets-never-enter-a-prompt"),
    ),
    "a limit loosened": Planted(
        lambda: replaced("access.cedar", '@max_tokens("24")', '@max_tokens("200")'),
        "obligation loosened",
        'User::"ian.intern"',
        ("  loosened  interns-may-practise @max_tokens: 24 -> 200",),
    ),
    "a limit tightened": Planted(
        lambda: replaced("access.cedar", '@max_tokens("48")', '@max_tokens("8")'),
        "obligation tightened",
        'User::"pia.people"',
        ("  tightened people-team-asks-about-people @max_tokens: 48 -> 8",),
    ),
    "a class no longer redacted": Planted(
        lambda: replaced("shape.cedar", "IBAN=last4, ", ""),
        "obligation loosened",
        'User::"finn.finance"',
        ("  loosened  every-answer @redact: IBAN=last4 -> IBAN (nothing)",),
    ),
    "a field opened": Planted(
        lambda: replaced("pay.cedar", 'principal in Role::"people"', "principal"),
        "newly readable field",
        'User::"ian.intern"',
        (
            "  + people.salary newly readable, by people-team-reads-pay",
            '      for User::"ian.intern"',
            '      ~ principal in Role::"people" -> any principal  (matches more)',
        ),
    ),
    "a field closed": Planted(
        lambda: replaced("fields.cedar", 'resource in FieldClass::"payment"', 'resource in FieldClass::"contact"'),
        "field no longer readable",
        'User::"finn.finance"',
        ("  - invoices.iban no longer readable, by finance-reads-payment-data",),
    ),
    "a brake let go": Planted(
        lambda: replaced("brakes.cedar", ON_LEAVE, ON_LEAVE.replace("action,", 'action == Action::"read",')),
        "newly allowed",
        'User::"olaf.onleave"',
        ('      ~ any action -> action == Action::"read"  (matches less)',),
    ),
}  # fmt: skip
FINANCE = """@id("finance-reads-invoices")
@system("finance-assistant") @max_tokens("96")
permit (principal in Role::"finance", action == Action::"generate", resource in ModelTier::"internal")
when { context.purpose == Purpose::"invoice" };
"""
WRITING = """@id("support-writes")
@max_tokens("16")
permit (principal in Role::"support", action == Action::"generate", resource)
when { context.purpose == Purpose::"writing" };
"""
SECRETS = """@reason("secrets never enter a prompt; ask for the rotated key id")
forbid (principal, action == Action::"read", resource in FieldClass::"secret")"""
ON_LEAVE = "forbid (principal is User, action, resource) when { principal.onLeave }"


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_change_is_found_with_a_request_that_shows_it(name: str) -> None:
    planted = PLANTED[name]
    new = planted.new()
    plan = planned(new)
    lines = list(plan_lines(plan, 1_000))
    assert [line for line in planted.lines if line not in lines] == []
    shown = [(each["kind"], each["asks"]) for each in requests(plan)]
    assert any(kind == planted.kind and asks["who"] == planted.who for kind, asks in shown if isinstance(asks, dict))
    holds(plan, edited({}), new)
    back = planned(edited({}), new)
    holds(back, new, edited({}))
    assert len(requests(back)) == len(requests(plan))


def test_the_check_of_requests_notices_a_false_one() -> None:
    """The positive control of `holds`: the requests of one change, held against a bundle without it."""
    new = PLANTED["a limit loosened"].new()
    with pytest.raises(AssertionError):
        holds(planned(new), edited({}), edited({}))


def test_a_field_names_everyone_who_reads_it_now() -> None:
    """Two interns whom no policy can tell apart are asked for once, and both are listed."""
    (ian,) = [each for each in ENTITIES if each["uid"]["id"] == "ian.intern"]
    known = directory_bytes({**ian, "uid": {"type": "User", "id": "ivo.intern"}})
    plan = planned(PLANTED["a field opened"].new(), directory=known)
    assert plan.found is not None
    assert [(each.field, each.readable, each.principals, each.more) for each in plan.found.fields] == [
        ('Field::"people.salary"', True, ('User::"ian.intern"', 'User::"ivo.intern"'), 0)
    ]
    assert [each["asks"]["who"] for each in requests(plan)] == ['User::"ian.intern"']


def test_a_read_that_nobody_can_use_is_no_field_newly_readable() -> None:
    """Auditors may read everything, and nobody answers them: the policy is shown, no request is."""
    may_read = '@id("auditors-read")\npermit (principal in Role::"auditor", action == Action::"read", resource);\n'
    plan = planned(edited({"more.cedar": may_read}), directory=directory_bytes(AUDITOR))
    assert [each.policy for each in plan.policies] == ["auditors-read"]
    assert plan.found is not None
    assert (plan.found.witnesses, plan.found.fields) == ((), ())


AUDITOR: Json = {
    "uid": {"type": "User", "id": "ada.auditor"},
    "attrs": {"onLeave": False, "purposes": [{"__entity": {"type": "Purpose", "id": "audit"}}]},
    "parents": [{"type": "Role", "id": "auditor"}],
}
