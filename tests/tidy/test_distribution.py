"""What a user installs: every file of the five parts under `sluicegate/`, and nothing beside it."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

PARTS = ("schemas", "enforcer", "model_runner", "sinks", "streams")
BUILD = "import sys, setuptools.build_meta as build; getattr(build, sys.argv[1])(sys.argv[2])"


@pytest.fixture(scope="module")
def built(tree: list[Path], repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build wheel and sdist of a copy of the tree, so that nothing is left in the tree itself; return their folder."""
    copy, folder = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for path in tree:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(repository / path, copy / path)
    for part in PARTS:
        (copy / "src" / "sluicegate" / part).symlink_to(f"../../{part}")
    for step in ("build_wheel", "build_sdist"):
        command = [sys.executable, "-P", "-c", BUILD, step, str(folder)]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def shipped(tree: list[Path]) -> set[str]:
    """The files that must be installed, by the name they have there."""
    own = {str(path.relative_to("src")) for path in tree if path.parts[0] == "src"}
    return own | {f"sluicegate/{path}" for path in tree if path.parts[0] in PARTS}


def test_the_wheel_holds_every_file_and_no_generic_name(built: Path, shipped: set[str]) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if not name.endswith("/")}
        entry_points = wheel.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert "sluicegate/schemas/avro/RequestSubmitted.v1.avsc" in shipped
    assert shipped - names == set(), "add the suffix to `package-data` in pyproject.toml"
    assert {name.split("/")[0].split("-")[0] for name in names} == {"sluicegate"}
    assert "sluicegate = sluicegate.cli:main" in entry_points


def test_the_sdist_holds_every_file_and_the_locks(built: Path, shipped: set[str]) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {member.name.split("/", 1)[-1] for member in sdist.getmembers() if member.isfile()}
    assert {f"src/{name}" for name in shipped} - names == set()
    assert {"requirements/serve.lock", "Makefile", "LICENSE", "tests/tidy/test_distribution.py"} - names == set()
