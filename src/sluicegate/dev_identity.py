"""Who asks for whom goes in, a development token or a request proof comes out, signed with keys of this installation;
the only place that plays identity provider and producing service on the command line.

It makes nothing that the gate believes elsewhere: a token of the development issuer counts only where the directory
lists that issuer, and an environment that is called as production is refused outright.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from joserfc.jwk import ECKey, OKPKey

from sluicegate.clock import StackClock
from sluicegate.enforcer.credentials import Binding
from sluicegate.enforcer.identity import PROOF_HEADER, TOKEN_BYTES_MAX, TOKEN_HEADER, proof_audience
from sluicegate.enforcer.partition import partition_of
from sluicegate.home import Home
from sluicegate.installation import ISSUER, ISSUER_KEY, TOKEN_AUDIENCE, Installation
from sluicegate.keys import PRIVATE, PUBLIC, KeyKind, PublicKey, key_id_of
from sluicegate.proof import make_proof, make_token
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.schemas.ids import entity_uid
from sluicegate.schemas.strict_json import JsonObject, NotStrict, decode_base64url, loads_object
from sluicegate.settings import Settings
from sluicegate.streams.topology import Topology

PRODUCTION: Final = frozenset({"live", "prd", "prod", "production"})
"""Environments in which nobody signs by hand who asks."""
TOKEN_LIFETIME_S: Final = 600
TOKEN_LIFETIME_S_MAX: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Jws:
    """A compact JWS and what is in it. Nothing of it was verified."""

    text: str
    header: JsonObject
    claims: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWish:
    """The token that is wanted: for `person`, to be sent by `service`.

    `issuer` and `audience`: as an issuer of the directory has them; `key`: which issuer's key of the key folder signs.
    `claim`: the one that names the person. `binding`: by which claim it is tied to the service. `more`: further claims.
    """

    person: str
    service: str
    issuer: str = ISSUER
    key: str = ISSUER_KEY
    audience: str = TOKEN_AUDIENCE
    claim: str = "sub"
    binding: Binding = Binding.ACTOR
    lifetime_s: int = TOKEN_LIFETIME_S
    more: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proved:
    """What a record must be for its proof to hold: key, partition and headers, in the order of `docs/producing.md`."""

    key: str
    partition: int
    headers: Mapping[str, str]
    proof: Jws


def require_development(settings: Settings) -> None:
    """Passes where signing by hand is in order.

    Raises:
        ConfigurationError: the environment is called as production.
    """
    if settings.env in PRODUCTION:
        raise ConfigurationError(
            f"`SLUICEGATE_ENV` is `{settings.env}`: nothing is signed by hand there; take the token from the identity "
            "provider, and let the service prove what it sends"
        )


def read_jws(text: str) -> Jws:
    """A compact JWS taken apart, unverified.

    Raises:
        ConfigurationError: it is none, or too long for a header.
    """
    parts = text.encode("utf-8", "replace").split(b".")
    if len(text) <= TOKEN_BYTES_MAX and len(parts) == 3:
        try:
            header, claims = (loads_object(decode_base64url(part)) for part in parts[:2])
        except NotStrict:
            pass
        else:
            return Jws(text=text, header=header, claims=claims)
    raise ConfigurationError(f"the token is no compact JWS of at most {TOKEN_BYTES_MAX} bytes; pass it on as it was")


def development_token(settings: Settings, wish: TokenWish) -> Jws:
    """An access token (RFC 9068) as `wish` says, signed now.

    Raises:
        ConfigurationError: the environment is production, or the issuer's or the service's key is not here.
    """
    require_development(settings)
    keys = Installation(settings, Home(root=settings.home)).keys
    if not keys.of(KeyKind.ISSUER, wish.key):
        raise ConfigurationError(
            f"`{keys.path}` holds no key `issuer-{wish.key}{PRIVATE}`: `sluicegate up` makes the one of the "
            "development issuer"
        )
    issuer = keys.issuer(wish.key)
    claims = {**wish.more, wish.claim: wish.person, **_tie(settings, wish)}
    text = make_token(
        issuer,
        kid=key_id_of(issuer, "issuer"),
        issuer=wish.issuer,
        audience=wish.audience,
        claims=claims,
        now_s=_now_s(settings),
        lifetime_s=wish.lifetime_s,
    )
    return read_jws(text)


def development_proof(
    settings: Settings, *, service: str, body: bytes, jti: str, token: Jws | None = None, claim: str = "sub"
) -> Proved:
    """The proof of a request whose value is `body`, signed now with the service's newest key.

    `jti`: 128 random bits in base64url. `claim`: the one of the token that names the person, whose record it then is.

    Raises:
        ConfigurationError: the environment is production, the key is not here, the body is too large, or the token
        names nobody.
    """
    require_development(settings)
    if len(body) > settings.request_bytes_max:
        raise ConfigurationError(
            f"the body has {len(body)} bytes; a request has {settings.request_bytes_max} at most "
            "(`SLUICEGATE_REQUEST_BYTES_MAX`)"
        )
    person = None if token is None else token.claims.get(claim)
    if token is not None and not (isinstance(person, str) and person):
        raise ConfigurationError(f"the token has no claim `{claim}` that names a person; name another with `--claim`")
    key = entity_uid("Service", service) if not isinstance(person, str) else entity_uid("User", person)
    private = Installation(settings, Home(root=settings.home)).keys.service(service)
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    proof = make_proof(
        private,
        kid=key_id_of(private, "service"),
        service=service,
        audience=proof_audience(env=settings.env, topic=topology.requests),
        key=key.encode(),
        value=body,
        now_s=_now_s(settings),
        jti=jti,
        token=token.text if token else None,
    )
    headers = {PROOF_HEADER: proof} | ({TOKEN_HEADER: token.text} if token else {})
    return Proved(
        key=key, partition=partition_of(key.encode(), settings.partitions), headers=headers, proof=read_jws(proof)
    )


def _tie(settings: Settings, wish: TokenWish) -> dict[str, object]:
    match wish.binding:
        case Binding.ACTOR:
            return {"act": {"sub": wish.service}}
        case Binding.KEY:
            return {"cnf": {"jkt": _thumbprint(settings, wish.service)}}
        case Binding.PARTY | Binding.CLIENT:
            return {wish.binding.value: wish.service}


def _thumbprint(settings: Settings, service: str) -> str:
    """RFC 7638 of the service's newest key."""
    keys = Installation(settings, Home(root=settings.home)).keys
    held = keys.of(KeyKind.SERVICE, service, endings=(PRIVATE, PUBLIC))
    if not held:
        raise ConfigurationError(f"there is no key of `{service}` in `{keys.path}`; name a service that has one")
    public: PublicKey = keys.public(held[0])
    jose = OKPKey.import_key(public) if isinstance(public, Ed25519PublicKey) else ECKey.import_key(public)
    return jose.thumbprint()


def _now_s(settings: Settings) -> int:
    return StackClock(settings.home if settings.event_time == "enforcer" else None).now_ms() // 1000
