"""Cedar files go in, policies with id, file and line and one engine handle come out; the only reader of Cedar text.

Cedar's parser names neither file nor line, so each file is cut into its statements first and each is parsed alone.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import cedarpy

from sluicegate.schemas.errors import Problem
from sluicegate.schemas.ids import PolicyId

ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
POLICIES_MAX: Final = 2_000
# White space and comments, strings with their escapes, the end of a statement, anything else.
_TOKEN: Final = re.compile(r'(?P<blank>\s+|//[^\n]*)|(?P<string>"(?:[^"\\]|\\.)*")|(?P<end>;)|(?P<other>.)', re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySource:
    """One policy. `line`, from 1, is that of its first annotation; `actions` those that its scope names, empty: any."""

    id: PolicyId
    file: str
    line: int
    forbids: bool
    actions: tuple[str, ...]
    annotations: Mapping[str, str]
    text: str

    def place(self) -> str:
        """Where it stands, as `access.cedar:4`."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyTexts:
    """Every policy that could be read, the engine's handle over all of them, and one line for each thing to mend."""

    policies: Mapping[PolicyId, PolicySource]
    handle: cedarpy.PolicySet | None
    problems: tuple[Problem, ...]


def statements(text: str) -> Iterator[tuple[int, str]]:
    """The statements of a Cedar file: line of the first token, and text up to and with its `;`, or what is left."""
    start: int | None = None
    for token in _TOKEN.finditer(text):
        if start is None and token.lastgroup != "blank":
            start = token.start()
        if token.lastgroup == "end" and start is not None:
            yield text.count("\n", 0, start) + 1, text[start : token.end()]
            start = None
    if start is not None:
        yield text.count("\n", 0, start) + 1, text[start:].rstrip()


def read_policies(files: Mapping[str, str], schema: cedarpy.Schema) -> PolicyTexts:
    """Parses every Cedar file, validates each policy against the schema and gives each its own `@id` in the engine."""
    policies: dict[PolicyId, PolicySource] = {}
    parsed: dict[str, object] = {}
    problems: list[Problem] = []
    for file in sorted(files):
        for line, text in statements(files[file]):
            read = _read(file, line, text, schema)
            if isinstance(read, list):
                problems += [Problem(code, problem, file=file, line=line) for code, problem in read]
                continue
            policy, tree = read
            if policy.id in policies:
                taken = f'`@id("{policy.id}")` is taken by {policies[policy.id].place()}; give each policy its own'
                problems.append(Problem("duplicate-id", taken, file=file, line=line))
                continue
            policies[policy.id] = policy
            parsed[policy.id] = tree
    if len(policies) > POLICIES_MAX:
        text = f"{len(policies)} policies are over the limit of {POLICIES_MAX}; merge some"
        problems.append(Problem("too-many-policies", text))
    handle = None
    if not problems:
        document = json.dumps({"templates": {}, "templateLinks": [], "staticPolicies": parsed})
        handle = cedarpy.PolicySet.from_json_str(document, release_gil=True)
    return PolicyTexts(policies=MappingProxyType(policies), handle=handle, problems=tuple(problems))


def _read(
    file: str, line: int, text: str, schema: cedarpy.Schema
) -> tuple[PolicySource, Mapping[str, object]] | list[tuple[str, str]]:
    """One statement as a policy and its syntax tree, or what to mend in it: a code and a text each."""
    if not text.endswith(";"):
        return [("syntax", "the policy does not end; close it with `;`")]
    try:
        document: object = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as error:
        return [("syntax", f"does not parse: {error}; correct the policy")]
    trees = list(_object(_object(document)["staticPolicies"]).values())
    if len(trees) != 1:
        return [("syntax", "is a template; write a policy without `?principal` and `?resource`")]
    tree = _object(trees[0])
    written = _object(tree.get("annotations", {}))
    annotations = {name: value for name, value in written.items() if isinstance(value, str)}
    if bare := sorted(written.keys() - annotations.keys()):
        return [("bad-value", f'annotation `@{bare[0]}` has no value; write `@{bare[0]}("...")`')]
    own = annotations.get("id")
    if own is None:
        return [("missing-id", 'the policy has no `@id`; write `@id("...")` before it')]
    if not ID.fullmatch(own):
        return [("bad-id", f'`@id("{own}")` is no id; use lower-case letters, digits and dashes, 64 at most')]
    checked = cedarpy.validate_policies(text, schema, release_gil=True)
    if not checked.validation_passed:
        # The engine numbers what it is given, and it is given one.
        found = {error.error.replace("`policy0`", f"`{own}`") for error in checked.errors}
        return [("invalid-policy", f"{problem}; correct it, or declare it in the schema") for problem in sorted(found)]
    policy = PolicySource(
        id=PolicyId(own),
        file=file,
        line=line,
        forbids=tree["effect"] != "permit",
        actions=_actions(_object(tree["action"])),
        annotations=MappingProxyType(annotations),
        text=text,
    )
    return policy, tree


def _actions(scope: Mapping[str, object]) -> tuple[str, ...]:
    entities = scope.get("entities", [scope["entity"]] if "entity" in scope else [])
    if not isinstance(entities, list):
        raise TypeError("Cedar's syntax tree changed: `entities` is no list")
    return tuple(sorted(str(_object(entity)["id"]) for entity in entities))


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError("Cedar's syntax tree changed: an object was expected")
    return value
