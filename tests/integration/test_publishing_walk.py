"""Every command of `docs/publishing.md` does what is said there, in the order in which it stands there."""

import json
import re
import shutil
from pathlib import Path

import pytest
from two_environments import House, until_in_force

from sluicegate.enforcer.directory_change import change_content
from sluicegate.enforcer.policy_kinds import FIXES, Kind
from sluicegate.keys import PUBLIC, KeyFolder, KeyKind

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "publishing.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
ROLES = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)[0]
AFTER = {
    "staging-bundle-v2.json": ("staging", 2),
    "prod-bundle-v2.json": ("prod", 2),
    "prod-bundle-v3.json": ("prod", 3),
}
"""What the reader waits for: half a second, after which a version is in force."""


def test_the_walk(tansu: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    house = House(tmp_path, tansu)
    (house.folder / "roles.yaml").write_text(ROLES)
    shape = house.folder / "policies" / "shape.cedar"
    shape.write_text(f"{shape.read_text()}\n// reviewed\n")
    directory = json.loads((house.folder / "policies" / "directory.json").read_text())
    dataset = next(each for each in directory["entities"] if each["uid"]["type"] == "Dataset")
    change = change_content({"put": [{**dataset, "uid": {"type": "Dataset", "id": "walk"}}]})
    (house.folder / "change.json").write_bytes(change + b"\n")  # as `directory import` prints it
    fresh = KeyFolder(house.folder / "of" / "new")
    shutil.copy(fresh.file(fresh.new(KeyKind.PUBLISHER), PUBLIC), house.folder / "keys" / "new.pub")
    shutil.copy(house.environments["prod"].offline.keys / "root.pem", house.folder / "keys" / "root.pem")
    lines = [line for block in BLOCKS for line in block.splitlines()]
    assert len(lines) > 15
    for line in lines:
        capsys.readouterr()
        code = house.type(*line.split()[1:])
        out, err = capsys.readouterr()
        assert code == 0, f"{line}: {out}{err}"
        if line.split()[2] == "publish":
            assert "published " in out, line
            if (waited := AFTER.get(line.split()[-1])) is not None:
                until_in_force(house, *waited)
        if line.endswith("--show"):
            assert "1 of these missing: ben, cleo" in out
    prod = house.view("prod")
    assert [each.version for each in prod.of(Kind.BUNDLE)] == [1, 2, 3]
    assert (len(prod.of(Kind.ROOT)), len(prod.of(Kind.DIRECTORY)), prod.refused) == (2, 2, ())


def test_every_code_is_there() -> None:
    assert {fault for fault in FIXES if f"`{fault}`" not in TEXT} == set()
