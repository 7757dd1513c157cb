"""Rules about behaviour: `schemas` and `enforcer` do no I/O, and no handler swallows what it does not know."""

import ast
from pathlib import Path

import pytest

# Clock, chance, network, files, processes, environment, logs: these come in as arguments or not at all.
IMPURE_MODULES = {
    "asyncio", "concurrent", "getpass", "glob", "http", "logging", "multiprocessing", "os", "pathlib", "platform",
    "queue", "random", "secrets", "select", "selectors", "shutil", "signal", "socket", "socketserver", "sqlite3", "ssl",
    "subprocess", "sys", "tempfile", "time", "urllib",
}  # fmt: skip
IMPURE_CALLS = {
    "open", "input", "print", "now", "utcnow", "today", "uuid1", "uuid4", "urandom", "token_bytes", "token_hex",
    "write_text", "write_bytes", "read_bytes", "generate_key", "sleep", "getenv",
}  # fmt: skip
# The one reading that is allowed: the Avro schemas that ship inside the package, which are part of the code.
READS_ITS_OWN_PACKAGE = {Path("schemas/codec.py")}

# A handler for `Exception` is the edge of a worker: file -> why it may be there.
WORKER_EDGES: dict[str, str] = {
    "model_runner/engine.py": "the thread of the engine: a bug fails every job that is open, each raised to its holder",
    "streams/generate.py": "the lanes of the runner: a bug is kept and raised to whoever runs them",
    "streams/enforce.py": "the agent: out of it Faust would drop the slice and go on; the worker stops with the bug",
}


def impurities(module: ast.Module) -> list[str]:
    """Return what in `module` reaches outside: impure imports and calls, each with its line."""
    found: list[str] = []
    for node in ast.walk(module):
        match node:
            case ast.Import(names=aliases):
                found += [f"{node.lineno} import {a.name}" for a in aliases if a.name.split(".")[0] in IMPURE_MODULES]
            case ast.ImportFrom(module="pathlib", names=aliases) if all(a.name.startswith("Pure") for a in aliases):
                pass  # a path as text, with no file system behind it
            case ast.ImportFrom(module=str(name)) if name.split(".")[0] in IMPURE_MODULES:
                found.append(f"{node.lineno} from {name}")
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in IMPURE_CALLS:
                found.append(f"{node.lineno} {name}()")
            case ast.Attribute(value=ast.Name(id=owner), attr="generate") if owner.endswith("PrivateKey"):
                found.append(f"{node.lineno} {owner}.generate")
            case _:
                pass
    return found


def broad_handlers(module: ast.Module) -> list[int]:
    """Return the lines of handlers that take any exception and do not raise it again as it was."""
    return [
        node.lineno
        for node in ast.walk(module)
        if isinstance(node, ast.ExceptHandler)
        and takes_anything(node.type)
        and not any(isinstance(inner, ast.Raise) and inner.exc is None for inner in node.body)
    ]


def takes_anything(caught: ast.expr | None) -> bool:
    """Return whether an `except` clause of this type lets nothing through."""
    match caught:
        case None:
            return True
        case ast.Name(id="Exception" | "BaseException"):
            return True
        case ast.Tuple(elts=elements):
            return any(takes_anything(element) for element in elements)
        case _:
            return False


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("import time", 1),
        ("from os import environ", 1),
        ("from pathlib import Path, PurePath", 1),
        ("from pathlib import PurePosixPath", 0),
        ("from datetime import datetime\ndatetime.now()", 1),
        ("open('x')", 1),
        ("def f():\n    import secrets", 1),
        ("Ed25519PrivateKey.generate()", 1),
        ("import hashlib\nfrom dataclasses import dataclass\nnow_ns = 3\nmodel.generate()", 0),
    ],
)
def test_the_search_for_impurity_finds_it(text: str, count: int) -> None:
    assert len(impurities(ast.parse(text))) == count


@pytest.mark.parametrize(
    ("handler", "broad"),
    [
        ("except Exception: pass", True),
        ("except: pass", True),
        ("except (ValueError, Exception) as error: log(error)", True),
        ("except BaseException:\n    close()\n    raise", False),
        ("except ValueError: pass", False),
    ],
)
def test_the_search_for_broad_handlers_finds_them(handler: str, broad: bool) -> None:
    assert bool(broad_handlers(ast.parse(f"try:\n    pass\n{handler}"))) is broad


def test_the_pure_core_does_no_io(pure: dict[Path, ast.Module]) -> None:
    assert {path.parts[0] for path in pure} == {"schemas", "enforcer"}
    faults = {str(path): found for path, module in pure.items() if (found := impurities(module))}
    assert faults == {}


def test_only_the_codec_reads_files_of_its_package(pure: dict[Path, ast.Module]) -> None:
    readers = {
        path
        for path, module in pure.items()
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and node.attr in {"read_text", "open_text", "iterdir", "as_file"}
    }
    assert readers <= READS_ITS_OWN_PACKAGE


def test_no_handler_swallows_everything_outside_a_worker(product: dict[Path, ast.Module]) -> None:
    faults = {
        str(path): lines
        for path, module in product.items()
        if str(path) not in WORKER_EDGES and (lines := broad_handlers(module))
    }
    assert faults == {}


def test_every_allowed_handler_still_exists(product: dict[Path, ast.Module]) -> None:
    found = {str(path) for path, module in product.items() if broad_handlers(module)}
    assert set(WORKER_EDGES) - found == set(), "take it off the list"
