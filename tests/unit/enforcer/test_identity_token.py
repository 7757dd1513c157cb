"""For whom a service asks: a token counts from its issuer, for this gate, in its time, from the app it is bound to."""

import json
from dataclasses import replace
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives import hashes, hmac
from producers import (
    CREDENTIALS,
    GENUINE,
    HELPDESK,
    IDP,
    ISSUER,
    NOW_S,
    OTHER_IDP,
    ROGUE,
    asked,
    directory,
    ed25519,
    forged,
    own_request,
    part,
    proof_of,
    request,
    token_for,
    with_headers,
)

from sluicegate.enforcer.credentials import parse_credentials
from sluicegate.keys import public_jwk
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import Identity


def test_a_stolen_token_with_another_services_proof() -> None:
    stolen = token_for()
    assert asked(request(private_key=ROGUE, kid="rogue-1", service="rogue-app", token=stolen)) is Code.TOKEN_BINDING
    assert isinstance(asked(request(token=stolen)), Identity)


def test_a_token_that_was_taken_off_or_put_on() -> None:
    # Without its token the record would be the service asking in its own name.
    assert asked(replace(GENUINE, headers=GENUINE.headers[:1])) is Code.TOKEN_PROOF
    own = request('Service::"helpdesk-app"')
    assert asked(replace(own, headers=(*own.headers, ("sg-token", token_for().encode())))) is Code.TOKEN_PROOF


def test_a_token_of_another_person_under_the_same_proof() -> None:
    assert asked(with_headers(GENUINE, sg_token=token_for("eva.eng").encode())) is Code.TOKEN_PROOF


@pytest.mark.parametrize("audience", ["urn:sluicegate:prod", "", ["a", "b"], []])
def test_a_token_for_another_audience(audience: object) -> None:
    assert asked(request(token=token_for(audience=audience))) is Code.TOKEN_AUDIENCE


def test_a_token_for_several_audiences() -> None:
    assert isinstance(asked(request(token=token_for(audience=["mail", "urn:sluicegate:dev"]))), Identity)


@pytest.mark.parametrize(
    ("issued_s", "lifetime_s", "good"),
    [(0, 1, True), (-600, 600, False), (-600, 601, True), (30, 600, True), (31, 600, False), (-9000, 60, False)],
)
def test_an_expired_or_future_token(issued_s: int, lifetime_s: int, good: bool) -> None:
    answer = asked(request(token=token_for(now_s=NOW_S + issued_s, lifetime_s=lifetime_s)))
    assert isinstance(answer, Identity) if good else answer is Code.TOKEN_TIME


@pytest.mark.parametrize("exp", [None, "never", 1e12, True])
def test_a_token_without_a_plain_expiry(exp: object) -> None:
    claims = {"iss": ISSUER, "aud": "urn:sluicegate:dev", "exp": exp, "sub": "ana.support", "azp": "helpdesk-app"}
    token = forged(json.dumps({"alg": "Ed25519", "kid": "idp-1"}), json.dumps(claims), IDP).decode()
    assert asked(request(token=token)) is Code.TOKEN_MALFORMED


def test_an_issuer_or_a_key_of_it_that_nobody_admitted() -> None:
    assert asked(request(token=token_for(issuer="https://evil.example"))) is Code.TOKEN_ISSUER
    assert asked(request(token=token_for(kid="idp-2"))) is Code.TOKEN_ISSUER
    # The key of one issuer does not speak for another.
    assert asked(request(token=token_for(issuer="https://other.example"))) is Code.TOKEN_ISSUER
    assert asked(request(token=token_for(private_key=ed25519(8)))) is Code.TOKEN_SIGNATURE


@pytest.mark.parametrize("azp", ["rogue-app", None, ["helpdesk-app"], "", "HELPDESK-APP"])
def test_a_token_bound_to_another_app_or_to_none(azp: object) -> None:
    assert asked(request(token=token_for(azp=azp))) is Code.TOKEN_BINDING


@pytest.mark.parametrize(
    ("binding", "claims", "good"),
    [
        ("client_id", {"azp": None, "client_id": "helpdesk-app"}, True),
        ("client_id", {"azp": "helpdesk-app"}, False),
        ("act.sub", {"azp": None, "act": {"sub": "helpdesk-app"}}, True),
        ("act.sub", {"act": {"sub": "rogue-app"}}, False),
        ("act.sub", {"act": "helpdesk-app"}, False),
        ("cnf.jkt", {}, False),
        ("cnf.jkt", {"cnf": "own"}, True),
        ("cnf.jkt", {"cnf": "rogue"}, False),
        ("azp", {"cnf": "own"}, True),
        ("azp", {"cnf": "rogue"}, False),  # bound to another key: `azp` does not heal it
        ("azp", {"cnf": {"x5t#S256": "A" * 43}}, False),
        ("azp", {"cnf": None}, True),  # the helper leaves None away
    ],
)
def test_each_binding(binding: str, claims: dict[str, object], good: bool) -> None:
    credentials = parse_credentials(directory(binding))
    jkt = {
        "own": {"jkt": credentials.service_keys["helpdesk-1"].public.thumbprint},
        "rogue": {"jkt": credentials.service_keys["rogue-1"].public.thumbprint},
    }
    claims = {name: jkt[value] if name == "cnf" and isinstance(value, str) else value for name, value in claims.items()}
    answer = asked(request(token=token_for(**claims)), credentials=credentials)
    assert isinstance(answer, Identity) if good else answer is Code.TOKEN_BINDING


def test_a_thumbprint_is_rfc_7638s() -> None:
    jwk = public_jwk(HELPDESK)
    canonical = json.dumps({"crv": jwk["crv"], "kty": jwk["kty"], "x": jwk["x"]}, separators=(",", ":")).encode()
    assert CREDENTIALS.service_keys["helpdesk-1"].public.thumbprint == part(sha256(canonical).digest())


@pytest.mark.parametrize("sub", [None, "", 7, "a\nb", "a" * 257, "\ud800"])
def test_a_token_that_names_no_usable_principal(sub: object) -> None:
    if sub == "\ud800":
        claims = {"iss": ISSUER, "aud": "urn:sluicegate:dev", "exp": NOW_S + 60, "sub": sub, "azp": "helpdesk-app"}
        token = forged(json.dumps({"alg": "Ed25519", "kid": "idp-1"}), json.dumps(claims), IDP).decode()
    else:
        token = token_for(sub)  # type: ignore[arg-type]
    assert asked(request(token=token)) is Code.TOKEN_MALFORMED


TOKEN_CLAIMS = {
    "iss": ISSUER,
    "aud": "urn:sluicegate:dev",
    "exp": NOW_S + 60,
    "sub": "ana.support",
    "azp": "helpdesk-app",
}


@pytest.mark.parametrize(
    ("header", "filler", "code"),
    [
        ({"alg": "Ed25519", "typ": "at+jwt"}, 0, None),
        ({"alg": "EdDSA", "typ": "application/at+jwt"}, 0, None),
        ({"alg": "Ed25519", "typ": "JWT"}, 4000, None),
        ({"alg": "Ed25519", "typ": "JWT"}, 7000, Code.TOKEN_MALFORMED),
        ({"alg": "ES256", "typ": "JWT"}, 0, Code.TOKEN_SIGNATURE),
        ({"alg": "Ed25519", "typ": "logout+jwt"}, 0, Code.TOKEN_MALFORMED),
        ({"alg": "Ed25519", "typ": "sg-proof+jwt"}, 0, Code.TOKEN_MALFORMED),
        ({"alg": "Ed25519", "typ": None}, 0, Code.TOKEN_MALFORMED),
    ],
)
def test_a_truly_signed_token_of_another_type_algorithm_or_size(
    header: dict[str, object], filler: int, code: Code | None
) -> None:
    claims = TOKEN_CLAIMS | {"groups": "g" * filler}
    token = forged(json.dumps(header | {"kid": "idp-1"}), json.dumps(claims), IDP).decode()
    answer = asked(request(token=token))
    assert isinstance(answer, Identity) if code is None else answer is code


def test_a_proof_is_no_token() -> None:
    assert asked(request(token=proof_of(own_request()).decode())) is Code.TOKEN_MALFORMED


def test_another_issuer_with_its_own_algorithm_and_claim_is_admitted() -> None:
    token = token_for(
        None, issuer="https://other.example", kid="other-1", private_key=OTHER_IDP, email="ana@heron.example"
    )
    identity = asked(request('User::"ana@heron.example"', token=token))
    assert isinstance(identity, Identity)
    assert identity.principal == 'User::"ana@heron.example"'


@pytest.mark.parametrize("name", ["crit", "jwk", "jku", "x5u"])
def test_a_token_whose_header_brings_keys(name: str) -> None:
    claims = {
        "iss": ISSUER,
        "aud": "urn:sluicegate:dev",
        "exp": NOW_S + 60,
        "sub": "ana.support",
        "azp": "helpdesk-app",
    }
    header = {"alg": "Ed25519", "kid": "idp-1"}
    genuine = forged(json.dumps(header), json.dumps(claims), IDP).decode()
    attack = forged(json.dumps(header | {name: ["x"]}), json.dumps(claims), IDP).decode()
    assert isinstance(asked(request(token=genuine)), Identity)
    assert asked(request(token=attack)) is Code.TOKEN_MALFORMED


def test_hs256_and_none_on_a_token() -> None:
    genuine = token_for()
    _, claims, _ = genuine.split(".")
    for algorithm in ("none", "HS256", "ES256", "RS256"):
        header = part(json.dumps({"alg": algorithm, "kid": "idp-1", "typ": "at+jwt"}).encode())
        mac = hmac.HMAC(IDP.public_key().public_bytes_raw(), hashes.SHA256())
        mac.update(f"{header}.{claims}".encode())
        signature = "" if algorithm == "none" else part(mac.finalize())
        assert asked(request(token=f"{header}.{claims}.{signature}")) is Code.TOKEN_SIGNATURE


def test_a_principal_with_quotes_is_escaped_as_cedar_does() -> None:
    identity = asked(request('User::"a\\"b\\\\c"', token=token_for('a"b\\c')))
    assert isinstance(identity, Identity)
    assert identity.principal == 'User::"a\\"b\\\\c"'
