"""Checks 4 to 7 on the example company: the demo's beats, each code with its cause, and what a requester is told."""

from dataclasses import replace

import pytest

from sluicegate.enforcer.access import judge
from sluicegate.enforcer.decide import Decider
from sluicegate.enforcer.judgement import Ask
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import Clamp, Document, FieldText, Message, Parameters, RequestSubmitted, Role
from sluicegate.schemas.ids import entity_uid
from sluicegate.schemas.meanings import MEANINGS

NINE = 1_767_603_600_000  # Monday 2026-01-05T09:00:00Z
TWO = NINE - 7 * 3_600_000
HELPDESK, ROGUE, TRIAGE = ("Service", "helpdesk-app"), ("Service", "rogue-app"), ("Service", "nightly-triage")


def user(name):
    return ("User", name)


ANA, FINN, PIA, EVA = user("ana.support"), user("finn.finance"), user("pia.people"), user("eva.eng")
IAN, UNA, LEO, SAM = user("ian.intern"), user("una.both"), user("leo.lead"), user("sam.two")


def document(dataset, *pieces):
    fields = tuple(FieldText(name=name, text=text) for name, text in pieces)
    return Document(dataset=dataset, document_id="d1", fields=fields)


TICKET = document(
    "tickets", ("text", "Customer: Mara Lind\nProblem: the rear brake squeals\nEmail: "), ("email", "m@example.com")
)
PHONE = document("tickets", ("text", "Mara Lind's phone number is "), ("phone", "020 7946 0958"), ("text", "."))
PAY = document(
    "people", ("job", "Priya Shah is the workshop lead. She earns "), ("salary", "41,500 pounds"), ("job", " a year.")
)
ROADMAP = document("roadmap", ("text", "The new cargo bike is called Bluefin. It will be launched in March."))
INCIDENT = document(
    "incidents",
    ("text", "The checkout failed because the key "),
    ("key", "sk_live_51HxQz7LkPq"),
    ("text", " had expired."),
)
INVOICE = document(
    "invoices", ("text", "It must be paid to the account "), ("iban", "GB29NWBK60161331926819"), ("text", ".")
)


def ask(principal, purpose, *documents, actor=HELPDESK, content="A question?", time_ms=NINE, **more):
    request = RequestSubmitted(
        request_id="r1", model="smollm2", purpose=purpose, documents=documents,
        messages=(Message(role=Role.USER, content=content),),
    )  # fmt: skip
    return Ask(principal=principal, actor=actor, request=replace(request, **more), time_ms=time_ms, default_seed=77)


def obligations(judgement):
    return {obligation.name: (obligation.value, obligation.policies) for obligation in judgement.obligations}


EVERY = {
    "withheld": ('"label"', ("every-answer",)),
    "client_system": ('"refuse"', ("every-answer",)),
    "numbers": ('"from_context"', ("every-answer",)),
    "redact": ('{"CARD":"label","IBAN":"last4","SECRET":"label"}', ("every-answer",)),
}
OUTSIDE = {
    **EVERY,
    "redact": (
        '{"CARD":"label","EMAIL":"label","IBAN":"last4","PHONE":"label","SECRET":"label"}',
        ("contact-data-stays-with-support", "every-answer"),
    ),
}
ALIASED = {"alias": ('["unreleased-bikes"]', ("unreleased-names-stay-inside",))}


def tokens(count, policy):
    return {"max_tokens": (str(count), (policy,))}


def system(name, policy):
    return {"system": (f'"{name}"', (policy,))}


SUPPORT, FINANCE, PEOPLE = "support-answers-customers", "finance-reads-invoices", "people-team-asks-about-people"
ENGINEERING, INTERN, NIGHTLY = (
    "engineering-asks-anything-technical",
    "interns-may-practise",
    "nightly-triage-reads-the-mood",
)
AS_SUPPORT = {**EVERY, **ALIASED, **tokens(64, SUPPORT), **system("support-agent", SUPPORT)}
AS_FINANCE = {**OUTSIDE, **ALIASED, **tokens(96, FINANCE), **system("finance-assistant", FINANCE)}
AS_INTERN = {**OUTSIDE, **ALIASED, **tokens(24, INTERN), "seed": ('"fixed"', (INTERN,))}

# beat, ask, determining policies, obligations, admitted, withheld
ALLOWED = [
    (1, ask(ANA, "ticket", TICKET), [SUPPORT], AS_SUPPORT, ["tickets.email", "tickets.text"], []),
    (2, ask(ANA, "ticket", PHONE), [SUPPORT], AS_SUPPORT, ["tickets.phone", "tickets.text"], []),
    (3, ask(EVA, "incident", PHONE), [ENGINEERING], {**OUTSIDE, **tokens(256, ENGINEERING)}, ["tickets.text"],
     ["tickets.phone"]),
    (4, ask(FINN, "invoice", content="Mara Lind's phone number is 020 7946 0958.\nWhat is it?"), [FINANCE],
     AS_FINANCE, [], []),
    (5, ask(PIA, "people", PAY), [PEOPLE], {**OUTSIDE, **ALIASED, **tokens(48, PEOPLE)}, ["people.job",
     "people.salary"], []),
    (6, ask(IAN, "people", PAY), [INTERN], AS_INTERN, ["people.job"], ["people.salary"]),
    (8, ask(EVA, "roadmap", ROADMAP), [ENGINEERING], {**OUTSIDE, **tokens(256, ENGINEERING)}, ["roadmap.text"], []),
    (9, ask(IAN, "roadmap", ROADMAP), [INTERN], AS_INTERN, ["roadmap.text"], []),
    (10, ask(EVA, "incident", INCIDENT), [ENGINEERING], {**OUTSIDE, **tokens(256, ENGINEERING)}, ["incidents.text"],
     ["incidents.key"]),
    (11, ask(FINN, "invoice", INVOICE), [FINANCE], AS_FINANCE, ["invoices.iban", "invoices.text"], []),
    (
        12, ask(TRIAGE, "ticket", actor=TRIAGE, time_ms=TWO), [NIGHTLY],
        {**OUTSIDE, **ALIASED, **tokens(8, NIGHTLY), "output": ('"ticket-mood"', (NIGHTLY,))}, [], [],
    ),
    (13, ask(IAN, "writing", parameters=Parameters(max_tokens=200)), [INTERN], AS_INTERN, [], []),
    ("a second role tightens", ask(UNA, "roadmap"), [ENGINEERING, INTERN],
     {**OUTSIDE, **tokens(24, INTERN), "seed": ('"fixed"', (INTERN,))}, [], []),
    ("one purpose of two roles", ask(SAM, "invoice", INVOICE), [FINANCE], AS_FINANCE, ["invoices.iban",
     "invoices.text"], []),
    ("lead is support too", ask(LEO, "ticket", PHONE), [SUPPORT], AS_SUPPORT, ["tickets.phone", "tickets.text"], []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "determining", "wanted", "admitted", "withheld"),
    [row[1:] for row in ALLOWED],
    ids=[str(row[0]) for row in ALLOWED],
)
def test_allowed(heron, asked, determining, wanted, admitted, withheld):
    found = judge(heron, asked)
    assert found.code is Code.OK
    assert found.reason is None
    assert list(found.determining) == determining
    assert obligations(found) == wanted
    assert (list(found.admitted), list(found.withheld)) == (admitted, withheld)
    assert found.granted is not None
    assert [ruling.action for ruling in found.rulings] == ["generate", *["read"] * len(admitted + withheld), "shape"]
    prompt = "".join(message.text() for message in found.prompt)
    for piece in (piece for each in asked.request.documents for piece in each.fields):
        name = f"{asked.request.documents[0].dataset}.{piece.name}"
        assert (piece.text.replace("Bluefin", "") in prompt.replace("Bluefin", "").replace("Project 12", "")) == (
            name in admitted
        )


def test_beat_9_aliased_and_8_not(heron):
    aliased, plain = judge(heron, ask(IAN, "roadmap", ROADMAP)), judge(heron, ask(EVA, "roadmap", ROADMAP))
    assert "called Project 12. It" in aliased.prompt[-1].text()
    assert "luefin" not in repr(aliased.prompt)
    assert [(use.term_list, use.alias, use.count) for use in aliased.aliases] == [("unreleased-bikes", "Project 12", 1)]
    assert "called Bluefin. It" in plain.prompt[-1].text()
    assert plain.aliases == ()


def test_prompts_read_as_in_the_demo(heron):
    assert [message.text() for message in judge(heron, ask(IAN, "people", PAY, content="How much?")).prompt] == [
        "Priya Shah is the workshop lead. She earns [withheld] a year.\nHow much?"
    ]
    assert [message.text() for message in judge(heron, ask(FINN, "invoice", INVOICE, content="Where to?")).prompt] == [
        "You are a helpful finance assistant of Heron Cycles",
        "It must be paid to the account GB29NWBK60161331926819.\nWhere to?",
    ]


GONE = ("User", "gone")
NOT_ASSIGNED = "this purpose is not assigned to you"
NOT_YOURS = "this application may not ask on behalf of this person"
BAD = replace(TICKET, fields=(FieldText(name="shoe", text="7"),))

# what, ask, code, reason, determining policies, actions of the rulings made
DENIED = [
    ("7 purpose not assigned", ask(ANA, "people", PAY), Code.DENIED, NOT_ASSIGNED, ["purpose-must-be-assigned"],
     ["generate"]),
    ("14b rogue application", ask(ANA, "ticket", actor=ROGUE), Code.DENIED, NOT_YOURS,
     ["apps-speak-only-for-their-people"], ["generate"]),
    ("14c unknown principal", ask(GONE, "ticket"), Code.UNKNOWN_PRINCIPAL, None, [], []),
    ("two forbids, by id", ask(ANA, "people", actor=ROGUE), Code.DENIED, f"{NOT_YOURS}; {NOT_ASSIGNED}",
     ["apps-speak-only-for-their-people", "purpose-must-be-assigned"], ["generate"]),
    ("on leave, no reason given", ask(user("olaf.onleave"), "ticket"), Code.DENIED, None, ["on-leave"], ["generate"]),
    ("no permit matches", ask(ANA, "writing"), Code.DENIED, None, [], ["generate"]),
    ("before opening", ask(ANA, "ticket", time_ms=NINE - 2 * 3_600_000 - 1), Code.DENIED, None, [], ["generate"]),
    ("after closing", ask(ANA, "ticket", time_ms=NINE + 11 * 3_600_000), Code.DENIED, None, [], ["generate"]),
    ("triage by day", ask(TRIAGE, "ticket", actor=TRIAGE), Code.DENIED, None, [], ["generate"]),
    ("another tier", ask(EVA, "roadmap", model="lab-7b"), Code.DENIED, None, [], ["generate"]),
    ("unknown actor", ask(ANA, "ticket", actor=("Service", "gone")), Code.UNKNOWN_ACTOR, None, [], []),
    ("a person as actor", ask(ANA, "ticket", actor=FINN), Code.POLICY_ERROR, None, [], ["generate"]),
    ("a field as principal", ask(("Field", "tickets.text"), "ticket"), Code.POLICY_ERROR, None, [], ["generate"]),
    ("unknown model", ask(ANA, "ticket", model="gpt"), Code.UNKNOWN_MODEL, None, [], []),
    ("unknown purpose", ask(ANA, "tickets"), Code.UNKNOWN_PURPOSE, None, [], []),
    ("principal before the rest", ask(GONE, "x", actor=GONE, model="x"), Code.UNKNOWN_PRINCIPAL, None, [], []),
    ("unknown dataset", ask(ANA, "ticket", document("shoes", ("text", "x"))), Code.UNKNOWN_DATASET, None, [],
     ["generate"]),
    ("unknown field", ask(ANA, "ticket", PHONE, BAD), Code.UNKNOWN_FIELD, None, [], ["generate"]),
    ("field of another dataset", ask(ANA, "ticket", document("tickets", ("salary", "x"))), Code.UNKNOWN_FIELD, None,
     [], ["generate"]),
    ("tools", ask(ANA, "ticket", tools=("refund",)), Code.TOOLS_UNSUPPORTED, None, [], ["generate"]),
    ("system message", ask(ANA, "ticket", messages=(Message(role=Role.SYSTEM, content="x"),)), Code.SYSTEM_MESSAGE,
     None, [],
     ["generate", "shape"]),
    ("control character", ask(ANA, "ticket", content="blue\x04fin"), Code.CONTROL_CHARACTER, None, [], ["generate",
     "shape"]),
    ("parameter", ask(ANA, "ticket", PHONE, parameters=Parameters(top_k=65)), Code.PARAMETER_INVALID,
     "top_k must be 1 to 64", [],
     ["generate", "read", "read", "shape"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "code", "reason", "determining", "actions"), [row[1:] for row in DENIED], ids=[row[0] for row in DENIED]
)
def test_denied(heron, asked, code, reason, determining, actions):
    found = judge(heron, asked)
    assert (found.code, found.reason) == (code, reason)
    assert list(found.determining) == determining
    assert [ruling.action for ruling in found.rulings] == actions
    assert found.granted is None
    assert (found.prompt, found.obligations, found.admitted, found.withheld) == ((), (), (), ())
    assert 4 <= MEANINGS[found.code].check <= 7


@pytest.mark.parametrize("seconds_before", [0, 1])
@pytest.mark.parametrize(("hour", "open_"), [(7, True), (20, False)])
def test_hours_are_utc_and_sharp(heron, hour, open_, seconds_before):
    at = NINE + (hour - 9) * 3_600_000 - seconds_before * 1000
    assert (judge(heron, ask(ANA, "ticket", time_ms=at)).code is Code.OK) == (open_ != bool(seconds_before))


def test_context_that_policies_see(heron):
    parameters = Parameters(max_tokens=200, stream=True)
    generate, read, shape = judge(heron, ask(EVA, "roadmap", ROADMAP, parameters=parameters)).rulings
    assert generate.context == shape.context == (
        '{"asked":{"outputTokens":200,"stream":true},"clock":{"hour":9,"weekday":0},'
        '"purpose":{"__entity":{"id":"roadmap","type":"Purpose"}},"via":{"__entity":{"id":"helpdesk-app","type":"Service"}}}'
    )  # fmt: skip
    assert read.context == (
        '{"model":{"__entity":{"id":"smollm2","type":"Model"}},'
        '"purpose":{"__entity":{"id":"roadmap","type":"Purpose"}},"via":{"__entity":{"id":"helpdesk-app","type":"Service"}}}'
    )
    assert '"outputTokens":256' in judge(heron, ask(EVA, "roadmap")).rulings[0].context


def test_labels_need_a_voucher(heron_files, rules_of, heron, heron_directory):
    # rogue-app may speak for support here, but tickets are not labelled by it: its fields stay out.
    brakes = heron_files["brakes.cedar"].replace("unless { principal in context.via.speaksFor }", "when { false }")
    rules = rules_of({**heron_files, "brakes.cedar": brakes})
    found = judge(rules, ask(ANA, "ticket", PHONE, actor=ROGUE))
    assert found.code is Code.OK
    assert found.withheld == ("tickets.phone", "tickets.text")
    assert [ruling.policies for ruling in found.rulings[1:3]] == [("labels-need-a-voucher",)] * 2


def test_a_salary_opens_and_no_verdict_changes(edited, rules_of, heron):
    open_pay = edited("pay.cedar", 'principal in Role::"people"', "principal")
    rules = rules_of(open_pay)
    for rules_, withheld in ((heron, ("people.salary",)), (rules, ())):
        found = judge(rules_, ask(IAN, "people", PAY))
        assert (found.code, found.withheld) == (Code.OK, withheld)


OVERFLOW = "{ context.asked.outputTokens * 9223372036854775807 > 0 }"


@pytest.mark.parametrize(
    ("policies", "code"),
    [
        ('@id("x") forbid (principal, action == Action::"shape", resource);', Code.SHAPE_DENIED),
        ('@id("x") @system("finance-assistant") permit (principal, action == Action::"shape", resource);',
         Code.OBLIGATION_CONFLICT),
        ('@id("x") @withheld("refuse") permit (principal, action == Action::"shape", resource);',
     Code.WITHHELD_REFUSED),
        (f'@id("x") permit (principal, action == Action::"generate", resource) when {OVERFLOW};', Code.POLICY_ERROR),
        (f'@id("x") permit (principal, action == Action::"shape", resource) when {OVERFLOW};', Code.SHAPE_DENIED),
        ('@id("x") permit (principal, action == Action::"read", resource) when { 9223372036854775807 + 1 > 0 };',
         Code.POLICY_ERROR),
    ],
)  # fmt: skip
def test_one_policy_more_denies(heron_files, rules_of, policies, code):
    salary = document("people", ("salary", "41,500"))
    assert judge(rules_of(heron_files), ask(ANA, "ticket", salary)).code is Code.OK
    assert judge(rules_of({**heron_files, "more.cedar": policies}), ask(ANA, "ticket", salary)).code is code


def test_no_shape_policy_denies(heron_files, rules_of):
    rules = rules_of({path: text for path, text in heron_files.items() if path != "shape.cedar"})
    found = judge(rules, ask(ANA, "ticket"))
    assert (found.code, found.determining) == (Code.SHAPE_DENIED, ())


# ---- 7 clamp the parameters ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (Parameters(max_tokens=0), "max_tokens"), (Parameters(max_tokens=-1), "max_tokens"),
        (Parameters(max_tokens=32_769), "max_tokens"), (Parameters(temperature=-0.1), "temperature"),
        (Parameters(temperature=2.1), "temperature"), (Parameters(temperature=float("nan")), "temperature"),
        (Parameters(temperature=float("inf")), "temperature"), (Parameters(top_p=0.0), "top_p"),
        (Parameters(top_p=1.1), "top_p"), (Parameters(top_p=float("nan")), "top_p"), (Parameters(top_k=0), "top_k"),
        (Parameters(seed=-1), "seed"), (Parameters(stop=("",)), "stop"), (Parameters(stop=("a",) * 9), "stop"),
        (Parameters(stop=("a" * 257,)), "stop"),
    ],
)  # fmt: skip
def test_parameter_out_of_range(heron, asked, name):
    found = judge(heron, ask(EVA, "writing", parameters=asked))
    assert found.code is Code.PARAMETER_INVALID
    assert found.reason.startswith(f"{name} must be")


def test_parameters_at_their_bounds(heron):
    for edge in (
        Parameters(max_tokens=1, temperature=0.0, top_p=1.0, top_k=1, seed=0, stop=("a",) * 8),
        Parameters(max_tokens=256, temperature=2.0, top_p=0.01, top_k=64, seed=2**63 - 1),
    ):
        found = judge(heron, ask(EVA, "writing", parameters=edge))
        assert found.code is Code.OK
        assert found.clamps == ()
        granted = found.granted
        assert (granted.max_tokens, granted.temperature, granted.top_p, granted.top_k, granted.seed, granted.stop) == (
            edge.max_tokens, edge.temperature, edge.top_p, edge.top_k, edge.seed, edge.stop,
        )  # fmt: skip


def test_asking_nothing_gets_the_defaults(heron):
    granted = judge(heron, ask(EVA, "writing")).granted
    assert (granted.max_tokens, granted.temperature, granted.top_p, granted.top_k, granted.seed) == (
        256,
        0.0,
        1.0,
        64,
        77,
    )
    assert granted.choices == ()
    found = judge(heron, ask(IAN, "writing"))
    assert (found.granted.max_tokens, found.granted.seed, found.clamps) == (24, 0, ())


def test_clamps_name_what_tightened(heron):
    wanted = Parameters(max_tokens=200, seed=5, stream=True)
    found = judge(heron, ask(IAN, "writing", parameters=wanted))
    assert (found.granted.max_tokens, found.granted.seed) == (24, 0)
    assert found.clamps == (
        Clamp(name="max_tokens", asked="200", granted="24", policies=(INTERN,)),
        Clamp(name="seed", asked="5", granted="0", policies=(INTERN,)),
        Clamp(name="stream", asked="yes", granted="no", policies=()),
    )
    # una is both: the limit of the intern holds, and is named.
    (clamp,) = judge(heron, ask(UNA, "writing", parameters=Parameters(max_tokens=200))).clamps
    assert clamp == Clamp(name="max_tokens", asked="200", granted="24", policies=(INTERN,))


def test_without_a_limit_what_is_asked_is_granted_so_that_a_limit_only_tightens(edited, rules_of):
    rules = rules_of(edited("access.cedar", '@max_tokens("256")\n', ""))
    found = judge(rules, ask(EVA, "writing", parameters=Parameters(max_tokens=1000)))
    assert (found.granted.max_tokens, found.clamps) == (1000, ())
    assert judge(rules, ask(EVA, "writing")).granted.max_tokens == 256


def test_output_grammar_becomes_choices(heron):
    found = judge(heron, ask(TRIAGE, "ticket", actor=TRIAGE, time_ms=TWO))
    assert (found.granted.choices, found.granted.max_tokens) == (("positive", "negative"), 8)


# ---- laws ----------------------------------------------------------------------------------------------------------


def test_decided_again_the_same_with_and_without_memory(heron):
    forgetful = replace(heron, decider=Decider(heron.bundle, heron.directory, remembered_max=0))
    for asked in [row[1] for row in ALLOWED + DENIED]:
        assert judge(heron, asked) == judge(forgetful, asked) == judge(heron, asked)


def test_each_distinct_field_is_decided_once(heron):
    twice = (PHONE, replace(PHONE, document_id="d2"))
    found = judge(heron, ask(ANA, "ticket", *twice))
    assert [ruling.resource for ruling in found.rulings[1:-1]] == [
        entity_uid("Field", "tickets.text"), entity_uid("Field", "tickets.phone"),
    ]  # fmt: skip


def test_no_value_of_the_request_is_told_back(heron):
    canary = "zebra-4711"
    for asked in (
        ask(ANA, "ticket", content=f"{canary}\x04"),
        ask(ANA, canary),
        ask(ANA, "ticket", document("tickets", (canary, canary))),
        ask(ANA, "ticket", document(canary, ("text", "x"))),
        ask(ANA, "ticket", parameters=Parameters(stop=(canary * 100,))),
    ):
        found = judge(heron, asked)
        assert found.code is not Code.OK
        assert canary not in (found.reason or "")
