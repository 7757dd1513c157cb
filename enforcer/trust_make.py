"""Keys and content go in, signed TUF metadata comes out; the only place that makes and signs what `trust` verifies.

Several people sign one after another: the first makes an `Envelope` (metadata and the content it vouches for), each
further one adds a signature, and nothing of what was signed changes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

# Both packages re-export these names without saying so to a type checker.
from securesystemslib.signer import Key, Signer  # type: ignore[attr-defined]
from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import (  # type: ignore[attr-defined]
    DelegatedRole,
    Delegations,
    Metadata,
    Root,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError

from sluicegate.enforcer.policy_kinds import Kind, path_of_role, role_of, target_path
from sluicegate.enforcer.trust import FIELD, Domain
from sluicegate.schemas.strict_json import NotStrict, loads_object


class InvalidEnvelope(ValueError):
    """The bytes are no envelope, or its content is not the one that its metadata vouches for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signatory:
    """A key and the person who holds it: thresholds count people, so two keys of one person are one signature."""

    holder: str
    key: Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Speakers:
    """Who may speak for a delegated role, and how many different people of them it takes."""

    signatories: tuple[Signatory, ...]
    threshold: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """Metadata with the signatures it has so far, and the content it vouches for; a file between signers."""

    metadata: bytes
    content: bytes

    def to_bytes(self) -> bytes:
        """The envelope as a file."""
        texts = {"content": self.content.decode(), "metadata": self.metadata.decode()}
        return json.dumps(texts, sort_keys=True, indent=1, ensure_ascii=False).encode()


def read_envelope(data: bytes) -> Envelope:
    """The envelope in a file.

    Raises:
        InvalidEnvelope: it is none.
    """
    try:
        document = loads_object(data)
    except NotStrict:
        raise InvalidEnvelope("the file is no strict JSON; take the envelope that `policy sign` wrote") from None
    metadata, content = document.get("metadata"), document.get("content")
    if document.keys() != {"metadata", "content"} or not isinstance(metadata, str) or not isinstance(content, str):
        raise InvalidEnvelope("an envelope holds the texts `metadata` and `content` and nothing else")
    return Envelope(metadata=metadata.encode(), content=content.encode())


def make_root(
    *,
    domain: Domain,
    version: int,
    expires_ms: int,
    root_keys: Sequence[Key],
    root_threshold: int,
    publisher_keys: Sequence[Key],
    publisher_threshold: int,
    timestamp_keys: Sequence[Key] = (),
    signers: Sequence[Signer],
) -> bytes:
    """Metadata of a root. `signers` meet the threshold of these root keys and, from version 2 on, of the root before.

    Each of `timestamp_keys` signs freshness alone. The role `snapshot`, which TUF demands, gets no key: nobody can
    speak for it.

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
        (Timestamp.type, timestamp_keys, 1),
    ):
        for key in keys:
            root.add_key(key, role)
        root.roles[role].threshold = threshold
    return _signed(Metadata(root), signers)


def sign_roles(
    speakers: Mapping[str, Speakers],
    *,
    domain: Domain,
    version: int,
    effective_at_ms: int,
    expires_ms: int,
    signers: Sequence[Signer],
) -> bytes:
    """Metadata that says who speaks for which delegated role (`trust.delegated_role`, `trust.directory_role`).

    `signers` meet the threshold of the root's role `targets`. Roles that are not named stay with the keys of `targets`.

    Raises:
        ValueError: a threshold is not within 1 and the number of its people, a role is none, or a key has two holders.
    """
    keys: dict[str, Key] = {}
    holders: dict[str, str] = {}
    roles: dict[str, DelegatedRole] = {}
    for name, each in sorted(speakers.items()):
        people = {signatory.holder for signatory in each.signatories}
        if not 1 <= each.threshold <= len(people):
            raise ValueError(f"a threshold of {each.threshold} cannot be met by {len(people)} people")
        for signatory in each.signatories:
            if holders.setdefault(signatory.key.keyid, signatory.holder) != signatory.holder:
                raise ValueError("a key has two holders; give each person a key of their own")
            keys[signatory.key.keyid] = signatory.key
        key_ids = sorted({signatory.key.keyid for signatory in each.signatories})
        roles[name] = DelegatedRole(name, key_ids, each.threshold, terminating=True, paths=[path_of_role(name)])
    field = {**_field(Kind.ROLES, domain), "effective_at_ms": effective_at_ms, "holders": holders}
    targets = Targets(
        version=version,
        expires=_date(expires_ms),
        delegations=Delegations(keys=keys, roles=roles),
        unrecognized_fields={FIELD: field},
    )
    return _signed(Metadata(targets), signers)


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
        ValueError: the kind is ROOT or ROLES, which `make_root` and `sign_roles` make.
    """
    if kind in {Kind.ROOT, Kind.ROLES}:
        raise ValueError("a root and its roles vouch for keys, not for content")
    path = target_path(kind)
    targets = Targets(
        version=version,
        expires=_date(expires_ms),
        targets={path: TargetFile.from_data(path, content, ["sha256"])},
        unrecognized_fields={FIELD: {**_field(kind, domain), "effective_at_ms": effective_at_ms}},
    )
    return _signed(Metadata(targets), signers)


def add_signature(envelope: Envelope, signer: Signer) -> Envelope:
    """The envelope with one signature more; what was signed stays byte for byte.

    Raises:
        InvalidEnvelope: the metadata cannot be read, or vouches for other content than the envelope holds.
    """
    try:
        metadata = Metadata[Targets].from_bytes(envelope.metadata)
    except DeserializationError:
        raise InvalidEnvelope("the metadata of the envelope cannot be read; have it made again") from None
    signed: object = metadata.signed
    if isinstance(signed, Targets):
        try:
            for target in signed.targets.values():
                target.verify_length_and_hashes(envelope.content)
        except LengthOrHashMismatchError:
            raise InvalidEnvelope("the content of the envelope is not the one that was signed") from None
        if envelope.content and not signed.targets:
            raise InvalidEnvelope("the metadata of the envelope vouches for no content, and it holds some")
    return replace(envelope, metadata=_signed(metadata, [signer]))


def _field(kind: Kind, domain: Domain) -> dict[str, str]:
    return {"kind": kind.value, "env": domain.env, "tenant": domain.tenant}


def _signed(metadata: Metadata[Root] | Metadata[Targets], signers: Sequence[Signer]) -> bytes:
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()


def _date(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms // 1000, UTC)
