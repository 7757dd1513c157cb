"""Several people sign and publish to two environments over a real broker; what is not so is refused with its code."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from two_environments import ROLES, House, until_in_force

from sluicegate.enforcer.policy_kinds import Kind

Said = Callable[[], tuple[str, str]]


@pytest.fixture
def house(tansu: str, tmp_path: Path) -> House:
    return House(tmp_path, tansu)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return lambda: tuple(capsys.readouterr())  # type: ignore[return-value]


def edit(house: House) -> None:
    """Another bundle in the folder."""
    file = house.folder / "policies" / "shape.cedar"
    file.write_text(f"{file.read_text()}\n// changed\n")


def two_needed(house: House, *envs: str) -> None:
    """From now on bundles take two people."""
    for env in envs or ("staging", "prod"):
        key = str(house.publisher(env).keys / "publisher.pem")
        assert house.type("policy", "sign", "--roles", "roles.yaml", "--env", env, "--key", key) == 0
        assert house.type("policy", "publish", "--env", env, f"{env}-roles-v1.json") == 0


def test_two_people_bring_a_bundle_from_staging_to_prod_and_back(house: House, said: Said) -> None:
    two_needed(house)
    assert "published roles v1 for `prod`" in said()[0]
    edit(house)
    assert house.type("policy", "sign", "--bundle", "policies", "--env", "staging", "--key", "keys/ana.pem") == 0
    out, _ = said()
    assert "bundle: by ana; 1 of these missing: ben, cleo" in out
    # The author alone, and the author again.
    assert house.type("policy", "publish", "--env", "staging", "staging-bundle-v2.json") == 1
    assert "UNSIGNED" in said()[1]
    assert house.type("policy", "sign", "staging-bundle-v2.json", "--key", "keys/ana.pem") == 2
    assert "has signed this already" in said()[1]
    assert house.type("policy", "sign", "staging-bundle-v2.json", "--key", "keys/ben.pem") == 0
    assert "bundle: by ana, ben; 2 needed" in said()[0]
    assert house.type("policy", "publish", "--env", "staging", "staging-bundle-v2.json") == 0
    assert "published bundle v2 for `staging`" in said()[0]
    # Now they differ, and whoever asks is told.
    until_in_force(house, "staging", 2)
    said()
    assert house.type("policy", "status", "--format", "json") == 1
    document = json.loads(said()[0])
    assert {each["env"] for each in document["environments"]} == {"staging", "prod"}
    assert "`staging` runs" in document["drift"]
    assert house.type("policy", "status", "--env", "prod") == 0, "alone it is fine"
    said()
    # The very same content for prod, which takes two of its own.
    assert house.type("policy", "promote", "staging", "prod", "--key", "keys/cleo.pem") == 0
    assert house.type("policy", "publish", "--env", "prod", "prod-bundle-v2.json") == 1
    assert house.type("policy", "sign", "prod-bundle-v2.json", "--key", "keys/ana.pem") == 0
    assert house.type("policy", "publish", "--env", "prod", "prod-bundle-v2.json") == 0
    until_in_force(house, "prod", 2)
    digests = {env: house.view(env).of(Kind.BUNDLE)[-1].digest for env in ("staging", "prod")}
    assert digests["staging"] == digests["prod"]
    said()
    assert house.type("policy", "status") == 0
    assert said()[0].count("partition 0: nothing decided lately") == 2
    assert house.type("policy", "promote", "staging", "prod") == 0
    assert "already" in said()[0]
    # Back, under the next version.
    assert house.type("policy", "rollback", "--env", "prod", "--to", "9") == 2
    words = ("policy", "rollback", "--env", "prod")
    assert house.type(*words, "--key", "keys/ana.pem", "--key", "keys/ben.pem") == 0
    assert house.type("policy", "publish", "--env", "prod", "prod-bundle-v3.json") == 0
    first, _, third = house.view("prod").of(Kind.BUNDLE)
    assert (third.version, third.digest) == (3, first.digest)


def test_what_is_not_so_is_refused_with_its_code_and_nothing_changes(house: House, said: Said) -> None:
    two_needed(house, "prod")
    edit(house)
    both = ("--key", "keys/ana.pem", "--key", "keys/ben.pem")
    make = ("policy", "sign", "--bundle", "policies", "--env", "prod")
    assert house.type(*make, *both, "--out", "good.json") == 0
    assert house.type(*make, *both, "--version", "1", "--out", "older.json") == 0
    assert house.type(*make, "--key", "keys/ana.pem", "--out", "alone.json") == 0
    assert house.type("policy", "sign", "--bundle", "policies", "--env", "staging", "--out", "foreign.json") == 0
    document = json.loads((house.folder / "good.json").read_text())
    changed = document["content"].replace("// changed", "// CHANGED")
    assert changed != document["content"]
    (house.folder / "tampered.json").write_text(json.dumps({**document, "content": changed}))
    said()
    for name, code in (
        ("older", "OLDER"), ("alone", "UNSIGNED"), ("foreign", "FOREIGN"), ("tampered", "TAMPERED"),
    ):  # fmt: skip
        assert house.type("policy", "publish", "--env", "prod", f"{name}.json") == 1
        error = said()[1]
        assert (code in error, "  do  " in error) == (True, True), error
    # A signature does not repair what somebody changed, and one for another environment is not signed in its name.
    assert house.type("policy", "sign", "tampered.json", "--key", "keys/cleo.pem") == 2
    assert "not the one that was signed" in said()[1]
    assert house.type("policy", "sign", "foreign.json", "--env", "prod", "--key", "keys/cleo.pem") == 2
    (house.folder / "list.json").write_text("[]")
    for words in (
        ("policy", "sign", "list.json", "--show"), ("policy", "publish", "--env", "prod", "list.json"),
        ("policy", "publish", "--env", "nowhere"), ("policy", "publish", "--env", "prod", "environments"),
        ("policy", "sign", "--roles", "list.json", "--env", "prod"), ("policy", "sign"),
        ("policy", "sign", "--directory", "roles.yaml", "--env", "prod"),
    ):  # fmt: skip
        said()
        assert house.type(*words) == 2, words
        assert said()[1].count("\n") == 1, words
    assert [each.version for each in house.view("prod").of(Kind.BUNDLE)] == [1]
    # The control: the honest one lands, once.
    assert house.type("policy", "publish", "--env", "prod", "good.json") == 0
    assert house.type("policy", "publish", "--env", "prod", "good.json") == 1
    assert "OLDER" in said()[1]
    # One that was signed before the roles changed counts by those of its place.
    edit(house)
    assert house.type(*make, *both, "--out", "before.json") == 0
    (house.folder / "roles.yaml").write_text(ROLES.replace("    ana: keys/ana.pub\n", ""))
    assert house.type("policy", "sign", "--roles", "roles.yaml", "--env", "prod", "--out", "roles.json") == 0
    assert house.type("policy", "publish", "--env", "prod", "roles.json", "before.json") == 1, "nothing of both"
    assert house.type("policy", "publish", "--env", "prod", "roles.json") == 0
    said()
    assert house.type("policy", "publish", "--env", "prod", "before.json") == 1
    assert "UNSIGNED" in said()[1]
    assert house.type("policy", "sign", "before.json", "--key", "keys/cleo.pem") == 0
    assert house.type("policy", "publish", "--env", "prod", "before.json") == 0
