"""Who asks: a genuine request is proved, and each attack on it is refused with the code of the check that stops it."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from producers import (
    AUDIENCE,
    BILLING,
    CLAIMS,
    CREDENTIALS,
    GENUINE,
    HEADER,
    HELPDESK,
    ISSUER,
    NOW_S,
    PARTITIONS,
    ROGUE,
    VALUE,
    asked,
    ed25519,
    forged,
    own_request,
    part,
    proof_of,
    request,
    token_for,
    with_headers,
)

from sluicegate.enforcer.identity import PROOF_BYTES_MAX, proof_audience, prove
from sluicegate.enforcer.judgement import Refused
from sluicegate.enforcer.seen import SeenProofs
from sluicegate.keys import PrivateKey, public_jwk
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import DecisionMade, Identity, Source, Verdict


def test_a_person_is_proved_with_the_service_that_speaks_for_them() -> None:
    identity = asked(GENUINE)
    assert identity == Identity(
        principal='User::"ana.support"',
        actor='Service::"helpdesk-app"',
        proof_issuer="helpdesk-app",
        proof_id="A" * 22,
        proof_issued_at_s=NOW_S,
        proof_key_id="helpdesk-1",
        token_issuer=ISSUER,
        token_key_id="idp-1",
        token_expires_at_s=NOW_S + 600,
    )


@pytest.mark.parametrize(
    ("service", "kid", "key"), [("helpdesk-app", "helpdesk-1", HELPDESK), ("billing-app", "billing-1", BILLING)]
)
def test_a_service_without_token_is_its_own_principal(service: str, kid: str, key: PrivateKey) -> None:
    identity = asked(request(f'Service::"{service}"', private_key=key, kid=kid, service=service))
    assert isinstance(identity, Identity)
    assert (identity.principal, identity.actor) == (f'Service::"{service}"', f'Service::"{service}"')
    assert identity.token_issuer is None


def test_the_older_name_of_ed25519_is_admitted() -> None:
    assert isinstance(asked(own_request(header=json.dumps(HEADER | {"alg": "EdDSA"}))), Identity)


# 1 sizes, one of each header


def test_no_proof() -> None:
    assert asked(replace(GENUINE, headers=())) is Code.PROOF_MISSING
    assert asked(replace(GENUINE, headers=GENUINE.headers[1:])) is Code.PROOF_MISSING


@pytest.mark.parametrize("name", ["sg-proof", "sg-token"])
def test_two_headers_of_one_name(name: str) -> None:
    doubled = (*GENUINE.headers, (name, GENUINE.header(name) or b""))
    assert asked(replace(GENUINE, headers=doubled)) is Code.PROOF_MISSING


@pytest.mark.parametrize(("name", "code"), [("sg_proof", Code.PROOF_MALFORMED), ("sg_token", Code.TOKEN_MALFORMED)])
@pytest.mark.parametrize("value", [b"", b"a" * 1_000_000, b"." * 9000, b"a.b", b"a.b.c.d", b"\xff\x00.\xfe.\xfd"])
def test_a_huge_empty_or_senseless_header(name: str, code: Code, value: bytes) -> None:
    assert asked(with_headers(GENUINE, **{name: value})) is code


def test_a_proof_of_the_largest_size_is_read_and_a_longer_one_is_not() -> None:
    padded = [json.dumps(CLAIMS) + " " * spaces for spaces in range(2500, 3000)]
    sizes = {len(forged(json.dumps(HEADER), claims)): claims for claims in padded}
    largest = max(size for size in sizes if size <= PROOF_BYTES_MAX)
    longer = min(size for size in sizes if size > PROOF_BYTES_MAX)
    assert isinstance(asked(own_request(claims=sizes[largest])), Identity)
    assert asked(own_request(claims=sizes[longer])) is Code.PROOF_MALFORMED


# 2 strict JSON, no crit, jwk, jku, x5u


@pytest.mark.parametrize(
    "extra",
    [
        {"crit": ["exp"]},
        {"crit": ["x"], "x": 1},
        {"crit": []},
        {"jwk": public_jwk(ROGUE)},
        {"jku": "https://rogue.example/keys"},
        {"x5u": "https://rogue.example/cert"},
        {"x5c": ["AAAA"]},
        {"b64": False, "crit": ["b64"]},
        {"anything": 1},
    ],
    ids=lambda extra: "+".join(extra),
)
def test_a_header_that_brings_keys_or_changes_the_rules(extra: dict[str, object]) -> None:
    assert asked(own_request(header=json.dumps(HEADER | extra))) is Code.PROOF_MALFORMED
    assert isinstance(asked(own_request(header=json.dumps(HEADER))), Identity)


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        (None, json.dumps(CLAIMS)[:-1] + ', "key": "User::\\"eva\\""}'),
        (None, json.dumps(CLAIMS)[:-1] + ', "\\u006bey": "User::\\"eva\\""}'),
        (json.dumps(HEADER)[:-1] + ', "kid": "rogue-1"}', None),
        (None, json.dumps(CLAIMS) + "{}"),
        (None, "[]"),
        (None, "\ufeff" + json.dumps(CLAIMS)),
        (None, json.dumps(CLAIMS | {"iat": float("nan")})),
        (None, json.dumps(CLAIMS | {"iat": float(NOW_S)})),
        (None, json.dumps(CLAIMS | {"iat": str(NOW_S)})),
        (None, json.dumps(CLAIMS | {"iat": True})),
        (None, json.dumps(CLAIMS | {"iat": 10**30})),
        (None, json.dumps(CLAIMS | {"iat": -1})),
        (None, json.dumps(CLAIMS | {"aud": [AUDIENCE]})),
        (None, json.dumps(CLAIMS | {"jti": "short"})),
        (None, json.dumps(CLAIMS | {"jti": "B" * 22 + "\n"})),
        (None, json.dumps(CLAIMS | {"key": "\ud800"})),
        (None, json.dumps(CLAIMS | {"bh": None})),
        (None, json.dumps(CLAIMS | {"exp": NOW_S + 9})),
        (None, json.dumps(CLAIMS | {"ath": None})),
        (None, json.dumps({name: value for name, value in CLAIMS.items() if name != "jti"})),
        (None, "[" * 5000),
        (json.dumps(HEADER | {"typ": "JWT"}), None),
        (json.dumps({"alg": "Ed25519", "kid": "helpdesk-1"}), None),
        (json.dumps(HEADER | {"kid": 1}), None),
    ],
)
def test_json_of_more_than_one_reading_or_wrong_types(header: str | None, claims: str | None) -> None:
    assert asked(own_request(header, claims)) is Code.PROOF_MALFORMED
    assert isinstance(asked(own_request()), Identity)


@pytest.mark.parametrize(
    "change",
    [
        lambda proof: proof + b"=",
        lambda proof: proof + b"==",
        lambda proof: proof + b"\n",
        lambda proof: b" " + proof,
        lambda proof: proof[:20] + b"\n" + proof[20:],
        lambda proof: proof.replace(b".", b"=.", 1),
        lambda proof: proof[:-1] + bytes([proof[-1] + 1]),  # the bits after the 64th byte of the signature
    ],
)
def test_base64url_that_is_padded_or_not_canonical(change: Callable[[bytes], bytes]) -> None:
    own = own_request()
    assert isinstance(asked(own), Identity)
    assert asked(with_headers(own, sg_proof=change(proof_of(own)))) is Code.PROOF_MALFORMED


# 3 kid -> key, owner


def test_the_key_of_another_service() -> None:
    # Signed by the rogue app in its own right, but saying to be the helpdesk.
    record = request(private_key=ROGUE, kid="rogue-1", service="helpdesk-app", token=token_for())
    assert asked(record) is Code.PROOF_KEY_UNKNOWN
    record = request('Service::"rogue-app"', private_key=ROGUE, kid="rogue-1", service="rogue-app")
    assert isinstance(asked(record), Identity)


def test_the_kid_of_another_service_over_the_own_key() -> None:
    record = request('Service::"helpdesk-app"', private_key=ROGUE, kid="helpdesk-1", service="helpdesk-app")
    assert asked(record) is Code.PROOF_SIGNATURE


def test_a_key_that_nobody_admitted() -> None:
    assert asked(request(private_key=ed25519(9), kid="new-1", token=token_for())) is Code.PROOF_KEY_UNKNOWN


# 4 signature, algorithm fixed by the key record


def test_algorithm_none() -> None:
    unsigned = f"{part(json.dumps(HEADER | {'alg': 'none'}).encode())}.{part(json.dumps(CLAIMS).encode())}."
    assert asked(with_headers(own_request(), sg_proof=unsigned.encode())) is Code.PROOF_MALFORMED
    # And where only the signature is left away:
    bare = proof_of(own_request()).rpartition(b".")[0] + b"."
    assert asked(with_headers(own_request(), sg_proof=bare)) is Code.PROOF_SIGNATURE


@pytest.mark.parametrize(
    "secret",
    [
        HELPDESK.public_key().public_bytes_raw(),
        HELPDESK.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(public_jwk(HELPDESK)).encode(),
    ],
)
def test_hs256_with_the_public_key_as_secret(secret: bytes) -> None:
    signing_input = (
        f"{part(json.dumps(HEADER | {'alg': 'HS256'}).encode())}.{part(json.dumps(CLAIMS).encode())}".encode()
    )
    mac = hmac.HMAC(secret, hashes.SHA256())
    mac.update(signing_input)
    proof = signing_input + b"." + part(mac.finalize()).encode()
    assert asked(with_headers(own_request(), sg_proof=proof)) is Code.PROOF_MALFORMED


def test_an_admitted_algorithm_that_is_not_the_keys() -> None:
    assert asked(own_request(header=json.dumps(HEADER | {"alg": "ES256"}))) is Code.PROOF_SIGNATURE


@pytest.mark.parametrize("position", [5, 60, 300, -20])
def test_one_changed_character(position: int) -> None:
    proof = bytearray(proof_of(GENUINE))
    proof[position] = ord("A") if proof[position] != ord("A") else ord("B")
    assert asked(with_headers(GENUINE, sg_proof=bytes(proof))) in {
        Code.PROOF_SIGNATURE,
        Code.PROOF_MALFORMED,
        Code.PROOF_KEY_UNKNOWN,
    }


# 5 aud, record key, partition, bh


@pytest.mark.parametrize(
    "audience",
    [
        proof_audience(env="prod", topic="requests"),
        proof_audience(env="dev", topic="requests.other"),
        "urn:sluicegate:dev:requests:x",
        "",
    ],
)
def test_a_proof_for_another_topic_or_environment(audience: str) -> None:
    assert asked(request(token=token_for(), audience=audience)) is Code.PROOF_AUDIENCE
    assert asked(GENUINE, audience=audience) is Code.PROOF_AUDIENCE


@pytest.mark.parametrize("value", [VALUE + b"\0", VALUE[:-1], b"", None])
def test_another_body(value: bytes | None) -> None:
    assert asked(replace(GENUINE, value=value)) is Code.PROOF_BODY


@pytest.mark.parametrize("key", [b'User::"eva.eng"', b"", b"\xff", b'User::"ana.support"\0', None])
def test_another_record_key(key: bytes | None) -> None:
    assert asked(replace(GENUINE, key=key)) is Code.PROOF_KEY


def test_another_partition() -> None:
    for partition in set(range(-1, PARTITIONS + 1)) - {GENUINE.partition}:
        assert asked(replace(GENUINE, partition=partition)) is Code.WRONG_PARTITION
    assert isinstance(asked(GENUINE), Identity)


# 6 time


@pytest.mark.parametrize(
    ("late_ms", "good"),
    [(-30_001, False), (-30_000, True), (0, True), (300_000, True), (300_001, False), (10**10, False)],
)
def test_an_expired_or_future_proof(late_ms: int, good: bool) -> None:
    answer = asked(request('Service::"helpdesk-app"'), time_ms=NOW_S * 1000 + late_ms)
    assert isinstance(answer, Identity) if good else answer is Code.PROOF_TIME


# 8 spent proofs


def spent(identity: Identity, time_ms: int) -> DecisionMade:
    return DecisionMade(
        decision_id="d0-0-7",
        source=Source(offset=7, count=1, digest=b"", timestamp_ms=time_ms),
        time_ms=time_ms,
        verdict=Verdict.DENY,
        code=Code.DENIED,
        check=4,
        identity=identity,
    )


def test_a_replayed_proof() -> None:
    seen = SeenProofs()
    identity = asked(GENUINE, seen=seen)
    assert isinstance(identity, Identity)
    assert asked(GENUINE, seen=seen) == identity, "proving spends nothing: only its decision does"
    seen.fold(spent(identity, NOW_S * 1000))
    assert asked(GENUINE, seen=seen) is Code.PROOF_REPLAYED
    # At the last moment at which the proof itself is still good, and where it was sent at the first.
    seen = SeenProofs()
    seen.fold(spent(identity, NOW_S * 1000 - 30_000))
    seen.fold(replace(spent(identity, NOW_S * 1000 + 300_000), identity=None))
    assert asked(request('Service::"helpdesk-app"'), seen=seen, time_ms=NOW_S * 1000 + 300_000) is Code.PROOF_REPLAYED


def test_the_same_jti_of_another_service_and_a_new_jti_are_fresh() -> None:
    seen = SeenProofs()
    identity = asked(GENUINE, seen=seen)
    assert isinstance(identity, Identity)
    seen.fold(spent(identity, NOW_S * 1000))
    assert isinstance(asked(request(token=token_for(), jti="C" * 22), seen=seen), Identity)
    other = request('Service::"rogue-app"', private_key=ROGUE, kid="rogue-1", service="rogue-app")
    assert isinstance(asked(other, seen=seen), Identity)


# 9 the accounting key


def test_a_key_that_is_not_the_principals_counts_for_nobody() -> None:
    for key in ('User::"eva.eng"', "ana.support", 'Service::"helpdesk-app"', 'User::"ana.support" '):
        assert asked(request(key, token=token_for())) is Code.PROOF_KEY
    assert asked(request('User::"ana.support"')) is Code.PROOF_KEY  # no token: the service itself asks


def test_no_refusal_says_anything_of_the_requester() -> None:
    secrets = ("ana.support", "helpdesk", "heron", "eyJ")
    records = [
        replace(GENUINE, key=b"x"),
        request("ana.support-secret", token=token_for()),
        request(token=token_for(azp="rogue-app")),
        with_headers(GENUINE, sg_token=b"eyJ.x.y"),
    ]
    for record in records:
        answer = prove(
            record,
            audience=AUDIENCE,
            partition_count=PARTITIONS,
            time_ms=NOW_S * 1000,
            credentials=CREDENTIALS,
            seen=SeenProofs(),
        )
        assert isinstance(answer, Refused)
        assert not any(secret in (answer.reason or "") for secret in secrets)
