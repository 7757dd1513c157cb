"""One access question goes in, one `Ruling` comes out; the only place that asks Cedar.

Cedar skips a policy that fails, forbids included, and takes an entity it does not know for one without attributes. So
unknown entities are refused before it is asked, the schema is always passed, and any error denies.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

import cedarpy

from sluicegate.enforcer.bundle import Bundle
from sluicegate.enforcer.directory import Directory, split_uid
from sluicegate.schemas.events import Ruling
from sluicegate.schemas.ids import entity_uid

REMEMBERED_MAX: Final = 8_192
# What stands in `Ruling.errors` where no policy failed but the question itself could not be put.
UNKNOWN_ENTITY: Final = "<unknown entity>"
REQUEST_INVALID: Final = "<request>"
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
_FAILED: Final = re.compile(r"error while evaluating policy `([^`]*)`")


def context_json(context: Mapping[str, object]) -> str:
    """A Cedar context as canonical JSON, the form in which rulings keep it."""
    return _CANONICAL.encode(context)


def entity_json(entity_type: str, entity_id: str) -> dict[str, dict[str, str]]:
    """A reference to an entity inside a context."""
    return {"__entity": {"type": entity_type, "id": entity_id}}


class Decider:
    """Cedar over one bundle and one directory. Rulings depend on nothing else, so equal questions are answered once."""

    __slots__ = ("_bundle", "_directory", "_remembered")

    def __init__(self, bundle: Bundle, directory: Directory, *, remembered_max: int = REMEMBERED_MAX) -> None:
        """`remembered_max` bounds the memo, in rulings; 0 turns it off."""
        self._bundle: Final = bundle
        self._directory: Final = directory
        self._remembered: Final = lru_cache(maxsize=remembered_max)(self._decide)

    def rule(self, action: str, principal: str, resource: str, context: str) -> Ruling:
        """Decides `action` (generate, shape or read) of one uid on another; `context` is canonical JSON.

        These are the very strings that a ruling keeps, so a stored ruling is decided again by passing them back. Its
        `policies` are all matching permits of an allow, all matching forbids of a denial; none where nothing matched.
        """
        return self._remembered(action, principal, resource, context)

    def _decide(self, action: str, principal: str, resource: str, context: str) -> Ruling:
        question = self._question(action, principal, resource, context)
        policies: tuple[str, ...] = ()
        errors: tuple[str, ...]
        if isinstance(question, str):
            allowed, errors = False, (question,)
        else:
            answer = cedarpy.is_authorized(
                question, self._bundle.policy_set, self._directory.entities, self._bundle.schema
            )
            errors = _errors(answer)
            allowed = answer.allowed and not errors
            policies = tuple(sorted(answer.diagnostics.reasons))
        return Ruling(
            action=action,
            principal=principal,
            resource=resource,
            context=context,
            allowed=allowed,
            policies=policies,
            errors=errors,
        )

    def _question(self, action: str, principal: str, resource: str, context: str) -> dict[str, object] | str:
        """The request as Cedar takes it, or why it cannot be put."""
        try:
            asker, target = split_uid(principal), split_uid(resource)
            values: object = json.loads(context)
        except (ValueError, RecursionError):
            return REQUEST_INVALID
        # One reading only: the engine gets the text, so what was looked at here must be all there is in it.
        if not isinstance(values, dict) or context_json(values) != context:
            return REQUEST_INVALID
        if not all(self._known(*each) for each in (asker, target, *_references(values))):
            return UNKNOWN_ENTITY
        return {
            "principal": {"type": asker[0], "id": asker[1]},
            "action": {"type": "Action", "id": action},
            "resource": {"type": target[0], "id": target[1]},
            "context": context,
        }

    def _known(self, entity_type: str, entity_id: str) -> bool:
        return self._directory.has(entity_uid(entity_type, entity_id)) or self._bundle.declares(entity_type, entity_id)


def _errors(answer: cedarpy.AuthzResult) -> tuple[str, ...]:
    """The ids of the policies that failed, sorted; the engine's texts may hold values and are not kept."""
    failed = (_FAILED.match(text) for text in answer.diagnostics.errors)
    named = {found[1] if found else REQUEST_INVALID for found in failed}
    if answer.decision is cedarpy.Decision.NoDecision:
        named.add(REQUEST_INVALID)
    return tuple(sorted(named))


def _references(value: object) -> Iterator[tuple[str, str]]:
    """Every entity that a context speaks of, in Cedar's explicit form or in its short one."""
    if isinstance(value, dict):
        target = value.get("__entity", value)
        if isinstance(target, dict) and target.keys() == {"type", "id"}:
            yield str(target["type"]), str(target["id"])
        else:
            for inner in value.values():
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
