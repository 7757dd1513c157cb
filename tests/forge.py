"""Genuine requests of every admitted kind, drawn at random, in parts that a forger can change and sign again."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from random import Random
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from joserfc.jwk import RSAKey
from producers import NOW_S, PARTITIONS, ed25519, p256

from sluicegate.enforcer.credentials import Credentials, parse_credentials
from sluicegate.enforcer.identity import hash_claim, proof_audience
from sluicegate.enforcer.partition import partition_of
from sluicegate.keys import public_jwk
from sluicegate.schemas.codes import Code
from sluicegate.schemas.ids import entity_uid
from sluicegate.schemas.records import Headers, Record
from sluicegate.schemas.strict_json import encode_base64url

ENV, TOPIC = "prod", "main.requests"
AUDIENCE = proof_audience(env=ENV, topic=TOPIC)
TOKEN_AUDIENCE = "urn:sluicegate:prod"
Key = Ed25519PrivateKey | EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who signs: a service or an issuer, its key, and how its tokens are bound."""

    name: str
    kid: str
    key: Key
    binding: str = ""
    claim: str = "sub"


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


SERVICES = (
    Owner(name="helpdesk-app", kid="helpdesk-1", key=ed25519(1)),
    Owner(name="billing-app", kid="billing-1", key=p256(3)),
    Owner(name="rogue-app", kid="rogue-1", key=ed25519(2)),
    Owner(name="night-app", kid="night-1", key=p256(7)),
)
ISSUERS = (
    Owner(name="https://party.example", kid="party-1", key=ed25519(11), binding="azp"),
    Owner(name="https://actor.example", kid="actor-1", key=p256(12), binding="act.sub"),
    Owner(name="https://client.example", kid="client-1", key=ed25519(13), binding="client_id", claim="email"),
    Owner(name="https://bound.example", kid="bound-1", key=rsa_key(), binding="cnf.jkt"),
)
STRANGER = ed25519(99)  # in no directory


def jwk_of(owner: Owner, **named: str) -> dict[str, Any]:
    if isinstance(owner.key, rsa.RSAPrivateKey):
        return {**RSAKey.import_key(owner.key.public_key()).as_dict(), **named}
    return {**public_jwk(owner.key), **named}


def directory() -> dict[str, Any]:
    return {
        "service_keys": [{"kid": each.kid, "service": each.name, "jwk": jwk_of(each)} for each in SERVICES],
        "issuers": [
            {
                "issuer": each.name, "audience": TOKEN_AUDIENCE, "principal_claim": each.claim, "binding": each.binding,
                "jwks": {"keys": [jwk_of(each, kid=each.kid)]},
            }
            for each in ISSUERS
        ],
    }  # fmt: skip


CREDENTIALS = parse_credentials(directory())


def thumbprint(service: Owner) -> str:
    return CREDENTIALS.service_keys[service.kid].public.thumbprint


def algorithm_of(key: Key) -> str:
    if isinstance(key, Ed25519PrivateKey):
        return "Ed25519"
    return "ES256" if isinstance(key, EllipticCurvePrivateKey) else "RS256"


def signature_of(key: Key, signed: bytes) -> bytes:
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(signed)
    if isinstance(key, EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(signed, ECDSA(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)
    return key.sign(signed, padding.PKCS1v15(), hashes.SHA256())


def compact(key: Key, header: str, claims: str) -> str:
    """A truly signed compact JWS over any two texts, JSON or not."""
    signed = f"{encode_base64url(header.encode())}.{encode_base64url(claims.encode())}"
    return f"{signed}.{encode_base64url(signature_of(key, signed.encode()))}"


Text = Callable[[dict[str, Any]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Jws:
    """A JWS before it is signed. `header_text` and `claims_text` write the JSON, strictly or not."""

    key: Key
    header: dict[str, Any]
    claims: dict[str, Any]
    header_text: Text = json.dumps
    claims_text: Text = json.dumps

    def text(self) -> str:
        return compact(self.key, self.header_text(self.header), self.claims_text(self.claims))

    def heading(self, **changes: Any) -> "Jws":
        return replace(self, header=changed(self.header, changes))

    def claiming(self, **changes: Any) -> "Jws":
        return replace(self, claims=changed(self.claims, changes))


def changed(members: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The members with the changes; what is changed to `...` is taken out."""
    return {name: value for name, value in {**members, **changes}.items() if value is not ...}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A record before the gate, the T at which it comes, and the records that were decided before it."""

    record: Record
    time_ms: int = NOW_S * 1000
    before: tuple[Record, ...] = ()
    credentials: Credentials = field(default_factory=lambda: CREDENTIALS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A genuine request before anything is signed. `sent` signs token and proof, `ath` included, as a service does."""

    service: Owner
    issuer: Owner | None
    proof: Jws
    token: Jws | None
    value: bytes

    def sent(self) -> Sent:
        return self.carrying(self.token.text() if self.token else None)

    def carrying(self, token: str | None) -> Sent:
        """Sent with any text as the token, and a proof that is truly made for it."""
        proof = self.proof if token is None else self.proof.claiming(ath=hash_claim(token.encode()))
        return Sent(record=self.record(proof.text(), token))

    def record(self, proof: str, token: str | None) -> Record:
        headers: Headers = (("sg-proof", proof.encode()),)
        key = str(self.proof.claims["key"]).encode()
        return Record(
            topic=TOPIC, partition=partition_of(key, PARTITIONS), offset=7, timestamp_ms=NOW_S * 1000, key=key,
            value=self.value, headers=headers if token is None else (*headers, ("sg-token", token.encode())),
        )  # fmt: skip

    def proving(self, **changes: Any) -> "Draft":
        return replace(self, proof=self.proof.claiming(**changes))

    def told(self, **changes: Any) -> "Draft":
        assert self.token is not None
        return replace(self, token=self.token.claiming(**changes))


PEOPLE = ("ana.support", "eva.eng", 'odd "name" \\ here', "jörg", "x" * 256)


def genuine(random: Random, *, person: bool, service: Owner | None = None) -> Draft:
    """A request that must be accepted at `NOW_S`."""
    service = service or random.choice(SERVICES)
    value = random.randbytes(random.randint(1, 300))
    claims = {
        "iss": service.name, "aud": AUDIENCE, "iat": NOW_S - random.randint(-30, 300), "jti": jti(random),
        "key": entity_uid("Service", service.name), "bh": hash_claim(value),
    }  # fmt: skip
    proof = Jws(
        key=service.key, claims=claims,
        header={"alg": algorithm_of(service.key), "kid": service.kid, "typ": "sg-proof+jwt"},
    )  # fmt: skip
    if not person:
        return Draft(service=service, issuer=None, proof=proof, token=None, value=value)
    issuer, name = random.choice(ISSUERS), random.choice(PEOPLE)
    token = Jws(
        key=issuer.key,
        header={"alg": algorithm_of(issuer.key), "kid": issuer.kid, "typ": random.choice(["at+jwt", "JWT"])},
        claims={
            "iss": issuer.name, "aud": random.choice([TOKEN_AUDIENCE, ["mail", TOKEN_AUDIENCE]]),
            "nbf": NOW_S + random.randint(-500, 30), "exp": NOW_S + random.randint(1, 600), issuer.claim: name,
            **tied(issuer, service),
        },
    )  # fmt: skip
    proof = proof.claiming(key=entity_uid("User", name))
    return Draft(service=service, issuer=issuer, proof=proof, token=token, value=value)


def jti(random: Random) -> str:
    return encode_base64url(random.randbytes(16))


def tied(issuer: Owner, service: Owner) -> dict[str, Any]:
    """The claims by which an issuer of this kind binds a token to a service."""
    match issuer.binding:
        case "cnf.jkt":
            return {"cnf": {"jkt": thumbprint(service)}}
        case "act.sub":
            return {"act": {"sub": service.name}}
        case binding:
            return {binding: service.name}


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgery:
    """One way to forge a request and the code that it must get. `person`: of a person's (True), a service's own
    (False) or either (None). `only`: of services with this algorithm, or of issuers with this binding.
    """

    name: str
    code: Code
    make: Callable[[Random, Draft], Sent]
    person: bool | None
    only: str


def collect(into: list[Forgery]) -> Callable[..., Callable[[Callable[[Random, Draft], Sent]], Any]]:
    """A decorator that adds a forgery to a table: `@forgery(code, person=..., only=...)`."""

    def forgery(code: Code, *, person: bool | None = None, only: str = "") -> Callable[..., Any]:
        def add(make: Callable[[Random, Draft], Sent]) -> Callable[[Random, Draft], Sent]:
            into.append(Forgery(name=make.__name__, code=code, make=make, person=person, only=only))
            return make

        return add

    return forgery
