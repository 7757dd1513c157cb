"""Key files: made once, private to their owner, and refused where others could have read them."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from sluicegate.keys import KeyFolder, key_id_of, load_key, new_p256, public_jwk, signer_of, write_key
from sluicegate.schemas.errors import ConfigurationError


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "keys")


def test_a_key_is_made_once(folder: KeyFolder) -> None:
    makers = [
        folder.root,
        folder.publisher,
        lambda: folder.stage("enforcer"),
        lambda: folder.stage("runner"),
        lambda: folder.service("helpdesk-app"),
        lambda: folder.issuer("dev"),
    ]
    first = [public_jwk(make())["x"] for make in makers]
    assert first == [public_jwk(make())["x"] for make in makers]
    assert len(set(first)) == len(makers)
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "issuer-dev.pem",
        "publisher.pem",
        "root.pem",
        "service-helpdesk-app.pem",
        "stage-enforcer.pem",
        "stage-runner.pem",
    ]


def test_nobody_else_can_read_them(folder: KeyFolder) -> None:
    folder.root()
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder.path / "root.pem").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o666])
def test_a_file_that_is_too_open_is_refused(folder: KeyFolder, mode: int) -> None:
    folder.root()
    path = folder.path / "root.pem"
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        folder.root()
    path.chmod(0o600)
    assert isinstance(folder.root(), Ed25519PrivateKey)


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_a_folder_that_is_too_open_is_refused(folder: KeyFolder, mode: int) -> None:
    folder.root()
    folder.path.chmod(mode)
    for name in ("root", "publisher"):  # to read one, to write one
        with pytest.raises(ConfigurationError, match="chmod 700"):
            getattr(folder, name)()
    folder.path.chmod(0o700)
    folder.publisher()


def test_a_key_is_never_overwritten(folder: KeyFolder) -> None:
    before = public_jwk(folder.root())
    with pytest.raises(FileExistsError):
        write_key(folder.path / "root.pem", Ed25519PrivateKey.generate())
    assert public_jwk(folder.root()) == before
    assert [path.name for path in folder.path.iterdir()] == ["root.pem"], "no draft is left behind"


def test_a_link_is_not_followed(folder: KeyFolder, tmp_path: Path) -> None:
    folder.root()
    (folder.path / "publisher.pem").symlink_to(folder.path / "root.pem")
    with pytest.raises(ConfigurationError):
        folder.publisher()
    (folder.path / "stage-x.pem").mkdir()
    with pytest.raises(ConfigurationError):
        folder.stage("x")


def pem(key: object, password: bytes | None = None) -> bytes:
    lock = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize(
    "content",
    [b"", b"not a key", pem(generate_private_key(SECP384R1())), pem(Ed25519PrivateKey.generate(), b"secret")],
    ids=["empty", "text", "p-384", "encrypted"],
)
def test_what_holds_no_admitted_key_is_refused(folder: KeyFolder, content: bytes) -> None:
    folder.root()
    (folder.path / "root.pem").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"root\.pem") as caught:
        folder.root()
    assert "secret" not in str(caught.value)


def test_a_p256_key_serves_a_service_but_not_a_stage(folder: KeyFolder) -> None:
    for name in ("service-a", "stage-a"):
        write_key(folder.path / f"{name}.pem", new_p256())
    assert isinstance(folder.service("a"), EllipticCurvePrivateKey)
    with pytest.raises(ConfigurationError, match="Ed25519"):
        folder.stage("a")


@pytest.mark.parametrize("name", ["../root", "a/b", "", "A", ".hidden/..", "a\n", "x" * 200])
def test_a_name_leads_nowhere_else(folder: KeyFolder, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot name a key"):
        folder.service(name)


def test_a_missing_file_is_told_apart(folder: KeyFolder) -> None:
    with pytest.raises(FileNotFoundError):
        load_key(folder.path / "root.pem")


@pytest.mark.parametrize("key", [Ed25519PrivateKey.generate(), new_p256()], ids=["ed25519", "p256"])
def test_the_public_half_tells_nothing_private(key: Ed25519PrivateKey | EllipticCurvePrivateKey) -> None:
    jwk = public_jwk(key, "k1")
    assert jwk["kid"] == "k1"
    assert "d" not in jwk
    assert "kid" not in public_jwk(key)
    assert key_id_of(key, "app") == key_id_of(key, "app") != key_id_of(new_p256(), "app")


def test_a_signer_signs_for_its_key() -> None:
    key = Ed25519PrivateKey.generate()
    signature = signer_of(key).sign(b"data")
    key.public_key().verify(bytes.fromhex(signature.signature), b"data")
