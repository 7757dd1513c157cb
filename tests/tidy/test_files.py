"""Rules about files: their size, what they may hold, and which must be there."""

import re
from pathlib import Path

import pytest

LINES_MAX = 400
BYTES_MAX = 1_000_000
FOLDERS = (
    "schemas", "enforcer", "model_runner", "sinks", "streams", "src/sluicegate",
    "demo", "policies", "examples", "bench", "docs", "docs/adr", "tests", "requirements",
)  # fmt: skip
FILES = ("README.md", "LICENSE", "Makefile", "pyproject.toml", ".ci/run", "docs/architecture.md", "docs/invariants.md")
PICTURES = {".png", ".gif", ".jpg"}
MADE = {
    ".gguf", ".onnx", ".onnx_data", ".safetensors", ".bin", ".pt", ".whl", ".gz", ".zip", ".jar", ".so", ".log",
    ".pyc", ".db", ".parquet", ".npy", ".npz",
}  # fmt: skip

# Joined from pieces, or this file would break its own rule.
HOSTS = tuple(
    ".".join(pieces)
    for pieces in (
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("download", "pytorch", "org"),
        ("registry", "npmjs", "org"),
        ("repo1", "maven", "org"),
        ("repo", "maven", "apache", "org"),
        ("static", "crates", "io"),
        ("proxy", "golang", "org"),
        ("deb", "debian", "org"),
    )
)
SLASH = "/"
INDEX_OPTIONS = tuple("--" + name for name in ("index-url", "extra-index-url", "find-links", "trusted-host"))
# A home or work folder of one machine; `~` and relative paths are how a path is written here.
MACHINE_PATH = re.compile(r"(?<![\w.$}~*])/(?:root|work|home/\w+|Users/\w+|opt/(?:py|venv|conda)\w*)(?:/|\b(?![\w.-]))")


def faults_of_text(text: str) -> list[str]:
    """Return what a text says of the machine or the registry it was written on."""
    found = [host for host in HOSTS if host in text]
    return found + [match.group() for match in MACHINE_PATH.finditer(text)]


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (f"cd {SLASH}work{SLASH}main", 1),
        (f'"{SLASH}home{SLASH}ada{SLASH}x"', 1),
        (f"https:{SLASH}{SLASH}{HOSTS[0]}{SLASH}simple", 1),
        (f"see docs{SLASH}work/plan, network{SLASH}root, .{SLASH}root/x and ~{SLASH}work", 0),
        ("GET /workers and /rooted", 0),
        ("/opt/kafka/bin inside the image", 0),
    ],
)
def test_the_search_for_machine_paths_finds_what_it_should(text: str, faults: int) -> None:
    assert len(faults_of_text(text)) == faults


def test_no_file_names_a_machine_path_or_a_registry(tree: list[Path], repository: Path) -> None:
    faults = {
        str(path): found
        for path in tree
        if path.suffix not in PICTURES
        and (found := faults_of_text((repository / path).read_text(encoding="utf-8", errors="replace")))
    }
    assert faults == {}


def test_no_file_but_the_makefile_speaks_of_an_index(tree: list[Path], repository: Path) -> None:
    # The Makefile tells the resolver to leave index addresses out: `--no-emit-index-url`.
    faults = {
        str(path): option
        for path in tree
        if path.suffix not in PICTURES
        for option in INDEX_OPTIONS
        if option in (repository / path).read_text(encoding="utf-8", errors="replace")
    }
    assert faults == {}


def test_no_python_file_is_longer_than_a_reader_stands(tree: list[Path], repository: Path) -> None:
    files = [path for path in tree if path.suffix == ".py"]
    lines = {path: len((repository / path).read_text(encoding="utf-8").splitlines()) for path in files}
    assert max(lines.values()) > 20, "the count finds no lines"
    assert {str(path): count for path, count in lines.items() if count > LINES_MAX} == {}


def test_nothing_made_or_fetched_is_tracked(tree: list[Path], repository: Path) -> None:
    assert [str(path) for path in tree if path.suffix in MADE] == []
    assert [str(path) for path in tree if (repository / path).stat().st_size > BYTES_MAX] == []
    binary = [str(p) for p in tree if p.suffix not in PICTURES and b"\0" in (repository / p).read_bytes()]
    assert binary == []


@pytest.mark.parametrize("name", FOLDERS)
def test_the_folder_stands_where_the_layout_says(repository: Path, name: str) -> None:
    folder = repository / name
    assert folder.is_dir(), f"`{name}` is missing"
    assert any(folder.iterdir()), f"`{name}` is empty"


@pytest.mark.parametrize("name", FILES)
def test_the_file_a_newcomer_looks_for_is_there(repository: Path, name: str) -> None:
    assert (repository / name).is_file()
    assert (repository / name).stat().st_size > 0


def test_ci_runs_what_a_person_runs(repository: Path) -> None:
    script = repository / ".ci" / "run"
    assert script.stat().st_mode & 0o111, "not executable"
    assert "make test" in script.read_text(encoding="utf-8")
