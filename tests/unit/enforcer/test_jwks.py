"""A provider's JWKS becomes an issuer's entry: what is usable is taken bare, and keys that come and go count so."""

import json
from typing import Any

import pytest
from company import DOMAIN, FAR_MS, ISSUER, NOON_MS, policy_events, private_key
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from forge import rsa_key
from joserfc.jwk import ECKey, RSAKey
from policy_events import (
    ANA,
    BEN,
    CLEO,
    NOW_MS,
    STRANGER,
    event,
    policy_log,
    roles_event,
    root_event,
    speakers,
    whole,
)
from producers import IDP, NOW_S, OTHER_IDP, asked, directory, ed25519, p256, request, token_for

from sluicegate.enforcer.credentials import Algorithm, Binding, parse_credentials
from sluicegate.enforcer.directory_change import read_change
from sluicegate.enforcer.jwks import JWKS_BYTES_MAX, Skipped, issuer_entry, issuer_update, keys_of, read_jwks
from sluicegate.enforcer.policy_kinds import Fault, Kind
from sluicegate.enforcer.state import Accepted, PolicyLog, Rejected, Rules
from sluicegate.enforcer.trust import digest_of
from sluicegate.enforcer.trust_make import sign_targets
from sluicegate.keys import public_jwk, signer_of
from sluicegate.schemas.codes import Code
from sluicegate.schemas.errors import InvalidDirectory
from sluicegate.schemas.events import DirectoryChanged, Identity
from sluicegate.schemas.strict_json import encode_base64url

OLD, NEW = public_jwk(IDP, "idp-1"), public_jwk(ed25519(44), "idp-2")


def rsa_jwk(kid: str, **more: object) -> dict[str, Any]:
    return {**RSAKey.import_key(rsa_key().public_key()).as_dict(), "kid": kid, **more}


def document(*keys: dict[str, Any], **more: object) -> bytes:
    return json.dumps({"keys": list(keys), **more}).encode()


# As Keycloak 26 answers at `/realms/NAME/protocol/openid-connect/certs`: one key to sign, one to encrypt.
KEYCLOAK = document(
    rsa_jwk("FJ86", alg="RS256", use="sig", x5c=["MIICmzCC"], x5t="Fk", **{"x5t#S256": "Q0"}),
    rsa_jwk("dkYq", alg="RSA-OAEP", use="enc", x5c=["MIICmzCC"], x5t="Fx", **{"x5t#S256": "Q1"}),
)


def test_of_a_keycloak_realm_the_signing_key_is_taken_bare() -> None:
    found = read_jwks(KEYCLOAK)
    assert found.algorithm is Algorithm.RS256
    assert {kid: sorted(key) for kid, key in found.keys.items()} == {"FJ86": ["alg", "e", "kid", "kty", "n"]}
    assert found.skipped == (Skipped(kid="dkYq", why="it is not for signatures"),)


def ec384() -> dict[str, Any]:
    return {**ECKey.import_key(generate_private_key(SECP384R1()).public_key()).as_dict(), "kid": "k"}


def small() -> dict[str, Any]:
    modulus = rsa.generate_private_key(65537, 1024).public_key().public_numbers().n
    return {"kty": "RSA", "n": encode_base64url(modulus.to_bytes(128)), "e": "AQAB", "kid": "k"}


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ({**NEW, "use": "enc"}, "not for signatures"),
        ({**NEW, "use": None}, "not for signatures"),
        ({**NEW, "key_ops": ["sign"]}, "not for signatures"),
        ({**NEW, "key_ops": "verify"}, "not for signatures"),
        ({**NEW, "alg": "ES256"}, "algorithm is not Ed25519"),
        ({**NEW, "alg": 7}, "algorithm is not Ed25519"),
        ({**public_jwk(p256(9), "k"), "alg": "ES384"}, "algorithm is not ES256"),
        (rsa_jwk("k", alg="PS256"), "algorithm is not RS256"),
        (rsa_jwk("k", alg="RS512"), "algorithm is not RS256"),
        (rsa_jwk("k", alg="none"), "algorithm is not RS256"),
        (rsa_jwk("k", n="AQAB"), "no valid public key"),
        (rsa_jwk("k", e="AQ"), "no valid public key"),  # e = 1: anybody could sign
        (rsa_jwk("k", e="Ag"), "no valid public key"),
        (small(), "RSA keys have 2048"),
        (ec384(), "kind is not"),
        ({"kty": "OKP", "crv": "X25519", "x": "A" * 43, "kid": "k"}, "kind is not"),
        ({"kty": ["RSA"], "kid": "k"}, "kind is not"),
        ({"kid": "k"}, "kind is not"),
        ({**public_jwk(p256(9), "k"), "x": "A" * 43}, "no valid public key"),
        ({**NEW, "x": NEW["x"] + "="}, "no valid public key"),
        ({**NEW, "kid": ""}, "no `kid`"),
        ({**NEW, "kid": 7}, "no `kid`"),
        ({name: value for name, value in NEW.items() if name != "kid"}, "no `kid`"),
    ],
)
def test_a_key_that_cannot_be_used_is_passed_over_and_named(key: dict[str, Any], why: str) -> None:
    found = read_jwks(document(OLD, key))
    assert list(found.keys) == ["idp-1"]
    assert [why in each.why for each in found.skipped] == [True]


@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "oth", "k"])
def test_a_private_key_makes_the_whole_document_worthless(member: str) -> None:
    with pytest.raises(InvalidDirectory, match="private or secret"):
        read_jwks(document(OLD, {**NEW, member: "AAAA"}))
    with pytest.raises(InvalidDirectory, match="private or secret"):
        read_jwks(document(OLD, {"kty": "oct", "kid": "k"}))
    assert list(read_jwks(document(OLD, NEW)).keys) == ["idp-1", "idp-2"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no JSON"),
        (b"[]", "no JSON"),
        (b'{"keys": [], "keys": []}', "no JSON"),
        (b"{}", "list `keys`"),
        (b'{"keys": {}}', "list `keys`"),
        (b'{"keys": ["x"]}', "list `keys`"),
        (document(), "no usable key"),
        (document({**OLD, "use": "enc"}), "no usable key"),
        (document(OLD, {**NEW, "kid": "idp-1"}), "two keys"),
        (document(OLD, OLD), "two keys"),
        (document(OLD, public_jwk(OTHER_IDP, "es-1")), "keys of ES256, Ed25519"),
        (document(*({**OLD, "kid": f"k{each}"} for each in range(65))), "at most 64"),
        (document(*({"kid": f"k{each}"} for each in range(257))), "at most 256"),
        (document(OLD, padding="x" * JWKS_BYTES_MAX), "bytes"),
    ],
)
def test_a_document_that_is_none_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(InvalidDirectory, match=why):
        read_jwks(data)


def test_of_several_algorithms_the_one_that_is_named_is_taken() -> None:
    both = document(OLD, public_jwk(OTHER_IDP, "es-1"))
    assert list(read_jwks(both, algorithm=Algorithm.ES256).keys) == ["es-1"]
    assert list(read_jwks(both, algorithm=Algorithm.ED25519).keys) == ["idp-1"]
    with pytest.raises(InvalidDirectory, match="no usable key"):
        read_jwks(both, algorithm=Algorithm.RS256)


# ---- rotation and revocation


def entry(*keys: dict[str, Any], **changes: str) -> dict[str, Any]:
    words = {"issuer": "https://id.heron.example", "audience": "urn:sluicegate:dev", "principal_claim": "sub"} | changes
    return issuer_entry(**words, binding=Binding.PARTY, jwks=read_jwks(document(*keys)))


def test_an_update_says_what_comes_stays_and_goes() -> None:
    first = issuer_update(None, entry(OLD))
    assert (first.added, first.kept, first.removed) == (("idp-1",), (), ())
    both = issuer_update(first.entry, entry(OLD, NEW))
    assert (both.added, both.kept, both.removed) == (("idp-2",), ("idp-1",), ())
    last = issuer_update(both.entry, entry(NEW))
    assert (last.added, last.kept, last.removed) == ((), ("idp-2",), ("idp-1",))
    assert set(read_change(last.content).issuers["https://id.heron.example"].keys) == {"idp-2"}
    assert read_change(last.content).types == {"Issuer"}
    swapped = issuer_update(first.entry, entry({**NEW, "kid": "idp-1"}))
    assert (swapped.added, swapped.kept, swapped.removed) == (("idp-1",), (), ("idp-1",)), "one name, another key"


def test_what_describes_a_key_otherwise_changes_nothing() -> None:
    described = entry(OLD)
    described["jwks"] = {"keys": [{**OLD, "use": "sig"}]}
    assert issuer_update(described, entry({**OLD, "alg": "EdDSA"})).content == b""
    assert issuer_update(described, entry(OLD, audience="other")).content != b""
    assert keys_of(described).keys() == {"idp-1"}


def test_an_entry_that_the_gate_would_refuse_makes_no_change() -> None:
    with pytest.raises(InvalidDirectory, match="audience"):
        issuer_update(None, entry(OLD, audience=""))


def test_tokens_count_for_as_long_as_their_key_is_published() -> None:
    """Before, while both keys are there, and after: 0 tokens of the key that is gone are accepted."""
    answers = {}
    for stage, keys in (("before", (OLD,)), ("both", (OLD, NEW)), ("after", (NEW,))):
        issuers = [entry(*keys), *directory()["issuers"][1:]]  # type: ignore[index]
        credentials = parse_credentials({**directory(), "issuers": issuers})
        for kid, key in (("idp-1", IDP), ("idp-2", ed25519(44))):
            record = request(token=token_for(kid=kid, private_key=key))
            found = asked(record, credentials=credentials, time_ms=NOW_S * 1000)
            answers[stage, kid] = "accepted" if isinstance(found, Identity) else found
    refused = Code.TOKEN_ISSUER
    assert answers == {
        ("before", "idp-1"): "accepted", ("before", "idp-2"): refused,
        ("both", "idp-1"): "accepted", ("both", "idp-2"): "accepted",
        ("after", "idp-1"): refused, ("after", "idp-2"): "accepted",
    }  # fmt: skip


def test_a_rotation_is_a_directory_event_and_counts_from_its_time_on() -> None:
    events = policy_events()
    log = PolicyLog(domain=DOMAIN, root_digest=digest_of(events[0].metadata))
    for offset, each in enumerate(events):
        assert isinstance(log.fold(offset, each, NOON_MS), Accepted)
    before = keys_in_force(log, NOON_MS)
    fetched = read_jwks(document(public_jwk(private_key("next"), "next-1")))
    fresh = issuer_entry(
        issuer=ISSUER, audience="sluicegate", principal_claim="sub", binding=Binding.ACTOR, jwks=fetched
    )  # fmt: skip
    content = issuer_update(None, fresh).content
    metadata = sign_targets(
        Kind.DIRECTORY, content, domain=DOMAIN, version=2, effective_at_ms=NOON_MS + 5000, expires_ms=FAR_MS,
        signers=(signer_of(private_key("publisher")),),
    )  # fmt: skip
    rotated = DirectoryChanged(version=2, metadata=metadata, content=content)
    found = log.fold(len(events), rotated, NOON_MS)
    assert isinstance(found, Accepted), found
    assert keys_in_force(log, NOON_MS + 4999) == before
    assert keys_in_force(log, NOON_MS + 5000) == {"next-1"}


def keys_in_force(log: PolicyLog, time_ms: int) -> set[str]:
    rules = log.at(time_ms)
    assert isinstance(rules, Rules), rules
    return set(rules.credentials.issuers[ISSUER].keys)


@pytest.mark.parametrize(
    ("signer", "code"), [(BEN, None), (ANA, None), (CLEO, Fault.NOT_DELEGATED), (STRANGER, Fault.UNSIGNED)]
)
def test_an_issuers_keys_are_changed_by_whom_the_roles_give_them(signer: Any, code: Fault | None) -> None:
    """Cleo speaks for people: whoever could put an issuer's key could name any of them."""
    roles = {"directory": speakers("ana"), "directory/Issuer": speakers("ben"), "directory/User": speakers("cleo")}
    log = policy_log()
    for offset, each in enumerate(
        [
            root_event(),
            roles_event(1, roles),
            event(Kind.BUNDLE, 1, b"b"),
            event(Kind.DIRECTORY, 1, whole("ana"), signers=(ANA,)),
        ]
    ):
        assert isinstance(log.fold(offset, each, NOW_MS), Accepted)
    content = issuer_update(None, entry(OLD)).content
    change = event(Kind.DIRECTORY, 2, content, signers=(signer,), effective_at_ms=NOW_MS + 10)
    found = log.fold(4, change, NOW_MS + 10)
    assert (found.code if isinstance(found, Rejected) else None) is code
    rules = log.at(NOW_MS + 100_000)
    assert isinstance(rules, Rules)
    assert set(rules.credentials.issuers) == (set() if code else {"https://id.heron.example"})
