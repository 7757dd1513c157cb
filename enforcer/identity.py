"""A request record and the keys in force go in, a proved `Identity` or the first failed check comes out, here alone.

Proof of possession in the manner of DPoP (RFC 9449) on a record: header `sg-proof` is a compact JWS of the producing
service over the record's bytes; header `sg-token` is the provider's access token where the service speaks for a person.
The numbered checks of `prove` are the security argument; they stand in DESIGN 3 in the same order:
    1 sizes, one of each header    2 strict JSON, no `crit` `jwk` `jku` `x5u`    3 `kid` -> key, owner = `iss`
    4 signature    5 `aud`, record key, partition, `bh`    6 time    7 token    8 not spent
    9 principal, actor, accounting key
All time is event time T; no reason holds a claim, a token or a key of the requester.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from hmac import compare_digest
from types import MappingProxyType
from typing import Final

from sluicegate.enforcer.credentials import Binding, Credentials, Issuer, ServiceKey, is_name
from sluicegate.enforcer.judgement import Refused
from sluicegate.enforcer.partition import partition_of
from sluicegate.enforcer.seen import PROOF_EARLY_MS, PROOF_LATE_MS, SeenProofs
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import Identity
from sluicegate.schemas.ids import EntityUid, entity_uid
from sluicegate.schemas.records import Record
from sluicegate.schemas.strict_json import (
    JsonObject,
    JsonValue,
    NotStrict,
    decode_base64url,
    encode_base64url,
    loads_object,
)

PROOF_HEADER: Final = "sg-proof"
TOKEN_HEADER: Final = "sg-token"  # noqa: S105 - a name, not a secret
PROOF_TYPE: Final = "sg-proof+jwt"
PROOF_BYTES_MAX: Final = 4096
TOKEN_BYTES_MAX: Final = 8192
TIME_S_MAX: Final = 1 << 40
# Of what comes with many requests, how many are kept as read; reading is pure, so what falls out is only read again.
READ_MAX: Final = 512
# Access tokens say `at+jwt` (RFC 9068) or `JWT`; anything else, a proof or an id of another kind, is no access token.
_TOKEN_TYPES: Final = {"at+jwt", "application/at+jwt", "jwt"}
# Providers whose id tokens say `JWT` too tell them apart by a claim: Keycloak by `typ`, Cognito by `token_use`. An id
# token names the person to the application and gives nobody the right to ask here.
_ACCESS: Final = {"typ": {"Bearer", "DPoP"}, "token_use": {"access"}}
# Each would let the sender bring a key or change what the signature covers. `x5c` and `b64` (RFC 7797) likewise.
_FORBIDDEN: Final = frozenset({"crit", "jwk", "jku", "x5u", "x5c", "b64"})
_PROOF_MEMBERS: Final = {"alg", "kid", "typ"}
_PROOF_CLAIMS: Final = {"iss", "aud", "iat", "jti", "key", "bh"}
_HASH: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)  # base64url of 32 bytes
_PROOF_ID: Final = re.compile(r"[A-Za-z0-9_-]{22,64}", re.ASCII)  # 128 random bits or more
_ALGORITHMS: Final = {"ES256", "Ed25519", "EdDSA"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Jws:
    header: Mapping[str, JsonValue]
    claims: JsonObject
    algorithm: str
    key_id: str
    signing_input: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proof:
    jws: _Jws
    issuer: str
    audience: str
    issued_at_s: int
    proof_id: str
    record_key: str
    body_hash: str
    token_hash: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    jws: _Jws
    issuer: str
    audiences: tuple[str, ...]
    expires_at_s: int
    not_before_s: int


def proof_audience(*, env: str, topic: str) -> str:
    """The `aud` of a proof for a request topic of an environment."""
    return f"urn:sluicegate:{env}:{topic}"


def hash_claim(data: bytes) -> str:
    """The claims `bh` (of the record's value) and `ath` (of the token's ASCII bytes): base64url of SHA-256."""
    return encode_base64url(sha256(data).digest())


def prove(
    record: Record,
    *,
    audience: str,
    partition_count: int,
    time_ms: int,
    credentials: Credentials,
    seen: SeenProofs,
) -> Identity | Refused:
    """Who sent the record and for whom, or the code of the first check that fails.

    `audience`: what `proof_audience` makes of environment and topic; `time_ms`: T; `credentials`: in force at T;
    `seen`: the proofs spent before this record on its partition. A proof that passes is spent by folding its decision.
    """
    # 1 sizes, one of each header
    proofs = [value for name, value in record.headers if name == PROOF_HEADER]
    tokens = [value for name, value in record.headers if name == TOKEN_HEADER]
    if len(proofs) != 1 or len(tokens) > 1:
        return Refused(code=Code.PROOF_MISSING)
    if not proofs[0] or len(proofs[0]) > PROOF_BYTES_MAX:
        return Refused(code=Code.PROOF_MALFORMED)
    if tokens and (not tokens[0] or len(tokens[0]) > TOKEN_BYTES_MAX):
        return Refused(code=Code.TOKEN_MALFORMED)
    # 2 strict JSON, no `crit`, `jwk`, `jku`, `x5u`
    proof = _read_proof(proofs[0])
    if proof is None:
        return Refused(code=Code.PROOF_MALFORMED)
    token = _read_token(tokens[0]) if tokens else None
    if tokens and token is None:
        return Refused(code=Code.TOKEN_MALFORMED)
    # 3 `kid` -> the service's key, which fixes algorithm and owner
    key = credentials.service_keys.get(proof.jws.key_id)
    if key is None or key.service != proof.issuer:
        return Refused(code=Code.PROOF_KEY_UNKNOWN)
    # 4 signature
    if not key.public.admits(proof.jws.algorithm):
        return Refused(code=Code.PROOF_SIGNATURE)
    if not key.public.verifies(proof.jws.signing_input, proof.jws.signature):
        return Refused(code=Code.PROOF_SIGNATURE)
    # 5 `aud`, record key, partition, `bh`
    if proof.audience != audience:
        return Refused(code=Code.PROOF_AUDIENCE)
    if record.key is None or record.key != proof.record_key.encode("utf-8"):
        return Refused(code=Code.PROOF_KEY)
    if _partition_of(record.key, partition_count) != record.partition:
        return Refused(code=Code.WRONG_PARTITION)
    if record.value is None or not compare_digest(hash_claim(record.value), proof.body_hash):
        return Refused(code=Code.PROOF_BODY)
    # 6 iat - 30 s <= T <= iat + 300 s
    issued_at_ms = proof.issued_at_s * 1000
    if not issued_at_ms - PROOF_EARLY_MS <= time_ms <= issued_at_ms + PROOF_LATE_MS:
        return Refused(code=Code.PROOF_TIME)
    # 7 token: a proof made for one is void without it, or the service would ask in its own name
    if (token is None) != (proof.token_hash is None):
        return Refused(code=Code.TOKEN_PROOF)
    principal = actor = entity_uid("Service", key.service)
    if token is not None:
        checked = _check_token(token, tokens[0], proof, key, time_ms=time_ms, credentials=credentials)
        if isinstance(checked, Refused):
            return checked
        principal = checked
    # 8 (`iss`, `jti`) unseen
    spent = seen.check(issuer=proof.issuer, proof_id=proof.proof_id, issued_at_s=proof.issued_at_s)
    if spent is not None:
        return spent
    # 9 principal = the configured claim, else the service; actor = the service; record key = the accounting principal,
    #   so that nobody picks a fresh counter
    if record.key != principal.encode("utf-8"):
        return Refused(code=Code.PROOF_KEY, reason='the record key must be the principal, such as `User::"ana"`')
    return Identity(
        principal=principal,
        actor=actor,
        proof_issuer=proof.issuer,
        proof_id=proof.proof_id,
        proof_issued_at_s=proof.issued_at_s,
        proof_key_id=key.kid,
        token_issuer=token.issuer if token else None,
        token_key_id=token.jws.key_id if token else None,
        token_expires_at_s=token.expires_at_s if token else None,
    )


def _check_token(
    token: _Token, raw: bytes, proof: _Proof, key: ServiceKey, *, time_ms: int, credentials: Credentials
) -> EntityUid | Refused:
    """Check 7: the principal that the token names, or why the token does not count here."""
    issuer = credentials.issuers.get(token.issuer)
    public = issuer.keys.get(token.jws.key_id) if issuer else None
    if issuer is None or public is None:
        return Refused(code=Code.TOKEN_ISSUER)
    jws, digest = token.jws, sha256(raw).digest()
    if not public.admits(jws.algorithm) or not credentials.tokens.holds(
        public, digest=digest, signing_input=jws.signing_input, signature=jws.signature
    ):
        return Refused(code=Code.TOKEN_SIGNATURE)
    if issuer.audience not in token.audiences:
        return Refused(code=Code.TOKEN_AUDIENCE)
    # A provider's clock may run ahead as far as a service's may: the same 30 s. After `exp` there is no grace.
    if not token.not_before_s * 1000 - PROOF_EARLY_MS <= time_ms < token.expires_at_s * 1000:
        return Refused(code=Code.TOKEN_TIME)
    if proof.token_hash is None or not compare_digest(encode_base64url(digest), proof.token_hash):
        return Refused(code=Code.TOKEN_PROOF)
    if not _bound(token.jws.claims, issuer, key):
        return Refused(code=Code.TOKEN_BINDING)
    principal = token.jws.claims.get(issuer.principal_claim)
    if not isinstance(principal, str) or not is_name(principal):
        return Refused(code=Code.TOKEN_MALFORMED)
    return entity_uid("User", principal)


def _bound(claims: JsonObject, issuer: Issuer, key: ServiceKey) -> bool:
    # A token that is bound to a key is held to that key, whatever weaker tie the issuer entry allows.
    if "cnf" in claims or issuer.binding is Binding.KEY:
        return claims.get("cnf") == {"jkt": key.public.thumbprint}
    if issuer.binding is Binding.ACTOR:
        act = claims.get("act")
        # Without `iss` the actor is of the token's own issuer (RFC 8693 section 4.1); another one's names are not ours.
        return (
            isinstance(act, dict) and act.get("sub") == key.service and act.get("iss", issuer.issuer) == issuer.issuer
        )
    return claims.get(issuer.binding.value) == key.service


def _read_proof(raw: bytes) -> _Proof | None:
    jws = _read_jws(raw)
    if jws is None or set(jws.header) != _PROOF_MEMBERS or jws.header["typ"] != PROOF_TYPE:
        return None
    claims = jws.claims
    if set(claims) - {"ath"} != _PROOF_CLAIMS or jws.algorithm not in _ALGORITHMS:
        return None
    issuer, audience, record_key = claims["iss"], claims["aud"], claims["key"]
    issued_at_s, token_hash = _seconds(claims["iat"]), claims.get("ath")
    if not isinstance(issuer, str) or not isinstance(audience, str) or not isinstance(record_key, str):
        return None
    proof_id, body_hash = _matched(_PROOF_ID, claims["jti"]), _matched(_HASH, claims["bh"])
    if issued_at_s is None or proof_id is None or body_hash is None:
        return None
    if "ath" in claims and _matched(_HASH, token_hash) is None:
        return None
    return _Proof(
        jws=jws,
        issuer=issuer,
        audience=audience,
        issued_at_s=issued_at_s,
        proof_id=proof_id,
        record_key=record_key,
        body_hash=body_hash,
        token_hash=_matched(_HASH, token_hash),
    )


@lru_cache(maxsize=READ_MAX)  # a person's token comes with each of their requests
def _read_token(raw: bytes) -> _Token | None:
    jws = _read_jws(raw)
    if jws is None:
        return None
    kind, claims = jws.header.get("typ", "JWT"), jws.claims
    if not isinstance(kind, str) or kind.lower() not in _TOKEN_TYPES:
        return None
    if any(name in claims and claims[name] not in uses for name, uses in _ACCESS.items()):
        return None
    issuer, audience = claims.get("iss"), claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    names = tuple(each for each in audiences if isinstance(each, str))
    expires_at_s, not_before_s = _seconds(claims.get("exp")), _seconds(claims.get("nbf", 0))
    if not isinstance(issuer, str) or len(names) != len(audiences) or expires_at_s is None or not_before_s is None:
        return None
    return _Token(jws=jws, issuer=issuer, audiences=names, expires_at_s=expires_at_s, not_before_s=not_before_s)


def _read_jws(raw: bytes) -> _Jws | None:
    """A compact JWS (RFC 7515 section 3.1) of exactly one reading, its signature not yet checked."""
    parts = raw.split(b".")
    if len(parts) != 3:
        return None
    try:
        header = _read_header(parts[0])
        claims = loads_object(decode_base64url(parts[1]))
        signature = decode_base64url(parts[2])
    except NotStrict:
        return None
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not isinstance(key_id, str) or _FORBIDDEN & set(header):
        return None
    return _Jws(
        header=header,
        claims=claims,
        algorithm=algorithm,
        key_id=key_id,
        signing_input=parts[0] + b"." + parts[1],
        signature=signature,
    )


@lru_cache(maxsize=READ_MAX)  # all proofs of a service's key have one
def _read_header(encoded: bytes) -> Mapping[str, JsonValue]:
    return MappingProxyType(loads_object(decode_base64url(encoded)))


# The record key is part of a proof here, so at most as long as one.
_partition_of: Final = lru_cache(maxsize=READ_MAX)(partition_of)


def _seconds(value: JsonValue) -> int | None:
    # `True` is an int to Python, and a date far outside would not fit the event.
    return value if type(value) is int and 0 <= value < TIME_S_MAX else None


def _matched(pattern: re.Pattern[str], value: JsonValue) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) else None
