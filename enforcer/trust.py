"""Policy metadata under TUF's rules: made from keys and content, or checked against a trusted root; only here.

Source: The Update Framework specification 1.0 (roles, thresholds, versions, expiry, root rotation), by python-tuf.
Every kind is `Targets` metadata over one target; what is ours, and signed with it, rides in the field `x-sluicegate`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Final

# Both packages re-export these names without saying so to a type checker.
from securesystemslib.signer import Key, Signer  # type: ignore[attr-defined]
from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import Metadata, Root, TargetFile, Targets  # type: ignore[attr-defined]
from tuf.api.serialization import DeserializationError, SerializationError

from sluicegate.schemas.ids import Digest
from sluicegate.schemas.strict_json import NotStrict, loads_object

FIELD: Final = "x-sluicegate"
METADATA_BYTES_MAX: Final = 256 * 1024
CONTENT_BYTES_MAX: Final = 16 * 1024 * 1024
TIME_MS_MAX: Final = 1 << 50
_ED25519: Final = "ed25519"


class Kind(StrEnum):
    """What signed metadata vouches for; the first three are `events.PolicyKind`'s."""

    ROOT = "ROOT"
    KEYS = "KEYS"
    BUNDLE = "BUNDLE"
    DIRECTORY = "DIRECTORY"


def role_of(kind: Kind) -> str:
    """The TUF role of the root that must sign this kind; the one place to change when roles are split."""
    return Root.type if kind is Kind.ROOT else Targets.type


def target_path(kind: Kind) -> str:
    """The one target of this kind's metadata."""
    return f"{kind.value.lower()}.json"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedContent:
    """Content that the root's keys vouch for, in force from `effective_at_ms` and void from `expires_ms` on (T)."""

    kind: Kind
    version: int
    effective_at_ms: int
    expires_ms: int
    digest: Digest
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Untrusted:
    """Metadata that does not count, and why."""

    reason: str


def make_root(
    *,
    domain: Domain,
    version: int,
    expires_ms: int,
    root_keys: Sequence[Key],
    root_threshold: int,
    publisher_keys: Sequence[Key],
    publisher_threshold: int,
    signers: Sequence[Signer],
) -> bytes:
    """Metadata of a root. `signers` meet the threshold of these root keys and, from version 2 on, of the root before.

    The roles `timestamp` and `snapshot`, which TUF demands, get no key: nobody can speak for them.

    Raises:
        ValueError: a threshold is not within 1 and the number of its keys.
    """
    for threshold, keys in ((root_threshold, root_keys), (publisher_threshold, publisher_keys)):
        if not 1 <= threshold <= len({key.keyid for key in keys}):
            raise ValueError(f"a threshold of {threshold} cannot be met by {len(keys)} keys")
    root = Root(
        version=version,
        expires=_date(expires_ms),
        consistent_snapshot=False,
        unrecognized_fields={FIELD: {"kind": Kind.ROOT.value, "env": domain.env, "tenant": domain.tenant}},
    )
    for role, keys, threshold in (
        (role_of(Kind.ROOT), root_keys, root_threshold),
        (role_of(Kind.BUNDLE), publisher_keys, publisher_threshold),
    ):
        for key in keys:
            root.add_key(key, role)
        root.roles[role].threshold = threshold
    return _signed(Metadata(root), signers)


def sign_targets(
    kind: Kind,
    content: bytes,
    *,
    domain: Domain,
    version: int,
    effective_at_ms: int,
    expires_ms: int,
    signers: Sequence[Signer],
) -> bytes:
    """Metadata that vouches for `content` as this version of its kind.

    Raises:
        ValueError: the kind is ROOT, which `make_root` makes.
    """
    if kind is Kind.ROOT:
        raise ValueError("a root vouches for keys, not for content")
    path = target_path(kind)
    field = {"kind": kind.value, "env": domain.env, "tenant": domain.tenant, "effective_at_ms": effective_at_ms}
    targets = Targets(
        version=version,
        expires=_date(expires_ms),
        targets={path: TargetFile.from_data(path, content, ["sha256"])},
        unrecognized_fields={FIELD: field},
    )
    return _signed(Metadata(targets), signers)


def verify_root(
    metadata: bytes, *, version: int, domain: Domain, previous: TrustedRoot | None, pinned: Digest, time_ms: int
) -> TrustedRoot | Untrusted:
    """A root that may be trusted from now on.

    1 form; 2 domain and version; 3 the first is the pinned one, a later one follows its predecessor; 4 signatures of
    both the predecessor's keys and its own; 5 not expired at T. An expired predecessor still hands over, as TUF has it.
    """
    # 1
    read = _read(metadata)
    if isinstance(read, Untrusted):
        return read
    root: object = read.signed
    if not isinstance(root, Root) or not _is_sound(root):
        return Untrusted(reason="the metadata is no root with Ed25519 keys and thresholds they can meet")
    # 2
    fault = _foreign(root, {"kind": Kind.ROOT.value, "env": domain.env, "tenant": domain.tenant}, version)
    if fault is not None:
        return fault
    # 3
    if previous is None:
        if digest_of(metadata) != pinned:
            return Untrusted(reason="the first root is not the pinned one")
    elif version != previous.version + 1:
        return Untrusted(reason=f"root version {version} does not follow version {previous.version}")
    # 4
    verified = root.get_root_verification_result(
        previous.root if previous else None, read.payload, read.metadata.signatures
    )
    if not verified:
        return Untrusted(reason=f"root version {version} lacks signatures of the root before, or its own")
    # 5
    expires_ms = _milliseconds(root.expires)
    if time_ms >= expires_ms:
        return Untrusted(reason=f"root version {version} has expired")
    return TrustedRoot(root=root, version=version, expires_ms=expires_ms)


def verify_content(
    kind: Kind,
    metadata: bytes,
    content: bytes,
    *,
    version: int,
    domain: Domain,
    root: TrustedRoot,
    time_ms: int,
) -> TrustedContent | Untrusted:
    """Content that the root's keys vouch for.

    1 form; 2 kind, domain, version; 3 the root is in force at T; 4 signatures up to the role's threshold; 5 not expired
    at T; 6 length and hash of the content. That versions only rise is for the one who folds them to see.
    """
    # 1
    read = _read(metadata)
    if isinstance(read, Untrusted):
        return read
    targets: object = read.signed
    if not isinstance(targets, Targets) or targets.delegations is not None:
        return Untrusted(reason="the metadata is no plain targets metadata")
    field = targets.unrecognized_fields.get(FIELD)
    effective_at_ms = field.get("effective_at_ms") if isinstance(field, dict) else None
    if type(effective_at_ms) is not int or not 0 <= effective_at_ms < TIME_MS_MAX:
        return Untrusted(reason="the metadata says not when it takes effect")
    # 2
    expected = {"kind": kind.value, "env": domain.env, "tenant": domain.tenant, "effective_at_ms": effective_at_ms}
    fault = _foreign(targets, expected, version)
    if fault is not None:
        return fault
    path = target_path(kind)
    if set(targets.targets) != {path} or set(targets.targets[path].hashes) != {"sha256"}:
        return Untrusted(reason=f"the metadata must name `{path}` alone, with its SHA-256")
    # 3
    if time_ms >= root.expires_ms:
        return Untrusted(reason=f"root version {root.version} has expired; publish the next one")
    # 4
    if not root.root.get_verification_result(role_of(kind), read.payload, read.metadata.signatures):
        return Untrusted(reason=f"{kind} version {version} lacks signatures of the publisher's keys")
    # 5
    expires_ms = _milliseconds(targets.expires)
    if time_ms >= expires_ms:
        return Untrusted(reason=f"{kind} version {version} has expired")
    # 6
    if len(content) > CONTENT_BYTES_MAX:
        return Untrusted(reason=f"the content is over {CONTENT_BYTES_MAX} bytes")
    try:
        targets.targets[path].verify_length_and_hashes(content)
    except LengthOrHashMismatchError:
        return Untrusted(reason="the content is not the one that was signed")
    return TrustedContent(
        kind=kind,
        version=version,
        effective_at_ms=effective_at_ms,
        expires_ms=expires_ms,
        digest=digest_of(content),
        content=content,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    metadata: Metadata[Root] | Metadata[Targets]
    signed: object
    payload: bytes


def _read(data: bytes) -> _Read | Untrusted:
    unreadable = Untrusted(reason="the metadata is not strict TUF metadata")
    if len(data) > METADATA_BYTES_MAX:
        return Untrusted(reason=f"the metadata is over {METADATA_BYTES_MAX} bytes")
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
    return _Read(metadata=metadata, signed=metadata.signed, payload=payload)


def _is_sound(root: Root) -> bool:
    """Whether each role can be met by keys that differ: one key under two ids must not count twice to a threshold."""
    for role in (role_of(Kind.ROOT), role_of(Kind.BUNDLE)):
        threshold, key_ids = root.roles[role].threshold, root.roles[role].keyids
        if type(threshold) is not int or not set(key_ids) <= set(root.keys):
            return False
        keys = [root.keys[key_id] for key_id in key_ids]
        if any(key.keytype != _ED25519 or key.scheme != _ED25519 for key in keys):
            return False
        try:
            material = {bytes.fromhex(key.keyval["public"]) for key in keys}
        except ValueError:
            return False
        if len(material) != len(keys) or not 1 <= threshold <= len(keys):
            return False
    return True


def _foreign(signed: Root | Targets, expected: dict[str, str | int], version: int) -> Untrusted | None:
    if signed.unrecognized_fields != {FIELD: expected}:
        return Untrusted(reason=f"the metadata is for another kind, environment or tenant than {expected['kind']} here")
    if signed.version != version:
        return Untrusted(reason=f"the event says version {version}, its metadata another one")
    return None


def _signed(metadata: Metadata[Root] | Metadata[Targets], signers: Sequence[Signer]) -> bytes:
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()


def _date(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms // 1000, UTC)


def _milliseconds(date: datetime) -> int:
    return int(date.timestamp()) * 1000
