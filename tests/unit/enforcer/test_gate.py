"""The gate whole, on the example company: every check denies with its code beside a genuine request that is allowed."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from company import DOMAIN, NOON_MS, document, gate, policy_events, policy_log, record, request
from stages import KEYS, place, sealed

from sluicegate.enforcer.gate import Gate
from sluicegate.enforcer.seal import SEAL_BYTES_MAX, Effective, Verifier, as_landed
from sluicegate.enforcer.state import PolicyLog
from sluicegate.enforcer.trust import digest_of
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import DecisionMade, Verdict
from sluicegate.schemas.meanings import MEANINGS
from sluicegate.schemas.records import Record

PHONE = document("tickets", ("text", "Mara Lind's phone number is "), ("phone", "020 7946 0958"), ("text", "."))


def decisions(found: Gate, records: Sequence[Record], frontier: int = 0, time_ms: int = 0) -> list[DecisionMade]:
    proposal = found.decide(records, frontier=frontier, time_ms=time_ms, clock_ms=None)
    return [codec.decode(output.value, DecisionMade) for output in proposal.outputs]


def decide(each: Record, found: Gate | None = None) -> DecisionMade:
    return decisions(found or gate(each.partition), [each])[0]


def test_a_genuine_request_is_allowed_and_everything_it_rests_on_is_recorded() -> None:
    made = decide(record(request(documents=(PHONE,))))
    assert (made.verdict, made.code, made.check) == (Verdict.ALLOW, Code.OK, 0)
    assert made.identity is not None
    assert (made.identity.principal, made.identity.actor) == ('User::"ana.support"', 'Service::"helpdesk-app"')
    assert made.determining == ("support-answers-customers",)
    assert made.admitted == ("tickets.phone", "tickets.text")
    assert [ruling.action for ruling in made.rulings].count("read") == 2
    assert made.policy is not None
    assert made.policy.bundle_version == 1
    assert made.granted is not None
    assert made.granted.max_tokens == 64


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"value": b"\xc3\x01 cut"}, Code.POISON),
        ({"value": None}, Code.POISON),
        ({"value": b"x" * (256 * 1024 + 1)}, Code.TOO_LARGE),
        ({"headers": ()}, Code.PROOF_MISSING),
        ({"key": b"someone else"}, Code.PROOF_KEY),
        ({"value": codec.encode(request("other"))}, Code.PROOF_BODY),
    ],
)
def test_the_first_check_that_fails_gives_its_code(change: dict[str, bytes], code: Code) -> None:
    genuine = record(request(documents=(PHONE,)))
    made = decide(replace(genuine, **change))  # type: ignore[arg-type]
    assert (made.verdict, made.code, made.check) == (Verdict.DENY, code, MEANINGS[code].check)
    assert made.reason
    assert made.prompt == ()
    assert made.granted is None
    assert decide(genuine).verdict is Verdict.ALLOW


def test_a_request_on_another_partition_is_denied() -> None:
    genuine = record(request())
    moved = replace(genuine, partition=1 - genuine.partition)
    assert decide(moved).code is Code.WRONG_PARTITION


def test_a_stale_request_is_denied_by_event_time() -> None:
    fresh, old = record(request("a"), offset=0), record(request("b"), offset=1, at_ms=NOON_MS - 601_000)
    assert [made.code for made in decisions(gate(fresh.partition), [fresh, old])] == [Code.OK, Code.STALE]


def test_event_time_is_the_running_maximum() -> None:
    records = [
        record(request("a"), offset=0),
        record(request("b"), offset=1, at_ms=NOON_MS - 5_000),
        record(request("c"), offset=2, at_ms=NOON_MS + 1_000),
    ]
    made = decisions(gate(records[0].partition), records, time_ms=NOON_MS - 1)
    assert [each.time_ms for each in made] == [NOON_MS, NOON_MS, NOON_MS + 1_000]
    assert [each.source.timestamp_ms for each in made] == [NOON_MS, NOON_MS - 5_000, NOON_MS + 1_000]


def test_without_a_policy_state_everything_is_denied() -> None:
    events = policy_events()
    empty = PolicyLog(domain=DOMAIN, root_digest=digest_of(events[0].metadata))
    each = record(request())
    for offset, event in enumerate(events):
        assert decide(each, gate(each.partition, log=empty)).code is Code.POLICY_NOT_READY
        empty.fold(offset, event, NOON_MS)
    assert decide(each, gate(each.partition, log=empty)).code is Code.OK


def test_a_repeat_is_no_second_decision_and_a_reused_id_is_denied() -> None:
    first = record(request("same"), offset=0)
    records = [
        first,
        record(request("same"), offset=1),
        record(request("same", question="Another question?"), offset=2),
        replace(first, offset=3),
        record(request("other"), offset=4),
    ]
    made = decisions(gate(first.partition), records)
    assert [each.code for each in made] == [
        Code.OK,
        Code.DUPLICATE_OF,
        Code.REQUEST_ID_REUSED,
        Code.PROOF_REPLAYED,
        Code.OK,
    ]
    assert made[1].duplicate_of == made[0].decision_id


def test_decide_leaves_no_trace_and_repeats_to_the_same_bytes() -> None:
    records = [record(request(f"r{index}", documents=(PHONE,)), offset=index) for index in range(5)]
    found = gate(records[0].partition)
    first = found.decide(records, frontier=0, time_ms=0, clock_ms=None)
    assert found.decide(records, frontier=0, time_ms=0, clock_ms=None) == first
    assert gate(records[0].partition).decide(records, frontier=0, time_ms=0, clock_ms=None) == first


def test_the_state_is_restored_from_its_own_effective_decisions() -> None:
    """A restarted gate that reads its decisions back refuses the same proofs; an empty one would not."""
    first = record(request("same"), offset=0)
    before = gate(first.partition)
    proposal = before.decide([first], frontier=0, time_ms=0, clock_ms=None)
    batch = sealed("enforcer", list(proposal.outputs), at=0, source_first=0, source_last=0, time_ms=NOON_MS)
    restarted = gate(first.partition)
    for landed in as_landed(batch, place=place("enforcer"), base=0):
        verdict = Verifier(place("enforcer"), lambda: KEYS).verify(landed)
        assert isinstance(verdict, Effective)
        restarted.fold(verdict)
    replayed, repeated = replace(first, offset=1), record(request("same"), offset=1)
    assert decisions(restarted, [replayed], frontier=1)[0].code is Code.PROOF_REPLAYED
    assert decisions(restarted, [repeated], frontier=1)[0].code is Code.DUPLICATE_OF
    assert decisions(gate(first.partition), [replayed], frontier=1)[0].code is Code.OK


def test_a_slice_is_cut_by_bytes_and_goes_on_where_it_was_cut() -> None:
    records = [record(request(f"r{index}", documents=(PHONE,)), offset=index) for index in range(6)]
    whole = decisions(gate(records[0].partition), records)
    size = max(len(codec.encode(each)) for each in whole)
    found = gate(records[0].partition, slice_bytes_max=(size + 100 + SEAL_BYTES_MAX) * 2)
    pieces, frontier = [], 0
    while frontier < 6:
        proposal = found.decide(records[frontier:], frontier=frontier, time_ms=0, clock_ms=None)
        assert (proposal.source_first, proposal.source_last) == (frontier, frontier + len(proposal.outputs) - 1)
        pieces += [codec.decode(output.value, DecisionMade) for output in proposal.outputs]
        frontier = proposal.source_last + 1
    assert len(pieces) == 6
    assert [each.code for each in pieces] == [each.code for each in whole]


def test_a_proposal_fits_the_slice_once_it_is_sealed() -> None:
    """Else the lane would have the gate decide every full slice again, with fewer records."""
    records = [record(request(f"r{index}", documents=(PHONE,)), offset=index) for index in range(40)]
    limit = 60_000
    proposal = gate(records[0].partition, slice_bytes_max=limit).decide(records, frontier=0, time_ms=0, clock_ms=None)
    assert 2 < len(proposal.outputs) < 40  # the limit did cut
    batch = sealed("enforcer", list(proposal.outputs), at=0, source_first=0, source_last=proposal.source_last)
    assert limit / 2 < sum(each.size_bytes() for each in batch) <= limit


def test_a_decision_that_fits_no_slice_is_a_denial_that_does() -> None:
    """A public name is longer than its term: what was asked fits, what is shaped would stand in the way for ever."""
    asked = record(request("r1", question="Bluefin " * 2_000))
    (whole,) = decisions(gate(asked.partition), [asked])
    assert (whole.code, len(codec.encode(whole)) > 60_000) == (Code.OK, True)
    proposal = gate(asked.partition, slice_bytes_max=60_000).decide([asked], frontier=0, time_ms=0, clock_ms=None)
    (output,) = proposal.outputs
    denied = codec.decode(output.value, DecisionMade)
    assert (denied.code, denied.verdict, denied.prompt, denied.identity) == (
        Code.TOO_LARGE, Verdict.DENY, (), whole.identity
    )  # fmt: skip
    assert len(output.value) < 2_000


def test_a_hole_in_the_log_is_sealed_as_a_gap() -> None:
    records = [record(request("a"), offset=3), record(request("b"), offset=6)]
    found = gate(records[0].partition)
    proposal = found.decide(records, frontier=1, time_ms=0, clock_ms=None)
    made = [codec.decode(output.value, DecisionMade) for output in proposal.outputs]
    assert [(each.code, each.source.offset, each.source.count) for each in made] == [
        (Code.GAP, 1, 2),
        (Code.OK, 3, 1),
        (Code.GAP, 4, 2),
        (Code.OK, 6, 1),
    ]
    assert (proposal.source_first, proposal.source_last) == (1, 6)


def test_the_enforcers_clock_replaces_stamps_where_it_must() -> None:
    each = record(request(), at_ms=NOON_MS)
    proposal = gate(each.partition).decide([each], frontier=0, time_ms=0, clock_ms=NOON_MS + 7)
    assert codec.decode(proposal.outputs[0].value, DecisionMade).time_ms == NOON_MS + 7
    assert proposal.time_ms == NOON_MS + 7


def test_no_value_of_the_request_stands_in_a_reason() -> None:
    secret = "zebra-canary"
    bad = [
        replace(record(request(question=secret)), value=codec.encode(request(question=secret))[:-4]),
        record(request(question=secret), person="nobody.known"),
        record(request(question=secret, purpose="invoice")),
    ]
    made = [decide(each) for each in bad]
    assert [each.code for each in made] == [Code.POISON, Code.UNKNOWN_PRINCIPAL, Code.DENIED]
    assert not any(secret in (each.reason or "") for each in made)
    assert policy_log().position == 3


def test_past_its_deadline_a_proved_request_expires_before_policy_is_asked() -> None:
    late, on_time = replace(request("late"), deadline_ms=NOON_MS), replace(request("on time"), deadline_ms=NOON_MS + 1)
    records = [record(late, offset=0), record(on_time, offset=1)]
    expired, answered = decisions(gate(records[0].partition), records)
    assert (expired.verdict, expired.code, expired.rulings) == (Verdict.DENY, Code.EXPIRED, ())
    assert expired.identity is not None, "so that the application that asked is told"
    assert (answered.verdict, answered.deadline_ms) == (Verdict.ALLOW, NOON_MS + 1)


def test_nobody_is_told_of_a_deadline_before_they_are_proved() -> None:
    late = record(replace(request(), deadline_ms=1))
    assert decide(late).code is Code.EXPIRED
    assert decide(replace(late, headers=())).code is Code.PROOF_MISSING


def test_a_repeat_past_the_deadline_still_names_the_first_decision() -> None:
    body = replace(request("same"), deadline_ms=NOON_MS + 1_000)
    first, again = record(body, offset=0), record(body, offset=1, at_ms=NOON_MS + 2_000)
    made = decisions(gate(first.partition), [first, again])
    assert [each.code for each in made] == [Code.OK, Code.DUPLICATE_OF]
    assert made[1].duplicate_of == made[0].decision_id


def test_what_expired_may_be_asked_again_under_its_id() -> None:
    late = record(replace(request("same"), deadline_ms=NOON_MS), offset=0)
    again = record(replace(request("same"), deadline_ms=NOON_MS + 60_000), offset=1)
    assert [each.code for each in decisions(gate(late.partition), [late, again])] == [Code.EXPIRED, Code.OK]
