"""A path such as `context.via.speaksFor` and a question go in, what stands there comes out; the only place that looks
up what a condition saw.

Nothing is evaluated here: a path is followed through the question and the directory, and a test holds that the engine
finds the same.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sluicegate.enforcer.access import Rules
from sluicegate.enforcer.directory import split_uid
from sluicegate.policy.tree import Question
from sluicegate.schemas.ids import EntityUid, entity_uid

TEXT_CHARACTERS_MAX: Final = 300
_STEP: Final = re.compile(r'\.([A-Za-z_]\w*)|\[("(?:[^"\\]|\\.)*")\]')
_FUNCTIONS: Final = frozenset({"decimal", "ip", "datetime", "duration"})


@dataclass(frozen=True, slots=True)
class Absent:
    """There is no such attribute."""


def steps_of(path: str) -> tuple[str, ...]:
    """The variable and the attributes of a path as `tree.paths` writes it."""
    root = re.match(r"\w+", path)
    if root is None:
        raise ValueError(f"`{path}` is no path")
    steps = (found[1] or str(json.loads(found[2])) for found in _STEP.finditer(path, root.end()))
    return (root[0], *steps)


def value_at(path: str, question: Question, rules: Rules) -> object | Absent:
    """What stands at a path, as JSON with explicit entity references."""
    root, *steps = steps_of(path)
    value: object
    match root:
        case "principal" | "resource":
            value = reference(EntityUid(question.principal if root == "principal" else question.resource))
        case "action":
            value = reference(entity_uid("Action", question.action))
        case _:
            value = json.loads(question.context)
    for step in steps:
        uid = uid_of(value)
        if uid is not None:
            entry = rules.directory.entries.get(uid)
            value = {} if entry is None else json.loads(entry.text)["attrs"]
        if not isinstance(value, dict) or step not in value:
            return Absent()
        value = value[step]
    return value


def reference(uid: EntityUid) -> dict[str, object]:
    """An entity as JSON speaks of it."""
    kind, name = split_uid(uid)
    return {"__entity": {"type": kind, "id": name}}


def uid_of(value: object) -> EntityUid | None:
    """The entity that a value speaks of, None where it is no reference."""
    if isinstance(value, dict) and isinstance(found := value.get("__entity"), dict):
        return entity_uid(str(found["type"]), str(found["id"]))
    return None


def ancestors(uid: EntityUid, rules: Rules) -> tuple[EntityUid, ...]:
    """All that an entity is in, sorted."""
    found: set[EntityUid] = set()
    waiting = [uid]
    while waiting:
        entry = rules.directory.entries.get(waiting.pop())
        parents = () if entry is None else entry.parents
        waiting += [each for each in parents if each not in found]
        found.update(parents)
    return tuple(sorted(found))


def text_at(path: str, question: Question, rules: Rules) -> str:
    """What stands at a path as Cedar writes it; for the principal and the resource also all that they are in."""
    value = value_at(path, question, rules)
    if isinstance(value, Absent):
        return "(absent)"
    text = cedar_text(value)
    uid = uid_of(value)
    if uid is not None and path in {"principal", "resource"} and (around := ancestors(uid, rules)):
        text += f" in [{', '.join(around)}]"
    return text if len(text) <= TEXT_CHARACTERS_MAX else text[: TEXT_CHARACTERS_MAX - 3] + "..."


def cedar_text(value: object) -> str:
    """JSON with explicit references as Cedar writes it."""
    uid = uid_of(value)
    if uid is not None:
        return uid
    if isinstance(value, dict) and isinstance(call := value.get("__extn"), dict) and call.get("fn") in _FUNCTIONS:
        return f"{call['fn']}({json.dumps(call['arg'])})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {cedar_text(each)}" for key, each in sorted(value.items())) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(sorted(map(cedar_text, value))) + "]"
    return json.dumps(value, ensure_ascii=False)


def uids_in(value: object) -> Iterator[EntityUid]:
    """Every entity that a value speaks of."""
    uid = uid_of(value)
    if uid is not None:
        yield uid
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from uids_in(each)
