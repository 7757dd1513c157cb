"""A bundle goes in, English for a reviewer who does not read Cedar comes out; the only place that puts it together.

Everything that decides stands in it: each policy with its file and line, whom and what it is about, its conditions and
obligations, then what the policies refer to. Two policies that differ are said differently.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from sluicegate.enforcer.bundle import Bundle
from sluicegate.enforcer.detect import Rule
from sluicegate.policy.english import Said, claim, entity_name, listed, nouns_for, quoted, type_name
from sluicegate.policy.meaning import MATCHES, law_text, said_of
from sluicegate.policy.page import Block, Form, Heading, Item, Paragraph, Verbatim, code, lay_out
from sluicegate.policy.tree import PolicyTree, Scope, read_tree

_EFFECTS: Final = {"permit": "permits", "forbid": "forbids"}
_CONDITIONS: Final = {
    ("permit", "when"): "only if",
    ("permit", "unless"): "but not if",
    ("forbid", "when"): "if",
    ("forbid", "unless"): "unless",
}
_INTRODUCTION: Final = (
    "Nothing is allowed but what a policy below permits, and where a policy forbids, no permit counts. A policy that "
    "cannot be evaluated for a request denies it."
)
# What the three actions are in a sentence; any other action, or list of actions, is named.
_DONE: Final = {
    "generate": "get answers from {which}",
    "read": "have {which} put into a prompt",
    "shape": "get answers from {which} under the obligations here",
}


def render(bundle: Bundle, form: Form = "text") -> Iterator[str]:
    """The lines of the whole bundle, the same for the same content."""
    return lay_out(tuple(_bundle(bundle)), form)


def sentences(tree: PolicyTree) -> tuple[Block, ...]:
    """One policy: a sentence, its conditions, its obligations."""
    actions = [name for kind, name in tree.action.entities if kind == "Action"]
    nouns = nouns_for(actions)
    blocks: list[Block] = [Paragraph(text=_sentence(tree, actions))]
    for condition in tree.conditions:
        word = _CONDITIONS[tree.effect, condition.kind]
        blocks += _items(claim(condition.body, nouns).after(word), 0)
    annotations = tuple(said_of(tree.annotations))
    if annotations:
        blocks.append(Paragraph(text=_heading(tree, actions)))
        blocks += [Item(depth=0, text=each) for each in annotations]
    return tuple(blocks)


def _bundle(bundle: Bundle) -> Iterator[Block]:
    permits = sum(not each.forbids for each in bundle.policies.values())
    forbids = len(bundle.policies) - permits
    yield Heading(level=1, text=f"Bundle {quoted(bundle.name)}")
    yield Paragraph(text=f"Content {code(bundle.digest)}. Policies: {permits} that permit, {forbids} that forbid.")
    yield Paragraph(text=_INTRODUCTION)
    file = None
    for source in sorted(bundle.policies.values(), key=lambda each: (each.file, each.line)):
        if source.file != file:
            file = source.file
            yield Heading(level=2, text=f"Policies of {code(file)}")
        effect = _EFFECTS["forbid" if source.forbids else "permit"]
        yield Heading(level=3, text=f"{code(source.id)} {effect} ({source.place()})")
        yield from sentences(read_tree(source))
    yield from _vocabulary(bundle)
    yield from _redaction(bundle.redaction.rules)
    yield from _words(bundle)


def _items(said: Said, depth: int) -> Iterator[Block]:
    yield Item(depth=depth, text=said.text)
    for part in said.parts:
        yield from _items(part, depth + 1)


# ---- the head of a policy ------------------------------------------------------------------------------------------


def _sentence(tree: PolicyTree, actions: Sequence[str]) -> str:
    what = {"read": "field", "generate": "model", "shape": "model"}.get(actions[0] if len(actions) == 1 else "", "")
    which, said = _which(tree.resource, what), None
    if tree.action.op == "==" and len(actions) == 1:
        said = _DONE.get(actions[0])
    done = said.format(which=which) if said is not None else f"{_done(tree.action)} {which}"
    end = ":" if tree.conditions else "."
    who = _who(tree.principal)
    may = "may"
    if tree.effect == "forbid":
        who, may = _nobody(who)
    if said is not None and actions == ["shape"] and tree.effect == "permit":
        return f"What {who} gets from {which} carries the obligations below{end}"
    return f"{who[0].upper()}{who[1:]} {may} {done}{end}"


def _who(scope: Scope) -> str:
    match scope.op:
        case "All":
            return "anyone"
        case "==":
            return _named(scope)
        case "in":
            return f"whoever belongs to {_named(scope)}"
        case _:
            inside = f" that belongs to {_named(scope)}" if scope.entities else ""
            return f"any {type_name(scope.entity_type or '')}{inside}"


def _nobody(who: str) -> tuple[str, str]:
    """How a forbid says whom it is about, and that they may not."""
    if who == "anyone":
        return "nobody", "may"
    return (f"no {who.removeprefix('any ')}", "may") if who.startswith("any ") else (who, "may not")


def _which(scope: Scope, what: str) -> str:
    """`what` is the kind of thing that the action is about, where all of its things are of one kind."""
    match scope.op:
        case "All":
            return f"any {what} at all" if what else "anything"
        case "==":
            return _named(scope)
        case "in":
            return f"any {what or 'thing'} that belongs to {_named(scope)}"
        case _:
            inside = f" that belongs to {_named(scope)}" if scope.entities else ""
            return f"whatever is a {type_name(scope.entity_type or '')}{inside}"


def _done(scope: Scope) -> str:
    match scope.op:
        case "All":
            return "do anything with"
        case "==":
            return f"do {_named(scope)} with"
        case _ if scope.many:
            return f"do what is or belongs to one of [{_named(scope)}] with"
        case _:
            return f"do what is or belongs to {_named(scope)} with"


def _named(scope: Scope) -> str:
    return listed([entity_name(*each) for each in scope.entities], "or") if scope.entities else "nothing"


def _heading(tree: PolicyTree, actions: Sequence[str]) -> str:
    if tree.effect == "forbid":
        return "Where it forbids:"
    if set(actions) == {"shape"}:
        return "This grants nothing. To an answer that another policy permits, it adds:"
    return "Under these obligations:"


# ---- what policies refer to ----------------------------------------------------------------------------------------


def _vocabulary(bundle: Bundle) -> Iterator[Block]:
    if bundle.templates:
        yield Heading(level=2, text="Templates")
        for name, text in sorted(bundle.templates.items()):
            yield Paragraph(text=f"The template {quoted(name)}, word for word:")
            yield Verbatim(text=text)
    if bundle.grammars:
        yield Heading(level=2, text="Grammars")
        for name, grammar in sorted(bundle.grammars.items()):
            yield Paragraph(text=f"The grammar {quoted(name)} allows these answers alone:")
            yield from (Item(depth=0, text=code(choice)) for choice in grammar.choices)
    if bundle.term_lists:
        yield Heading(level=2, text="Term lists")
        for name, terms in sorted(bundle.term_lists.items()):
            yield Paragraph(text=f"A name of the list {quoted(name)} counts {MATCHES[terms.match]}, in either case:")
            for term in terms.terms:
                yield Item(depth=0, text=f"{code(term.text)} becomes {code(term.alias)}")


def _redaction(rules: Sequence[Rule]) -> Iterator[Block]:
    yield Heading(level=2, text="Redaction rules")
    yield Paragraph(
        text="What the redactor looks for, by class. Where values of two classes overlap, the rule with the higher "
        "rank names what is found."
    )
    key: Callable[[Rule], tuple[str, str]] = lambda each: (each.class_.value, each.id)  # noqa: E731
    for rule in sorted(rules, key=key):
        near = ", where one of these words is in the same sentence: " if rule.context else ""
        yield Item(
            depth=0,
            text=f"{rule.class_.value}, rule {quoted(rule.id)} (rank {rule.priority}): what starts as "
            f"{code(rule.pattern)} and passes the check {quoted(rule.validator)}{near}{', '.join(rule.context)}",
        )


def _words(bundle: Bundle) -> Iterator[Block]:
    used = sorted({name for each in bundle.policies.values() for name in each.annotations if name != "id"})
    if used:
        yield Heading(level=2, text="How obligations add up")
        yield from (Item(depth=0, text=f"{code('@' + name)}: {law_text(name)}") for name in used)
    if bundle.enums:
        yield Heading(level=2, text="Closed lists")
        for kind, ids in sorted(bundle.enums.items()):
            yield Item(depth=0, text=f"every {type_name(kind)}: {', '.join(quoted(each) for each in sorted(ids))}")
