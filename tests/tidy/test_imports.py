"""Rules about imports: one name for each part, links that lead to it, and nothing heavy on the serving path."""

import ast
import json
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

PARTS = ("schemas", "enforcer", "model_runner", "sinks", "streams")
HEAVY = ("torch", "transformers", "optimum", "accelerate", "triton", "nvidia")

WALK = """
import importlib, json, pkgutil, sys
import sluicegate
names = [m.name for m in pkgutil.walk_packages(sluicegate.__path__, "sluicegate.")]
for name in names:
    importlib.import_module(name)
loaded = {name.split(".")[0] for name in sys.modules}
print(json.dumps({"names": names, "loaded": sorted(loaded)}))
"""


def imported_names(module: ast.Module) -> set[str]:
    """Return the name of every absolute import in `module`, wherever it stands, literal `import_module` calls too."""
    names: set[str] = set()
    for node in ast.walk(module):
        match node:
            case ast.Import(names=aliases):
                names.update(alias.name for alias in aliases)
            case ast.ImportFrom(module=str(name), level=0):
                names.add(name)
            case ast.Call(
                func=ast.Name("__import__") | ast.Attribute(attr="import_module"), args=[ast.Constant(str(name)), *_]
            ):
                names.add(name)
            case _:
                pass
    return names


def short_names(module: ast.Module) -> set[str]:
    """Return the imports that name a part without `sluicegate.` before it."""
    return {name for name in imported_names(module) if name.split(".")[0] in PARTS}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import enforcer", {"enforcer"}),
        ("def f():\n    from schemas.ids import EventId", {"schemas.ids"}),
        ("import importlib\nimportlib.import_module('sinks')", {"sinks"}),
        ("from sluicegate.enforcer import gate\nfrom sluicegate import streams\nimport schematics", set()),
    ],
)
def test_the_search_for_short_names_finds_them(text: str, found: set[str]) -> None:
    assert short_names(ast.parse(text)) == found


def test_no_file_imports_a_part_by_its_short_name(parsed: dict[Path, ast.Module]) -> None:
    # As a plain top-level package another distribution's `enforcer` once replaced ours, and a denied user was allowed.
    assert {str(path): found for path, module in parsed.items() if (found := short_names(module))} == {}


@pytest.mark.parametrize("part", PARTS)
def test_the_link_leads_to_the_folder_on_top(repository: Path, part: str) -> None:
    link = repository / "src" / "sluicegate" / part
    assert link.is_symlink()
    assert str(link.readlink()) == f"../../{part}"
    assert link.resolve() == repository / part


@pytest.fixture(scope="module")
def serving() -> dict[str, list[str]]:
    """Import every module of the distribution in a process of its own; return their names and all that got loaded."""
    done = subprocess.run([sys.executable, "-P", "-c", WALK], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    return {"names": answer["names"], "loaded": answer["loaded"]}


def test_sluicegate_is_this_tree(repository: Path) -> None:
    # A clone that was copied keeps the links of the old one in its environment: it would test somebody else's code.
    origin = subprocess.run(
        [sys.executable, "-P", "-c", "import sluicegate.enforcer as e; print(e.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.strip()
    assert Path(origin).resolve() == repository / "enforcer" / "__init__.py", "run `make clean` in a copied clone"


def test_serving_imports_every_module_and_no_torch(serving: dict[str, list[str]]) -> None:
    for part in PARTS:
        assert f"sluicegate.{part}" in serving["names"]
    assert "numpy" in serving["loaded"], "the list of loaded modules is empty"
    assert [name for name in serving["loaded"] if name in HEAVY] == []


def test_nothing_generic_is_importable_once_installed(repository: Path, tmp_path: Path) -> None:
    text = f"import importlib.util as u; print([n for n in {PARTS!r} if u.find_spec(n)])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", text], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_every_library_the_product_imports_is_declared(product: dict[Path, ast.Module], repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["export"], *extras["bench"]]
    declared = {normal(requirement) for requirement in wanted}
    owners = packages_distributions()
    known = {"sluicegate", "demo", "bench", *sys.stdlib_module_names}
    undeclared = {
        f"{path}: {top}"
        for path, module in product.items()
        for top in {name.split(".")[0] for name in imported_names(module)} - known
        if not any(normal(owner) in declared for owner in owners.get(top, [top]))
    }
    assert undeclared == set()


def normal(requirement: str) -> str:
    """Return the distribution a requirement names, as PEP 503 spells it."""
    name = requirement
    for end in "<>=!~;[ ":
        name = name.split(end)[0]
    return name.lower().replace("_", "-").replace(".", "-")
