"""One access question goes in, one `Ruling` comes out; the only place that asks Cedar.

Cedar skips a policy that fails, forbids included, and takes an entity it does not know for one without attributes. So
unknown entities are refused before it is asked, the schema is always passed, and any error denies.
"""

import json
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

import cedarpy

from sluicegate.enforcer.bundle import Bundle
from sluicegate.enforcer.directory import Directory, split_uid
from sluicegate.enforcer.policy_index import PolicyIndex, Selection
from sluicegate.enforcer.slices import Actions, Slices
from sluicegate.schemas.events import Ruling
from sluicegate.schemas.ids import Digest, EntityUid, entity_uid

REMEMBERED_MAX: Final = 8_192
WARMED_MAX: Final = 512
CONTEXTS_REMEMBERED_MAX: Final = 1_024
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
    """Cedar over one bundle and one directory. Rulings depend on nothing else, so equal questions are answered once.

    The engine gets the policies that can match and the entities that the answer can depend on: what it says is what it
    says of all of both (`policy_index` and `slices` say why; a property test holds it).
    """

    __slots__ = ("_actions", "_bundle", "_directory", "_index", "_remembered", "_remembered_max", "_slices")

    def __init__(
        self,
        bundle: Bundle,
        directory: Directory,
        *,
        remembered_max: int = REMEMBERED_MAX,
        before: "Decider | None" = None,
    ) -> None:
        """`remembered_max` bounds the memo, in rulings; 0 turns it off.

        `before`: one made earlier. What it knows is kept as far as it holds here too: the index of the same bundle, and
        where `directory` was changed from its directory, every ruling that depends on nothing that was touched.
        """
        kept = before if before is not None and before.bundle_digest == bundle.digest else None
        follows = kept is not None and kept.directory_digest in {directory.origin, directory.digest}
        touched = directory.touched if kept is not None and kept.directory_digest != directory.digest else frozenset()
        self._bundle: Final = bundle
        self._directory: Final = directory
        self._index: Final[PolicyIndex] = kept._index if kept else PolicyIndex(bundle)
        self._actions: Final[Actions] = kept._actions if kept else Actions(bundle)
        self._slices: Final[Slices] = Slices(directory, self._actions, kept._slices if kept and follows else None)
        self._remembered_max: Final = remembered_max
        self._remembered: Final[OrderedDict[_Question, _Answer]] = OrderedDict()
        if kept and follows:
            for question, answer in kept._remembered.copy().items():
                if touched.isdisjoint(answer[1]):
                    self._remember(question, answer)

    @property
    def bundle_digest(self) -> Digest:
        """The bundle that decides."""
        return self._bundle.digest

    @property
    def directory_digest(self) -> Digest:
        """The directory that is decided about."""
        return self._directory.digest

    @property
    def remembered(self) -> int:
        """How many rulings the memo holds."""
        return len(self._remembered)

    def warm(self, before: "Decider", questions_max: int = WARMED_MAX) -> None:
        """Answers now what `before` was asked lately, so that no request waits for it; what it answers is the same.

        Call it before this one is asked anything; `before` may be asked meanwhile, by another thread too.
        """
        known = list(before._remembered.copy())
        for question in known[-questions_max:]:
            if question not in self._remembered:
                self.rule(*question)

    def rule(self, action: str, principal: str, resource: str, context: str) -> Ruling:
        """Decides `action` (generate, shape or read) of one uid on another; `context` is canonical JSON.

        These are the very strings that a ruling keeps, so a stored ruling is decided again by passing them back. Its
        `policies` are all matching permits of an allow, all matching forbids of a denial; none where nothing matched.
        """
        question = (action, principal, resource, context)
        found = self._remembered.get(question)
        if found is None:
            found = self._decide(*question)
            self._remember(question, found)
        else:
            self._remembered.move_to_end(question)
        return found[0]

    def _remember(self, question: "_Question", answer: "_Answer") -> None:
        if self._remembered_max:
            self._remembered[question] = answer
            if len(self._remembered) > self._remembered_max:
                self._remembered.popitem(last=False)

    def _decide(self, action: str, principal: str, resource: str, context: str) -> "_Answer":
        """The ruling, and every entity that it depends on."""
        policies: tuple[str, ...] = ()
        errors: tuple[str, ...]
        allowed = False
        named = _named(principal, resource, context)
        depends = frozenset(uid for uid, _, _ in named)
        if not named:
            errors = (REQUEST_INVALID,)
        elif not all(self._known(*each) for each in named):
            errors = (UNKNOWN_ENTITY,)
        else:
            selection = self._selection(action, named)
            slice_ = self._slices.of(depends, selection)
            (_, *asker), (_, *target) = named[:2]
            question = {
                "principal": {"type": asker[0], "id": asker[1]},
                "action": {"type": "Action", "id": action},
                "resource": {"type": target[0], "id": target[1]},
                "context": context,
            }
            answer = cedarpy.is_authorized(question, selection.handle, slice_.handle, self._bundle.schema)
            errors = _errors(answer)
            allowed = answer.allowed and not errors
            policies = tuple(sorted(answer.diagnostics.reasons))
            depends = slice_.depends
        ruling = Ruling(
            action=action,
            principal=principal,
            resource=resource,
            context=context,
            allowed=allowed,
            policies=policies,
            errors=errors,
        )
        return ruling, depends

    def _selection(self, action: str, named: "tuple[_Named, ...]") -> Selection:
        asked = entity_uid("Action", action)
        (asker, asker_type, _), (target, target_type, _) = named[:2]
        return self._index.select(
            (asked, self._actions.ancestors.get(asked, ())),
            (asker_type, asker, self._slices.ancestors(asker)),
            (target_type, target, self._slices.ancestors(target)),
        )

    def _known(self, uid: EntityUid, entity_type: str, entity_id: str) -> bool:
        return self._directory.has(uid) or self._bundle.declares(entity_type, entity_id)


_Question = tuple[str, str, str, str]
_Answer = tuple[Ruling, frozenset[EntityUid]]
_Named = tuple[EntityUid, str, str]


def _named(principal: str, resource: str, context: str) -> tuple[_Named, ...]:
    """The principal, the resource and each entity of the context: uid, type and id; empty where it cannot be asked."""
    try:
        pair = tuple((entity_uid(*split_uid(each)), *split_uid(each)) for each in (principal, resource))
    except ValueError:
        return ()
    found = _context_entities(context)
    return () if found is None else (*pair, *found)


@lru_cache(maxsize=CONTEXTS_REMEMBERED_MAX)
def _context_entities(context: str) -> tuple[_Named, ...] | None:
    """The entities of a context; None where it is no canonical JSON object."""
    try:
        values: object = json.loads(context)
    except (ValueError, RecursionError):
        return None
    # One reading only: the engine gets the text, so what was looked at here must be all there is in it.
    if not isinstance(values, dict) or context_json(values) != context:
        return None
    return tuple((entity_uid(*each), *each) for each in _references(values))


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
