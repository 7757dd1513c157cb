"""Policy metadata goes in, what the trusted root vouches for comes out; the only place that verifies it.

Source: The Update Framework specification 1.0 (roles, delegations, thresholds, versions, expiry, root rotation), by
python-tuf. ROLES is `Targets` metadata with delegations: who speaks for which kind, and for which entity types of the
directory. Every other kind is `Targets` metadata over one target. What is ours, and signed with it, rides in the field
`x-sluicegate`. What `trust_make` makes is what counts here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from types import MappingProxyType
from typing import Final

# Both packages re-export these names without saying so to a type checker.
from securesystemslib.signer import Key  # type: ignore[attr-defined]
from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import DelegatedRole, Metadata, Root, Targets  # type: ignore[attr-defined]
from tuf.api.serialization import DeserializationError, SerializationError

from sluicegate.enforcer.credentials import is_name
from sluicegate.enforcer.policy_kinds import Fault, Kind, delegated_role, path_of_role, role_of, target_path
from sluicegate.schemas.ids import Digest
from sluicegate.schemas.strict_json import NotStrict, loads_object

FIELD: Final = "x-sluicegate"
METADATA_BYTES_MAX: Final = 256 * 1024
CONTENT_BYTES_MAX: Final = 16 * 1024 * 1024
TIME_MS_MAX: Final = 1 << 50
ROLES_MAX: Final = 256
_ED25519: Final = "ed25519"


def digest_of(data: bytes) -> Digest:
    """SHA-256 of the bytes."""
    return Digest(f"sha256:{sha256(data).hexdigest()}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """Where metadata counts: one environment and one tenant."""

    env: str
    tenant: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedRoot:
    """A root that was verified. It is void from `expires_ms` on."""

    root: Root
    version: int
    expires_ms: int
    effective_at_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedRoles:
    """Who speaks for what, as the root's publishers say. `holders`: the person behind each key id."""

    roles: Targets
    holders: Mapping[str, str]
    version: int
    effective_at_ms: int
    expires_ms: int

    @property
    def names(self) -> frozenset[str]:
        """The roles that are delegated."""
        return frozenset(self.roles.delegations.roles or ()) if self.roles.delegations else frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedContent:
    """Content that those vouch for who may, wanted in force from `effective_at_ms` on and void from `expires_ms` (T).

    `signed_as`: the roles of its kind that its signers speak for; of a directory, some entity types or all of it.
    """

    kind: Kind
    signed_as: frozenset[str]
    version: int
    effective_at_ms: int
    expires_ms: int
    digest: Digest
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Untrusted:
    """Metadata that does not count, and why."""

    fault: Fault
    reason: str


def verify_root(
    metadata: bytes, *, version: int, domain: Domain, previous: TrustedRoot | None, pinned: Digest, time_ms: int
) -> TrustedRoot | Untrusted:
    """A root that may be trusted from now on.

    1 form; 2 domain and version; 3 the first is the pinned one, a later one follows its predecessor; 4 signatures of
    both the predecessor's keys and its own; 5 not expired at T. An expired predecessor still hands over, as TUF has it.
    """
    # 1
    read = read_metadata(metadata)
    if isinstance(read, Untrusted):
        return read
    root: object = read.signed
    if not isinstance(root, Root) or not _is_sound(root):
        return _malformed("the metadata is no root with Ed25519 keys and thresholds they can meet")
    # 2
    fault = _foreign(root, _expected(Kind.ROOT, domain), version)
    if fault is not None:
        return fault
    # 3
    if previous is None:
        if digest_of(metadata) != pinned:
            return Untrusted(fault=Fault.NO_ROOT, reason="the first root is not the pinned one")
    elif version != previous.version + 1:
        fault_of = Fault.OLDER if version <= previous.version else Fault.OUT_OF_ORDER
        return Untrusted(fault=fault_of, reason=f"root version {version} does not follow version {previous.version}")
    # 4
    verified = root.get_root_verification_result(
        previous.root if previous else None, read.payload, read.metadata.signatures
    )
    if not verified:
        reason = f"root version {version} lacks signatures of the root before, or its own"
        return Untrusted(fault=Fault.UNSIGNED, reason=reason)
    # 5
    expires_ms = _milliseconds(root.expires)
    if time_ms >= expires_ms:
        return Untrusted(fault=Fault.EXPIRED, reason=f"root version {version} has expired")
    return TrustedRoot(root=root, version=version, expires_ms=expires_ms)


def verify_roles(
    metadata: bytes, *, version: int, domain: Domain, root: TrustedRoot, time_ms: int
) -> TrustedRoles | Untrusted:
    """Who speaks for what from now on.

    1 form: every key has one holder, every threshold can be met by people that differ; 2 kind, domain, version; 3 the
    root is in force at T; 4 signatures of the root's role `targets`; 5 not expired at T.
    """
    # 1
    read = read_metadata(metadata)
    if isinstance(read, Untrusted):
        return read
    roles: object = read.signed
    if not isinstance(roles, Targets):
        return _malformed("the metadata is no targets metadata")
    field = roles.unrecognized_fields.get(FIELD)
    effective_at_ms, holders = _effective_at(field), _holders(field)
    if effective_at_ms is None:
        return _malformed("the metadata says not when it takes effect")
    if not _are_sound(roles, holders):
        return _malformed("the metadata delegates no roles to Ed25519 keys with holders who can meet each threshold")
    # 2
    expected = _expected(Kind.ROLES, domain) | {"effective_at_ms": effective_at_ms, "holders": dict(holders)}
    fault = _foreign(roles, expected, version)
    if fault is not None:
        return fault
    # 3
    if time_ms >= root.expires_ms:
        return _root_expired(root)
    # 4
    if not root.root.get_verification_result(role_of(Kind.ROLES), read.payload, read.metadata.signatures):
        reason = f"{Kind.ROLES} version {version} lacks signatures of the root's publishers"
        return Untrusted(fault=Fault.UNSIGNED, reason=reason)
    # 5
    expires_ms = _milliseconds(roles.expires)
    if time_ms >= expires_ms:
        return Untrusted(fault=Fault.EXPIRED, reason=f"{Kind.ROLES} version {version} has expired")
    return TrustedRoles(
        roles=roles,
        holders=MappingProxyType(dict(holders)),
        version=version,
        effective_at_ms=effective_at_ms,
        expires_ms=expires_ms,
    )


def verify_content(
    kind: Kind,
    metadata: bytes,
    content: bytes,
    *,
    version: int,
    domain: Domain,
    root: TrustedRoot,
    roles: TrustedRoles | None = None,
    time_ms: int,
) -> TrustedContent | Untrusted:
    """Content that those vouch for who may: whom `roles` names for it, and the root's role `targets` for the rest.

    1 form; 2 kind, domain, version; 3 root and roles are in force at T; 4 signatures up to the role's threshold; 5 not
    expired at T; 6 length and hash of the content. That versions only rise is for the one who folds them to see, and
    so is whether the signers of a directory speak for all that it touches.
    """
    # 1
    read = read_metadata(metadata)
    if isinstance(read, Untrusted):
        return read
    targets: object = read.signed
    if not isinstance(targets, Targets) or targets.delegations is not None:
        return _malformed("the metadata is no plain targets metadata")
    effective_at_ms = _effective_at(targets.unrecognized_fields.get(FIELD))
    if effective_at_ms is None:
        return _malformed("the metadata says not when it takes effect")
    # 2
    fault = _foreign(targets, _expected(kind, domain) | {"effective_at_ms": effective_at_ms}, version)
    if fault is not None:
        return fault
    path = target_path(kind)
    if set(targets.targets) != {path} or set(targets.targets[path].hashes) != {"sha256"}:
        return _malformed(f"the metadata must name `{path}` alone, with its SHA-256")
    # 3
    if time_ms >= root.expires_ms:
        return _root_expired(root)
    if roles is not None and time_ms >= roles.expires_ms:
        reason = f"{Kind.ROLES} version {roles.version} has expired; publish the next one"
        return Untrusted(fault=Fault.EXPIRED, reason=reason)
    # 4
    signed_as = _signed_as(kind, read, root, roles)
    if not signed_as:
        reason = f"{kind} version {version} lacks signatures of those who may publish it"
        return Untrusted(fault=Fault.UNSIGNED, reason=reason)
    # 5
    expires_ms = _milliseconds(targets.expires)
    if time_ms >= expires_ms:
        return Untrusted(fault=Fault.EXPIRED, reason=f"{kind} version {version} has expired")
    # 6
    if len(content) > CONTENT_BYTES_MAX:
        return _malformed(f"the content is over {CONTENT_BYTES_MAX} bytes")
    try:
        targets.targets[path].verify_length_and_hashes(content)
    except LengthOrHashMismatchError:
        return Untrusted(fault=Fault.TAMPERED, reason="the content is not the one that was signed")
    return TrustedContent(
        kind=kind,
        signed_as=signed_as,
        version=version,
        effective_at_ms=effective_at_ms,
        expires_ms=expires_ms,
        digest=digest_of(content),
        content=content,
    )


def _signed_as(kind: Kind, read: "ReadMetadata", root: TrustedRoot, roles: TrustedRoles | None) -> frozenset[str]:
    """The roles of this kind that the signatures speak for. The publishers speak for what nobody else does."""
    own = delegated_role(kind)
    delegated = roles.names if roles else frozenset()
    names = {name for name in delegated if path_of_role(name) == target_path(kind)}
    found = {name for name in names if roles is not None and _is_met(name, read, roles)}
    if own not in delegated and root.root.get_verification_result(
        role_of(kind), read.payload, read.metadata.signatures
    ):
        found.add(own)
    return frozenset(found)


def _is_met(name: str, read: "ReadMetadata", roles: TrustedRoles) -> bool:
    """Whether as many people as the threshold says signed: author and approver are never one person."""
    result = roles.roles.get_verification_result(name, read.payload, read.metadata.signatures)
    return len({roles.holders[key_id] for key_id in result.signed}) >= result.threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadMetadata:
    """Metadata of strict form, of whatever type, and the bytes that were signed."""

    metadata: Metadata[Root] | Metadata[Targets]
    signed: object
    payload: bytes


def _malformed(reason: str) -> Untrusted:
    return Untrusted(fault=Fault.MALFORMED, reason=reason)


def _root_expired(root: TrustedRoot) -> Untrusted:
    reason = f"root version {root.version} has expired; publish the next one"
    return Untrusted(fault=Fault.EXPIRED, reason=reason)


def read_metadata(data: bytes) -> ReadMetadata | Untrusted:
    """The metadata in the bytes; nothing of it is trusted yet."""
    unreadable = _malformed("the metadata is not strict TUF metadata")
    if len(data) > METADATA_BYTES_MAX:
        return _malformed(f"the metadata is over {METADATA_BYTES_MAX} bytes")
    try:
        # Python-tuf takes the last of two members of one name and keeps unsigned members: neither may be there.
        if set(loads_object(data)) != {"signed", "signatures"}:
            return unreadable
        metadata = Metadata[Root].from_bytes(data)
        payload = metadata.signed_bytes
    except (NotStrict, DeserializationError, SerializationError):
        return unreadable
    # Python-tuf's types are what it expects, not what it checked.
    texts: list[object] = [text for each in metadata.signatures.values() for text in (each.keyid, each.signature)]
    if type(metadata.signed.version) is not int or not all(isinstance(text, str) for text in texts):
        return unreadable
    return ReadMetadata(metadata=metadata, signed=metadata.signed, payload=payload)


def _is_sound(root: Root) -> bool:
    """Whether each role can be met by keys that differ."""
    for role in (role_of(Kind.ROOT), role_of(Kind.BUNDLE)):
        threshold, key_ids = root.roles[role].threshold, root.roles[role].keyids
        if type(threshold) is not int or not set(key_ids) <= set(root.keys):
            return False
        if not _differ([root.keys[key_id] for key_id in key_ids]) or not 1 <= threshold <= len(key_ids):
            return False
    return True


def _are_sound(roles: Targets, holders: Mapping[str, str]) -> bool:
    """Whether each role can be met by people that differ, each with keys of their own."""
    delegations = roles.delegations
    if delegations is None or delegations.roles is None or roles.targets or delegations.unrecognized_fields:
        return False
    if not 0 < len(delegations.roles) <= ROLES_MAX or not _differ(list(delegations.keys.values())):
        return False
    if set(holders) != set(delegations.keys):
        return False
    return all(_is_role(name, role, holders) for name, role in delegations.roles.items())


def _is_role(name: str, role: DelegatedRole, holders: Mapping[str, str]) -> bool:
    key_ids: list[object] = list(role.keyids)
    try:
        paths = [path_of_role(name)]
    except ValueError:
        return False
    if role.paths != paths or role.unrecognized_fields or type(role.threshold) is not int:
        return False
    people = {holders.get(each, "") for each in key_ids if isinstance(each, str)}
    return len(people - {""}) >= role.threshold >= 1 and all(each in holders for each in role.keyids)


def _differ(keys: Sequence[Key]) -> bool:
    """Whether all are Ed25519 keys and no two the same: one key under two ids must not count twice to a threshold."""
    if any(key.keytype != _ED25519 or key.scheme != _ED25519 for key in keys):
        return False
    try:
        material = {bytes.fromhex(key.keyval["public"]) for key in keys}
    except ValueError:
        return False
    return len(material) == len(keys)


def _effective_at(field: object) -> int | None:
    effective_at_ms = field.get("effective_at_ms") if isinstance(field, dict) else None
    if type(effective_at_ms) is int and 0 <= effective_at_ms < TIME_MS_MAX:
        return effective_at_ms
    return None


def _holders(field: object) -> dict[str, str]:
    """The person behind each key id; empty, which no roles metadata may be, where the field does not say it so."""
    found: object = field.get("holders") if isinstance(field, dict) else None
    if not isinstance(found, dict) or not all(map(is_name, found.values())):
        return {}
    return {str(key_id): str(person) for key_id, person in found.items()}


def _expected(kind: Kind, domain: Domain) -> dict[str, object]:
    return {"kind": kind.value, "env": domain.env, "tenant": domain.tenant}


def _foreign(signed: Root | Targets, expected: Mapping[str, object], version: int) -> Untrusted | None:
    if signed.unrecognized_fields != {FIELD: expected}:
        reason = f"the metadata is for another kind, environment or tenant than {expected['kind']} here"
        return Untrusted(fault=Fault.FOREIGN, reason=reason)
    if signed.version != version:
        return Untrusted(fault=Fault.FOREIGN, reason=f"the event says version {version}, its metadata another one")
    return None


def _milliseconds(date: datetime) -> int:
    return int(date.timestamp()) * 1000
