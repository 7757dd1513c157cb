r"""The content of a STOP or RESUME version goes in, what is stopped comes out; only here is said what a stop hits.

`{"stops": [{"what": "principal", "name": "User::\"ana\""}]}`; `all` has no name. A STOP adds these, a RESUME takes
them away again.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sluicegate.enforcer.credentials import is_name
from sluicegate.schemas.events import DecisionMade
from sluicegate.schemas.strict_json import NotStrict, loads_object

STOPS_MAX: Final = 1024


class InvalidStops(ValueError):
    """The content is no list of stops, or cannot follow what stands."""


class Scope(StrEnum):
    """What a stop names."""

    PRINCIPAL = "principal"
    """The uid of a person or service, as principal or as the service that carries the request."""
    KEY = "key"
    """The id of a key that signed a proof or a token."""
    MODEL = "model"
    """The model that was asked for."""
    BUNDLE = "bundle"
    """The digest of the bundle that decided."""
    GRANT = "grant"
    """The id of one decision."""
    ALL = "all"
    """Everything; it has no name."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Stop:
    """One thing that is stopped."""

    scope: Scope
    name: str = ""

    def __str__(self) -> str:
        return f"{self.scope} {self.name}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stops:
    """Everything that is stopped; immutable."""

    standing: frozenset[Stop] = frozenset()

    def hitting(self, decision: DecisionMade) -> Stop | None:
        """A stop that holds for what this decision says of its request; None where none does."""
        if not self.standing:
            return None
        return next((stop for stop in _names(decision) if stop in self.standing), None)

    def stopped(self, stops: frozenset[Stop]) -> "Stops":
        """With these stopped too.

        Raises:
            InvalidStops: that would be too many.
        """
        standing = self.standing | stops
        if len(standing) > STOPS_MAX:
            raise InvalidStops(f"over {STOPS_MAX} stops would stand; stop `all`, or undo some")
        return Stops(standing=standing)

    def resumed(self, stops: frozenset[Stop]) -> "Stops":
        """Without these.

        Raises:
            InvalidStops: one of them does not stand.
        """
        if not stops <= self.standing:
            raise InvalidStops("a stop that is to be undone does not stand; name those that do")
        return Stops(standing=self.standing - stops)


NO_STOPS: Final = Stops()


def _names(decision: DecisionMade) -> Iterable[Stop]:
    """Every stop that would hold for the decision."""
    yield Stop(scope=Scope.ALL)
    yield Stop(scope=Scope.GRANT, name=decision.decision_id)
    if decision.model is not None:
        yield Stop(scope=Scope.MODEL, name=decision.model)
    if decision.policy is not None:
        yield Stop(scope=Scope.BUNDLE, name=decision.policy.bundle_digest)
    if decision.identity is not None:
        yield Stop(scope=Scope.PRINCIPAL, name=decision.identity.principal)
        yield Stop(scope=Scope.PRINCIPAL, name=decision.identity.actor)
        yield Stop(scope=Scope.KEY, name=decision.identity.proof_key_id)
        if decision.identity.token_key_id is not None:
            yield Stop(scope=Scope.KEY, name=decision.identity.token_key_id)


def stops_content(stops: Iterable[Stop]) -> bytes:
    """The content that names these stops."""
    listed = [
        {"what": stop.scope.value} | ({"name": stop.name} if stop.scope is not Scope.ALL else {})
        for stop in sorted(set(stops))
    ]
    return json.dumps({"stops": listed}, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def read_stops(content: bytes) -> frozenset[Stop]:
    """The stops that a content names.

    Raises:
        InvalidStops: it does not have the form above.
    """
    try:
        document = loads_object(content)
    except NotStrict:
        raise InvalidStops("the content is no strict JSON object") from None
    listed = document.get("stops")
    if document.keys() != {"stops"} or not isinstance(listed, list) or not 0 < len(listed) <= STOPS_MAX:
        raise InvalidStops(f"the content needs `stops` with 1 to {STOPS_MAX} entries")
    return frozenset(_read(entry, f"`stops[{index}]`") for index, entry in enumerate(listed))


def _read(entry: object, where: str) -> Stop:
    what = entry.get("what") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(what, str) or what not in set(Scope):
        raise InvalidStops(f"{where}: `what` must be one of {', '.join(f'`{scope}`' for scope in Scope)}")
    scope, name = Scope(what), entry.get("name", "")
    if entry.keys() != ({"what"} if scope is Scope.ALL else {"what", "name"}):
        raise InvalidStops(f"{where}: must hold `what` and, unless that is `all`, `name`")
    if scope is not Scope.ALL and (not isinstance(name, str) or not is_name(name)):
        raise InvalidStops(f"{where}: `name` must be a printable string")
    return Stop(scope=scope, name=str(name))
