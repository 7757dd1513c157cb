"""Producing services and identity providers with fixed keys: genuine requests, and what an attacker makes of them."""

import json
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sluicegate.enforcer.credentials import Credentials, parse_credentials
from sluicegate.enforcer.identity import hash_claim, proof_audience, prove
from sluicegate.enforcer.judgement import Refused
from sluicegate.enforcer.partition import partition_of
from sluicegate.enforcer.seen import SeenProofs
from sluicegate.keys import PrivateKey, public_jwk
from sluicegate.proof import make_proof, make_token, proof_headers
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import Identity
from sluicegate.schemas.records import Record
from sluicegate.schemas.strict_json import encode_base64url

NOW_S = 1_800_000_000
PARTITIONS = 12
AUDIENCE = proof_audience(env="dev", topic="requests")
ISSUER = "https://id.heron.example"
VALUE = b"\xc3\x01 the very bytes of a request"


def ed25519(seed: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)


def p256(seed: int) -> EllipticCurvePrivateKey:
    return derive_private_key(seed, SECP256R1())


HELPDESK, ROGUE, BILLING, IDP = ed25519(1), ed25519(2), p256(3), ed25519(4)
OTHER_IDP = p256(5)


def directory(binding: str = "azp") -> dict[str, object]:
    return {
        "service_keys": [
            {"kid": "helpdesk-1", "service": "helpdesk-app", "jwk": public_jwk(HELPDESK)},
            {"kid": "rogue-1", "service": "rogue-app", "jwk": public_jwk(ROGUE)},
            {"kid": "billing-1", "service": "billing-app", "jwk": public_jwk(BILLING)},
        ],
        "issuers": [
            {
                "issuer": ISSUER,
                "audience": "urn:sluicegate:dev",
                "principal_claim": "sub",
                "binding": binding,
                "jwks": {"keys": [public_jwk(IDP, "idp-1")]},
            },
            {
                "issuer": "https://other.example",
                "audience": "urn:sluicegate:dev",
                "principal_claim": "email",
                "binding": "azp",
                "jwks": {"keys": [public_jwk(OTHER_IDP, "other-1")]},
            },
        ],
    }


CREDENTIALS = parse_credentials(directory())


def token_for(sub: str = "ana.support", **changes: object) -> str:
    claims = {"sub": sub, "azp": "helpdesk-app"} | {name: value for name, value in changes.items() if name not in OWN}
    own = {"audience": "urn:sluicegate:dev", "issuer": ISSUER, "kid": "idp-1", "now_s": NOW_S} | {
        name: value for name, value in changes.items() if name in OWN
    }
    key = own.pop("private_key", IDP)
    return make_token(key, claims={name: value for name, value in claims.items() if value is not None}, **own)


OWN = {"audience", "issuer", "kid", "now_s", "lifetime_s", "private_key"}


def request(
    principal: str = 'User::"ana.support"',
    *,
    private_key: PrivateKey = HELPDESK,
    kid: str = "helpdesk-1",
    service: str = "helpdesk-app",
    token: str | None = None,
    now_s: int = NOW_S,
    audience: str = AUDIENCE,
    jti: str = "A" * 22,
) -> Record:
    """A genuine record, with its proof."""
    key = principal.encode()
    proof = make_proof(
        private_key,
        kid=kid,
        service=service,
        audience=audience,
        key=key,
        value=VALUE,
        now_s=now_s,
        jti=jti,
        token=token,
    )
    return Record(
        topic="requests",
        partition=partition_of(key, PARTITIONS),
        offset=7,
        timestamp_ms=NOW_S * 1000,
        key=key,
        value=VALUE,
        headers=proof_headers(proof, token),
    )


def asked(
    record: Record,
    *,
    time_ms: int = NOW_S * 1000,
    credentials: Credentials = CREDENTIALS,
    seen: SeenProofs | None = None,
    audience: str = AUDIENCE,
) -> Identity | Code:
    answer = prove(
        record,
        audience=audience,
        partition_count=PARTITIONS,
        time_ms=time_ms,
        credentials=credentials,
        seen=seen or SeenProofs(),
    )
    return answer.code if isinstance(answer, Refused) else answer


GENUINE = request(token=token_for())


def with_headers(record: Record, **headers: bytes) -> Record:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return replace(record, headers=tuple((name, names.get(name, value)) for name, value in record.headers))


def proof_of(record: Record) -> bytes:
    found = record.header("sg-proof")
    assert found is not None
    return found


def part(text: bytes) -> str:
    return encode_base64url(text)


def forged(header: str, claims: str, key: Ed25519PrivateKey = HELPDESK) -> bytes:
    """A compact JWS over any bytes, truly signed."""
    signing_input = f"{part(header.encode())}.{part(claims.encode())}".encode()
    return signing_input + b"." + part(key.sign(signing_input)).encode()


CLAIMS = {
    "iss": "helpdesk-app",
    "aud": AUDIENCE,
    "iat": NOW_S,
    "jti": "B" * 22,
    "key": 'Service::"helpdesk-app"',
    "bh": hash_claim(VALUE),
}
HEADER = {"alg": "Ed25519", "kid": "helpdesk-1", "typ": "sg-proof+jwt"}


def own_request(header: str | None = None, claims: str | None = None) -> Record:
    """The service asking in its own name, with a hand-made proof."""
    proof = forged(header or json.dumps(HEADER), claims or json.dumps(CLAIMS))
    return with_headers(request('Service::"helpdesk-app"'), sg_proof=proof)
