"""What becomes of a policy event, and what the policy log says of an event time: the only list of its answers."""

from dataclasses import dataclass

from sluicegate.enforcer.access import Rules as Judging
from sluicegate.enforcer.credentials import Credentials
from sluicegate.enforcer.policy_kinds import Fault, Kind
from sluicegate.enforcer.stops import NO_STOPS, Stops
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import PolicyVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A policy event that now counts."""

    kind: Kind
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A policy event without effect, and why; the state is what it was before."""

    code: Fault
    reason: str


def backdated(kind: Kind) -> Rejected:
    """A version that is wanted in force no later than the one before it."""
    return Rejected(code=Fault.BACKDATED, reason=f"`effective_at_ms` is not after that of the {kind.lower()} before")


@dataclass(frozen=True, slots=True, kw_only=True)
class NotReady:
    """No policy state is in force, or none that is known to be complete, and why: everything is denied."""

    reason: str
    code: Code = Code.POLICY_NOT_READY


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The policy state at one event time: who judges, whose keys prove who asks, its exact version, the stops."""

    judging: Judging
    credentials: Credentials
    version: PolicyVersion
    stops: Stops = NO_STOPS
