"""Private keys as files: names go in, key pairs come out; the only place that reads, writes and guards them.

One folder (mode 0700) holds one PEM file (PKCS #8, mode 0600, not encrypted) a key. A file that others can read is
refused: a key that somebody else may hold signs for nobody.
"""

import os
import re
import stat
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from joserfc.jwk import ECKey, OKPKey
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from sluicegate.schemas.errors import ConfigurationError

PrivateKey: TypeAlias = Ed25519PrivateKey | EllipticCurvePrivateKey

KEY_BYTES_MAX: Final = 16 * 1024
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}", re.ASCII)
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class KeyFolder:
    """The key pairs of one installation: root, publisher, stages, services and, for development, issuers."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def root(self) -> Ed25519PrivateKey:
        """The key that signs the root of trust; made where there is none."""
        return self._ed25519("root")

    def publisher(self) -> Ed25519PrivateKey:
        """The key that signs bundles, directories and stage keys; made where there is none."""
        return self._ed25519("publisher")

    def stage(self, stage: str) -> Ed25519PrivateKey:
        """The key that a stage seals with; made where there is none."""
        return self._ed25519(f"stage-{stage}")

    def service(self, service: str) -> PrivateKey:
        """The key that a service signs its proofs with; made (Ed25519) where there is none. P-256 keys are read too."""
        return self._load_or_make(f"service-{service}")

    def issuer(self, issuer: str) -> PrivateKey:
        """The key of a development issuer of tokens; made (Ed25519) where there is none."""
        return self._load_or_make(f"issuer-{issuer}")

    def _ed25519(self, name: str) -> Ed25519PrivateKey:
        key = self._load_or_make(name)
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigurationError(f"`{self._file(name)}` must hold an Ed25519 key; put another there, or remove it")
        return key

    def _file(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ConfigurationError(f"`{name}` cannot name a key; use lower-case letters, digits, `.`, `_` and `-`")
        return self.path / f"{name}.pem"

    def _load_or_make(self, name: str) -> PrivateKey:
        path = self._file(name)
        try:
            return load_key(path)
        except FileNotFoundError:
            key = Ed25519PrivateKey.generate()
        try:
            write_key(path, key)
        except FileExistsError:  # another process was first: its key is the one
            return load_key(path)
        return key


def new_p256() -> EllipticCurvePrivateKey:
    """A new key for services that sign with ES256."""
    return generate_private_key(SECP256R1())


def write_key(path: Path, key: PrivateKey) -> None:
    """Writes a new key file, and its folder where that is missing. The file appears whole or not at all.

    Raises:
        ConfigurationError: the folder cannot be written, or others can enter it.
        FileExistsError: there is a key; none is ever overwritten.
    """
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_folder(path.parent)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)
        finally:
            draft.unlink()
    except FileExistsError:
        raise
    except OSError as error:
        raise ConfigurationError(f"the key `{path}` cannot be written ({error.strerror}); mend its folder") from None


def load_key(path: Path) -> PrivateKey:
    """The Ed25519 or P-256 key in a PEM file.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigurationError: others can read the file or enter its folder, or it holds no such key.
    """
    try:
        # O_NONBLOCK: a pipe under this name must not hold the start.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigurationError(f"the key `{path}` cannot be read ({error.strerror}); mend the file") from None
    try:
        found = os.fstat(descriptor)  # of the file that was opened, whatever the name leads to by now
        if not stat.S_ISREG(found.st_mode):
            raise ConfigurationError(f"`{path}` is no regular file; put the key itself there")
        if stat.S_IMODE(found.st_mode) & _OTHERS:
            raise ConfigurationError(f"others can read the key `{path}`; run `chmod 600 {path}`, or replace the key")
        _check_folder(path.parent)
        pem = os.read(descriptor, KEY_BYTES_MAX)
    finally:
        os.close(descriptor)
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(f"`{path}` holds no unencrypted PEM key; put one there, or remove it") from None
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return key
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"`{path}` must hold an Ed25519 or P-256 key; put another there, or remove it")
    return key


def _check_folder(folder: Path) -> None:
    if stat.S_IMODE(folder.stat().st_mode) & _OTHERS:
        raise ConfigurationError(f"others can enter the key folder `{folder}`; run `chmod 700 {folder}`")


def key_id_of(key: PrivateKey, prefix: str) -> str:
    """A name for the public half: `prefix` and 16 hexadecimal digits of the SHA-256 of its DER form."""
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"{prefix}-{sha256(der).hexdigest()[:16]}"


def public_jwk(key: PrivateKey, kid: str | None = None) -> dict[str, str]:
    """The public half as the directory lists it; a key of an issuer carries its `kid`."""
    jose = (
        OKPKey.import_key(key.public_key())
        if isinstance(key, Ed25519PrivateKey)
        else ECKey.import_key(key.public_key())
    )
    named = {} if kid is None else {"kid": kid}
    return {**{name: str(value) for name, value in jose.as_dict().items()}, **named}


def signer_of(key: Ed25519PrivateKey) -> CryptoSigner:
    """The key as `trust.make_root` and `trust.sign_targets` take it."""
    return CryptoSigner(key)
