"""Spent proofs and decided requests: functions of the folded decisions alone, however they were folded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.enforcer.seen import REQUEST_WINDOW_MS, FirstUse, SeenProofs, SeenRequests
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import DecisionMade, Identity, Source, Verdict
from sluicegate.schemas.meanings import MEANINGS

T = 1_800_000_000_000


def decision(
    name: str, *, time_ms: int = T, code: Code = Code.OK, digest: bytes = b"d", actor: str = "app", proved: bool = True
) -> DecisionMade:
    identity = Identity(
        principal="p",
        actor=actor,
        proof_issuer=actor,
        proof_id=f"j-{name}",
        proof_issued_at_s=time_ms // 1000,
        proof_key_id="k",
    )
    return DecisionMade(
        decision_id=f"d-{name}-{time_ms}",
        source=Source(offset=0, count=1, digest=digest, timestamp_ms=time_ms),
        time_ms=time_ms,
        verdict=Verdict.ALLOW if code is Code.OK else Verdict.DENY,
        code=code,
        check=MEANINGS[code].check,
        request_id=name,
        identity=identity if proved else None,
    )


def spent(seen: SeenProofs, name: str, *, issued_at_s: int = T // 1000, actor: str = "app") -> Code | None:
    found = seen.check(issuer=actor, proof_id=f"j-{name}", issued_at_s=issued_at_s)
    return found.code if found else None


def test_a_proof_is_spent_by_any_verdict_and_by_nobody_else() -> None:
    seen = SeenProofs()
    seen.fold(decision("a"))
    seen.fold(decision("b", code=Code.DENIED))
    seen.fold(decision("c", code=Code.PROOF_BODY, proved=False))
    assert [spent(seen, name) for name in "abc"] == [Code.PROOF_REPLAYED, Code.PROOF_REPLAYED, None]
    assert spent(seen, "a", actor="other") is None


@pytest.mark.parametrize(("later_ms", "kept"), [(330_000, True), (330_001, False)])
def test_a_proof_is_kept_for_as_long_as_it_could_come_again(later_ms: int, kept: bool) -> None:
    seen = SeenProofs()
    seen.fold(decision("a"))
    seen.fold(decision("b", time_ms=T + later_ms))
    fresh = (T + later_ms) // 1000
    assert spent(seen, "a", issued_at_s=fresh) is (Code.PROOF_REPLAYED if kept else None)
    assert spent(seen, "b", issued_at_s=fresh) is Code.PROOF_REPLAYED


def test_more_proofs_than_are_kept_refuse_the_old_ones_and_never_let_one_through_twice() -> None:
    seen = SeenProofs(count_max=3)
    for index in range(5):
        seen.fold(decision(str(index), time_ms=T + index * 60_000))
    assert [spent(seen, str(index), issued_at_s=T // 1000 + index * 60) for index in range(5)] == [
        Code.PROOF_TIME,
        Code.PROOF_TIME,
        Code.PROOF_REPLAYED,
        Code.PROOF_REPLAYED,
        Code.PROOF_REPLAYED,
    ]
    assert spent(seen, "new", issued_at_s=T // 1000 + 91) is None, "what is newer than the lost ones passes"
    assert spent(seen, "new", issued_at_s=T // 1000 + 90) is Code.PROOF_TIME


def test_the_first_decision_stands_for_a_request_id() -> None:
    seen = SeenRequests()
    seen.fold(decision("r", digest=b"one"))
    seen.fold(decision("r", time_ms=T + 1, digest=b"one", code=Code.DUPLICATE_OF))
    seen.fold(decision("r", time_ms=T + 2, digest=b"two", code=Code.REQUEST_ID_REUSED))
    seen.fold(decision("r", time_ms=T + 3, digest=b"two"))
    assert seen.find(actor="app", request_id="r") == FirstUse(digest=b"one", decision_id=f"d-r-{T}")
    assert seen.find(actor="other", request_id="r") is None
    assert seen.find(actor="app", request_id="s") is None


@pytest.mark.parametrize(
    ("code", "proved", "stands"),
    [
        (Code.OK, True, True),
        (Code.DENIED, True, True),
        (Code.POLICY_NOT_READY, True, False),
        (Code.DUPLICATE_OF, True, False),
        (Code.PROOF_SIGNATURE, False, False),
    ],
)
def test_what_may_be_tried_again_and_what_nobody_proved_stand_for_nothing(
    code: Code, proved: bool, stands: bool
) -> None:
    seen = SeenRequests()
    seen.fold(decision("r", code=code, proved=proved))
    assert (seen.find(actor="app", request_id="r") is not None) is stands


def test_a_request_id_is_free_again_after_a_day() -> None:
    seen = SeenRequests()
    seen.fold(decision("r"))
    seen.fold(decision("x", time_ms=T + REQUEST_WINDOW_MS))
    assert seen.find(actor="app", request_id="r") is not None
    seen.fold(decision("y", time_ms=T + REQUEST_WINDOW_MS + 1))
    assert seen.find(actor="app", request_id="r") is None
    seen.fold(decision("r", time_ms=T + REQUEST_WINDOW_MS + 2))
    assert seen.find(actor="app", request_id="r") == FirstUse(
        digest=b"d", decision_id=f"d-r-{T + REQUEST_WINDOW_MS + 2}"
    )


def test_the_oldest_request_leaves_first() -> None:
    seen = SeenRequests(count_max=2)
    for name in "abc":
        seen.fold(decision(name))
    assert [seen.find(actor="app", request_id=name) is not None for name in "abc"] == [False, True, True]


def test_a_fork_leaves_no_trace() -> None:
    proofs, requests = SeenProofs(), SeenRequests()
    proofs.fold(decision("a"))
    requests.fold(decision("a"))
    for fork in (proofs.fork(), requests.fork()):
        fork.fold(decision("b"))
    assert spent(proofs, "b") is None
    assert requests.find(actor="app", request_id="b") is None
    forked = proofs.fork()
    forked.fold(decision("b"))
    assert spent(forked, "a") is Code.PROOF_REPLAYED
    assert spent(forked, "b") is Code.PROOF_REPLAYED
    with pytest.raises(ValueError, match="fork"):
        forked.fork()


steps = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from([0, 1, 100_000, 331_000, 30_000_000])), max_size=25
)


@given(steps, st.integers(0, 25), st.integers(1, 6))
def test_a_slice_decided_on_a_fork_is_decided_as_one_by_one(
    steps: list[tuple[str, int]], cut: int, count_max: int
) -> None:
    decisions, time_ms = [], T
    for name, later_ms in steps:
        time_ms += later_ms
        decisions.append(decision(name, time_ms=time_ms))
    proofs, requests = SeenProofs(count_max=count_max), SeenRequests(count_max=count_max)
    base_proofs, base_requests = SeenProofs(count_max=count_max), SeenRequests(count_max=count_max)
    for each in decisions:
        proofs.fold(each)
        requests.fold(each)
    for each in decisions[:cut]:
        base_proofs.fold(each)
        base_requests.fold(each)
    forked_proofs, forked_requests = base_proofs.fork(), base_requests.fork()
    for each in decisions[cut:]:
        forked_proofs.fold(each)
        forked_requests.fold(each)
    for name in "abcdef":
        assert forked_requests.find(actor="app", request_id=name) == requests.find(actor="app", request_id=name)
        # Only what passes the check of time comes to be asked here.
        for issued_at_s in (time_ms // 1000 - 300, time_ms // 1000, time_ms // 1000 + 30):
            assert spent(forked_proofs, name, issued_at_s=issued_at_s) == spent(proofs, name, issued_at_s=issued_at_s)
