"""What the rules of the house are held against: every file that git tracks or would track."""

import ast
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PARTS = ("schemas", "enforcer", "model_runner", "sinks", "streams")
PRODUCT = (*PARTS, "src", "demo", "bench", "scripts")


def files_of_the_tree(repository: Path) -> list[Path]:
    """Return the regular files git tracks or would track, relative to `repository`; without git, all outside dots."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=repository, capture_output=True, check=False
    )
    if listed.returncode == 0:
        paths = [Path(name) for name in listed.stdout.decode().split("\0") if name]
    else:
        found = (path.relative_to(repository) for path in repository.rglob("*"))
        paths = [path for path in found if not any(part[0] == "." or part == "__pycache__" for part in path.parts)]
    return sorted(path for path in paths if (repository / path).is_file() and not (repository / path).is_symlink())


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def tree() -> list[Path]:
    files = files_of_the_tree(REPOSITORY)
    assert len(files) > 30, "the rules below would hold of nothing: no files found"
    return files


@pytest.fixture(scope="session")
def parsed(tree: list[Path]) -> dict[Path, ast.Module]:
    """Every Python file of the tree, parsed."""
    return {
        path: ast.parse((REPOSITORY / path).read_text(encoding="utf-8"), str(path))
        for path in tree
        if path.suffix == ".py"
    }


@pytest.fixture(scope="session")
def product(parsed: dict[Path, ast.Module]) -> dict[Path, ast.Module]:
    """The files that run for a user: everything but the tests."""
    return {path: module for path, module in parsed.items() if path.parts[0] in PRODUCT}


@pytest.fixture(scope="session")
def pure(parsed: dict[Path, ast.Module]) -> dict[Path, ast.Module]:
    """The files of `schemas` and `enforcer`, which do no I/O."""
    return {path: module for path, module in parsed.items() if path.parts[0] in {"schemas", "enforcer"}}
