"""What a producing service does: its key and a record go in, the headers that prove the record come out.

`make_proof` is all that a producer needs, in any language with a JWS library. `make_token` plays the identity provider
for development and tests.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey
from msgspec import json

from sluicegate.enforcer.identity import PROOF_HEADER, PROOF_TYPE, TOKEN_HEADER, hash_claim
from sluicegate.enforcer.seal import SigningKey
from sluicegate.keys import PrivateKey
from sluicegate.schemas.records import Headers
from sluicegate.schemas.strict_json import encode_base64url

# Named one by one: joserfc admits no algorithm outside its recommended ones by itself.
_REGISTRIES: Final = {name: jws.JWSRegistry(algorithms=[name]) for name in ("Ed25519", "ES256")}


def make_proof(
    private_key: PrivateKey | SigningKey,
    *,
    kid: str,
    service: str,
    audience: str,
    key: bytes,
    value: bytes,
    now_s: int,
    jti: str,
    token: str | None = None,
) -> str:
    """The header `sg-proof` of one record: a compact JWS over its key, its value and, where there is one, its token.

    `private_key`: the key itself, or whoever holds it and signs for us (`enforcer.seal.SigningKey`).

    `audience`: `identity.proof_audience`; `key`: the principal's uid in UTF-8, such as `User::"ana"`; `now_s`: seconds
    since 1970; `jti`: 128 random bits in base64url, new for every record, for a repeated one too.
    """
    claims: dict[str, str | int] = {
        "iss": service,
        "aud": audience,
        "iat": now_s,
        "jti": jti,
        "key": key.decode("utf-8"),
        "bh": hash_claim(value),
    }
    if token is not None:
        claims["ath"] = hash_claim(token.encode("ascii"))
    return _sign(private_key, kid=kid, kind=PROOF_TYPE, claims=claims)


def proof_headers(proof: str, token: str | None = None) -> Headers:
    """The record headers that carry a proof and its token."""
    headers = ((PROOF_HEADER, proof.encode("ascii")),)
    return headers if token is None else (*headers, (TOKEN_HEADER, token.encode("ascii")))


def make_token(
    private_key: PrivateKey,
    *,
    kid: str,
    issuer: str,
    audience: str | Sequence[str],
    claims: Mapping[str, object],
    now_s: int,
    lifetime_s: int = 600,
) -> str:
    """An access token (RFC 9068) of a development issuer; `claims` add the principal and what binds the token."""
    registered = {"iss": issuer, "aud": audience, "iat": now_s, "nbf": now_s, "exp": now_s + lifetime_s}
    return _sign(private_key, kid=kid, kind="at+jwt", claims={**registered, **claims})


def _sign(private_key: PrivateKey | SigningKey, *, kid: str, kind: str, claims: Mapping[str, object]) -> str:
    payload = json.encode(claims)
    key: OKPKey | ECKey
    if isinstance(private_key, Ed25519PrivateKey):
        algorithm, key = "Ed25519", OKPKey.import_key(private_key)
    elif isinstance(private_key, EllipticCurvePrivateKey):
        algorithm, key = "ES256", ECKey.import_key(private_key)
    else:
        return _sign_elsewhere(private_key, kid=kid, kind=kind, payload=payload)
    header = {"alg": algorithm, "kid": kid, "typ": kind}
    return jws.serialize_compact(header, payload, key, registry=_REGISTRIES[algorithm])


def _sign_elsewhere(key: SigningKey, *, kid: str, kind: str, payload: bytes) -> str:
    """RFC 7515 section 7.1, for a key that no library of ours may hold."""
    algorithm = "Ed25519" if isinstance(key.public_key(), Ed25519PublicKey) else "ES256"
    header = json.encode({"alg": algorithm, "kid": kid, "typ": kind})
    signed = f"{encode_base64url(header)}.{encode_base64url(payload)}"
    return f"{signed}.{encode_base64url(key.sign(signed.encode('ascii')))}"
