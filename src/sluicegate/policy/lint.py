"""The content of a bundle goes in, every finding of `policy check` comes out: what the loader refuses and what it does
not, but a reviewer should.

What the loader refuses is an error. A bundle that is refused is still looked at as far as it can be read.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import cedarpy

from sluicegate.enforcer.bundle import Bundle, load_bundle
from sluicegate.enforcer.directory import load_directory
from sluicegate.enforcer.obligation_table import FILE as TABLE
from sluicegate.enforcer.policy_text import read_policies
from sluicegate.enforcer.vocabulary import BadFile, lines_of, name_of, read_yaml
from sluicegate.policy.cases import read_cases
from sluicegate.policy.findings import Finding, Severity, from_problem, sort
from sluicegate.policy.never import never_true
from sluicegate.policy.overlap import Known, conflicts, shadowed
from sluicegate.policy.places import annotation_line
from sluicegate.policy.tree import read_tree
from sluicegate.schemas.errors import InvalidBundle, InvalidDirectory

NAMED: Final = (("templates/", "system"), ("grammars/", "output"), ("terms/", "alias"))
"""Folders whose files an annotation names."""


def lint(content: bytes) -> tuple[Finding, ...]:
    """Every finding of a bundle (as `bundle_folder.read_bundle` gives it), by file and line."""
    try:
        load_bundle(content)
    except InvalidBundle as error:
        files = _files(content)
        refused = [from_problem(problem, files) for problem in error.problems]
    else:
        files, refused = _files(content), []
    policies = _readable(files)
    refused += _unread_cases(files)
    found = [*conflicts(policies), *shadowed(policies), *never_true(policies), *_dropped(policies)]
    return sort([*refused, *found, *_unused_files(policies, files), *_unused_rows(policies, files)])


def _unread_cases(files: Mapping[str, str]) -> Iterator[Finding]:
    """Test cases that do not read. The loader asks only that they are YAML: they are run where policy is written."""
    try:
        read_cases({path: text for path, text in files.items() if path.startswith("tests/")})
    except InvalidBundle as error:
        yield from (from_problem(problem, files) for problem in error.problems)


def lint_directory(content: bytes, bundle: Bundle, file: str) -> tuple[Finding, ...]:
    """What is wrong with a directory under a bundle; `file` is what it is called."""
    try:
        load_directory(content, bundle)
    except InvalidDirectory as error:
        text = content.decode(errors="replace")
        return sort(_directory_finding(problem, text, file) for problem in error.problems)
    return ()


def _directory_finding(problem: str, content: str, file: str) -> Finding:
    text, _, fix = problem.rpartition("; ")
    quoted = problem.partition('::"')[2].partition('"')[0]
    at = content.find(json.dumps(quoted, ensure_ascii=False)) if quoted else -1
    return Finding(
        severity=Severity.ERROR,
        code="directory",
        file=file,
        line=content.count("\n", 0, at) + 1 if at >= 0 else 1,
        text=" ".join((text or fix).split()),
        fix=fix if text else "correct it",
    )


def _files(content: bytes) -> Mapping[str, str]:
    """The files of a content; none where it is no such thing, which the loader says."""
    try:
        document: object = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(document, dict):
        return {}
    return {path: text for path, text in document.items() if isinstance(text, str)}


def _readable(files: Mapping[str, str]) -> Sequence[Known]:
    """Every policy that can be read by itself."""
    try:
        schema = cedarpy.Schema.from_str(files.get("schema.cedarschema", ""))
    except ValueError:
        return ()
    found = read_policies({path: text for path, text in files.items() if path.endswith(".cedar")}, schema)
    return [Known.of(source, read_tree(source)) for source in found.policies.values()]


def _dropped(policies: Sequence[Known]) -> Iterator[Finding]:
    for each in policies:
        if each.source.annotations.get("withheld") == "drop":
            yield Finding(
                severity=Severity.WARNING,
                code="withheld-drop",
                file=each.source.file,
                line=annotation_line(each.source, "withheld"),
                text='`@withheld("drop")` takes a field away without a trace, and a small model invents its value',
                fix='write `@withheld("label")`',
            )


def _unused_files(policies: Sequence[Known], files: Mapping[str, str]) -> Iterator[Finding]:
    for folder, annotation in NAMED:
        values = (each.source.annotations.get(annotation, "") for each in policies)
        named = {name.strip() for value in values for name in value.split(",")}
        for path in sorted(path for path in files if path.startswith(folder)):
            if name_of(path) not in named:
                yield Finding(
                    severity=Severity.WARNING,
                    code="unused",
                    file=path,
                    line=1,
                    text=f'no policy names it with `@{annotation}("{name_of(path)}")`',
                    fix="remove the file, or name it",
                )


def _unused_rows(policies: Sequence[Known], files: Mapping[str, str]) -> Iterator[Finding]:
    text = files.get(TABLE, "{}")
    try:
        rows = read_yaml(text)
    except BadFile:
        return
    lines = lines_of(text)
    used = {name for each in policies for name in each.source.annotations}
    for name in sorted(rows.keys() - used):
        yield Finding(
            severity=Severity.WARNING,
            code="unused",
            file=TABLE,
            line=lines[name,],
            text=f"no policy says `@{name}`",
            fix="remove the row",
        )
