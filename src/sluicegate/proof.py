"""What a producing service does: its key and a record go in, the headers that prove the record come out.

`make_proof` is all that a producer needs, in any language with a JWS library. `make_token` plays the identity provider
for development and tests.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey
from msgspec import json

from sluicegate.enforcer.identity import PROOF_HEADER, PROOF_TYPE, TOKEN_HEADER, hash_claim
from sluicegate.keys import PrivateKey
from sluicegate.schemas.records import Headers

# Named one by one: joserfc admits no algorithm outside its recommended ones by itself.
_REGISTRIES: Final = {name: jws.JWSRegistry(algorithms=[name]) for name in ("Ed25519", "ES256")}


def make_proof(
    private_key: PrivateKey,
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


def _sign(private_key: PrivateKey, *, kid: str, kind: str, claims: Mapping[str, object]) -> str:
    key: OKPKey | ECKey
    if isinstance(private_key, Ed25519PrivateKey):
        algorithm, key = "Ed25519", OKPKey.import_key(private_key)
    else:
        algorithm, key = "ES256", ECKey.import_key(private_key)
    header = {"alg": algorithm, "kid": kid, "typ": kind}
    return jws.serialize_compact(header, json.encode(claims), key, registry=_REGISTRIES[algorithm])
