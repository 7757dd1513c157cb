"""Nodes of Cedar's syntax tree go in, the documents that the engine reads and the text that it writes come out; the
only place that knows how the engine writes a condition.
"""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import cedarpy

_REMEMBERED_MAX: Final = 8_192
_WRAPPER: Final = "permit(principal, action, resource) when { "
_WRAPPER_END: Final = " };"
_STRING_OR_PARENTHESIS: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[()]', re.DOTALL)


def document(policies: Mapping[str, object]) -> str:
    """A whole policy set of these policies' trees, by id."""
    return json.dumps({"templates": {}, "templateLinks": [], "staticPolicies": policies})


def wrapped(expression: Mapping[str, object]) -> dict[str, object]:
    """A policy that matches where the expression holds."""
    anything = {"op": "All"}
    return {
        "effect": "permit",
        **dict.fromkeys(("principal", "action", "resource"), anything),
        "conditions": [{"kind": "when", "body": expression}],
    }


@lru_cache(maxsize=_REMEMBERED_MAX)
def text_of_json(expression: str) -> str:
    """The expression (its tree as JSON) as Cedar text, by the engine, without the parentheses that it does not need."""
    node: object = json.loads(expression)
    if not isinstance(node, dict):
        raise TypeError("an expression's tree is an object")
    whole = cedarpy.policies_from_json_str(document({"policy0": wrapped(node)})).strip()
    if not (whole.startswith(_WRAPPER) and whole.endswith(_WRAPPER_END)):
        raise TypeError("Cedar writes policies otherwise than it did; a condition cannot be cut out")
    # The engine puts every operand in parentheses. A pair goes where the text without it still parses to the same.
    text = whole.removeprefix(_WRAPPER).removesuffix(_WRAPPER_END)
    start = 0
    while (pair := _parentheses(text, start)) is not None:
        opened, closed = pair
        shorter = text[:opened] + text[opened + 1 : closed] + text[closed + 1 :]
        if _expression_in(shorter) == node:
            text, start = shorter, opened
        else:
            start = opened + 1
    return text


def _expression_in(text: str) -> object:
    """The tree of an expression's text; None where it is none."""
    try:
        read = json.loads(cedarpy.policies_to_json_str(_WRAPPER + text + _WRAPPER_END))
    except ValueError:
        return None
    (node,) = read["staticPolicies"].values()
    conditions: list[dict[str, object]] = node["conditions"]
    return conditions[0]["body"] if len(conditions) == 1 else None


def _parentheses(text: str, start: int) -> tuple[int, int] | None:
    """The first opening parenthesis from `start` on, outside strings, and the one that closes it."""
    opened: int | None = None
    depth = 0
    for found in _STRING_OR_PARENTHESIS.finditer(text):
        if found[0] == "(":
            if opened is None and found.start() >= start:
                opened, depth = found.start(), 0
            depth += 1
        elif found[0] == ")":
            depth -= 1
            if opened is not None and depth == 0:
                return opened, found.start()
    return None
