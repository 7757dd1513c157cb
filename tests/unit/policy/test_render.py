"""A bundle in English: the example company's whole text, and two policies that differ are never said alike."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sluicegate import cli
from sluicegate.bundle_folder import read_bundle
from sluicegate.enforcer.bundle import load_bundle
from sluicegate.policy.page import Heading, Item, Paragraph, Verbatim, code, lay_out
from sluicegate.policy.render import render, sentences
from sluicegate.policy.tree import Condition, Expression, PolicyTree, Scope, read_tree
from sluicegate.schemas.ids import PolicyId

ROOT = Path(__file__).parents[3]
POLICIES = ROOT / "policies"
GOLDEN = ROOT / "tests" / "golden" / "company_policy.txt"
BUNDLE = load_bundle(read_bundle(POLICIES))
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def test_the_company_reads_as_a_reviewer_read_it() -> None:
    """The digest covers the test cases too, so it is not compared."""
    text = "\n".join(render(BUNDLE)) + "\n"
    assert DIGEST.sub("sha256:...", text) == GOLDEN.read_text(encoding="utf-8")


def test_the_company_has_no_expression_without_words() -> None:
    assert "in Cedar" not in "\n".join(render(BUNDLE))


def test_everything_that_policies_name_is_in_it() -> None:
    text = "\n".join(render(BUNDLE))
    for policy in BUNDLE.policies.values():
        assert f"`{policy.id}`" in text
        assert policy.place() in text
        assert all(f'`@{name}("{raw}")`' in text for name, raw in policy.annotations.items() if name != "id")
    assert all(template in text for template in BUNDLE.templates.values())
    assert all(rule.pattern in text for rule in BUNDLE.redaction.rules)
    assert all(term.text in text and term.alias in text for each in BUNDLE.term_lists.values() for term in each.terms)


def test_what_has_no_words_is_given_as_cedar() -> None:
    odd: Expression = {"Value": {"__extn": {"fn": "decimal", "arg": "1.5"}}}
    body: Expression = {
        "&&": {"left": {"Var": "principal"}, "right": {"==": {"left": _chain("context", "x"), "right": odd}}}
    }
    tree = replace(read_tree(BUNDLE.policies[PolicyId("open-fields")]), conditions=(Condition(kind="when", body=body),))
    assert '  - `x` of the request is (in Cedar: `decimal("1.5")`)' in _text(tree).splitlines()


def test_markdown_escapes_markup_outside_backticks_only() -> None:
    blocks = (
        Heading(level=2, text="a_b `c_d`"),
        Paragraph(text='"<b>" [x] `` `*` ``'),
        Item(depth=0, text="one"),
        Item(depth=1, text="two"),
        Verbatim(text="```\nraw *text*"),
    )
    assert list(lay_out(blocks, "markdown")) == [
        "## a\\_b `c_d`", "", '"\\<b\\>" \\[x\\] `` `*` ``', "", "- one", "  - two", "", "````text", "```",
        "raw *text*", "````",
    ]  # fmt: skip
    assert code("a`b``c") == "```a`b``c```"


def test_the_command_writes_both_forms(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["policy", "render", "--bundle", str(POLICIES)]) == 0
    assert capsys.readouterr().out == "\n".join(render(BUNDLE)) + "\n"
    assert cli.main(["policy", "render", "--bundle", str(POLICIES), "--format", "markdown"]) == 0
    assert capsys.readouterr().out.startswith("# Bundle `heron-cycles`\n")
    assert cli.main(["policy", "render", "--bundle", str(tmp_path / "none")]) == 2


# ---- the law: two policies that differ are said differently --------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "a b", "a`b", "a; b", "x] and [y", "ticket", "7", "true", 'q"', "principal", "\n"])
ENTITIES = st.tuples(st.sampled_from(["Role", "Purpose", "ModelTier", "Org::Team"]), NAMES)
LITERALS: st.SearchStrategy[Expression] = st.one_of(
    st.integers(-3, 9), st.booleans(), NAMES, ENTITIES.map(lambda each: {"__entity": {"type": each[0], "id": each[1]}})
).map(lambda value: {"Value": value})
VARIABLES: st.SearchStrategy[Expression] = st.sampled_from(["principal", "action", "resource", "context"]).map(
    lambda name: {"Var": name}
)
CHAINS: st.SearchStrategy[Expression] = st.sampled_from(
    [("context", "purpose"), ("context", "clock", "hour"), ("context", "via", "speaksFor"), ("context", "a b"),
     ("principal", "onLeave"), ("context", "asked", "stream"), ("context", "clock", "weekday"), ("resource", "dataset")]
).map(lambda names: _chain(*names))  # fmt: skip
BINARY = ("&&", "||", "==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "in", "contains", "containsAll", "containsAny",
          "hasTag", "getTag")  # fmt: skip


def _chain(first: str, *names: str) -> Expression:
    node: Expression = {"Var": first}
    for name in names:
        node = {".": {"left": node, "attr": name}}
    return node


def _binary(parts: tuple[str, Expression, Expression]) -> Expression:
    operator, left, right = parts
    return {operator: {"left": left, "right": right}}


def _attribute(parts: tuple[str, Expression, str]) -> Expression:
    operator, left, name = parts
    return {operator: {"left": left, "attr": name}}


def _is(parts: tuple[Expression, str, Expression | None]) -> Expression:
    left, kind, inside = parts
    return {"is": {"left": left, "entity_type": kind, **({} if inside is None else {"in": inside})}}


def _like(parts: tuple[Expression, str]) -> Expression:
    return {"like": {"left": parts[0], "pattern": ["Wildcard", *({"Literal": each} for each in parts[1])]}}


def _cases(parts: tuple[Expression, Expression, Expression]) -> Expression:
    return {"if-then-else": dict(zip(("if", "then", "else"), parts, strict=True))}


def _call(parts: tuple[str, list[Expression]]) -> Expression:
    return {parts[0]: parts[1]}


def _grown(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    one, two = st.lists(inner, min_size=1, max_size=1), st.lists(inner, min_size=2, max_size=2)
    return st.one_of(
        st.tuples(st.sampled_from(BINARY), inner, inner).map(_binary),
        st.tuples(st.sampled_from(["!", "neg", "isEmpty"]), inner).map(lambda each: {each[0]: {"arg": each[1]}}),
        st.tuples(st.sampled_from([".", "has"]), inner, NAMES).map(_attribute),
        st.tuples(inner, st.sampled_from(["User", "Service"]), st.one_of(st.none(), inner)).map(_is),
        st.tuples(inner, st.sampled_from(["a", "*", "a*b", '"'])).map(_like),
        st.tuples(inner, inner, inner).map(_cases),
        st.lists(inner, max_size=3).map(lambda each: {"Set": each}),
        st.dictionaries(NAMES, inner, max_size=2).map(lambda each: {"Record": each}),
        st.tuples(st.sampled_from(["ip", "decimal", "datetime", "duration", "isIpv4", "toDate"]), one).map(_call),
        st.tuples(st.sampled_from(["isInRange", "lessThan", "offset", "durationSince"]), two).map(_call),
    )


EXPRESSIONS = st.recursive(st.one_of(LITERALS, VARIABLES, CHAINS), _grown, max_leaves=4)
SCOPES = st.one_of(
    st.just(Scope(op="All")),
    st.tuples(st.sampled_from(["==", "in"]), ENTITIES).map(lambda each: Scope(op=each[0], entities=(each[1],))),
    st.sampled_from(["User", "Field"]).map(lambda kind: Scope(op="is", entity_type=kind)),
    ENTITIES.map(lambda each: Scope(op="is", entity_type="User", entities=(each,))),
)
ACTIONS = st.one_of(
    st.just(Scope(op="All")),
    st.sampled_from(["generate", "read", "shape", "a b"]).map(
        lambda name: Scope(op="==", entities=(("Action", name),))
    ),
    st.sampled_from(["generate", "read", "all"]).map(lambda name: Scope(op="in", entities=(("Action", name),))),
    st.lists(st.sampled_from(["generate", "read", "shape"]), max_size=3).map(
        lambda names: Scope(op="in", entities=tuple(("Action", name) for name in names), many=True)
    ),
)
ANNOTATIONS = st.dictionaries(
    st.sampled_from(["max_tokens", "reason", "other"]), st.sampled_from(["7", "8"]), max_size=2
)
CONDITIONS = st.lists(
    st.tuples(st.sampled_from(["when", "unless"]), EXPRESSIONS).map(lambda each: Condition(kind=each[0], body=each[1])),
    max_size=2,
).map(tuple)
TREES = st.builds(
    PolicyTree,
    id=st.just(PolicyId("p")),
    effect=st.sampled_from(["permit", "forbid"]),
    principal=SCOPES,
    action=ACTIONS,
    resource=SCOPES,
    conditions=CONDITIONS,
    annotations=ANNOTATIONS,
)


def _text(tree: PolicyTree) -> str:
    return "\n".join(lay_out(sentences(tree), "text"))


UNARY = ("neg", "isEmpty")
FUNCTIONS = ("ip", "decimal", "datetime", "duration", "isIpv4", "isIpv6", "isLoopback", "isMulticast", "toDate",
             "toTime", "toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays")  # fmt: skip
FUNCTIONS_OF_TWO = ("isInRange", "lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual", "offset",
                    "durationSince")  # fmt: skip
ROLE: Expression = {"Value": {"__entity": {"type": "Role", "id": "a"}}}
OPERANDS: list[tuple[Expression, Expression]] = [
    (_chain("context", "clock", "hour"), {"Value": 7}),
    (_chain("context", "clock", "weekday"), {"Value": 1}),
    (_chain("context", "purpose"), {"Value": {"__entity": {"type": "Purpose", "id": "a"}}}),
    ({"Var": "principal"}, ROLE),
    ({"Var": "principal"}, {"Set": [ROLE, ROLE]}),
    ({"Set": [ROLE, ROLE]}, {"Var": "principal"}),
    ({"Set": []}, {"Set": []}),
    (_chain("principal", "onLeave"), {"Value": True}),
    (_chain("context", "asked", "stream"), {"Value": False}),
]


def _every(left: Expression, right: Expression) -> list[Expression]:
    """Everything that can be said of two operands, and its denial."""
    said = [_binary((each, *pair)) for each in BINARY for pair in ((left, right), (right, left))]
    said += [{each: {"arg": left}} for each in UNARY]
    said += [{each: [left]} for each in FUNCTIONS]
    said += [{each: [left, right]} for each in FUNCTIONS_OF_TWO]
    said += [_attribute((each, left, "a")) for each in (".", "has")]
    said += [_is((left, kind, inside)) for kind in ("User", "Service") for inside in (None, right)]
    said += [_like((left, "a")), _cases((left, right, left)), _cases((left, left, right)), {"Set": [left, right]}, left]
    distinct = {_frozen(each): each for each in said}
    return [*distinct.values(), *({"!": {"arg": each}} for each in distinct.values())]


@pytest.mark.parametrize("operands", OPERANDS, ids=range(len(OPERANDS)))
def test_each_operator_has_words_of_its_own(operands: tuple[Expression, Expression]) -> None:
    tree = read_tree(BUNDLE.policies[PolicyId("support-reads-contact-data")])
    found: dict[str, list[Expression]] = {}
    for each in _every(*operands):
        found.setdefault(_text(replace(tree, conditions=(Condition(kind="when", body=each),))), []).append(each)
    assert len(found) > 80
    assert [alike for alike in found.values() if len(alike) > 1] == []


def test_each_head_and_effect_and_kind_of_condition_has_words_of_its_own() -> None:
    role, user = ("Role", "a"), ("User", "a")
    scopes = [
        Scope(op="All"), Scope(op="==", entities=(role,)), Scope(op="in", entities=(role,)),
        Scope(op="==", entities=(user,)), Scope(op="is", entity_type="User"), Scope(op="is", entity_type="Role"),
        Scope(op="is", entity_type="User", entities=(role,)),
    ]  # fmt: skip
    read, shape = ("Action", "read"), ("Action", "shape")
    actions = [Scope(op="All"), Scope(op="in", entities=(), many=True)]
    actions += [Scope(op=op, entities=(each,)) for op in ("==", "in") for each in (read, shape, ("Action", "generate"))]
    actions += [Scope(op="in", entities=each, many=True) for each in ((read,), (read, shape), (shape, read))]
    bodies: list[Expression] = [{"Var": "context"}, {"Value": True}]
    conditions = [
        tuple(Condition(kind=kind, body=body) for kind, body in zip(kinds, bodies, strict=False))
        for kinds in ((), ("when",), ("unless",), ("when", "when"), ("when", "unless"), ("unless", "when"))
    ]
    trees = [
        PolicyTree(id=PolicyId("p"), effect=effect, principal=principal, action=action, resource=resource,
                   conditions=condition, annotations={})
        for effect in ("permit", "forbid") for principal in scopes for action in actions for resource in scopes
        for condition in conditions
    ]  # fmt: skip
    assert len({_text(tree) for tree in trees}) == len(trees) > 5_000


@settings(max_examples=100, deadline=None)
@given(EXPRESSIONS, st.data())
def test_two_expressions_that_differ_are_said_differently(body: Expression, data: st.DataObject) -> None:
    other = data.draw(st.one_of(EXPRESSIONS, _changed(body)))
    assume(_frozen(other) != _frozen(body))
    tree = read_tree(BUNDLE.policies[PolicyId("open-fields")])
    texts = [_text(replace(tree, conditions=(Condition(kind="when", body=each),))) for each in (body, other)]
    assert texts[0] != texts[1]


@settings(max_examples=100, deadline=None)
@given(TREES, TREES, st.sampled_from(["all", "effect", "principal", "action", "resource", "conditions", "annotations"]))
def test_two_policies_that_differ_are_said_differently(one: PolicyTree, other: PolicyTree, part: str) -> None:
    if part != "all":
        other = replace(one, **{part: getattr(other, part)})
    assume(_frozen(one.to_json()) != _frozen(other.to_json()))
    assert _text(one) != _text(other)


def _frozen(node: object) -> object:
    """A node as a value that tells `true` from 1."""
    if isinstance(node, Mapping):
        return frozenset((key, _frozen(value)) for key, value in node.items())
    return tuple(map(_frozen, node)) if isinstance(node, list) else (type(node), node)


def _changed(body: Expression) -> st.SearchStrategy[Expression]:
    """The same expression, changed at one place."""
    ((operator, operands),) = body.items()
    found: list[st.SearchStrategy[Expression]] = [LITERALS]
    if isinstance(operands, dict) and operator != "Value":
        for key, value in operands.items():
            if isinstance(value, dict):
                within: Callable[[Expression], Expression] = partial(_put, operator, operands, key)
                found.append(_changed(value).map(within))
    return st.one_of(found)


def _put(operator: str, operands: Mapping[str, object], key: str, value: Expression) -> Expression:
    return {operator: {**operands, key: value}}
