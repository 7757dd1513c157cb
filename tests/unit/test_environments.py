"""Settings of other environments stand in files; roles stand in files: what is wrong in one is said in one line."""

from pathlib import Path

import pytest

from sluicegate.environments import described, named_environments
from sluicegate.keys import PUBLIC, KeyFolder, KeyKind, new_p256
from sluicegate.roles_file import ROLES_BYTES_MAX, read_roles
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.settings import read_settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLUICEGATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SLUICEGATE_TENANT", "own")
    (tmp_path / "environments").mkdir()
    return tmp_path


def test_an_environment_is_what_its_file_says_and_nothing_of_this_process(folder: Path) -> None:
    file = folder / "environments" / "prod.env"
    file.write_text("# production\n\nSLUICEGATE_BOOTSTRAP=kafka:9092\nSLUICEGATE_KEYS_DIR=../keys/prod\n")
    found = described("prod")
    assert (found.settings.env, found.settings.tenant, found.settings.bootstrap) == ("prod", "main", "kafka:9092")
    assert found.settings.keys_dir == folder / "environments" / "../keys/prod"
    assert found.settings.home == folder / "home" / "environments" / "prod"
    assert described().settings.tenant == "own"
    assert (described("local").name, named_environments()) == ("local", ("prod",))
    for name in ("../prod", "none", "prod.env"):
        with pytest.raises(ConfigurationError, match=r"take one of these: `prod`"):
            described(name)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"SLUICEGATE_TENNANT=x", "did you mean `SLUICEGATE_TENANT`"),
        (b"PATH=/bin", "is not a setting"),
        (b"tenant", "prod.env:1: write"),
        (b"SLUICEGATE_PARTITIONS=many", "PARTITIONS"),
        (b"\xff\xfe", "cannot be read as text"),
    ],
)
def test_a_bad_settings_file_gets_one_line(folder: Path, content: bytes, why: str) -> None:
    file = folder / "prod.env"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=why) as caught:
        read_settings(file)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_settings(folder)


def test_a_roles_file_names_people_and_their_keys(folder: Path) -> None:
    keys = KeyFolder(folder / "keys")
    for _ in range(3):
        keys.new(KeyKind.PUBLISHER)
    file = folder / "roles.yaml"
    file.write_text(
        "bundle: {threshold: 2, holders: {ana: [keys/publisher.pub, keys/publisher~2.pub], "
        "ben: keys/publisher~3.pub}}\n"
        "directory/User: {holders: {ben: keys/publisher~3.pub}}\n"
    )
    found = read_roles(file)
    assert [each.holder for each in found["bundle"].signatories] == ["ana", "ana", "ben"]
    assert (found["bundle"].threshold, found["directory/User"].threshold) == (2, 1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "must name each role"),
        ("[bundle]", "must name each role"),
        ("bundle: [", "cannot be read as YAML"),
        ("bundle: {}", "`holders` of `bundle`"),
        ("bundle: 1", "must have `holders`"),
        ("bundle: {holders: {ana: none.pub}}", "cannot be read"),
        ("bundle: {holders: {ana: publisher.pub}, threshold: 2}", "1 holders, who cannot meet 2"),
        ("bundle: {holders: {ana: publisher.pub}, threshold: two}", "a whole number"),
        ("bundle: {holders: {ana: publisher.pub}, who: ana}", "must have `holders`"),
        ("bundles: {holders: {ana: publisher.pub}}", "bundles"),
        ("bundle: {holders: {ana: publisher.pem}}", "is no public key"),
        ("bundle: {holders: {ana: issuer-x.pub}}", "must be an Ed25519 key"),
    ],
)
def test_a_bad_roles_file_gets_one_line(folder: Path, text: str, why: str) -> None:
    keys = KeyFolder(folder / "keys")
    keys.new(KeyKind.PUBLISHER)
    assert keys.file(keys.new(KeyKind.ISSUER, "x", make=new_p256), PUBLIC).is_file()
    file = folder / "keys" / "roles.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=why) as caught:
        read_roles(file)
    assert "\n" not in str(caught.value)


def test_a_roles_file_of_any_size_is_not_read(folder: Path) -> None:
    file = folder / "roles.yaml"
    file.write_bytes(b"#" * (ROLES_BYTES_MAX + 1))
    with pytest.raises(ConfigurationError, match="is over"):
        read_roles(file)
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="cannot be read as YAML"):
        read_roles(file)
