"""A provider's JWKS document goes in, an issuer's entry for the directory comes out; the only place that chooses keys.

A provider publishes more than the gate may take: encryption keys, certificates, algorithms that no token is checked
with. What is usable is taken with its bare public members, the rest is named with the reason, and a document that holds
a private key is refused whole: whoever fetched it could sign.
Sources: RFC 7517 (JWK Set; section 5: unknown key types are passed over), RFC 7518 section 6, RFC 8037.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sluicegate.enforcer.credentials import (
    ISSUER_KEYS_MAX,
    RSA_BITS_MAX,
    RSA_BITS_MIN,
    Algorithm,
    Binding,
    is_name,
    parse_credentials,
)
from sluicegate.enforcer.directory_change import change_content
from sluicegate.schemas.errors import InvalidDirectory
from sluicegate.schemas.strict_json import JsonObject, JsonValue, NotStrict, loads_object

JWKS_BYTES_MAX: Final = 256 * 1024
LISTED_MAX: Final = 4 * ISSUER_KEYS_MAX
"""Keys in a document, usable or not; those of a provider with many tenants are no single issuer's."""
_SECRET: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
# (kty, crv) -> the algorithm of the directory and the members that are the public key.
_KINDS: Final[dict[tuple[JsonValue, JsonValue], tuple[Algorithm, tuple[str, ...]]]] = {
    ("EC", "P-256"): (Algorithm.ES256, ("crv", "x", "y")),
    ("OKP", "Ed25519"): (Algorithm.ED25519, ("crv", "x")),
    ("RSA", None): (Algorithm.RS256, ("n", "e")),
}
_NAMES: Final = {Algorithm.ED25519: {"Ed25519", "EdDSA"}}
_PRINTABLE: Final = re.compile(r"[ -~]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A key of the document that was not taken. `kid` is empty where it has none that can be printed."""

    kid: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Jwks:
    """What of a document is usable: the bare public keys by `kid`, all of `algorithm`, and what was passed over."""

    algorithm: Algorithm
    keys: Mapping[str, JsonObject]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerUpdate:
    """An issuer's entry as it becomes, the change that makes it so, and the `kid`s that come, stay and go.

    `content`: a directory change (`directory_change.read_change`); empty where nothing differs.
    """

    entry: JsonObject
    content: bytes
    added: tuple[str, ...]
    kept: tuple[str, ...]
    removed: tuple[str, ...]


def read_jwks(data: bytes, *, algorithm: Algorithm | None = None) -> Jwks:
    """The usable keys of a JWKS document.

    `algorithm`: take this one's keys alone; None: whichever the document has, which must then be one.

    Raises:
        InvalidDirectory: it is no JWKS of bounded size, holds a private key or one `kid` twice, or no usable key, or
            keys of several algorithms.
    """
    taken: dict[str, tuple[Algorithm, JsonObject]] = {}
    skipped: list[Skipped] = []
    for key in _listed(data):
        if _SECRET & set(key) or key.get("kty") == "oct":
            raise InvalidDirectory(
                ("the JWKS holds a private or secret key: tell the provider, whose tokens anybody can forge now",)
            )
        kid = key.get("kid")
        found = _usable(key, algorithm)
        if isinstance(found, str):
            skipped.append(Skipped(kid=_printed(kid), why=found))
        elif not isinstance(kid, str) or not is_name(kid):
            skipped.append(Skipped(kid="", why="it has no `kid`"))
        elif kid in taken:
            raise InvalidDirectory(
                (f"the JWKS has two keys with the `kid` `{_printed(kid)}`: nobody knows which counts",)
            )
        else:
            taken[kid] = found
    algorithms = sorted({each for each, _ in taken.values()})
    if not taken:
        reasons = sorted({each.why for each in skipped})
        raise InvalidDirectory((f"the JWKS has no usable key ({'; '.join(reasons) or 'it is empty'})",))
    if len(algorithms) > 1:
        raise InvalidDirectory(
            (f"the JWKS has keys of {', '.join(algorithms)}; say with which of them the tokens are signed",)
        )
    if len(taken) > ISSUER_KEYS_MAX:
        raise InvalidDirectory((f"the JWKS has {len(taken)} usable keys; at most {ISSUER_KEYS_MAX} are allowed",))
    keys = {kid: key for kid, (_, key) in sorted(taken.items())}
    return Jwks(algorithm=algorithms[0], keys=keys, skipped=tuple(skipped))


def issuer_entry(*, issuer: str, audience: str, principal_claim: str, binding: Binding, jwks: Jwks) -> JsonObject:
    """An issuer as the directory's `issuers` list it."""
    return {
        "issuer": issuer,
        "audience": audience,
        "principal_claim": principal_claim,
        "binding": binding.value,
        "jwks": {"keys": list(jwks.keys.values())},
    }


def issuer_update(before: JsonObject | None, entry: JsonObject) -> IssuerUpdate:
    """What `entry` changes of the entry `before`; None where the directory does not list the issuer yet.

    Raises:
        InvalidDirectory: the gate would refuse the entry; with one line for each problem.
    """
    parse_credentials({"entities": [], "service_keys": [], "issuers": [entry]})
    old, new = keys_of(before), keys_of(entry)
    same = {kid for kid in old.keys() & new.keys() if old[kid] == new[kid]}
    differs = before is None or old != new or any(before.get(name) != entry[name] for name in entry if name != "jwks")
    return IssuerUpdate(
        entry=entry,
        content=change_content({"issuers": {"put": [entry]}}) if differs else b"",
        added=tuple(sorted(new.keys() - same)),
        kept=tuple(sorted(same)),
        removed=tuple(sorted(old.keys() - same)),
    )


def keys_of(entry: JsonObject | None) -> dict[str, JsonValue]:
    """The public members of an entry's keys, by `kid`; what only describes a key makes no other of it."""
    jwks = entry.get("jwks") if entry else None
    keys = jwks.get("keys") if isinstance(jwks, dict) else None
    found: dict[str, JsonValue] = {}
    for key in keys if isinstance(keys, list) else ():
        if isinstance(key, dict) and isinstance(key.get("kid"), str):
            found[str(key["kid"])] = {name: key[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in key}
    return found


def _listed(data: bytes) -> list[JsonObject]:
    if len(data) > JWKS_BYTES_MAX:
        raise InvalidDirectory((f"the JWKS has over {JWKS_BYTES_MAX} bytes; that is no document of one issuer",))
    try:
        keys = loads_object(data).get("keys")
    except NotStrict as error:
        raise InvalidDirectory((f"the JWKS is no JSON of one reading: {error}",)) from None
    listed = [each for each in keys if isinstance(each, dict)] if isinstance(keys, list) else None
    if listed is None or not isinstance(keys, list) or len(listed) != len(keys):
        raise InvalidDirectory(("the JWKS must have a list `keys` of objects; check what was fetched",))
    if len(listed) > LISTED_MAX:
        raise InvalidDirectory((f"the JWKS lists {len(listed)} keys; at most {LISTED_MAX} are looked at",))
    return listed


def _usable(key: JsonObject, wanted: Algorithm | None) -> tuple[Algorithm, JsonObject] | str:
    """The algorithm and the bare public key in the directory's form, or why it is passed over."""
    if key.get("use", "sig") != "sig":
        return "it is not for signatures"
    operations = key.get("key_ops")
    if operations is not None and (not isinstance(operations, list) or "verify" not in operations):
        return "it is not for signatures"
    kty, crv = key.get("kty"), key.get("crv")
    kind = _KINDS.get((kty, crv)) if isinstance(kty, str) and (crv is None or isinstance(crv, str)) else None
    if kind is None:
        return "its kind is not EC P-256, Ed25519 or RSA"
    algorithm, members = kind
    named = key.get("alg")
    if named is not None and named not in _NAMES.get(algorithm, {algorithm.value}):
        return f"its algorithm is not {algorithm}"
    if wanted is not None and algorithm is not wanted:
        return f"its algorithm is not {wanted}"
    bare: JsonObject = {"kty": kty, "kid": key.get("kid"), "alg": algorithm.value}
    bare.update({member: key[member] for member in members if member in key})
    try:
        parse_credentials({"entities": [], "service_keys": [], "issuers": [_probe({**bare, "kid": "probe"})]})
    except InvalidDirectory:
        size = f"; RSA keys have {RSA_BITS_MIN} to {RSA_BITS_MAX} bits" if algorithm is Algorithm.RS256 else ""
        return f"it is no valid public key{size}"
    return algorithm, bare


def _probe(key: JsonObject) -> JsonObject:
    """An entry with this key alone, to ask the one place that reads keys whether it is one."""
    return {"issuer": "i", "audience": "a", "principal_claim": "c", "binding": "azp", "jwks": {"keys": [key]}}


def _printed(kid: JsonValue) -> str:
    return kid if isinstance(kid, str) and _PRINTABLE.fullmatch(kid) else ""
