"""`sluicegate keys` as it is typed, and what an installation that only reads makes of the files: nothing."""

import json
import stat
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sluicegate import cli
from sluicegate.enforcer.credentials import Algorithm, parse_credentials
from sluicegate.enforcer.seal import StageKey
from sluicegate.enforcer.stage_keys import read_stage_keys
from sluicegate.enforcer.trust import Domain, TrustedRoot, digest_of, verify_root
from sluicegate.freshness_key import freshness_signer
from sluicegate.home import Home
from sluicegate.installation import Installation, require_admitted
from sluicegate.keys import PUBLIC, KeyFolder, KeyKind, KeyName, key_id_of, load_key, load_public, parse_name
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.settings import Settings

STAGES = ("enforcer", "runner", "redactor", "shadow")
Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def keys_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLUICEGATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SLUICEGATE_KEYS_DIR", str(tmp_path / "keys"))
    return tmp_path / "keys"


@pytest.fixture
def typed(keys_dir: Path, capsys: pytest.CaptureFixture[str]) -> Typed:
    def call(*words: str) -> tuple[int, str, str]:
        code = cli.main(["keys", *words])
        found = capsys.readouterr()
        return code, found.out, found.err

    return call


@pytest.fixture
def installation(keys_dir: Path) -> Installation:
    return reading(keys_dir)


def reading(keys_dir: Path, **changes: object) -> Installation:
    settings = Settings(keys_dir=keys_dir, **changes)  # type: ignore[arg-type]
    return Installation(settings, Home(root=keys_dir.parent / "home"))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("order", list(permutations(("publisher", "root", "freshness"))))
def test_root_publisher_and_freshness_make_one_root_of_trust_in_any_order(
    typed: Typed, keys_dir: Path, installation: Installation, order: tuple[str, ...]
) -> None:
    for each in order:
        assert "root.json" not in files(keys_dir)
        assert typed("new", each)[0] == 0
    assert files(keys_dir) == [
        "freshness.pem", "freshness.pub", "publisher.pem", "publisher.pub", "root.json", "root.pem", "root.pub",
    ]  # fmt: skip
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys_dir.glob("*.pem")} == {0o600}
    assert stat.S_IMODE(keys_dir.stat().st_mode) == 0o700
    metadata = installation.root_metadata()
    root = verify_root(
        metadata, version=1, domain=Domain(env="local", tenant="main"), previous=None,
        pinned=digest_of(metadata), time_ms=0,
    )  # fmt: skip
    assert isinstance(root, TrustedRoot)
    assert freshness_signer(installation.keys, None, root).public_key.keyid in root.root.roles["timestamp"].keyids
    # One more, which the root does not name, is no signer until a root does.
    assert typed("new", "freshness")[0] == 0
    assert freshness_signer(installation.keys, None, root).public_key.keyid in root.root.roles["timestamp"].keyids
    installation.keys.retire(KeyName(kind=KeyKind.FRESHNESS))
    with pytest.raises(ConfigurationError, match="names 1 keys for freshness, and none of the 1 here"):
        freshness_signer(installation.keys, None, root)
    for each in ("publisher", "root"):
        code, _, error = typed("new", each)
        assert (code, "there is a" in error) == (2, True)
    assert installation.root_metadata() == metadata


def test_the_root_is_made_where_only_the_publishers_public_half_is(
    typed: Typed, keys_dir: Path, tmp_path: Path
) -> None:
    elsewhere = KeyFolder(tmp_path / "publisher")
    name, clock = elsewhere.new(KeyKind.PUBLISHER), elsewhere.new(KeyKind.FRESHNESS)
    keys_dir.mkdir(mode=0o700)
    for each in (name, clock):
        (keys_dir / elsewhere.file(each, PUBLIC).name).write_bytes(elsewhere.file(each, PUBLIC).read_bytes())
    assert typed("new", "root")[0] == 0
    assert files(keys_dir) == ["freshness.pub", "publisher.pub", "root.json", "root.pem", "root.pub"]
    public = elsewhere.load(name).public_key()
    assert isinstance(public, Ed25519PublicKey)
    assert public.public_bytes_raw().hex() in (keys_dir / "root.json").read_text()


def test_an_installation_that_reads_makes_nothing_and_says_what_to_type(
    keys_dir: Path, installation: Installation
) -> None:
    calls: dict[str, Callable[[], object]] = {
        "sluicegate keys new root": installation.root_metadata,
        "sluicegate keys new stage runner": lambda: installation.stage_signers("runner"),
        "sluicegate keys new stage enforcer": installation.stage_keys,
        "sluicegate keys new publisher": installation.keys.publisher,
        "sluicegate keys new service app": lambda: installation.keys.service("app"),
    }
    for line, call in calls.items():
        with pytest.raises(ConfigurationError, match=f"`{line}`"):
            call()
    assert files(keys_dir) == []
    # The control: one that may make them does.
    one_box = Installation(Settings(keys_dir=keys_dir), Home(root=keys_dir.parent / "home"), development=True)
    assert len(read_stage_keys(one_box.stage_keys())) == len(STAGES)
    assert one_box.root_metadata() == installation.root_metadata()


def test_the_root_may_lie_elsewhere(typed: Typed, keys_dir: Path, tmp_path: Path) -> None:
    for each in ("publisher", "freshness", "root"):
        typed("new", each)
    moved = (keys_dir / "root.json").rename(tmp_path / "elsewhere.json")
    assert reading(keys_dir, root_file=moved).root_metadata() == moved.read_bytes()
    with pytest.raises(ConfigurationError, match="SLUICEGATE_ROOT_FILE"):
        reading(keys_dir).root_metadata()


def test_a_second_key_of_a_stage_is_the_newest_and_both_are_admitted(
    typed: Typed, keys_dir: Path, installation: Installation
) -> None:
    for each in (*STAGES, "enforcer"):
        assert typed("new", "stage", each)[0] == 0
    assert "stage-enforcer~2.pem" in files(keys_dir)
    newest, oldest = installation.stage_signers("enforcer")
    assert newest.key_id == key_id_of(load_key(keys_dir / "stage-enforcer~2.pem"), "enforcer")
    assert oldest.key_id == key_id_of(load_key(keys_dir / "stage-enforcer.pem"), "enforcer")
    admitted = read_stage_keys(installation.stage_keys())
    assert {key for key in admitted if key.startswith("enforcer")} == {newest.key_id, oldest.key_id}


def test_public_halves_alone_are_enough_to_admit(typed: Typed, keys_dir: Path, installation: Installation) -> None:
    for each in STAGES:
        typed("new", "stage", each)
    whole = installation.stage_keys()
    for path in keys_dir.glob("*.pem"):
        path.unlink()
    assert installation.stage_keys() == whole
    (keys_dir / "stage-runner.pub").chmod(0o622)
    with pytest.raises(ConfigurationError, match="others can change"):
        installation.stage_keys()


def test_what_was_admitted_or_revoked_stays_so_whatever_the_files_say(
    typed: Typed, keys_dir: Path, installation: Installation
) -> None:
    for each in STAGES:
        typed("new", "stage", each)
    before = dict(read_stage_keys(installation.stage_keys()))
    gone = installation.stage_signers("enforcer")[0].key_id
    before[gone] = replace(before[gone], revoked_at_ms=5)
    (keys_dir / "stage-runner.pem").unlink()
    (keys_dir / "stage-runner.pub").unlink()
    assert typed("new", "stage", "enforcer")[0] == 0
    after = read_stage_keys(installation.stage_keys(before))
    assert set(before) < set(after)
    assert (len(after), after[gone].revoked_at_ms) == (5, 5)


def admitted(installation: Installation, **revoked: int) -> dict[str, StageKey]:
    return {
        key_id: replace(key, revoked_at_ms=revoked.get(key.stage))
        for key_id, key in read_stage_keys(installation.stage_keys()).items()
    }


def test_a_stage_takes_its_newest_admitted_key(typed: Typed, installation: Installation) -> None:
    for each in STAGES:
        typed("new", "stage", each)
    (first,) = installation.stage_signers("enforcer")
    said = admitted(installation)
    typed("new", "stage", "enforcer")
    own = installation.stage_signers("enforcer")
    assert require_admitted("enforcer", own, said, now_ms=10).key_id == first.key_id, "the second is not admitted yet"
    assert require_admitted("enforcer", own, admitted(installation), now_ms=10).key_id == own[0].key_id
    revoked = admitted(installation, enforcer=10)
    assert require_admitted("enforcer", own, revoked, now_ms=9).key_id == own[0].key_id
    with pytest.raises(ConfigurationError, match="revoked: run `sluicegate keys new stage enforcer`"):
        require_admitted("enforcer", own, revoked, now_ms=10)
    with pytest.raises(ConfigurationError, match=r"not admitted: run `sluicegate publish` .*`stage-enforcer\.pub`"):
        require_admitted("enforcer", own, {}, now_ms=10)


@pytest.mark.parametrize(("words", "algorithm"), [((), Algorithm.ED25519), (("--alg", "es256"), Algorithm.ES256)])
def test_a_services_key_prints_its_entry_for_the_directory(
    typed: Typed, keys_dir: Path, words: tuple[str, ...], algorithm: Algorithm
) -> None:
    code, out, _ = typed("new", "service", "nightly-triage", *words)
    entry = json.loads(out.splitlines()[-1])
    (found,) = parse_credentials({"service_keys": [entry], "issuers": []}).service_keys.values()
    assert (code, found.service, found.public.algorithm) == (0, "nightly-triage", algorithm)
    assert found.kid == key_id_of(load_key(keys_dir / "service-nightly-triage.pem"), "service")
    assert "PRIVATE" not in out


@pytest.mark.parametrize("name", ["Upper", "a/b", "../x", "", "a~2", "x" * 101])
def test_a_name_that_cannot_be_a_files_makes_nothing(typed: Typed, keys_dir: Path, name: str) -> None:
    assert typed("new", "service", name)[0] == 2
    assert files(keys_dir) == []


def test_the_list_shows_every_key_and_what_is_wrong_with_it(typed: Typed, keys_dir: Path) -> None:
    for words in (("publisher",), ("root",), ("stage", "enforcer"), ("service", "app")):
        typed("new", *words)
    (keys_dir / "stage-runner.pub").write_bytes((keys_dir / "stage-enforcer.pub").read_bytes())
    code, out, error = typed("list", "--json")
    rows = {row["file"]: row for row in map(json.loads, out.splitlines())}
    assert (code, sorted(rows)) == (
        0, ["publisher.pem", "root.pem", "service-app.pem", "stage-enforcer.pem", "stage-runner.pub"],
    )  # fmt: skip
    assert rows["stage-enforcer.pem"]["id"] == key_id_of(load_key(keys_dir / "stage-enforcer.pem"), "enforcer")
    assert (rows["service-app.pem"]["kind"], rows["service-app.pem"]["owner"]) == ("service", "app")
    assert rows["root.pem"]["age_days"] < 1
    assert "what is admitted is not known" in error
    (keys_dir / "root.pem").chmod(0o644)
    code, out, _ = typed("list", "--json")
    problems = {row["file"]: row["problem"] for row in map(json.loads, out.splitlines()) if row["problem"]}
    assert code == 1
    path = keys_dir / "root.pem"
    assert problems == {"root.pem": f"others can read the key `{path}`; run `chmod 600 {path}`, or replace the key"}


def test_a_retired_key_signs_no_more_and_its_number_is_never_used_again(keys_dir: Path) -> None:
    folder = KeyFolder(keys_dir)
    first = folder.new(KeyKind.STAGE, "runner")
    retired = folder.retire(first)
    assert retired is not None
    assert files(keys_dir) == ["stage-runner.pem.revoked"]
    assert folder.of(KeyKind.STAGE, "runner") == ()
    assert folder.new(KeyKind.STAGE, "runner").number == 2
    assert folder.retire(first) is None
    (keys_dir / "stage-runner~2.pem").unlink()
    (keys_dir / "stage-runner~2.pub").unlink()
    folder.stage("runner")  # a one-box installation makes what is missing, beside what was retired
    assert files(keys_dir) == ["stage-runner.pem.revoked", "stage-runner~2.pem"]


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("root", KeyName(kind=KeyKind.ROOT)),
        ("stage-runner", KeyName(kind=KeyKind.STAGE, owner="runner")),
        ("stage-runner~12", KeyName(kind=KeyKind.STAGE, owner="runner", number=12)),
        ("service-a.b-c_d", KeyName(kind=KeyKind.SERVICE, owner="a.b-c_d")),
        ("stage", None),
        ("root-x", None),
        ("other-x", None),
        ("stage-runner~0", None),
        ("stage-runner~", None),
        ("stage-Runner", None),
    ],
)
def test_a_file_name_is_a_key_or_nothing(stem: str, name: KeyName | None) -> None:
    assert parse_name(stem) == name
    assert name is None or name.stem == stem


@pytest.mark.parametrize(
    "content", [b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", b"\xff" * 99]
)
def test_a_public_half_that_is_none_is_refused(keys_dir: Path, content: bytes) -> None:
    keys_dir.mkdir(mode=0o700)
    path = keys_dir / "stage-runner.pub"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="no public PEM key"):
        load_public(path, KeyName(kind=KeyKind.STAGE, owner="runner"))
