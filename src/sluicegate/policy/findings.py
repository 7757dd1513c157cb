"""What a check of a bundle found, as values and as lines for people, programs and a forge; the only place for either.

A finding's file is relative to the bundle's folder until who prints it puts it `under` that folder.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from sluicegate.schemas.errors import Problem

WHOLE: Final = "bundle.yaml"
"""The file that findings about the bundle as a whole are shown at."""
_QUOTED: Final = re.compile(r"`([^`]+)`")


class Severity(StrEnum):
    """An error is refused, by the loader or in a review; a warning may be meant so."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to mend: `code` is a stable slug, `line` counts from 1, `text` says what is wrong, `fix` what to do."""

    severity: Severity
    code: str
    file: str
    line: int
    text: str
    fix: str

    def under(self, folder: str) -> "Finding":
        """The same, its file named from where `folder` is named from."""
        return replace(self, file=f"{folder}/{self.file}")

    def to_json(self) -> dict[str, str | int]:
        """One object of the JSON form."""
        return {
            "severity": self.severity.value,
            "code": self.code,
            "file": self.file,
            "line": self.line,
            "text": self.text,
            "fix": self.fix,
        }

    def to_text(self) -> str:
        """One line, as compilers write them: `policies/access.cedar:4: error: text; fix [code]`."""
        return f"{self.file}:{self.line}: {self.severity}: {self.text}; {self.fix} [{self.code}]"

    def to_github(self) -> str:
        """A workflow command, which GitHub shows at the line in a pull request.

        Source: docs.github.com, "Workflow commands for GitHub Actions", setting an error message; escapes as
        `@actions/core` makes them.
        """
        place = f"file={_property(self.file)},line={self.line},title={_property(self.code)}"
        return f"::{self.severity} {place}::{_data(f'{self.text}; {self.fix}')}"


def from_problem(problem: str, files: Mapping[str, str]) -> Finding:
    """What the loader refuses, as a finding. Where the loader knows no line, it is that of what the text quotes."""
    if not isinstance(problem, Problem):
        raise TypeError("the loader of bundles says more of a problem than a text")
    file = problem.file or WHOLE
    text, semicolon, fix = problem.said().rpartition("; ")
    return Finding(
        severity=Severity.ERROR,
        code=problem.code,
        file=file,
        line=problem.line or _line(problem.said(), files.get(file, "")),
        text=_one_line(text if semicolon else fix),
        fix=_one_line(fix if semicolon else "correct it"),
    )


def sort(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """By file and line, each once."""
    return tuple(sorted(set(findings), key=lambda each: (each.file, each.line, each.code, each.text)))


def _line(said: str, text: str) -> int:
    lines = text.split("\n")
    for quoted in _QUOTED.findall(said):
        for number, line in enumerate(lines, start=1):
            if quoted in line:
                return number
    return 1


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
