"""What `policy status` raises an alarm for: an end that is near or past, workers and environments that differ."""

import pytest
from policy_events import FAR_MS, NOW_MS, event, policy_log, root_event, whole

from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.state import Accepted
from sluicegate.policy_status import DAY_MS, Standing, Status, Worker, drift_between, drift_of, expiry_of
from sluicegate.policy_versions import PolicyView, Version
from sluicegate.schemas.events import PolicyVersion
from sluicegate.schemas.ids import Digest

LATER_MS = NOW_MS + 60_000


def version(kind: Kind, number: int, position: int, digest: str, expires_ms: int = FAR_MS) -> Version:
    return Version(
        kind=kind,
        version=number,
        digest=Digest(digest),
        content=b"",
        position=position,
        stamp_ms=NOW_MS,
        expires_ms=expires_ms,
    )


def view() -> PolicyView:
    """Root, directory and bundle, and a second bundle that is in force a minute later."""
    state = policy_log()
    events = (
        root_event(),
        event(Kind.DIRECTORY, 1, whole("ana")),
        event(Kind.BUNDLE, 1, b"first"),
        event(Kind.BUNDLE, 2, b"second", effective_at_ms=LATER_MS),
    )
    for offset, each in enumerate(events):
        assert isinstance(state.fold(offset, each, NOW_MS), Accepted)
    kinds = ((Kind.ROOT, 1), (Kind.DIRECTORY, 1), (Kind.BUNDLE, 1), (Kind.BUNDLE, 2))
    versions = tuple(version(kind, number, place, f"{kind}{number}") for place, (kind, number) in enumerate(kinds))
    return PolicyView(state=state, versions=versions, refused=(), now_ms=NOW_MS)


def worker(time_ms: int, **changes: object) -> Worker:
    fields = {
        "position": 3,
        "root_version": 1,
        "bundle_version": 1,
        "bundle_digest": "BUNDLE1",
        "directory_version": 1,
        "directory_digest": "DIRECTORY1",
        **changes,
    }
    return Worker(partition=0, policy=PolicyVersion(**fields), time_ms=time_ms)  # type: ignore[arg-type]


def test_since_when_and_what_comes_next() -> None:
    at = view()
    first, second = at.of(Kind.BUNDLE)
    assert at.in_force(Kind.BUNDLE) == (first, NOW_MS)
    assert at.in_force(Kind.BUNDLE, LATER_MS - 1) == (first, NOW_MS)
    assert at.in_force(Kind.BUNDLE, LATER_MS) == (second, LATER_MS)
    assert [at.starts_ms(each) for each in (first, second)] == [NOW_MS, LATER_MS]
    assert at.in_force(Kind.ROLES) is None
    assert at.starts_ms(version(Kind.SHADOW, 1, 9, "")) is None
    assert at.starts_ms(version(Kind.BUNDLE, 9, 9, "")) is None


@pytest.mark.parametrize(
    ("each", "said"),
    [
        (worker(NOW_MS), None),
        (worker(LATER_MS - 1), None),
        (worker(LATER_MS, bundle_version=2, bundle_digest="BUNDLE2"), None),
        (Worker(partition=0, policy=None, time_ms=None), None),
        (worker(LATER_MS), "decided under bundle v1 BUNDLE1 when v2 BUNDLE2"),
        (worker(LATER_MS - 1, bundle_version=2, bundle_digest="BUNDLE2"), "decided under bundle v2"),
        (worker(NOW_MS, bundle_digest="other"), "decided under bundle v1 other"),
        (worker(NOW_MS, directory_version=2), "decided under directory v2"),
        (worker(NOW_MS, directory_digest="other"), "decided under directory v1"),
        (worker(NOW_MS, root_version=2), "decided under root v2"),
        (worker(NOW_MS - 1), "when none was in force"),
    ],
)
def test_a_worker_drifts_where_it_decided_by_another_policy_than_was_in_force(each: Worker, said: str | None) -> None:
    found = drift_of(view(), each)
    assert (found is None) is (said is None)
    assert said is None or said in str(found)


@pytest.mark.parametrize(
    ("left_ms", "said"),
    [
        (30 * DAY_MS, None),
        (30 * DAY_MS - 1, "expires in 30.0 days"),
        (DAY_MS // 2, "expires in 0.5 days"),
        (0, "has expired 0.0 days ago: everything is denied"),
        (-2 * DAY_MS, "has expired 2.0 days ago"),
    ],
)
def test_an_end_is_told_thirty_days_before(left_ms: int, said: str | None) -> None:
    found = expiry_of(version(Kind.BUNDLE, 3, 0, "", expires_ms=NOW_MS + left_ms), NOW_MS)
    assert (found is None) is (said is None)
    assert said is None or found == f"the bundle v3 {found.removeprefix('the bundle v3 ')}"
    assert said is None or said in str(found)


def test_environments_drift_where_their_bundles_differ() -> None:
    def status(env: str, digest: str) -> Status:
        standing = Standing(version=version(Kind.BUNDLE, 1, 0, digest), since_ms=0, next_=None)
        return Status(env=env, standing=(standing,))

    assert drift_between([status("a", "x"), status("b", "x"), Status(env="c", problem="down")]) is None
    assert "`b` runs y.." in str(drift_between([status("a", "x"), status("b", "y")]))
