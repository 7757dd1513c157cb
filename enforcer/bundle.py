"""The files of a policy bundle go in, its canonical content and a checked `Bundle` come out; the only place for either.

A bundle that is wrong anywhere is refused whole, with one line for each thing to mend: nothing in it is ever ignored.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Final, TypeVar

import cedarpy

from sluicegate.enforcer import alias
from sluicegate.enforcer.detect import RuleTable, RuleTableRefused
from sluicegate.enforcer.obligation_table import read_table
from sluicegate.enforcer.obligations import CATALOGUE, REASON, BadValue, parse
from sluicegate.enforcer.policy_text import PolicySource, PolicyTexts, read_policies
from sluicegate.enforcer.vocabulary import (
    BadFile,
    Choice,
    TermList,
    lines_of,
    name_of,
    read_grammar,
    read_template,
    read_term_list,
    read_yaml,
)
from sluicegate.schemas.errors import InvalidBundle, Problem
from sluicegate.schemas.ids import Digest, PolicyId

BUNDLE_GLOBS: Final = (
    "bundle.yaml",
    "schema.cedarschema",
    "redaction.yaml",
    "obligations.yaml",
    "*.cedar",
    "templates/*.txt",
    "grammars/*.yaml",
    "terms/*.yaml",
    "tests/*.yaml",
)
NEEDED: Final = ("bundle.yaml", "schema.cedarschema", "redaction.yaml", "obligations.yaml")
FORMAT: Final = 1
REASON_CHARACTERS_MAX: Final = 300
_STEM: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
# The actions whose matching permits carry obligations.
_CARRIERS: Final = frozenset({"generate", "shape"})
# Cedar renders a schema in one form, whatever it was written in: `entity Role enum ["support", "finance"];`
_ENUM: Final = re.compile(
    r'^entity (?P<types>[\w:, ]+?) enum (?P<ids>\[(?:"(?:[^"\\]|\\.)*"(?:, )?)*\]);$', re.MULTILINE
)
_NOT_CONTENT: Final = Problem(
    "content", "the content is no canonical JSON object of path to text; publish it with `bundle_content`"
)
T_ = TypeVar("T_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A policy bundle that validated: what every decision is made from, together with a directory.

    `enums` holds the ids of every closed list of the schema, by entity type; `cases` the texts of the files of test
    cases, by path.
    """

    digest: Digest
    name: str
    policies: Mapping[PolicyId, PolicySource]
    policy_set: cedarpy.PolicySet
    schema: cedarpy.Schema
    enums: Mapping[str, frozenset[str]]
    templates: Mapping[str, str]
    grammars: Mapping[str, Choice]
    term_lists: Mapping[str, TermList]
    redaction: RuleTable
    cases: Mapping[str, str]

    def declares(self, entity_type: str, entity_id: str) -> bool:
        """Whether the schema lists this id of a closed list, such as the purpose `ticket`."""
        return entity_id in self.enums.get(entity_type, frozenset())


def belongs_to_bundle(path: str) -> bool:
    """Whether a file of the policy folder is part of the bundle; `path` is relative to the folder, with `/`."""
    parts = path.split("/")
    return any(
        len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))
        for wanted in (glob.split("/") for glob in BUNDLE_GLOBS)
    )


def bundle_content(files: Mapping[str, str]) -> bytes:
    """The canonical content of a bundle: JSON of path to text, sorted, with line feeds for every kind of line end."""
    texts = {path: text.removeprefix("\ufeff") for path, text in files.items()}
    lines = {path: text.replace("\r\n", "\n").replace("\r", "\n") for path, text in texts.items()}
    return json.dumps(lines, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of(content: bytes) -> Digest:
    """SHA-256 of the content of a bundle or a directory."""
    return Digest("sha256:" + hashlib.sha256(content).hexdigest())


def load_bundle(content: bytes) -> Bundle:
    """Reads and validates a whole bundle.

    Raises:
        InvalidBundle: with a `Problem` for each thing to mend, its file and line where known, and what to do.
    """
    files = _files(content)
    problems = _layout(files)
    schema = _schema(files)
    policies = read_policies({path: text for path, text in files.items() if path.endswith(".cedar")}, schema)
    problems += policies.problems
    name, found = _about(files.get("bundle.yaml", ""))
    problems += found
    reader = _Reader(files)
    templates = reader.every("templates/", "template", lambda _, text: read_template(text))
    grammars = reader.every("grammars/", "grammar", read_grammar)
    term_lists = reader.every("terms/", "term-list", read_term_list)
    tables = reader.every("redaction.yaml", "redaction", lambda _, text: RuleTable.parse(read_yaml(text)))
    reader.every("tests/", "test-cases", lambda _, text: read_yaml(text))
    problems += reader.problems
    declared, found = read_table(files.get("obligations.yaml", "{}"))
    problems += found
    problems += alias.clashes(tuple(term_lists.values()))
    known = {"system": frozenset(templates), "output": frozenset(grammars), "alias": frozenset(term_lists)}
    for policy in policies.policies.values():
        wrong = [*_annotation_problems(policy, known), *_undeclared(policy, declared)]
        problems += [Problem(code, text, file=policy.file, line=policy.line) for code, text in wrong]
    problems += _missing_policies(policies)
    if problems or policies.handle is None or not tables:
        raise InvalidBundle(tuple(problems))
    return Bundle(
        digest=digest_of(content),
        name=name,
        policies=policies.policies,
        policy_set=policies.handle,
        schema=schema,
        enums=_enums(schema),
        templates=MappingProxyType(templates),
        grammars=MappingProxyType(grammars),
        term_lists=MappingProxyType(term_lists),
        redaction=tables["redaction"],
        cases=MappingProxyType({path: text for path, text in files.items() if path.startswith("tests/")}),
    )


def _files(content: bytes) -> Mapping[str, str]:
    try:
        document: object = json.loads(content)
    except (ValueError, RecursionError):
        raise InvalidBundle((_NOT_CONTENT,)) from None
    if not isinstance(document, dict) or not all(isinstance(text, str) for text in document.values()):
        raise InvalidBundle((_NOT_CONTENT,))
    try:
        canonical = bundle_content(document) == content
    except UnicodeEncodeError:
        canonical = False
    if not canonical:
        raise InvalidBundle((_NOT_CONTENT,))
    return document


def _layout(files: Mapping[str, str]) -> list[Problem]:
    foreign = (path for path in sorted(files) if not belongs_to_bundle(path))
    problems = [Problem("foreign-file", "no file of a bundle; remove it", file=path) for path in foreign]
    missing = (path for path in NEEDED if path not in files)
    problems += [Problem("missing-file", "is missing; add it", file=path) for path in missing]
    text = "policies cannot name this; use lower-case letters, digits, `-` and `_`"
    unnamed = (path for path in sorted(files) if "/" in path and not _STEM.fullmatch(name_of(path)))
    problems += [Problem("file-name", text, file=path) for path in unnamed]
    return problems


def _schema(files: Mapping[str, str]) -> cedarpy.Schema:
    """The schema; without one that parses no policy can be judged, so its problem is reported alone."""
    try:
        return cedarpy.Schema.from_str(files.get("schema.cedarschema", ""))
    except ValueError as error:
        problem = Problem("schema", f"{error}; correct the schema", file="schema.cedarschema")
        raise InvalidBundle((problem,)) from None


def _about(text: str) -> tuple[str, list[Problem]]:
    def problem(text: str, line: int) -> Problem:
        return Problem("bundle-file", text, file="bundle.yaml", line=line)

    try:
        entry = read_yaml(text)
    except BadFile as error:
        return "", [problem(str(error), error.line)]
    if entry.keys() != {"name", "format"}:
        return "", [problem("must hold `name` and `format` and nothing else; correct it", 1)]
    problems, lines = [], lines_of(text)
    name = str(entry["name"])
    if not _STEM.fullmatch(name):
        problems.append(problem("`name` is no name; write lower-case letters, digits and dashes", lines["name",]))
    if entry["format"] != FORMAT or isinstance(entry["format"], bool):
        wrong = f"format `{entry['format']}` is unknown; write {FORMAT}, which this release reads"
        problems.append(problem(wrong, lines["format",]))
    return name, problems


class _Reader:
    """Reads the files of one folder with one function, and gathers what is wrong with them."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files
        self.problems: list[Problem] = []

    def every(self, prefix: str, code: str, read: Callable[[str, str], T_]) -> dict[str, T_]:
        """What `read` makes of each file whose path starts with `prefix`, by its name; `code` is that of a problem."""
        found: dict[str, T_] = {}
        for path in sorted(path for path in self._files if path.startswith(prefix)):
            try:
                found[name_of(path)] = read(path, self._files[path])
            except (BadFile, RuleTableRefused) as error:
                self.problems.append(Problem(code, str(error), file=path, line=getattr(error, "line", 0)))
        return found


def _annotation_problems(policy: PolicySource, known: Mapping[str, frozenset[str]]) -> Iterator[tuple[str, str]]:
    """Code and text of each thing to mend."""
    for name, raw in sorted(policy.annotations.items()):
        if name == "id":
            continue
        entry = CATALOGUE.get(name)
        if entry is None:
            yield "unknown-annotation", f"annotation `@{name}` is unknown; correct it or remove it"
        elif name == REASON:
            if not policy.forbids:
                yield "misplaced-annotation", "`@reason` stands on a permit, which shows none; move it to a forbid"
            if not raw.strip() or len(raw) > REASON_CHARACTERS_MAX or not raw.isprintable():
                yield "bad-value", f"`@reason` must be one line of 1 to {REASON_CHARACTERS_MAX} characters; rewrite it"
        elif not entry.supported:
            text = f"OBLIGATION_UNSUPPORTED: `@{name}` is carried out by no stage of this release; remove it"
            yield "unsupported-obligation", text
        elif policy.forbids:
            text = f"`@{name}` stands on a forbid, which carries no obligation; move it to a permit"
            yield "misplaced-annotation", text
        elif not policy.actions or not set(policy.actions) <= _CARRIERS:
            text = f"`@{name}` stands on a policy that is not for generate or shape alone; name one of these actions"
            yield "misplaced-annotation", text
        else:
            yield from _value_problems(name, raw, known)


def _undeclared(policy: PolicySource, declared: frozenset[str]) -> Iterator[tuple[str, str]]:
    for name in sorted(policy.annotations.keys() - declared):
        if name in CATALOGUE and CATALOGUE[name].supported:
            text = f"`@{name}` has no row in obligations.yaml; add `{CATALOGUE[name].row_text()}`"
            yield "undeclared-annotation", text


def _value_problems(name: str, raw: str, known: Mapping[str, frozenset[str]]) -> Iterator[tuple[str, str]]:
    try:
        value = parse(name, raw)
    except BadValue as error:
        yield "bad-value", f'`@{name}("{raw}")`: {error}'
        return
    if name in known:
        named = sorted(value) if isinstance(value, frozenset) else [str(value)]
        for missing in sorted(set(named) - known[name]):
            yield "missing-file", f'`@{name}("{raw}")`: the bundle holds no `{missing}`; {_WHERE[name]}'


_WHERE: Final = MappingProxyType(
    {
        "system": "add templates/NAME.txt or correct the name",
        "output": "add grammars/NAME.yaml or correct the name",
        "alias": "add terms/NAME.yaml or correct the name",
    }
)


def _missing_policies(policies: PolicyTexts) -> Iterator[Problem]:
    if not policies.policies and not policies.problems:
        yield Problem("no-policy", "the bundle holds no policy, so it denies everything; add a `.cedar` file")


def _enums(schema: cedarpy.Schema) -> Mapping[str, frozenset[str]]:
    """The closed lists of the schema, each id confirmed by the engine that will be asked about it."""
    found: dict[str, frozenset[str]] = {}
    for declaration in _ENUM.finditer(str(schema)):
        ids: object = json.loads(declaration["ids"])
        if not isinstance(ids, list):
            continue
        for entity_type in declaration["types"].split(", "):
            found[entity_type] = frozenset(str(each) for each in ids if _confirmed(schema, entity_type, str(each)))
    return MappingProxyType(found)


def _confirmed(schema: cedarpy.Schema, entity_type: str, entity_id: str) -> bool:
    entity = {"uid": {"type": entity_type, "id": entity_id}, "attrs": {}, "parents": []}
    try:
        cedarpy.Entities.from_json_str(json.dumps([entity]), schema)
    except ValueError:
        return False
    return True
