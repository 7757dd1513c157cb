"""Templates, grammars and term lists of a bundle: text in, checked values out; the only reader of these files."""

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Final

import yaml

from sluicegate.enforcer.views import fold

TEMPLATE_CHARACTERS_MAX: Final = 16_384
CHOICES_MAX: Final = 64
CHOICE_CHARACTERS_MAX: Final = 256
TERMS_MAX: Final = 1_000
TERM_CHARACTERS_MAX: Final = 100
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class BadFile(ValueError):
    """A file of the bundle that cannot be used; the text says what to change in it, `line` where, 0 if not known."""

    def __init__(self, text: str, *, line: int = 0) -> None:
        super().__init__(text)
        self.line = line


class Match(StrEnum):
    """Where a term counts: as a whole word, at the start of one, or anywhere."""

    WORD = "word"
    START = "start"
    ANYWHERE = "anywhere"


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A name that must not reach the model, as it is written and in plain form (see `plain`), and its public name.

    `line` is that of the term in its file.
    """

    text: str
    plain: str
    alias: str
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TermList:
    """Terms that share one way of matching; letters match in either case."""

    name: str
    match: Match
    terms: tuple[Term, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A grammar that leaves the model a closed list of answers."""

    name: str
    choices: tuple[str, ...]


def plain(text: str) -> str:
    """The form in which terms are compared: disguises undone, lower case, runs of white space as one space."""
    return " ".join(fold(text).text.lower().split())


def has_control_character(text: str) -> bool:
    r"""Whether `text` holds a control character (Unicode Cc) other than line feed and tab.

    Some of these are no token of the model: they vanish, and `blue\x04fin` reaches it as a name that no filter saw.
    """
    return _CONTROL.search(text) is not None


def name_of(path: str) -> str:
    """The name by which policies call a file: `terms/unreleased-bikes.yaml` is `unreleased-bikes`."""
    return PurePosixPath(path).stem


def read_template(text: str) -> str:
    """A system message; the line feed that ends the file is not part of it.

    Raises:
        BadFile: it is empty, too long or holds a control character.
    """
    template = text.removesuffix("\n")
    if not template.strip():
        raise BadFile("the template is empty; write the system message")
    if len(template) > TEMPLATE_CHARACTERS_MAX:
        raise BadFile(f"the template is over {TEMPLATE_CHARACTERS_MAX} characters; shorten it")
    if has_control_character(template):
        raise BadFile("the template holds a control character; remove it")
    return template


def read_grammar(path: str, text: str) -> Choice:
    """A grammar. This release knows `kind: choice`.

    Raises:
        BadFile: it is of another kind, or its choices are no list of different, non-empty texts.
    """
    entry = read_yaml(text)
    _only_keys(entry, {"kind", "choices"})
    if entry["kind"] != "choice":
        raise BadFile(f"grammar kind `{entry['kind']}` is unknown; this release has `choice`")
    choices = _texts(entry["choices"], "choices", CHOICES_MAX, CHOICE_CHARACTERS_MAX)
    if len(set(choices)) < len(choices):
        raise BadFile("a choice stands twice; write it once")
    return Choice(name=name_of(path), choices=choices)


def read_term_list(path: str, text: str) -> TermList:
    """A term list: `match` and `terms`, each a `term` and its `alias`.

    Raises:
        BadFile: a key, a way of matching or a term is wrong.
    """
    entry = read_yaml(text)
    _only_keys(entry, {"match", "terms"})
    if entry["match"] not in tuple(Match):
        raise BadFile(f"match `{entry['match']}` is unknown; use one of {', '.join(Match)}")
    rows = entry["terms"]
    if not isinstance(rows, list) or not 0 < len(rows) <= TERMS_MAX:
        raise BadFile(f"`terms` must be a list of 1 to {TERMS_MAX} terms")
    lines = lines_of(text)
    terms = tuple(_term(row, lines["terms", str(index)]) for index, row in enumerate(rows))
    return TermList(name=name_of(path), match=Match(str(entry["match"])), terms=terms)


def _term(row: object, line: int) -> Term:
    if not isinstance(row, dict):
        raise BadFile("every term must be a mapping of `term` and `alias`; mend this one", line=line)
    _only_keys(row, {"term", "alias"})
    term, alias = _texts([row["term"], row["alias"]], "terms", 2, TERM_CHARACTERS_MAX)
    if not any(character.isalnum() for character in plain(term)):
        raise BadFile(f"term `{term}` holds no letter or digit; write a name", line=line)
    return Term(text=term, plain=plain(term), alias=alias, line=line)


def _texts(value: object, what: str, count_max: int, characters_max: int) -> tuple[str, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= count_max:
        raise BadFile(f"`{what}` must be a list of 1 to {count_max} texts")
    for text in value:
        if not isinstance(text, str) or not text.strip() or len(text) > characters_max or has_control_character(text):
            raise BadFile(f"`{what}` must hold texts of 1 to {characters_max} characters, no controls; mend `{text}`")
    return tuple(value)


def _only_keys(entry: Mapping[str, object], needed: set[str]) -> None:
    if unknown := sorted(str(key) for key in entry.keys() - needed):
        raise BadFile(f"unknown key `{unknown[0]}`; remove it")
    if missing := sorted(needed - entry.keys()):
        raise BadFile(f"key `{missing[0]}` is missing; add it")


class _StrictLoader(yaml.SafeLoader):
    """YAML without what hides: a key that stands twice, and aliases, which blow up and merge unseen."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            raise BadFile("YAML aliases are not allowed; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if repeated := sorted({key for key in keys if keys.count(key) > 1}):
            raise BadFile(f"key `{repeated[0]}` stands twice; write it once")
        return super().construct_mapping(node, deep=deep)


def read_yaml(text: str) -> dict[str, object]:
    """A YAML mapping with string keys; no aliases, no key twice.

    Raises:
        BadFile: it does not parse or is something else.
    """
    try:
        document: object = yaml.load(text, _StrictLoader)  # noqa: S506 - a SafeLoader made stricter
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if isinstance(mark, yaml.Mark) else 0
        raise BadFile("does not parse as YAML; correct it", line=line) from None
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise BadFile("must be a YAML mapping with text keys; correct it")
    return document


def lines_of(text: str) -> Mapping[tuple[str, ...], int]:
    """The line, from 1, of every value of a YAML text that `read_yaml` took, by the keys and positions to it."""
    lines: dict[tuple[str, ...], int] = {}
    nodes: list[tuple[tuple[str, ...], yaml.Node, yaml.Node]] = []
    if (root := yaml.compose(text, _StrictLoader)) is not None:
        nodes.append(((), root, root))
    while nodes:
        path, place, node = nodes.pop()
        lines[path] = place.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            nodes += [((*path, str(key.value)), key, value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            nodes += [((*path, str(index)), value, value) for index, value in enumerate(node.value)]
    return lines
