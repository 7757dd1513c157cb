"""A bundle is read whole or refused whole, with one line for each thing to mend."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.enforcer.bundle import belongs_to_bundle, bundle_content, digest_of, load_bundle
from sluicegate.enforcer.policy_text import statements
from sluicegate.schemas.errors import InvalidBundle

SHAPE = 'permit (principal, action == Action::"shape", resource);\n'


def problems_of(content: bytes) -> tuple[str, ...]:
    with pytest.raises(InvalidBundle) as caught:
        load_bundle(content)
    assert caught.value.problems
    return caught.value.problems


def test_example_loads(heron, heron_files):
    bundle = heron.bundle
    assert len(bundle.policies) == sum(text.count("@id(") for text in heron_files.values()) == 18
    pay = bundle.policies["people-team-reads-pay"]
    lines = heron_files["pay.cedar"].splitlines()
    assert pay.file == "pay.cedar"
    assert lines[pay.line - 1] == '@id("people-team-reads-pay")'
    assert pay.actions == ("read",)
    assert not pay.forbids
    assert bundle.policies["on-leave"].forbids
    assert bundle.templates["support-agent"] == "You are a helpful support assistant of Heron Cycles"
    assert bundle.grammars["ticket-mood"].choices == ("positive", "negative")
    assert bundle.term_lists["unreleased-bikes"].terms[0].alias == "Project 12"
    assert bundle.enums["FieldClass"] == {"open", "contact", "payment", "pay", "secret"}
    assert bundle.declares("Purpose", "ticket")
    assert not bundle.declares("Purpose", "tickets")
    assert not bundle.declares("User", "ana.support")
    assert bundle.digest == digest_of(bundle_content(heron_files))


def test_digest_knows_neither_order_nor_line_ends(heron_files):
    content = bundle_content(heron_files)
    backwards = dict(reversed(heron_files.items()))
    windows = {path: "\ufeff" + text.replace("\n", "\r\n") for path, text in heron_files.items()}
    assert bundle_content(backwards) == content
    assert bundle_content(windows) == content
    one_letter = {**heron_files, "pay.cedar": heron_files["pay.cedar"].replace("reads-pay", "reads-pai")}
    assert digest_of(bundle_content(one_letter)) != digest_of(content)


@given(st.data())
def test_the_digest_is_one_for_any_order_and_line_ends(data):
    texts = st.text(st.sampled_from("a \u00e9\u2028\x0c") | st.just("\n"), max_size=8)
    files = data.draw(st.dictionaries(st.sampled_from(["b", "a/c", "\u00e9"]), texts))
    order = data.draw(st.permutations(sorted(files)))
    ends = {path: data.draw(st.sampled_from(["\n", "\r\n", "\r"])) for path in order}
    other = {path: files[path].replace("\n", ends[path]) for path in order}
    assert digest_of(bundle_content(other)) == digest_of(bundle_content(files))
    more = {**other, "b": other.get("b", "") + "x"}
    assert digest_of(bundle_content(more)) != digest_of(bundle_content(files))


def test_cases_are_in_the_bundle_and_its_digest(heron_files, heron):
    cases = {"tests/a.yaml": "cases: []\n"}
    loaded = load_bundle(bundle_content(heron_files | cases))
    assert loaded.cases.keys() == heron.bundle.cases.keys() | cases.keys()
    assert loaded.digest != heron.bundle.digest
    (problem,) = problems_of(bundle_content(heron_files | {"tests/a.yaml": "- 1\n"}))
    assert problem.startswith("tests/a.yaml: must be a YAML mapping")


@pytest.mark.parametrize(
    ("path", "belongs"),
    [
        ("bundle.yaml", True), ("pay.cedar", True), ("schema.cedarschema", True), ("redaction.yaml", True),
        ("templates/a.txt", True), ("grammars/a.yaml", True), ("terms/a.yaml", True), ("obligations.yaml", True),
        ("tests/a.yaml", True), ("tests/a/b.yaml", False), ("tests/a.yml", False),
        ("directory.json", False), ("pay.cedar.bak", False), ("old/pay.cedar", False), ("templates/a/b.txt", False),
        ("../pay.cedar", False), ("/pay.cedar", False), ("terms/a.txt", False), ("", False), ("other.yaml", False),
    ],
)  # fmt: skip
def test_what_belongs(path, belongs):
    assert belongs_to_bundle(path) is belongs


# Each row: a file, what stands there, what a hurried author writes, and what the refusal must say.
MISTAKES = [
    ("role", "access.cedar", 'Role::"support"', 'Role::"suport"', r"^access.cedar:3: .*Role::\"suport\""),
    ("purpose", "access.cedar", 'Purpose::"ticket"', 'Purpose::"tickets"', r"access.cedar:3: .*tickets"),
    ("purpose in a set", "access.cedar", 'Purpose::"roadmap", Purpose', 'Purpose::"roadmaps", Purpose', r"roadmaps"),
    ("field class", "pay.cedar", 'FieldClass::"pay"', 'FieldClass::"wages"', r"^pay.cedar:4: .*wages"),
    ("tier", "access.cedar", 'ModelTier::"internal"', 'ModelTier::"inside"', r"inside"),
    ("action", "pay.cedar", 'Action::"read"', 'Action::"reed"', r"^pay.cedar:4: .*reed"),
    ("attribute", "brakes.cedar", "principal.onLeave", "principal.onleave", r"^brakes.cedar:14: .*onleave"),
    ("context", "access.cedar", "context.clock.hour < 6", "context.hour < 6", r"^access.cedar:28: .*hour"),
    ("context of another action", "pay.cedar", "context.purpose", "context.clock", r"^pay.cedar:4: .*clock"),
    ("annotation", "shape.cedar", "@redact(\"EMAIL", "@redacts(\"EMAIL",
     r"^shape.cedar:8: annotation `@redacts` is unknown"),
    ("annotation without value", "shape.cedar", '@withheld("label")', "@withheld",
     r"^shape.cedar:4: .*`@withheld` has no value"),
    ("number", "access.cedar", '@max_tokens("64")', '@max_tokens("sixty-four")', r"^access.cedar:3: .*from 1 to 32768"),
    ("zero", "access.cedar", '@max_tokens("64")', '@max_tokens("0")', r"from 1 to 32768"),
    ("too much", "access.cedar", '@max_tokens("64")', '@max_tokens("32769")', r"from 1 to 32768"),
    ("foreign digits", "access.cedar", '@max_tokens("64")', '@max_tokens("\u0666\u0664")', r"from 1 to 32768"),
    ("sign", "access.cedar", '@max_tokens("64")', '@max_tokens("+64")', r"from 1 to 32768"),
    ("level", "shape.cedar", '@withheld("label")', '@withheld("hide")', r"none of label, drop, refuse"),
    ("order", "access.cedar", '@seed("fixed")', '@seed("Fixed")', r"none of client, fixed"),
    ("numbers", "shape.cedar", '"from_context"', '"context"', r"none of free, from_context"),
    ("redaction class", "shape.cedar", "EMAIL=label", "EMIAL=label", r"class `EMIAL` is unknown"),
    ("operator", "shape.cedar", "EMAIL=label", "EMAIL=lable", r"operator `lable` is unknown"),
    ("operator to come", "shape.cedar", "EMAIL=label", "EMAIL=hash", r"operator `hash` is not carried out"),
    ("class twice", "shape.cedar", "EMAIL=label,", "EMAIL=label, EMAIL=last4,", r"class `EMAIL` stands twice"),
    ("no operator", "shape.cedar", "EMAIL=label,", "EMAIL,", r"`EMAIL` is not of the form"),
    ("template", "access.cedar", '@system("support-agent")', '@system("suport-agent")',
     r"the bundle holds no `suport-agent`"),
    ("grammar", "access.cedar", '@output("ticket-mood")', '@output("ticket-moods")',
     r"the bundle holds no `ticket-moods`"),
    ("term list", "shape.cedar", '@alias("unreleased-bikes")', '@alias("unreleased-bike")',
     r"holds no `unreleased-bike`"),
    ("empty list", "shape.cedar", '@alias("unreleased-bikes")', '@alias("")', r"`` is no name"),
    ("no id", "pay.cedar", '@id("people-team-reads-pay")\n', "", r"^pay.cedar:4: the policy has no `@id`"),
    ("bad id", "pay.cedar", "people-team-reads-pay", "People team",
     r"^pay.cedar:4: .*`@id\(\"People team\"\)` is no id"),
    ("id twice", "pay.cedar", "people-team-reads-pay", "open-fields", r"^pay.cedar:4: .*taken by fields.cedar:3"),
    ("does not parse", "pay.cedar", "permit (principal", "permit principal", r"^pay.cedar:4: does not parse"),
    ("not ended", "pay.cedar", "};", "}", r"^pay.cedar:4: the policy does not end"),
    ("slots", "pay.cedar", 'principal in Role::"people"', "principal in ?principal", r"^pay.cedar:4: is a template"),
    ("obligation on read", "pay.cedar", "permit (", '@max_tokens("8") permit (', r"not for generate or shape alone"),
    ("obligation on a forbid", "brakes.cedar", '@id("on-leave")', '@id("on-leave") @seed("fixed")',
     r"stands on a forbid"),
    ("obligation on any action", "shape.cedar", 'action == Action::"shape", resource);', "action, resource);",
     r"alone"),
    ("reason on a permit", "pay.cedar", "permit (", '@reason("x") permit (', r"`@reason` stands on a permit"),
    ("empty reason", "brakes.cedar", '"this purpose is not assigned to you"', '" "', r"`@reason` must be one line"),
    ("format", "bundle.yaml", "format: 1", "format: 2", r"^bundle.yaml:4: format `2` is unknown"),
    ("surplus key", "bundle.yaml", "format: 1", "format: 1\nsigned: yes", r"^bundle.yaml:1: must hold"),
    ("schema", "schema.cedarschema", "entity Model in [ModelTier];", "entity Model in [Tier];",
     r"^schema.cedarschema: "),
    ("grammar kind", "grammars/ticket-mood.yaml", "kind: choice", "kind: regex",
     r"^grammars/ticket-mood.yaml: .*`regex`"),
    ("choices", "grammars/ticket-mood.yaml", "[positive, negative]", "[yes, no]", r"`choices` must hold texts"),
    ("choice twice", "grammars/ticket-mood.yaml", "[positive, negative]", "[good, good]", r"a choice stands twice"),
    ("match", "terms/unreleased-bikes.yaml", "match: start", "match: begin", r"match `begin` is unknown"),
    ("telling alias", "terms/unreleased-bikes.yaml", "alias: Project 12", "alias: Project Bluefin",
     r"holds a term itself"),
    ("key twice", "terms/unreleased-bikes.yaml", "match: start", "match: start\nmatch: word",
     r"key `match` stands twice"),
    ("yaml alias", "terms/unreleased-bikes.yaml", "match: start", "match: &a start\nb: *a",
     r"YAML aliases are not allowed"),
    ("two aliases", "terms/unreleased-bikes.yaml", "  - term: Bluefin",
     "  - {term: BLUE\u200bFIN, alias: Project 7}\n  - term: Bluefin", r"term `Bluefin` has the alias `Project 7`"),
    ("empty template", "templates/support-agent.txt", "You are a helpful support assistant of Heron Cycles", " ",
     r"is empty"),
    ("obligation of another law", "obligations.yaml", "merge: min", "merge: union",
     r"^obligations.yaml:3: `max_tokens` says of merge what this release does not do; write `max_tokens: \{"),
    ("obligation with another order", "obligations.yaml", "[client, fixed]", "[fixed, client]",
     r"`seed` says of levels"),
    ("obligation of another stage", "obligations.yaml", "stage: decision", "stage: sink", r"`reason` says of stage"),
    ("obligation with more", "obligations.yaml", "most: 32768", "most: 32768\n  least: 1", r"says of least"),
    ("obligation with less", "obligations.yaml", "  most: 32768\n", "", r"says of most"),
    ("obligation without a row", "obligations.yaml", "seed:", "reason2:",
     r"^obligations.yaml:8: .*`reason2` is unknown"),
    ("obligation that is no row", "obligations.yaml", "seed:", "ban: 1\nseed:",
     r"^obligations.yaml:8: OBLIGATION_UNSUPPORTED: `ban`"),
    ("rule table", "redaction.yaml", "version: 1", "version: 2", r"^redaction.yaml: rule table version"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "old", "new", "wanted"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES]
)
def test_mistake_is_refused(edited, path, old, new, wanted):
    problems = problems_of(bundle_content(edited(path, old, new)))
    assert any(re.search(wanted, problem) for problem in problems), problems
    # The file is named, and what was right is not complained about.
    assert all(path in problem or re.search(r"^\w+\.cedar:", problem) for problem in problems)


@pytest.mark.parametrize(
    "annotation",
    [
        '@ban("unreleased-bikes")', '@approval("finance-lead, ttl=15m")', '@charge("daily")', '@provider("cpu")',
        '@keep_raw("30d")', '@notice("a")', '@mask_output("$.a")',
    ],
)  # fmt: skip
def test_what_this_release_does_not_carry_out_is_refused(heron_files, annotation):
    files = {**heron_files, "more.cedar": f'@id("more") {annotation}\n{SHAPE}'}
    (problem,) = problems_of(bundle_content(files))
    assert problem.startswith("more.cedar:1: OBLIGATION_UNSUPPORTED: `" + annotation.partition("(")[0])


def test_every_problem_is_told_at_once(heron_files):
    files = {**heron_files, "more.cedar": f'@id("a") @redacts("x")\n{SHAPE}// two\n@id("b") @seed("x")\n{SHAPE}{SHAPE}'}
    assert [problem.partition(": ")[0] for problem in problems_of(bundle_content(files))] == [
        "more.cedar:6", "more.cedar:1", "more.cedar:4",
    ]  # fmt: skip


@pytest.mark.parametrize("path", ["bundle.yaml", "schema.cedarschema", "redaction.yaml", "obligations.yaml"])
def test_needed_file(heron_files, path):
    rest = {name: text for name, text in heron_files.items() if name != path}
    assert any(path in problem for problem in problems_of(bundle_content(rest)))


def test_foreign_file_and_unnameable_file(heron_files):
    problems = problems_of(bundle_content({**heron_files, "notes.md": "x", "templates/Support Agent.txt": "x"}))
    assert [problem.partition(":")[0] for problem in problems] == ["notes.md", "templates/Support Agent.txt"]


def test_no_policy_at_all(heron_files):
    rest = {name: text for name, text in heron_files.items() if not name.endswith(".cedar")}
    assert problems_of(bundle_content(rest)) == (
        "the bundle holds no policy, so it denies everything; add a `.cedar` file",
    )


def test_content_must_be_canonical(heron_files):
    document = json.loads(bundle_content(heron_files))
    for content in (
        b"", b"[]", b"{", b'{"a":1}', b"[" * 100_000, b"\xff", json.dumps(document).encode(),
        b'{"a":"x","a":"x"}', b'{"a":"\\ud800"}',
    ):  # fmt: skip
        assert problems_of(content)[0].startswith("the content is no canonical JSON")


def test_statements_know_strings_and_comments():
    text = '// a; b\n@id("x;\\"//y") permit (principal, // ;\n action, resource);\n\n  permit (a);tail "'
    assert list(statements(text)) == [
        (2, '@id("x;\\"//y") permit (principal, // ;\n action, resource);'),
        (5, "permit (a);"),
        (5, 'tail "'),
    ]
    assert list(statements("// nothing\n  \n")) == []
