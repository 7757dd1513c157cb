"""Freshness: what the root's `timestamp` key promised counts, and no copy, delay or forgery of it says more."""

import json
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

from sluicegate.enforcer.freshness import (
    STALE_AFTER_MS,
    Cover,
    Coverage,
    Freshness,
    FreshnessLog,
    promise,
    sign_freshness,
    verify_freshness,
)
from sluicegate.enforcer.policy_kinds import Fault
from sluicegate.enforcer.schedule import DELAY_MS, Timeline
from sluicegate.enforcer.trust import Domain, TrustedRoot, Untrusted, digest_of, verify_root
from sluicegate.enforcer.trust_make import make_root

NOW_MS = 1_800_000_000_000
YEAR_MS = 365 * 24 * 3600 * 1000
DOMAIN = Domain(env="dev", tenant="heron")


def signer(seed: int) -> CryptoSigner:
    return CryptoSigner(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


ROOT, PUBLISHER, CLOCK, STRANGER = signer(1), signer(11), signer(21), signer(99)
PROMISE = Freshness(position=7, nothing_before_ms=NOW_MS + 300)


def root(clocks: tuple[CryptoSigner, ...] = (CLOCK,), *, expires_ms: int = NOW_MS + YEAR_MS) -> TrustedRoot:
    metadata = make_root(
        domain=DOMAIN,
        version=1,
        expires_ms=expires_ms,
        root_keys=[ROOT.public_key],
        root_threshold=1,
        publisher_keys=[PUBLISHER.public_key],
        publisher_threshold=1,
        timestamp_keys=[each.public_key for each in clocks],
        signers=[ROOT],
    )
    found = verify_root(
        metadata, version=1, domain=DOMAIN, previous=None, pinned=digest_of(metadata), time_ms=NOW_MS - 1
    )
    assert isinstance(found, TrustedRoot), found
    return found


def record(by: CryptoSigner = CLOCK, *, freshness: Freshness = PROMISE, domain: Domain = DOMAIN) -> bytes:
    return sign_freshness(freshness, domain=domain, expires_ms=NOW_MS + 60_000, signer=by)


def verified(metadata: bytes, *, stamp_ms: int = NOW_MS, by: TrustedRoot | None = None) -> Freshness | Untrusted:
    return verify_freshness(metadata, domain=DOMAIN, root=by or root(), stamp_ms=stamp_ms)


def edited(change: Callable[[dict[str, object]], object]) -> bytes:
    document = json.loads(record())
    change(document["signed"])
    return json.dumps(document).encode()


def test_a_signed_promise_counts_until_it_expires() -> None:
    assert verified(record()) == PROMISE
    assert verified(record(), stamp_ms=NOW_MS + 59_999) == PROMISE
    assert verified(record(freshness=Freshness(position=-1, nothing_before_ms=1))) == Freshness(
        position=-1, nothing_before_ms=1
    )


@pytest.mark.parametrize(
    ("metadata", "fault"),
    [
        (record(STRANGER), Fault.UNSIGNED),
        (record(PUBLISHER), Fault.UNSIGNED),
        (record(ROOT), Fault.UNSIGNED),
        (record(domain=Domain(env="prod", tenant="heron")), Fault.FOREIGN),
        (record(domain=Domain(env="dev", tenant="swift")), Fault.FOREIGN),
        (edited(lambda signed: signed["x-sluicegate"].update(position=8)), Fault.UNSIGNED),  # type: ignore[attr-defined]
        (edited(lambda signed: signed.update(version=NOW_MS + 400)), Fault.UNSIGNED),
        (edited(lambda signed: signed.update(extra=1)), Fault.FOREIGN),
        (edited(lambda signed: signed["x-sluicegate"].update(position="8")), Fault.MALFORMED),  # type: ignore[attr-defined]
        (edited(lambda signed: signed["x-sluicegate"].update(position=True)), Fault.MALFORMED),  # type: ignore[attr-defined]
        (edited(lambda signed: signed["x-sluicegate"].update(position=-2)), Fault.MALFORMED),  # type: ignore[attr-defined]
        (edited(lambda signed: signed.pop("x-sluicegate")), Fault.MALFORMED),
        (edited(lambda signed: signed.update(version=1 << 60)), Fault.MALFORMED),
        (b"{}", Fault.MALFORMED),
        (b"", Fault.MALFORMED),
    ],
)
def test_everything_else_says_nothing(metadata: bytes, fault: Fault) -> None:
    assert verified(record()) == PROMISE  # the genuine one, by the same rules
    found = verified(metadata)
    assert isinstance(found, Untrusted)
    assert found.fault is fault


def test_held_back_until_it_expired_it_says_nothing() -> None:
    found = verified(record(), stamp_ms=NOW_MS + 60_000)
    assert isinstance(found, Untrusted)
    assert found.fault is Fault.EXPIRED
    found = verified(record(), by=root(expires_ms=NOW_MS + 1000), stamp_ms=NOW_MS + 1000)
    assert isinstance(found, Untrusted)
    assert found.fault is Fault.EXPIRED


def test_a_root_without_a_timestamp_key_takes_no_promise_of_anybody() -> None:
    found = verified(record(), by=root(()))
    assert isinstance(found, Untrusted)
    assert found.fault is Fault.UNSIGNED


PROMISES = st.lists(
    st.builds(Freshness, position=st.integers(-1, 12), nothing_before_ms=st.integers(0, 40)), max_size=24
)


@given(promises=PROMISES, positions=st.lists(st.integers(-1, 12), max_size=6))
def test_the_log_keeps_of_all_promises_what_reaches_furthest(promises: list[Freshness], positions: list[int]) -> None:
    log = FreshnessLog()
    asked = sorted(positions)
    for count, each in enumerate(promises):
        log.add(each)
        position = asked[min(count * len(asked) // len(promises), len(asked) - 1)] if asked else -1
        known = [one.nothing_before_ms for one in promises[: count + 1] if one.position <= position]
        assert log.covered_until_ms(position) == max(known, default=0)
    assert log.newest_ms == max((each.nothing_before_ms for each in promises), default=0)


@given(
    # What happens in the order of the broker's clock: a version is appended (wanted at once or later), or a promise.
    events=st.lists(st.tuples(st.integers(0, 400), st.one_of(st.none(), st.integers(0, 3000))), max_size=30),
)
def test_what_is_covered_never_changes_whatever_is_appended_later(events: list[tuple[int, int | None]]) -> None:
    """The law behind it all, against the schedule that the policy state itself uses."""
    clock_ms, position, before_ms = 1_000, -1, None
    line: Timeline[int] = Timeline(kept_max=100)
    promised: list[tuple[Freshness, dict[int, int | None]]] = []
    log_ms = 0
    for step_ms, wanted_ms in events:
        clock_ms += step_ms
        if wanted_ms is not None:
            position += 1
            log_ms = max(log_ms, clock_ms)
            line.add(
                line.scheduled(
                    position,
                    version=position + 1,
                    effective_at_ms=wanted_ms,
                    expires_ms=1 << 62,
                    log_ms=log_ms,
                    position=position,
                )
            )
            continue
        if before_ms is not None:
            made = promise(position=position, stamp_before_ms=before_ms)
            times = range(max(0, made.nothing_before_ms - 5), made.nothing_before_ms)
            promised.append((made, {time_ms: in_force(line, time_ms) for time_ms in times}))
        before_ms = clock_ms
    for made, seen in promised:
        assert made.nothing_before_ms >= DELAY_MS
        for time_ms, version in seen.items():
            assert in_force(line, time_ms) == version


def in_force(line: Timeline[int], time_ms: int) -> int | None:
    found = line.at(time_ms)
    return None if found is None else found.version


def test_a_promise_that_reached_one_further_would_be_broken() -> None:
    line: Timeline[int] = Timeline(kept_max=100)
    made = promise(position=-1, stamp_before_ms=1_000)  # the log is empty when its end is asked for at 1,000
    line.add(
        line.scheduled(0, version=1, effective_at_ms=0, expires_ms=1 << 62, log_ms=1_000, position=0)  # the next moment
    )
    assert in_force(line, made.nothing_before_ms - 1) is None
    assert in_force(line, made.nothing_before_ms) == 1


def test_nothing_is_decided_that_is_not_covered_and_all_is_denied_when_nothing_moves() -> None:
    coverage = Coverage(stale_after_ms=STALE_AFTER_MS, now_ms=0)
    assert coverage.at(1, position=99, now_ms=0) is Cover.WAITING, "nobody has promised anything"
    coverage.hear(Freshness(position=7, nothing_before_ms=1_000), position=6, now_ms=10)
    assert coverage.at(999, position=6, now_ms=10) is Cover.WAITING, "one record of the policy log is not folded"
    assert coverage.at(999, position=7, now_ms=20) is Cover.COVERED
    assert coverage.at(1_000, position=7, now_ms=20) is Cover.WAITING, "from then on something may begin"
    # Copies, and promises that reach less far, move nothing: the limit runs on.
    for now_ms in range(1_000, STALE_AFTER_MS, 1_000):
        coverage.hear(Freshness(position=7, nothing_before_ms=1_000), position=7, now_ms=now_ms)
        coverage.hear(Freshness(position=3, nothing_before_ms=900), position=7, now_ms=now_ms)
    limit_ms = 20 + STALE_AFTER_MS
    assert coverage.at(999, position=7, now_ms=limit_ms) is Cover.COVERED
    assert coverage.at(999, position=7, now_ms=limit_ms + 1) is Cover.STALE, "what was covered too"
    assert coverage.at(5_000, position=7, now_ms=limit_ms + 1) is Cover.STALE
    # One that needs more of the policy log than is folded does not lift it; folding up to it does.
    coverage.hear(Freshness(position=8, nothing_before_ms=9_000), position=7, now_ms=limit_ms + 2)
    assert coverage.at(5_000, position=7, now_ms=limit_ms + 2) is Cover.STALE
    assert coverage.at(5_000, position=8, now_ms=limit_ms + 3) is Cover.COVERED
    assert coverage.at(9_000, position=8, now_ms=limit_ms + 3) is Cover.WAITING


def test_a_worker_that_never_hears_a_promise_denies_after_the_limit() -> None:
    coverage = Coverage(stale_after_ms=STALE_AFTER_MS, now_ms=5)
    assert coverage.at(0, position=3, now_ms=5 + STALE_AFTER_MS) is Cover.WAITING
    assert coverage.at(0, position=3, now_ms=6 + STALE_AFTER_MS) is Cover.STALE
