"""Keys of this host and a root go in, who signs freshness comes out: the only place that chooses that signer."""

from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.signer import Key, Signature, Signer  # type: ignore[attr-defined]
from tuf.api.metadata import Timestamp  # type: ignore[attr-defined]

from sluicegate.enforcer.seal import SigningKey
from sluicegate.enforcer.trust import TrustedRoot
from sluicegate.keys import PRIVATE, KeyFolder, KeyKind, signer_of, tuf_key_of
from sluicegate.schemas.errors import ConfigurationError


def freshness_signer(keys: KeyFolder, given: SigningKey | None, root: TrustedRoot) -> Signer:
    """The key that was given, else the newest of the folder, that the root names for freshness.

    Raises:
        ConfigurationError: it names none of them, or one is open to others.
    """
    if given is not None:
        return _named([SignerElsewhere(given)], root, keys.path)
    return _named([signer_of(keys.ed25519(name)) for name in keys.of(KeyKind.FRESHNESS)], root, keys.path)


def _named(own: Sequence[Signer], root: TrustedRoot, folder: Path) -> Signer:
    named = root.root.roles[Timestamp.type].keyids
    found = next((each for each in own if each.public_key.keyid in named), None)
    if found is None:
        raise ConfigurationError(
            f"the root of trust names {len(named)} keys for freshness, and none of the {len(own)} here: put a "
            f"`{KeyKind.FRESHNESS}{PRIVATE}` that it names into `{folder}`; where it names 0, "
            "`sluicegate keys rotate publisher` makes a root of trust that names those of the keys folder"
        )
    return found


class SignerElsewhere(Signer):
    """A key that somebody else holds (a KMS, an HSM), as TUF's metadata is signed.

    Raises:
        ConfigurationError: it is no Ed25519 key.
    """

    def __init__(self, key: SigningKey) -> None:
        public = key.public_key()
        if not isinstance(public, Ed25519PublicKey):
            raise ConfigurationError("freshness must be signed with an Ed25519 key; give it another")
        self._key, self._public = key, tuf_key_of(public)

    @property
    def public_key(self) -> Key:
        """The public half."""
        return self._public

    def sign(self, payload: bytes) -> Signature:
        """The signature of the bytes."""
        return Signature(self._public.keyid, self._key.sign(payload).hex())

    @classmethod
    def from_priv_key_uri(
        cls,
        priv_key_uri: str,  # noqa: ARG003 - TUF's signers have addresses, this one has none
        public_key: Key,  # noqa: ARG003
        secrets_handler: object = None,  # noqa: ARG003
    ) -> Signer:
        """Not so: the key is given, never named by an address."""
        raise ConfigurationError("a key that is held elsewhere is given to `run_stage`")
