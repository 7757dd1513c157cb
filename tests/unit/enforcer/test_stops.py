"""Stops: what they hit, that they add up until they are undone, from when on they hold, and what denies by them."""

import pytest
from company import DOMAIN, NOON_MS, document, gate, policy_events, private_key, record, request

from sluicegate.enforcer.gate import Gate
from sluicegate.enforcer.policy_kinds import Fault, Kind
from sluicegate.enforcer.schedule import DELAY_MS
from sluicegate.enforcer.state import Accepted, PolicyLog, Rejected
from sluicegate.enforcer.stops import (
    NO_STOPS,
    STOPS_MAX,
    InvalidStops,
    Scope,
    Stop,
    Stops,
    read_stops,
    stops_content,
)
from sluicegate.enforcer.trust import digest_of
from sluicegate.enforcer.trust_make import sign_targets
from sluicegate.keys import signer_of
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import DecisionMade, PolicyKind, PolicyPublished
from sluicegate.schemas.records import Record

FAR_MS = 4_000_000_000_000
ALL = Stop(scope=Scope.ALL)
ANA = Stop(scope=Scope.PRINCIPAL, name='User::"ana.support"')


def stopping(kind: Kind, version: int, *stops: Stop, effective_at_ms: int = NOON_MS) -> PolicyPublished:
    content = stops_content(stops)
    metadata = sign_targets(
        kind,
        content,
        domain=DOMAIN,
        version=version,
        effective_at_ms=effective_at_ms,
        expires_ms=FAR_MS,
        signers=[signer_of(private_key("publisher"))],
    )
    return PolicyPublished(kind=PolicyKind(kind.value), version=version, metadata=metadata, content=content)


def company_log(*more: PolicyPublished) -> PolicyLog:
    """The company's policy, and these events stamped at noon."""
    events = [*policy_events(), *more]
    log = PolicyLog(domain=DOMAIN, root_digest=digest_of(events[0].metadata))
    for offset, event in enumerate(events):
        found = log.fold(offset, event, NOON_MS)
        assert isinstance(found, Accepted), found
    return log


def decided(each: Record, found: Gate) -> DecisionMade:
    proposal = found.decide([each], frontier=0, time_ms=0, clock_ms=None)
    return codec.decode(proposal.outputs[0].value, DecisionMade)


LATER = record(request(documents=(document("tickets", ("text", "Hello.")),)), at_ms=NOON_MS + DELAY_MS)
ALLOWED = decided(LATER, gate(LATER.partition))
assert ALLOWED.identity is not None
assert ALLOWED.policy is not None
assert ALLOWED.model is not None
HITS = [
    ALL,
    ANA,
    Stop(scope=Scope.PRINCIPAL, name=ALLOWED.identity.actor),
    Stop(scope=Scope.KEY, name=ALLOWED.identity.proof_key_id),
    Stop(scope=Scope.KEY, name=str(ALLOWED.identity.token_key_id)),
    Stop(scope=Scope.MODEL, name=ALLOWED.model),
    Stop(scope=Scope.BUNDLE, name=ALLOWED.policy.bundle_digest),
    Stop(scope=Scope.GRANT, name=ALLOWED.decision_id),
]
MISSES = [Stop(scope=scope, name="another") for scope in Scope if scope is not Scope.ALL]


@pytest.mark.parametrize("stop", HITS, ids=str)
def test_a_stop_denies_what_it_names_from_its_time_on_and_nothing_else(stop: Stop) -> None:
    log = company_log(stopping(Kind.STOP, 1, stop))
    made = decided(LATER, gate(LATER.partition, log=log))
    assert (made.code, made.check, made.reason) == (Code.STOPPED, 3, f"stopped: {stop}")
    assert made.identity == ALLOWED.identity
    # A worker that reads of it late says the same of an earlier T as one that knew.
    earlier = record(request(documents=(document("tickets", ("text", "Hello.")),)), at_ms=NOON_MS + DELAY_MS - 1)
    assert decided(earlier, gate(earlier.partition, log=log)).code is Code.OK
    # Runner and redactor do not wait for that.
    assert log.stops.hitting(ALLOWED) == stop


def test_what_a_stop_does_not_name_goes_on() -> None:
    log = company_log(stopping(Kind.STOP, 1, *MISSES))
    assert decided(LATER, gate(LATER.partition, log=log)).code is Code.OK
    assert log.stops.hitting(ALLOWED) is None


def test_stops_add_up_and_each_is_undone_by_name() -> None:
    log = company_log(stopping(Kind.STOP, 1, ANA), stopping(Kind.STOP, 2, ALL))
    assert log.stops.standing == {ANA, ALL}
    assert isinstance(log.fold(6, stopping(Kind.RESUME, 1, ALL), NOON_MS), Accepted)
    assert log.stops.standing == {ANA}
    again = log.fold(7, stopping(Kind.RESUME, 2, ALL), NOON_MS)
    assert isinstance(again, Rejected)
    assert again.code is Fault.INVALID
    replayed = log.fold(8, stopping(Kind.RESUME, 1, ALL), NOON_MS)
    assert isinstance(replayed, Rejected)
    assert replayed.code is Fault.OLDER
    assert isinstance(log.fold(9, stopping(Kind.RESUME, 2, ANA), NOON_MS + 7), Accepted)
    assert decided(LATER, gate(LATER.partition, log=log)).code is Code.STOPPED, "not undone yet at this T"
    late = record(request(documents=(document("tickets", ("text", "Hello.")),)), at_ms=NOON_MS + DELAY_MS + 7)
    assert decided(late, gate(late.partition, log=log)).code is Code.OK
    assert log.stops.hitting(ALLOWED) is None


def test_no_end_of_a_stop_that_is_set_for_later_holds_back_a_stop() -> None:
    later = stopping(Kind.RESUME, 1, ANA, effective_at_ms=FAR_MS - 1)
    log = company_log(stopping(Kind.STOP, 1, ANA), later, stopping(Kind.STOP, 2, ALL))
    made = decided(LATER, gate(LATER.partition, log=log))
    assert (made.code, made.reason) == (Code.STOPPED, "stopped: all")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"stops":[]}',
        b'{"stops":[{"what":"all","name":"x"}]}',
        b'{"stops":[{"what":"principal"}]}',
        b'{"stops":[{"what":"principal","name":""}]}',
        b'{"stops":[{"what":"principal","name":1}]}',
        b'{"stops":[{"what":"world","name":"x"}]}',
        b'{"stops":[{"what":["all"]}]}',
        b'{"stops":["all"]}',
        b'{"stops":[{"what":"all"}],"more":1}',
    ],
)
def test_what_is_no_list_of_stops(content: bytes) -> None:
    with pytest.raises(InvalidStops):
        read_stops(content)


def test_stops_are_read_as_they_were_written() -> None:
    assert read_stops(stops_content([*HITS, *MISSES, ALL])) == {*HITS, *MISSES}


def test_there_is_a_limit_to_stops() -> None:
    many = frozenset(Stop(scope=Scope.GRANT, name=str(each)) for each in range(STOPS_MAX))
    assert len(NO_STOPS.stopped(many).standing) == STOPS_MAX
    with pytest.raises(InvalidStops, match="stop `all`"):
        Stops(standing=many).stopped(frozenset({ALL}))
