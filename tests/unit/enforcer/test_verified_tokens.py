"""The memo of token signatures: it answers as verifying does, and what failed once is verified again."""

from dataclasses import replace

import pytest
from producers import CREDENTIALS, GENUINE, ISSUER, NOW_S, asked, ed25519, request, token_for, with_headers

from sluicegate.enforcer import credentials
from sluicegate.enforcer.credentials import Credentials, PublicKey, VerifiedTokens, parse_credentials
from sluicegate.keys import public_jwk
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import Identity

INPUT, OTHER = b"header.claims", b"header.claimz"


def public(seed: int) -> PublicKey:
    entry = {"kid": "k", "service": "s", "jwk": public_jwk(ed25519(seed))}
    return parse_credentials({"service_keys": [entry], "issuers": []}).service_keys["k"].public


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The signing inputs that were really verified."""
    seen: list[bytes] = []
    verify = PublicKey.verifies

    def noted(key: PublicKey, signing_input: bytes, signature: bytes) -> bool:
        seen.append(signing_input)
        return verify(key, signing_input, signature)

    monkeypatch.setattr(PublicKey, "verifies", noted)
    return seen


def test_a_signature_that_held_is_not_verified_again(counted: list[bytes]) -> None:
    memo, signature = VerifiedTokens(), ed25519(1).sign(INPUT)
    for _ in range(3):
        assert memo.holds(public(1), digest=b"d", signing_input=INPUT, signature=signature)
    assert counted == [INPUT]


def test_nothing_is_taken_over_by_another_key_or_token(counted: list[bytes]) -> None:
    memo, signature = VerifiedTokens(), ed25519(1).sign(INPUT)
    assert memo.holds(public(1), digest=b"d", signing_input=INPUT, signature=signature)
    assert not memo.holds(public(2), digest=b"d", signing_input=INPUT, signature=signature)
    assert not memo.holds(public(1), digest=b"e", signing_input=OTHER, signature=signature)
    assert len(counted) == 3


def test_a_signature_that_failed_is_verified_again(counted: list[bytes]) -> None:
    memo, signature = VerifiedTokens(), ed25519(2).sign(INPUT)
    for _ in range(3):
        assert not memo.holds(public(1), digest=b"d", signing_input=INPUT, signature=signature)
    assert counted == [INPUT] * 3


def test_it_stays_bounded(counted: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "TOKENS_REMEMBERED_MAX", 2)
    memo, key, signature = VerifiedTokens(), public(1), ed25519(1).sign(INPUT)
    for digest in (b"a", b"b", b"c", b"a"):
        assert memo.holds(key, digest=digest, signing_input=INPUT, signature=signature)
    assert len(counted) == 4


def fresh() -> Credentials:
    return replace(CREDENTIALS, tokens=VerifiedTokens())


def test_a_known_token_is_checked_in_all_else(counted: list[bytes]) -> None:
    known = fresh()
    assert isinstance(asked(GENUINE, credentials=known), Identity)
    assert isinstance(asked(GENUINE, credentials=known), Identity)
    assert len(counted) == 3  # two proofs, one token
    late = request(token=token_for(), now_s=NOW_S + 600)  # the same token, with a proof of its own
    assert asked(late, credentials=known, time_ms=(NOW_S + 600) * 1000) is Code.TOKEN_TIME
    assert asked(replace(GENUINE, value=b"other"), credentials=known) is Code.PROOF_BODY
    # With the issuer's key gone, or another in its place, what was verified before says nothing.
    issuer = known.issuers[ISSUER]
    gone = replace(known, issuers={ISSUER: replace(issuer, keys={})})
    assert asked(GENUINE, credentials=gone) is Code.TOKEN_ISSUER
    swapped = replace(known, issuers={ISSUER: replace(issuer, keys=dict.fromkeys(issuer.keys, public(9)))})
    assert asked(GENUINE, credentials=swapped) is Code.TOKEN_SIGNATURE


def test_a_token_with_a_foreign_signature_is_refused_each_time() -> None:
    known = fresh()
    genuine = token_for()
    assert isinstance(asked(request(token=genuine), credentials=known), Identity)
    forged = genuine.rsplit(".", 1)[0] + "." + token_for("pia.people").rsplit(".", 1)[1]
    for _ in range(2):
        assert asked(request(token=forged), credentials=known) is Code.TOKEN_SIGNATURE
    stale = with_headers(request(token=genuine), sg_token=forged.encode())
    assert asked(stale, credentials=known) is Code.TOKEN_SIGNATURE
