"""Bundles that are wrong on purpose: each finding with its severity, file and line; the example company has none."""

import json
from itertools import product

import cedarpy
import pytest
from company import POLICIES
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.bundle_folder import read_bundle
from sluicegate.commands.policy_new import starter
from sluicegate.enforcer.bundle import belongs_to_bundle, bundle_content, load_bundle
from sluicegate.enforcer.directory import load_directory
from sluicegate.policy.boxes import boxes, common
from sluicegate.policy.findings import Finding, Severity, from_problem
from sluicegate.policy.lint import lint, lint_directory

FILES: dict[str, str] = json.loads(read_bundle(POLICIES))
GENERATE = 'action == Action::"generate"'
HOUR = "context.clock.hour"
ERROR, WARNING = Severity.ERROR, Severity.WARNING


def found(files: dict[str, str]) -> list[tuple[str, str, str, int]]:
    return [(each.severity.value, each.code, each.file, each.line) for each in lint(bundle_content(files))]


def policy(head: str, conditions: str = "", *, name: str = "x", effect: str = "permit", principal: str = "principal"):
    return f'@id("{name}") {head}\n{effect} ({principal}, {GENERATE}, resource)\n{conditions};\n'


def test_the_example_company_has_no_findings() -> None:
    assert lint(read_bundle(POLICIES)) == ()


# What stands in `more.cedar` beside the example's own policies, and what must be found in it: severity, code, line.
MORE = [
    ("window over midnight", policy("", f"when {{ {HOUR} >= 20 && {HOUR} < 7 }}"), [(ERROR, "never-true", 3)]),
    ("the same, joined rightly", policy("", f"when {{ {HOUR} >= 20 || {HOUR} < 7 }}"), []),
    ("an hour that no day has", policy("", f"when {{ {HOUR} >= 24 }}"), [(ERROR, "never-true", 3)]),
    ("the last hour", policy("", f"when {{ {HOUR} >= 23 }}"), []),
    ("a day that no week has", policy("", "when { context.clock.weekday == 7 }"), [(ERROR, "never-true", 3)]),
    ("sunday", policy("", "when { context.clock.weekday == 6 }"), []),
    ("turned round", policy("", f"when {{ 20 <= {HOUR} && 7 > {HOUR} }}"), [(ERROR, "never-true", 3)]),
    ("in the second condition", policy("", f"when {{ true }}\nwhen {{ {HOUR} < 7 && {HOUR} > 6 }}"),
     [(ERROR, "never-true", 4)]),
    ("over two conditions", policy("", f"when {{ {HOUR} >= 20 }}\nwhen {{ {HOUR} < 7 }}"),
     [(ERROR, "never-true", 1)]),
    ("an exemption that never holds", policy("", f"unless {{ {HOUR} >= 20 && {HOUR} < 7 }}"),
     [(ERROR, "never-true", 3)]),
    ("one alternative of two", policy("", f"when {{ ({HOUR} > 20 && {HOUR} < 7) || {HOUR} == 12 }}"),
     [(ERROR, "never-true", 3)]),
    ("tokens", policy("", "when { context.asked.outputTokens > 64 && context.asked.outputTokens <= 64 }"),
     [(ERROR, "never-true", 3)]),
    ("two purposes at once",
     policy("", 'when { context.purpose == Purpose::"ticket" && context.purpose == Purpose::"people" }'),
     [(ERROR, "never-true", 3)]),
    ("not one or not the other",
     policy("", 'when { context.purpose != Purpose::"ticket" || context.purpose != Purpose::"people" }'),
     [(WARNING, "always-true", 3)]),
    ("against the scope", policy("", "when { principal is Service }", principal="principal is User"),
     [(ERROR, "never-true", 1)]),
    ("on leave and not", policy("", "when { principal.onLeave && !principal.onLeave }", principal="principal is User"),
     [(ERROR, "never-true", 3)]),
    ("a permit under a forbid", policy("", name="stop", effect="forbid", principal='principal in Role::"auditor"')
     + policy("", 'when { context.purpose == Purpose::"audit" }', principal='principal in Role::"auditor"'),
     [(ERROR, "shadowed", 4)]),
    ("a permit under a forbid of every action",
     '@id("stop") forbid (principal is Service, action, resource);\n'
     + policy("", principal='principal == Service::"nightly-triage"'),
     # What the example permits this service is shadowed as well.
     [(ERROR, "shadowed", 2), (ERROR, "shadowed", "access.cedar", 28)]),
    ("a permit under a forbid with its own condition",
     policy("", f"when {{ {HOUR} < 7 }}", name="stop", effect="forbid", principal='principal in Role::"auditor"')
     + policy("", f"when {{ {HOUR} < 6 }}", principal='principal in Role::"auditor"'),
     [(ERROR, "shadowed", 4)]),
    ("a permit that outlasts the forbid",
     policy("", f"when {{ {HOUR} < 7 }}", name="stop", effect="forbid", principal='principal in Role::"auditor"')
     + policy("", f"when {{ {HOUR} < 8 }}", principal='principal in Role::"auditor"'), []),
    ("a permit beside the forbid of another role",
     policy("", name="stop", effect="forbid", principal='principal in Role::"auditor"')
     + policy("", principal='principal in Role::"support-lead"'), []),
    ("a permit beside the forbid of another action",
     '@id("stop") forbid (principal in Role::"auditor", action == Action::"read", resource);\n'
     + policy("", principal='principal in Role::"auditor"'), []),
    ("dropped fields", '@id("x")\n@withheld("drop")\npermit (principal, action == Action::"shape", resource);\n',
     [(WARNING, "withheld-drop", 2)]),
    # support-answers-customers states another template for tickets; finance-reads-invoices for invoices.
    ("two templates that can meet",
     policy('@max_tokens("8")\n@system("finance-assistant")', 'when { context.purpose == Purpose::"ticket" }',
            principal='principal in Role::"auditor"'),
     [(WARNING, "conflict", 2)]),
    ("two templates that the hours part",
     policy('@system("finance-assistant")', f'when {{ context.purpose == Purpose::"ticket" && {HOUR} < 7 }}'), []),
    ("two templates that always meet",
     policy('@system("finance-assistant")', f'when {{ context.purpose == Purpose::"ticket" && {HOUR} == 12 }}',
            principal='principal in Role::"support"').replace(", resource)", ', resource in ModelTier::"internal")'),
     [(ERROR, "conflict", 1)]),
    ("one template, twice",
     policy('@system("support-agent")', 'when { context.purpose == Purpose::"ticket" }'), []),
    ("a template for every answer",
     '@id("x") @system("finance-assistant")\npermit (principal, action == Action::"shape", resource);\n',
     [(ERROR, "conflict", 1)]),
    ("no id", "\n" + policy("").replace('@id("x") ', ""), [(ERROR, "missing-id", 3)]),
    ("unknown annotation", policy('@max_token("8")'), [(ERROR, "unknown-annotation", 1)]),
    ("bad value", "\n" + policy('@max_tokens("0")'), [(ERROR, "bad-value", 2)]),
    ("no stage carries it out", policy('@ban("x")'), [(ERROR, "unsupported-obligation", 1)]),
    ("a typo that Cedar finds", policy("", 'when { context.purpose == Purpose::"tickets" }'),
     [(ERROR, "invalid-policy", 1)]),
    ("does not parse", policy("").replace("permit (", "permit "), [(ERROR, "syntax", 1)]),
    ("two mistakes, one of each kind", policy('@max_token("8")', f"when {{ {HOUR} > 23 }}"),
     [(ERROR, "unknown-annotation", 1), (ERROR, "never-true", 3)]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), [row[1:] for row in MORE], ids=[row[0] for row in MORE])
def test_a_policy_more(text, wanted) -> None:
    expected = sorted((each[0].value, each[1], *((each[2:]) if len(each) == 4 else ("more.cedar", each[2])))
                      for each in wanted)  # fmt: skip
    assert sorted(found({**FILES, "more.cedar": text})) == expected


# A file, what stands there, what stands there instead, and the finding: severity, code, file, line.
EDITS = [
    ("two aliases", "terms/unreleased-bikes.yaml", "  - term: Bluefin",
     "  - {term: BLUEFIN, alias: Project 7}\n  - term: Bluefin",
     [(ERROR, "two-aliases", "terms/unreleased-bikes.yaml", 9)]),
    ("grammar kind", "grammars/ticket-mood.yaml", "kind: choice", "kind: regex",
     [(ERROR, "grammar", "grammars/ticket-mood.yaml", 2), (ERROR, "missing-file", "access.cedar", 28)]),
    ("yaml", "grammars/ticket-mood.yaml", "kind: choice", "kind: [",
     [(ERROR, "grammar", "grammars/ticket-mood.yaml", 4), (ERROR, "missing-file", "access.cedar", 28)]),
    ("format", "bundle.yaml", "format: 1", "format: 7", [(ERROR, "bundle-file", "bundle.yaml", 4)]),
    ("another law", "obligations.yaml", "merge: min", "merge: union",
     [(ERROR, "obligation-table", "obligations.yaml", 3)]),
    ("another order", "obligations.yaml", "[label, drop, refuse]", "[drop, label, refuse]",
     [(ERROR, "obligation-table", "obligations.yaml", 35)]),
    ("a row too many", "obligations.yaml", "max_tokens:", "ban: {value: x}\nmax_tokens:",
     [(ERROR, "unsupported-obligation", "obligations.yaml", 3), (WARNING, "unused", "obligations.yaml", 3)]),
    ("no row", "obligations.yaml",
     "seed:\n  value: order\n  merge: strictest\n  stage: runner\n  levels: [client, fixed]", "",
     [(ERROR, "undeclared-annotation", "access.cedar", 23)]),
    ("not named any more", "access.cedar", '@system("finance-assistant") ', "",
     [(WARNING, "unused", "templates/finance-assistant.txt", 1)]),
    ("no rule", "redaction.yaml", "version: 1", "version: 2", [(ERROR, "redaction", "redaction.yaml", 8)]),
    ("schema", "schema.cedarschema", "entity Model in [ModelTier];", "entity Model in [Tier];",
     [(ERROR, "schema", "schema.cedarschema", 1)]),
]  # fmt: skip


@pytest.mark.parametrize(("path", "old", "new", "wanted"), [row[1:] for row in EDITS], ids=[row[0] for row in EDITS])
def test_a_file_changed(path, old, new, wanted) -> None:
    assert FILES[path].count(old) >= 1, "the example changed"
    files = {**FILES, path: FILES[path].replace(old, new, 1)}
    got = found(files)
    if path == "schema.cedarschema":  # nothing can be read without it: only the files that nothing then names follow
        got = [each for each in got if each[0] == "error"]
    assert sorted(got) == sorted((each[0].value, *each[1:]) for each in wanted)


def test_every_finding_says_what_to_do() -> None:
    texts = {**FILES, "more.cedar": "".join(row[1].replace('@id("x")', f'@id("x{at}")') for at, row in enumerate(MORE))}
    findings = lint(bundle_content(texts))
    assert len({each.code for each in findings}) > 5
    for each in findings:
        assert each.line >= 1
        assert each.text
        assert each.fix
        assert "\n" not in each.to_text()


def test_a_file_of_cases_that_is_no_mapping() -> None:
    assert found({**FILES, "tests/a.yaml": "- x\n"}) == [("error", "test-cases", "tests/a.yaml", 1)]
    assert found({**FILES, "tests/a.yaml": "cases: []\n"}) == [("error", "test-cases", "tests/a.yaml", 1)]


def test_content_that_is_no_bundle() -> None:
    assert [(each.code, each.file) for each in lint(b"[]")] == [("content", "bundle.yaml")]


def test_a_directory_that_does_not_fit() -> None:
    bundle = load_bundle(read_bundle(POLICIES))
    text = (POLICIES / "directory.json").read_text(encoding="utf-8")
    assert lint_directory(text.encode(), bundle, "directory.json") == ()
    wrong = text.replace('"id": "intern"', '"id": "interne"')
    (finding, *_) = lint_directory(wrong.encode(), bundle, "directory.json")
    assert (finding.code, finding.file) == ("directory", "directory.json")
    assert "ian.intern" in wrong.splitlines()[finding.line - 1]


def test_the_starting_bundle_works_and_looks_for_what_the_example_looks_for() -> None:
    files = starter("my-team")
    content = bundle_content({path: text for path, text in files.items() if belongs_to_bundle(path)})
    assert lint(content) == ()
    bundle = load_bundle(content)
    assert bundle.name == "my-team"
    load_directory(files["directory.json"].encode(), bundle)
    assert files["redaction.yaml"] == FILES["redaction.yaml"]


# ---- forms ---------------------------------------------------------------------------------------------------------

SHOWN = Finding(severity=ERROR, code="a-code", file="a,b:c%.cedar", line=3, text="50% of\nit", fix="mend: it, now")


def test_a_workflow_command_is_escaped() -> None:
    assert SHOWN.under("p").to_github() == (
        "::error file=p/a%2Cb%3Ac%25.cedar,line=3,title=a-code::50%25 of%0Ait; mend: it, now"
    )


def test_only_problems_of_the_loader_become_findings() -> None:
    with pytest.raises(TypeError, match="the loader"):
        from_problem("a.cedar:1: text; fix", {})


# ---- laws of boxes -------------------------------------------------------------------------------------------------

HOURS = st.builds(
    "{} {} {}".format, st.just(HOUR), st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), st.integers(-1, 25)
)
TURNED = st.builds("{} {} {}".format, st.integers(-1, 25), st.sampled_from(["<", ">="]), st.just(HOUR))
DAYS = st.sampled_from(["[1, 2].contains(context.clock.weekday)", "context.clock.weekday > 4", "context.asked.stream"])
EXPRESSIONS = st.recursive(
    HOURS | TURNED | DAYS,
    lambda inner: (
        st.builds("({} && {})".format, inner, inner)
        | st.builds("({} || {})".format, inner, inner)
        | st.builds("!({})".format, inner)
        | st.builds("(if {} then {} else {})".format, inner, inner, inner)
    ),
    max_leaves=5,
)
CLOCKS = [(hour, day, stream) for hour, day, stream in product((0, 6, 7, 12, 20, 23), (0, 1, 5), (True, False))]


def parsed(text: str):
    tree = json.loads(cedarpy.policies_to_json_str(f"permit (principal, action, resource) when {{ {text} }};"))
    return tree["staticPolicies"]["policy0"]["conditions"][0]["body"]


def holds(text: str, hour: int, day: int, stream: bool) -> bool:
    context = {"clock": {"hour": hour, "weekday": day}, "asked": {"stream": stream}}
    request = {"principal": 'U::"u"', "action": 'Action::"a"', "resource": 'R::"r"', "context": context}
    return cedarpy.is_authorized(request, f"permit (principal, action, resource) when {{ {text} }};", []).allowed


@given(EXPRESSIONS)
def test_what_is_said_to_be_never_true_the_engine_never_finds_true(text: str) -> None:
    expression = parsed(text)
    true, false = bool(boxes(expression)), bool(boxes(expression, holds=False))
    for clock in CLOCKS:
        assert true if holds(text, *clock) else false


@given(EXPRESSIONS, EXPRESSIONS)
def test_what_is_said_to_exclude_each_other_never_meets(first: str, second: str) -> None:
    if not common(boxes(parsed(first)), boxes(parsed(second))):
        assert not any(holds(f"({first}) && ({second})", *clock) for clock in CLOCKS)


def test_the_law_can_tell_what_is_never_true() -> None:
    assert boxes(parsed(f"{HOUR} < 7 && {HOUR} >= 7")) == ()
    assert boxes(parsed(f"{HOUR} < 7 && {HOUR} >= 6")) != ()
    assert boxes(parsed(f"{HOUR} < 7 || {HOUR} >= 7"), holds=False) == ()
