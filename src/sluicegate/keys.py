"""Keys as files: names go in, key pairs come out; the only place that reads, writes and guards them.

One folder (mode 0700) holds one PEM file (PKCS #8, mode 0600, not encrypted) a key. A file that others can read is
refused: a key that somebody else may hold signs for nobody. `NAME.pem` is a private key, `NAME.pub` a public half that
was carried here, `NAME.pem.revoked` one that signs no more; a second key of one owner is `NAME~2`, and so on.
"""

import contextlib
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from joserfc.jwk import ECKey, OKPKey
from securesystemslib.signer import CryptoSigner, Key, SSlibKey  # type: ignore[attr-defined]

from sluicegate.schemas.errors import ConfigurationError

PrivateKey: TypeAlias = Ed25519PrivateKey | EllipticCurvePrivateKey
PublicKey: TypeAlias = Ed25519PublicKey | EllipticCurvePublicKey

KEY_BYTES_MAX: Final = 16 * 1024
OWNERLESS: Final = ("root", "publisher", "freshness")
SECRET_BYTES_MAX: Final = 4096
KEYS_OF_ONE_OWNER_MAX: Final = 1000
PRIVATE, PUBLIC, REVOKED = ".pem", ".pub", ".pem.revoked"
_STEM: Final = re.compile(
    r"(?P<kind>[a-z]+)(?:-(?P<owner>[a-z0-9][a-z0-9._-]{0,99}))?(?:~(?P<number>[1-9][0-9]{0,2}))?"
)
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class KeyKind(StrEnum):
    """What a key signs: the root of trust; policy versions; freshness; seals; proofs; development tokens."""

    ROOT = "root"
    PUBLISHER = "publisher"
    FRESHNESS = "freshness"
    STAGE = "stage"
    SERVICE = "service"
    ISSUER = "issuer"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyName:
    """One key of the folder. `owner`: the stage, service or issuer; empty for those in `OWNERLESS`."""

    kind: KeyKind
    owner: str = ""
    number: int = 1

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        base = f"{self.kind}-{self.owner}" if self.owner else str(self.kind)
        return base if self.number == 1 else f"{base}~{self.number}"

    @property
    def prefix(self) -> str:
        """What the key's id begins with."""
        return self.owner if self.kind is KeyKind.STAGE else str(self.kind)

    @property
    def command(self) -> str:
        """The line that makes another such key."""
        return " ".join(["sluicegate keys new", str(self.kind), *([self.owner] if self.owner else [])])


def parse_name(stem: str) -> KeyName | None:
    """The key that a file's name without its ending stands for; None for any other file."""
    found = _STEM.fullmatch(stem)
    if found is None or found["kind"] not in set(KeyKind):
        return None
    kind, owner = KeyKind(found["kind"]), found["owner"] or ""
    if bool(owner) != (kind not in OWNERLESS):
        return None
    return KeyName(kind=kind, owner=owner, number=int(found["number"] or 1))


class KeyFolder:
    """The keys of one installation: root, publisher, freshness, stages, services and, for development, issuers.

    `may_make`: whether a key that is asked for and missing is made; only a one-box installation does that.
    """

    def __init__(self, path: Path, *, may_make: bool = True) -> None:
        self.path = path
        self._may_make = may_make

    def root(self) -> Ed25519PrivateKey:
        """The key that signs the root of trust."""
        return self._ed25519(KeyName(kind=KeyKind.ROOT))

    def publisher(self) -> Ed25519PrivateKey:
        """The key that signs bundles, directories and stage keys."""
        return self._ed25519(KeyName(kind=KeyKind.PUBLISHER))

    def freshness(self) -> Ed25519PrivateKey:
        """The newest key that signs freshness."""
        return self._ed25519(KeyName(kind=KeyKind.FRESHNESS))

    def stage(self, stage: str) -> Ed25519PrivateKey:
        """The newest key that a stage can seal with."""
        return self._ed25519(KeyName(kind=KeyKind.STAGE, owner=stage))

    def service(self, service: str) -> PrivateKey:
        """The newest key that a service signs its proofs with: Ed25519, or P-256 where such a file is there."""
        return self._load_or_make(KeyName(kind=KeyKind.SERVICE, owner=service))

    def issuer(self, issuer: str) -> PrivateKey:
        """The newest key of a development issuer of tokens."""
        return self._load_or_make(KeyName(kind=KeyKind.ISSUER, owner=issuer))

    def names(self, *endings: str) -> tuple[KeyName, ...]:
        """Every key with a file of one of these endings, by kind, owner and number.

        Raises:
            ConfigurationError: the folder cannot be read.
        """
        found: set[KeyName] = set()
        try:
            files = [path.name for path in self.path.iterdir()]
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise ConfigurationError(f"the key folder `{self.path}` cannot be read: {error.strerror}") from None
        for ending in endings:
            stems = (file.removesuffix(ending) for file in files if file.endswith(ending))
            found.update(name for name in map(parse_name, stems) if name is not None)
        return tuple(sorted(found, key=lambda name: (name.kind, name.owner, name.number)))

    def of(self, kind: KeyKind, owner: str = "", *, endings: tuple[str, ...] = (PRIVATE,)) -> tuple[KeyName, ...]:
        """The keys of one owner, newest first."""
        return tuple(name for name in reversed(self.names(*endings)) if (name.kind, name.owner) == (kind, owner))

    def file(self, name: KeyName, ending: str = PRIVATE) -> Path:
        """Where a key stands.

        Raises:
            ConfigurationError: the owner's name cannot be a file's.
        """
        if parse_name(name.stem) != name:
            raise ConfigurationError(
                f"`{name.owner}` cannot name a key; use lower-case letters, digits, `.`, `_` and `-`"
            )
        return self.path / f"{name.stem}{ending}"

    def load(self, name: KeyName) -> PrivateKey:
        """One private key.

        Raises:
            ConfigurationError: it is missing, open to others, or no such key.
        """
        try:
            return load_key(self.file(name))
        except FileNotFoundError:
            raise _missing(self.file(name), name) from None

    def public(self, name: KeyName) -> PublicKey:
        """The public half of a key: of the private one where that is here, else the one that was carried here.

        Raises:
            ConfigurationError: neither is here, or others could have changed it.
        """
        try:
            return load_key(self.file(name)).public_key()
        except FileNotFoundError:
            return load_public(self.file(name, PUBLIC), name)

    def new(self, kind: KeyKind, owner: str = "", *, make: Callable[[], PrivateKey] | None = None) -> KeyName:
        """Makes one more key of this owner, with its public half beside it. No number is ever used again.

        Raises:
            ConfigurationError: the folder cannot be written, or the owner has too many keys.
        """
        self.file(KeyName(kind=kind, owner=owner))
        taken = [name.number for name in self.of(kind, owner, endings=(PRIVATE, PUBLIC, REVOKED))]
        name = KeyName(kind=kind, owner=owner, number=max(taken, default=0) + 1)
        if name.number >= KEYS_OF_ONE_OWNER_MAX:
            raise ConfigurationError(f"`{kind}` has {len(taken)} keys in `{self.path}`; move the revoked ones away")
        key = (make or Ed25519PrivateKey.generate)()
        write_key(self.file(name), key)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        _write_new(self.file(name, PUBLIC), public)
        return name

    def retire(self, name: KeyName) -> Path | None:
        """Takes a private key out of use, kept under another name; None where it is not here.

        Raises:
            ConfigurationError: the folder cannot be written.
        """
        try:
            self.file(name, PUBLIC).unlink(missing_ok=True)
            return self.file(name).rename(self.file(name, REVOKED))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(
                f"`{self.file(name)}` cannot be taken out of use ({error.strerror}); remove it by hand"
            ) from None

    def ed25519(self, name: KeyName) -> Ed25519PrivateKey:
        """One private key that must be Ed25519.

        Raises:
            ConfigurationError: as `load`; or it is another kind of key.
        """
        return self._as_ed25519(name, self.load(name))

    def _ed25519(self, name: KeyName) -> Ed25519PrivateKey:
        return self._as_ed25519(name, self._load_or_make(name))

    def _as_ed25519(self, name: KeyName, key: PrivateKey) -> Ed25519PrivateKey:
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigurationError(f"`{self.file(name)}` must hold an Ed25519 key; put another there, or remove it")
        return key

    def _load_or_make(self, name: KeyName) -> PrivateKey:
        self.file(name)
        held = self.of(name.kind, name.owner)
        if held:
            return self.load(held[0])
        if not self._may_make:
            raise _missing(self.file(name), name)
        taken = [each.number for each in self.of(name.kind, name.owner, endings=(PUBLIC, REVOKED))]
        path = self.file(KeyName(kind=name.kind, owner=name.owner, number=max(taken, default=0) + 1))
        key = Ed25519PrivateKey.generate()
        with contextlib.suppress(FileExistsError):  # another process was first: its key is the one
            write_key(path, key)
            return key
        return load_key(path)


def _missing(path: Path, name: KeyName) -> ConfigurationError:
    return ConfigurationError(f"there is no key `{path}`: run `{name.command}`, or put the file there")


def new_p256() -> EllipticCurvePrivateKey:
    """A new key for services that sign with ES256."""
    return generate_private_key(SECP256R1())


def write_key(path: Path, key: PrivateKey) -> None:
    """Writes a new key file, and its folder where that is missing. The file appears whole or not at all.

    Raises:
        ConfigurationError: the folder cannot be written, or others can enter it.
        FileExistsError: there is a key; none is ever overwritten.
    """
    _write_new(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _write_new(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_folder(path.parent)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
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
    pem = _read_guarded(path, forbidden=_OTHERS)
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(f"`{path}` holds no unencrypted PEM key; put one there, or remove it") from None
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return key
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"`{path}` must hold an Ed25519 or P-256 key; put another there, or remove it")
    return key


def load_public(path: Path, name: KeyName) -> PublicKey:
    """The Ed25519 or P-256 public key in a PEM file. Others may read it, but whoever can change it could be admitted.

    Raises:
        ConfigurationError: it is missing, others can change it, or it holds no such key.
    """
    try:
        key = load_pem_public_key(_read_guarded(path, forbidden=_OTHERS_WRITE))
    except FileNotFoundError:
        raise _missing(path, name) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"`{path}` holds no public PEM key; carry it here again") from None
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return key
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(f"`{path}` must hold an Ed25519 or P-256 key; carry another here, or remove it")
    return key


def read_secret(path: Path) -> str:
    """The one line of a password file, which nobody else may read.

    Raises:
        ConfigurationError: it is missing, others can read it, it is empty or holds more than a line.
    """
    try:
        content = _read_guarded(path, forbidden=_OTHERS, in_folder=False)
    except FileNotFoundError:
        raise ConfigurationError(f"there is no secret at `{path}`: put the password alone into it, mode 600") from None
    text = content.decode("utf-8", "replace").removesuffix("\n").removesuffix("\r")
    if not (text and text.isprintable()) or len(content) > SECRET_BYTES_MAX:
        raise ConfigurationError(f"`{path}` must hold one printable line, the password alone")
    return text


def _read_guarded(path: Path, *, forbidden: int, in_folder: bool = True) -> bytes:
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
        if stat.S_IMODE(found.st_mode) & forbidden:
            can = "read" if forbidden & stat.S_IRWXO == stat.S_IRWXO else "change"
            raise ConfigurationError(f"others can {can} the key `{path}`; run `chmod 600 {path}`, or replace the key")
        if in_folder:
            _check_folder(path.parent)
        return os.read(descriptor, KEY_BYTES_MAX)
    finally:
        os.close(descriptor)


def _check_folder(folder: Path) -> None:
    if stat.S_IMODE(folder.stat().st_mode) & _OTHERS:
        raise ConfigurationError(f"others can enter the key folder `{folder}`; run `chmod 700 {folder}`")


def key_id_of(key: PrivateKey | PublicKey, prefix: str) -> str:
    """A name for the public half: `prefix` and 16 hexadecimal digits of the SHA-256 of its DER form."""
    public = key if isinstance(key, Ed25519PublicKey | EllipticCurvePublicKey) else key.public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"{prefix}-{sha256(der).hexdigest()[:16]}"


def public_jwk(key: PrivateKey | PublicKey, kid: str | None = None) -> dict[str, str]:
    """The public half as the directory lists it; a key of an issuer carries its `kid`."""
    public = key if isinstance(key, Ed25519PublicKey | EllipticCurvePublicKey) else key.public_key()
    jose = OKPKey.import_key(public) if isinstance(public, Ed25519PublicKey) else ECKey.import_key(public)
    named = {} if kid is None else {"kid": kid}
    return {**{name: str(value) for name, value in jose.as_dict().items()}, **named}


def signer_of(key: Ed25519PrivateKey) -> CryptoSigner:
    """The key as `trust_make.make_root` and `sign_targets` take it."""
    return CryptoSigner(key)


def tuf_key_of(key: Ed25519PublicKey) -> Key:
    """A public half as `trust_make.make_root` takes it."""
    return SSlibKey.from_crypto(key)
