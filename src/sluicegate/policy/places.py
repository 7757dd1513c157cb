"""A policy's source goes in, the line of one of its parts comes out; the only place that looks for lines in Cedar."""

import re
from typing import Final

from sluicegate.enforcer.policy_text import PolicySource

# White space and comments, strings, an annotation's name, the start of a condition, anything else.
_TOKEN: Final = re.compile(
    r'(?P<blank>\s+|//[^\n]*)|(?P<string>"(?:[^"\\]|\\.)*")|@(?P<annotation>\w+)'
    r"|(?P<condition>\b(?:when|unless)\b(?=\s*\{))|(?P<other>\w+|.)",
    re.DOTALL,
)


def annotation_line(policy: PolicySource, name: str) -> int:
    """The line of the annotation `name` in its file; the policy's own where it has none."""
    for found in _TOKEN.finditer(policy.text):
        if found["annotation"] == name:
            return _line(policy, found.start())
    return policy.line


def condition_line(policy: PolicySource, index: int) -> int:
    """The line of its `when` or `unless` number `index`, from 0."""
    starts = [found.start() for found in _TOKEN.finditer(policy.text) if found["condition"]]
    return _line(policy, starts[index]) if index < len(starts) else policy.line


def _line(policy: PolicySource, start: int) -> int:
    return policy.line + policy.text.count("\n", 0, start)
