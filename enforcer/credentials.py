"""A directory's keys, issuers and replies go in, parsed keys and each service's reply topic come out; the only place
that turns a JWK into a key.

The key record alone fixes the algorithm (RFC 8725 section 3.1); a header that names another one is refused.
Sources: RFC 7517 and 8037 (JWK), RFC 7638 (thumbprint), RFC 9864 (`Ed25519` is `EdDSA` on that curve).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, cast

from joserfc.errors import JoseError
from joserfc.jwa import EdDSAAlgorithm, ESAlgorithm, JWSAlgModel, RSAAlgorithm
from joserfc.jwk import ECKey, OKPKey, RSAKey

from sluicegate.schemas.errors import InvalidDirectory
from sluicegate.schemas.ids import REPLY_NAME
from sluicegate.schemas.strict_json import NotStrict, decode_base64url

SERVICE_KEYS_MAX = 10_000
ISSUERS_MAX = 100
REPLIES_MAX = 1_000
ISSUER_KEYS_MAX = 64
NAME_CHARACTERS_MAX = 256
RSA_BITS_MIN = 2048
RSA_BITS_MAX = 8192  # each doubling makes a check four times dearer, and who asks chooses which token is checked
TOKENS_REMEMBERED_MAX = 10_000


class Algorithm(StrEnum):
    """The signature algorithms that are admitted."""

    ES256 = "ES256"
    ED25519 = "Ed25519"
    RS256 = "RS256"


class Binding(StrEnum):
    """How an issuer ties a token to the service that may send it. A token with `cnf` is always held to that."""

    KEY = "cnf.jkt"
    ACTOR = "act.sub"
    PARTY = "azp"
    CLIENT = "client_id"


_HEADER_NAMES: Final = {
    Algorithm.ES256: frozenset({"ES256"}),
    Algorithm.ED25519: frozenset({"Ed25519", "EdDSA"}),
    Algorithm.RS256: frozenset({"RS256"}),
}
_MODELS: Final[dict[Algorithm, JWSAlgModel]] = {
    Algorithm.ES256: ESAlgorithm("ES256", "P-256", 256),
    Algorithm.ED25519: EdDSAAlgorithm(),
    Algorithm.RS256: RSAAlgorithm(256),
}
# (kty, crv) -> algorithm, and the members that are the public key itself, with the byte length of each (None: any).
_KINDS: Final[dict[tuple[str, str | None], tuple[Algorithm, dict[str, int | None]]]] = {
    ("EC", "P-256"): (Algorithm.ES256, {"x": 32, "y": 32}),
    ("OKP", "Ed25519"): (Algorithm.ED25519, {"x": 32}),
    ("RSA", None): (Algorithm.RS256, {"n": None, "e": None}),
}
_DESCRIPTIVE: Final = {"kty", "crv", "kid", "use", "alg", "key_ops"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A parsed key with the one algorithm it is good for. `thumbprint` is RFC 7638's, base64url of SHA-256."""

    algorithm: Algorithm
    thumbprint: str
    key: ECKey | OKPKey | RSAKey

    def admits(self, header_name: str) -> bool:
        """Whether a JOSE header may name this algorithm for this key."""
        return header_name in _HEADER_NAMES[self.algorithm]

    def verifies(self, signing_input: bytes, signature: bytes) -> bool:
        """Whether the signature over the bytes is this key's."""
        return _MODELS[self.algorithm].verify(signing_input, signature, self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceKey:
    """A key of a producing service. `service` is the id of its entity in the directory."""

    kid: str
    service: str
    public: PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """An identity provider whose access tokens count, by `kid` of its keys; all of them have one algorithm."""

    issuer: str
    audience: str
    algorithm: Algorithm
    principal_claim: str
    binding: Binding
    keys: Mapping[str, PublicKey]


class VerifiedTokens:
    """Which tokens have an issuer's signature that holds. Whether it does depends on token and key alone, so a person's
    token, which comes with each of their requests, is verified once a key; a signature that fails is never remembered.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: set[tuple[Algorithm, str, bytes]] = set()

    def holds(self, public: PublicKey, *, digest: bytes, signing_input: bytes, signature: bytes) -> bool:
        """Whether the signature is the key's. `digest`: SHA-256 of the whole token that both were cut from."""
        name = (public.algorithm, public.thumbprint, digest)
        if name in self._held:
            return True
        if not public.verifies(signing_input, signature):
            return False
        if len(self._held) >= TOKENS_REMEMBERED_MAX:
            self._held.clear()
        self._held.add(name)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Every key that may prove who asks: services by `kid`, issuers by `iss`; and the name of the reply topic of each
    service that has one, by the service's id.
    """

    service_keys: Mapping[str, ServiceKey]
    issuers: Mapping[str, Issuer]
    replies: Mapping[str, str]
    tokens: VerifiedTokens = field(default_factory=VerifiedTokens, compare=False, repr=False)


def is_name(value: object) -> bool:
    """Whether a value is a non-empty printable string of bounded length: fit for an entity id."""
    return isinstance(value, str) and 0 < len(value) <= NAME_CHARACTERS_MAX and value.isprintable()


def parse_credentials(document: Mapping[str, object]) -> Credentials:
    """The credentials of a directory: its members `service_keys`, `issuers` and, where it has any, `replies`.

    Raises:
        InvalidDirectory: a member is missing, unknown, of a wrong type or private, two keys share a name, or two
            services a reply topic.
    """
    problems: list[str] = []
    service_keys: dict[str, ServiceKey] = {}
    issuers: dict[str, Issuer] = {}
    for index, entry in enumerate(_entries(document, "service_keys", SERVICE_KEYS_MAX, problems)):
        where = f"`service_keys[{index}]`"
        try:
            found = _service_key(entry, where)
        except _Fault as fault:
            problems.append(str(fault))
            continue
        if found.kid in service_keys:
            problems.append(f"{where}: another service key has the same `kid`; give each key its own")
        service_keys[found.kid] = found
    for index, entry in enumerate(_entries(document, "issuers", ISSUERS_MAX, problems)):
        where = f"`issuers[{index}]`"
        try:
            issuer = _issuer(entry, where)
        except _Fault as fault:
            problems.append(str(fault))
            continue
        if issuer.issuer in issuers:
            problems.append(f"{where}: another entry has the same `issuer`; join them")
        issuers[issuer.issuer] = issuer
    replies = _replies(document, problems)
    if problems:
        raise InvalidDirectory(tuple(problems))
    return Credentials(service_keys=service_keys, issuers=issuers, replies=replies)


class _Fault(ValueError):
    """One thing to mend."""


def _entries(document: Mapping[str, object], name: str, count_max: int, problems: list[str]) -> list[object]:
    value = document.get(name)
    if not isinstance(value, list):
        problems.append(f"`{name}` must be a list; write `[]` for none")
        return []
    if len(value) > count_max:
        problems.append(f"`{name}` holds {len(value)} entries; at most {count_max} are allowed")
        return []
    return list(value)


def _members(entry: object, where: str, names: set[str]) -> Mapping[str, object]:
    if not isinstance(entry, dict):
        raise _Fault(f"{where}: must be an object")
    if set(entry) != names:
        raise _Fault(f"{where}: must have exactly the members {', '.join(f'`{name}`' for name in sorted(names))}")
    return entry


def _replies(document: Mapping[str, object], problems: list[str]) -> Mapping[str, str]:
    """The reply topic of each service; a directory from before there were any has no such member."""
    services = _services(document)
    replies: dict[str, str] = {}
    entries = _entries(document, "replies", REPLIES_MAX, problems) if "replies" in document else []
    for index, entry in enumerate(entries):
        where = f"`replies[{index}]`"
        try:
            members = _members(entry, where, {"service", "topic"})
            service, topic = _name(members, "service", where), _name(members, "topic", where)
        except _Fault as fault:
            problems.append(str(fault))
            continue
        if service not in services:
            problems.append(f"{where}: `{service}` is no Service of `entities`; add it there, or remove this entry")
        elif service in replies:
            problems.append(f"{where}: `{service}` has a reply topic already; keep one entry")
        if not REPLY_NAME.fullmatch(topic):
            problems.append(
                f"{where}: `{topic}` cannot name a topic; use lower-case letters, digits and `-`, at most 63"
            )
        elif topic in replies.values():
            problems.append(f"{where}: `{topic}` is another service's, who would read these answers; name a new one")
        replies[service] = topic
    return replies


def _services(document: Mapping[str, object]) -> set[str]:
    entities = document.get("entities")
    uids = [each.get("uid") for each in entities if isinstance(each, dict)] if isinstance(entities, list) else []
    return {str(uid.get("id")) for uid in uids if isinstance(uid, dict) and uid.get("type") == "Service"}


def _name(members: Mapping[str, object], member: str, where: str) -> str:
    value = members[member]
    if not is_name(value):
        raise _Fault(f"{where}: `{member}` must be a printable string of 1 to {NAME_CHARACTERS_MAX} characters")
    return cast(str, value)


def _service_key(entry: object, where: str) -> ServiceKey:
    members = _members(entry, where, {"kid", "service", "jwk"})
    public = _public_key(members["jwk"], where)
    if public.algorithm is Algorithm.RS256:
        raise _Fault(f"{where}: proofs are signed with ES256 or Ed25519; make a key of either kind")
    kid = _name(members, "kid", where)
    jwk = members["jwk"]
    if isinstance(jwk, dict) and jwk.get("kid", kid) != kid:
        raise _Fault(f"{where}: `jwk` names another `kid`")
    return ServiceKey(kid=kid, service=_name(members, "service", where), public=public)


def _issuer(entry: object, where: str) -> Issuer:
    members = _members(entry, where, {"issuer", "audience", "principal_claim", "binding", "jwks"})
    binding = members["binding"]
    if not isinstance(binding, str) or binding not in set(Binding):
        raise _Fault(f"{where}: `binding` must be one of {', '.join(f'`{each}`' for each in Binding)}")
    jwks = _members(members["jwks"], f"{where}: `jwks`", {"keys"})["keys"]
    if not isinstance(jwks, list) or not 0 < len(jwks) <= ISSUER_KEYS_MAX:
        raise _Fault(f"{where}: `jwks` must hold 1 to {ISSUER_KEYS_MAX} keys")
    keys: dict[str, PublicKey] = {}
    for jwk in jwks:
        public = _public_key(jwk, where)
        kid = jwk.get("kid")
        if not is_name(kid) or kid in keys:
            raise _Fault(f"{where}: each key of `jwks` needs a `kid` of its own")
        keys[kid] = public
    algorithms = {public.algorithm for public in keys.values()}
    if len(algorithms) != 1:
        raise _Fault(f"{where}: the keys of an issuer must be of one algorithm; drop the others")
    return Issuer(
        issuer=_name(members, "issuer", where),
        audience=_name(members, "audience", where),
        algorithm=algorithms.pop(),
        principal_claim=_name(members, "principal_claim", where),
        binding=Binding(binding),
        keys=keys,
    )


def _public_key(jwk: object, where: str) -> PublicKey:
    if not isinstance(jwk, dict):
        raise _Fault(f"{where}: a key must be a JWK object")
    if {"d", "p", "q", "dp", "dq", "qi", "oth", "k"} & set(jwk):
        raise _Fault(f"{where}: the key is private or secret; publish its public half only, and replace it")
    kind = _KINDS.get((str(jwk.get("kty")), str(jwk["crv"]) if "crv" in jwk else None))
    if kind is None:
        raise _Fault(f"{where}: the key must be EC P-256, OKP Ed25519 or RSA")
    algorithm, parts = kind
    if set(jwk) - _DESCRIPTIVE - set(parts) or not set(parts) <= set(jwk):
        raise _Fault(f"{where}: beside its description the key has exactly {', '.join(f'`{part}`' for part in parts)}")
    if jwk.get("alg", algorithm) not in _HEADER_NAMES[algorithm]:
        raise _Fault(f"{where}: `alg` of the key must be `{algorithm}`")
    if jwk.get("use", "sig") != "sig" or jwk.get("key_ops", ["verify"]) != ["verify"]:
        raise _Fault(f"{where}: the key must be meant for signatures")
    material = {"kty": str(jwk["kty"])} | ({"crv": str(jwk["crv"])} if "crv" in jwk else {})
    for part, length in parts.items():
        text = jwk[part]
        try:
            data = decode_base64url(text.encode("utf-8")) if isinstance(text, str) else b""
        except NotStrict:
            data = b""
        if not data or (length is not None and len(data) != length):
            raise _Fault(f"{where}: `{part}` of the key must be unpadded base64url of the right length")
        if part == "n" and not RSA_BITS_MIN <= int.from_bytes(data).bit_length() <= RSA_BITS_MAX:
            raise _Fault(f"{where}: RSA keys need at least {RSA_BITS_MIN} bits and at most {RSA_BITS_MAX}")
        material[part] = cast(str, text)
    return _import(algorithm, material, where)


def _import(algorithm: Algorithm, material: dict[str, str], where: str) -> PublicKey:
    data: dict[str, str | list[str]] = {**material}
    key: ECKey | OKPKey | RSAKey
    try:
        match algorithm:
            case Algorithm.ES256:
                key = ECKey.import_key(data)
            case Algorithm.ED25519:
                key = OKPKey.import_key(data)
            case Algorithm.RS256:
                key = RSAKey.import_key(data)
        _MODELS[algorithm].check_key(key)
    except (JoseError, ValueError):
        raise _Fault(f"{where}: the key is not a point or modulus of its kind") from None
    return PublicKey(algorithm=algorithm, thumbprint=key.thumbprint(), key=key)
