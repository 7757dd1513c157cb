"""An envelope and who may sign go in; what it says, who signed and who is missing come out. Nothing of it is trusted.

It shows to people what `trust` will judge: whether something counts is said there alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from securesystemslib.signer import Key  # type: ignore[attr-defined]
from tuf.api.metadata import Root, Targets  # type: ignore[attr-defined]

from sluicegate.enforcer.directory_change import Change, read_content
from sluicegate.enforcer.policy_kinds import Kind, delegated_role, directory_role, role_of
from sluicegate.enforcer.trust import (
    FIELD,
    Domain,
    ReadMetadata,
    TrustedRoles,
    TrustedRoot,
    Untrusted,
    digest_of,
    read_metadata,
)
from sluicegate.enforcer.trust_make import Envelope, InvalidEnvelope
from sluicegate.schemas.errors import InvalidDirectory
from sluicegate.schemas.events import DirectoryChanged, PolicyKind, PolicyPublished
from sluicegate.schemas.ids import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """One threshold. `signed`, `missing`: people; ids of keys where no roles say who holds them."""

    role: str
    threshold: int
    signed: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def met(self) -> bool:
        """Whether enough of them signed."""
        return len(self.signed) >= self.threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What an envelope says. `digest`: of its content, of root and roles of the metadata; times in milliseconds.

    `ways`: each a set of thresholds of which all must be met, and one way is enough; empty where no root is known.
    """

    kind: Kind
    domain: Domain
    version: int
    digest: Digest
    effective_at_ms: int | None
    expires_ms: int
    signatures: tuple[str, ...]
    ways: tuple[tuple[Signing, ...], ...]

    @property
    def complete(self) -> bool:
        """Whether as many signed as one of the ways demands."""
        return any(way and all(each.met for each in way) for way in self.ways)


def read_contents(
    envelope: Envelope, *, root: TrustedRoot | None = None, roles: TrustedRoles | None = None
) -> Contents:
    """What the envelope says. `root`, `roles`: the newest accepted ones, by which it would be judged now.

    Raises:
        InvalidEnvelope: its metadata is none of ours.
    """
    read = _read(envelope)
    signed = read.signed
    assert isinstance(signed, Root | Targets), "`_read` takes no other"
    field = signed.unrecognized_fields[FIELD]
    kind = Kind(field["kind"])
    bare = kind in {Kind.ROOT, Kind.ROLES}
    effective_at_ms = field.get("effective_at_ms")
    return Contents(
        kind=kind,
        domain=Domain(env=field["env"], tenant=field["tenant"]),
        version=signed.version,
        digest=digest_of(envelope.metadata if bare else envelope.content),
        effective_at_ms=effective_at_ms if isinstance(effective_at_ms, int) else None,
        expires_ms=int(signed.expires.timestamp()) * 1000,
        signatures=tuple(sorted(read.metadata.signatures)),
        ways=_ways(kind, envelope, read, root, roles),
    )


def event_of(envelope: Envelope) -> PolicyPublished | DirectoryChanged:
    """The event that carries the envelope.

    Raises:
        InvalidEnvelope: as `read_contents`.
    """
    contents = read_contents(envelope)
    if contents.kind is Kind.DIRECTORY:
        return DirectoryChanged(version=contents.version, metadata=envelope.metadata, content=envelope.content)
    return PolicyPublished(
        kind=PolicyKind(contents.kind.value),
        version=contents.version,
        metadata=envelope.metadata,
        content=envelope.content,
    )


def refusal_of(
    envelope: Envelope, key: Key, *, root: TrustedRoot | None = None, roles: TrustedRoles | None = None
) -> str | None:
    """Why a signature with this key would add nothing; None where it adds one.

    Raises:
        InvalidEnvelope: as `read_contents`.
    """
    read, contents = _read(envelope), read_contents(envelope, root=root, roles=roles)
    holders: Mapping[str, str] = roles.holders if roles and contents.kind not in {Kind.ROOT, Kind.ROLES} else {}
    if key.keyid in read.metadata.signatures:
        return f"`{named(key.keyid, holders)}` has signed this already; let somebody else sign"
    holder = holders.get(key.keyid)
    if holder is not None and holder in {holders.get(each) for each in read.metadata.signatures}:
        return f"`{holder}` has signed this already with another key, and one person counts once; let another sign"
    wanted = {name for way in contents.ways for each in way for name in (*each.signed, *each.missing)}
    if contents.ways and named(key.keyid, holders) not in wanted:
        may = ", ".join(f"`{each}`" for each in sorted(wanted)) or "nobody"
        return f"`{named(key.keyid, holders)}` speaks for nothing in this; it takes one of these: {may}"
    return None


def named(key_id: str, holders: Mapping[str, str]) -> str:
    """The holder of a key, where one is known, else how its id begins."""
    return holders.get(key_id, f"key {key_id[:12]}")


def _read(envelope: Envelope) -> ReadMetadata:
    read = read_metadata(envelope.metadata)
    if isinstance(read, Untrusted):
        raise InvalidEnvelope(f"{read.reason}; have the envelope made again")
    signed = read.signed
    field = signed.unrecognized_fields.get(FIELD) if isinstance(signed, Root | Targets) else None
    texts = [field.get(each) for each in ("kind", "env", "tenant")] if isinstance(field, dict) else [None]
    if not all(isinstance(each, str) for each in texts) or texts[0] not in set(Kind):
        raise InvalidEnvelope("the metadata is for no kind of policy; have the envelope made again")
    if isinstance(signed, Root) != (texts[0] == Kind.ROOT):
        raise InvalidEnvelope("the metadata is of another type than it says; have the envelope made again")
    return read


def _ways(
    kind: Kind, envelope: Envelope, read: ReadMetadata, root: TrustedRoot | None, roles: TrustedRoles | None
) -> tuple[tuple[Signing, ...], ...]:
    if kind is Kind.ROOT:
        own = read.signed
        assert isinstance(own, Root), "`_read` holds the type to the kind"
        if root is None and own.version > 1:
            return ()  # it takes signatures of the one before too, which is not known
        before = () if root is None else (_of_root(root.root, Root.type, f"root version {root.version}", read),)
        return ((*before, _of_root(own, Root.type, f"root version {own.version}", read)),)
    if root is None:
        return ()
    own_role = delegated_role(kind)
    if roles is None or own_role not in roles.names or kind is Kind.ROLES:
        whole = (_of_root(root.root, role_of(kind), "publishers", read),)
    else:
        whole = (_of_roles(own_role, roles, read),)
    parts = _parts(envelope.content, roles) if kind is Kind.DIRECTORY and roles is not None else ()
    return (whole, tuple(_of_roles(each, roles, read) for each in parts)) if parts and roles is not None else (whole,)


def _parts(content: bytes, roles: TrustedRoles) -> tuple[str, ...]:
    """The roles that together speak for a change, where there is one for each type that it touches."""
    try:
        found = read_content(content)
    except InvalidDirectory:
        return ()
    wanted = sorted(directory_role(each) for each in found.types) if isinstance(found, Change) else []
    return tuple(wanted) if set(wanted) <= roles.names else ()


def _of_root(root: Root, role: str, said: str, read: ReadMetadata) -> Signing:
    result = root.get_verification_result(role, read.payload, read.metadata.signatures)
    return _signing(said, result.threshold, result.signed, result.unsigned, {})


def _of_roles(role: str, roles: TrustedRoles, read: ReadMetadata) -> Signing:
    result = roles.roles.get_verification_result(role, read.payload, read.metadata.signatures)
    return _signing(role, result.threshold, result.signed, result.unsigned, roles.holders)


def _signing(
    role: str, threshold: int, signed: Iterable[str], unsigned: Iterable[str], holders: Mapping[str, str]
) -> Signing:
    did = {named(each, holders) for each in signed}
    return Signing(
        role=role,
        threshold=threshold,
        signed=tuple(sorted(did)),
        missing=tuple(sorted({named(each, holders) for each in unsigned} - did)),
    )
