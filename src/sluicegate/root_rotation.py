"""The root in force and new public keys go in, the root that follows it comes out: the only place that makes one.

It is to be signed by the old threshold and the new one (TUF specification 1.0, 5.3). A root that names no key for
freshness gets some so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.signer import Key, Signer  # type: ignore[attr-defined]
from tuf.api.metadata import Root, Targets, Timestamp  # type: ignore[attr-defined]

from sluicegate.enforcer.trust import Domain, TrustedRoot
from sluicegate.enforcer.trust_make import Envelope, make_root
from sluicegate.installation import Installation
from sluicegate.keys import PRIVATE, PUBLIC, KeyFolder, KeyKind, KeyName, signer_of, tuf_key_of
from sluicegate.schemas.errors import ConfigurationError

ROLES: Final[Mapping[KeyKind, str]] = {
    KeyKind.ROOT: Root.type,
    KeyKind.PUBLISHER: Targets.type,
    KeyKind.FRESHNESS: Timestamp.type,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to change in a root: the keys of one role. `gone`: ids of those that leave. `threshold`: None: as it was.

    `freshness`: keys for freshness that the root gets where it names none.
    """

    kind: KeyKind
    new: tuple[Key, ...]
    gone: frozenset[str]
    threshold: int | None = None
    freshness: tuple[Key, ...] = ()


def next_root(before: TrustedRoot, change: Change, *, domain: Domain, expires_ms: int) -> Envelope:
    """The root after `before`, signed by nobody yet.

    Raises:
        ConfigurationError: a role would be left without a key or with a threshold that its keys cannot meet, or nothing
            would change.
    """
    keys = {kind: _keys(before.root, role) for kind, role in ROLES.items()}
    thresholds = {kind: before.root.roles[role].threshold for kind, role in ROLES.items()}
    held = {key.keyid: key for key in keys[change.kind] if key.keyid not in change.gone}
    keys[change.kind] = list({**held, **{key.keyid: key for key in change.new}}.values())
    thresholds[change.kind] = change.threshold or thresholds[change.kind]
    keys[KeyKind.FRESHNESS] = keys[KeyKind.FRESHNESS] or list(change.freshness)
    if not keys[KeyKind.FRESHNESS]:
        raise ConfigurationError(
            "the root names no key for freshness, and without one nothing is decided: make one with `sluicegate keys "
            "new freshness`, or bring its `freshness.pub` into the keys folder"
        )
    try:
        metadata = make_root(
            domain=domain,
            version=before.version + 1,
            expires_ms=expires_ms,
            root_keys=keys[KeyKind.ROOT],
            root_threshold=thresholds[KeyKind.ROOT],
            publisher_keys=keys[KeyKind.PUBLISHER],
            publisher_threshold=thresholds[KeyKind.PUBLISHER],
            timestamp_keys=keys[KeyKind.FRESHNESS],
            signers=(),
        )
    except ValueError as error:
        raise ConfigurationError(f"the root cannot be so: {error}; give more keys, or another threshold") from None
    return Envelope(metadata=metadata, content=b"")


def leaving(before: TrustedRoot, kind: KeyKind, folder: KeyFolder) -> frozenset[str]:
    """Ids of the keys that a new one replaces: those of this folder, or the only one.

    Raises:
        ConfigurationError: the root names several, and none of the folder's.
    """
    named = {key.keyid for key in _keys(before.root, ROLES[kind])}
    own = named & {key.keyid for key in public_keys(folder, kind)}
    if own or len(named) <= 1:
        return frozenset(own or named)
    raise ConfigurationError(
        f"the root names {len(named)} keys of the {kind}, and none of them lies in `{folder.path}`: put the `.pub` of "
        "the one that leaves there, or give `--add`"
    )


def public_keys(folder: KeyFolder, kind: KeyKind) -> tuple[Key, ...]:
    """The public halves of this kind in the folder.

    Raises:
        ConfigurationError: one cannot be read.
    """
    found = [folder.public(name) for name in folder.of(kind, endings=(PRIVATE, PUBLIC))]
    return tuple(tuf_key_of(each) for each in found if isinstance(each, Ed25519PublicKey))


def signers_here(installation: Installation, before: TrustedRoot, made: Sequence[KeyName]) -> tuple[Signer, ...]:
    """Who can sign the next root with what lies in this folder: root keys that the root names, and those just made.

    Raises:
        ConfigurationError: a key is open to others.
    """
    folder, named = installation.keys, set(before.root.roles[Root.type].keyids)
    found = [(name, signer_of(folder.ed25519(name))) for name in folder.of(KeyKind.ROOT)]
    return tuple(signer for name, signer in found if name in made or signer.public_key.keyid in named)


def _keys(root: Root, role: str) -> list[Key]:
    return [root.keys[key_id] for key_id in root.roles[role].keyids]
