"""The next root: who must sign it, who may publish afterwards, and that a root without freshness gets some."""

import pytest
from policy_events import DOMAIN, FAR_MS, NOW_MS, PUBLISHER, ROOT, STRANGER, event, policy_log, root_event, signer
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Timestamp

from sluicegate.enforcer.policy_kinds import Fault, Kind
from sluicegate.enforcer.state import Accepted, PolicyLog, Rejected
from sluicegate.enforcer.trust_make import Envelope
from sluicegate.envelopes import event_of, signed_by
from sluicegate.keys import KeyKind
from sluicegate.root_rotation import Change, next_root
from sluicegate.schemas.errors import ConfigurationError

NEW, CLOCK = signer(21), signer(22)


def started() -> PolicyLog:
    state = policy_log()
    assert isinstance(state.fold(0, root_event(), NOW_MS), Accepted)
    return state


def rotated(state: PolicyLog, kind: KeyKind, old: CryptoSigner, *signers: CryptoSigner, **changes: object) -> Envelope:
    assert state.root is not None
    change = Change(
        kind=kind,
        new=(NEW.public_key,),
        gone=frozenset({old.public_key.keyid}),
        freshness=(CLOCK.public_key,),
        **changes,  # type: ignore[arg-type]
    )
    made = next_root(state.root, change, domain=DOMAIN, expires_ms=FAR_MS)
    return signed_by(made, signers, None)


def test_after_a_new_publishers_key_the_old_one_is_refused() -> None:
    state = started()
    assert isinstance(state.fold(1, event(Kind.BUNDLE, 1, b"first"), NOW_MS), Accepted)
    made = rotated(state, KeyKind.PUBLISHER, PUBLISHER, ROOT)
    assert state.fold(2, event_of(made), NOW_MS) == Accepted(kind=Kind.ROOT, version=2)
    attack = event(Kind.BUNDLE, 2, b"attack", signers=[PUBLISHER], effective_at_ms=NOW_MS + 1)
    refused = state.fold(3, attack, NOW_MS)
    assert isinstance(refused, Rejected)
    assert refused.code is Fault.UNSIGNED
    honest = event(Kind.BUNDLE, 2, b"second", signers=[NEW], effective_at_ms=NOW_MS + 1)
    assert state.fold(4, honest, NOW_MS) == Accepted(kind=Kind.BUNDLE, version=2)
    assert isinstance(state.fold(5, root_event(), NOW_MS), Rejected), "the root before comes back no more"


@pytest.mark.parametrize(("signers", "lands"), [((ROOT, NEW), True), ((ROOT,), False), ((NEW,), False), ((), False)])
def test_a_new_root_key_takes_the_old_threshold_and_the_new(signers: tuple[CryptoSigner, ...], *, lands: bool) -> None:
    state = started()
    found = state.fold(1, event_of(rotated(state, KeyKind.ROOT, ROOT, *signers)), NOW_MS)
    assert isinstance(found, Accepted) is lands
    if isinstance(found, Rejected):
        assert found.code is Fault.UNSIGNED
        return
    # The old key alone makes no third one.
    assert state.root is not None
    third = rotated(state, KeyKind.PUBLISHER, PUBLISHER, ROOT)
    assert isinstance(state.fold(2, event_of(third), NOW_MS), Rejected)
    assert isinstance(state.fold(3, event_of(rotated(state, KeyKind.PUBLISHER, PUBLISHER, NEW)), NOW_MS), Accepted)


def test_a_root_that_names_no_key_for_freshness_gets_one() -> None:
    state = started()
    assert state.root is not None
    assert not state.root.root.roles[Timestamp.type].keyids
    state.fold(1, event_of(rotated(state, KeyKind.PUBLISHER, PUBLISHER, ROOT)), NOW_MS)
    assert state.root.root.roles[Timestamp.type].keyids == [CLOCK.public_key.keyid]
    # A key that is named already stays, whatever lies in the folder.
    change = Change(kind=KeyKind.ROOT, new=(), gone=frozenset(), freshness=(STRANGER.public_key,))
    made = next_root(state.root, change, domain=DOMAIN, expires_ms=FAR_MS)
    state.fold(2, event_of(signed_by(made, [ROOT], None)), NOW_MS)
    assert state.root.root.roles[Timestamp.type].keyids == [CLOCK.public_key.keyid]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (Change(kind=KeyKind.ROOT, new=(NEW.public_key,), gone=frozenset()), "names no key for freshness"),
        (
            Change(
                kind=KeyKind.ROOT, new=(NEW.public_key,), gone=frozenset(), threshold=3, freshness=(CLOCK.public_key,)
            ),
            "the root cannot be so",
        ),
        (
            Change(
                kind=KeyKind.ROOT,
                new=(),
                gone=frozenset({ROOT.public_key.keyid}),
                freshness=(CLOCK.public_key,),
            ),
            "the root cannot be so",
        ),
    ],
)
def test_a_root_that_cannot_be_met_is_not_made(change: Change, why: str) -> None:
    root = started().root
    assert root is not None
    with pytest.raises(ConfigurationError, match=why):
        next_root(root, change, domain=DOMAIN, expires_ms=FAR_MS)
