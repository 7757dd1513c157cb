"""Rules about the locks: every file is named by its hash, no index is named at all, and serving stays light."""

import re
import tomllib
from pathlib import Path

import pytest

LOCKS = ("serve", "test", "bench", "export", "model", "uv")
REQUIREMENT = re.compile(r"^([a-z0-9][a-z0-9.-]*)==([^ ;\\]+)")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")
COMMENT = re.compile(r"^ *#")


def pins(text: str) -> dict[str, tuple[str, int]]:
    """Return name -> (version, number of hashes) of a lock.

    Raises:
        ValueError: a line is neither a pinned requirement, nor a hash of one, nor a comment.
    """
    found: dict[str, tuple[str, int]] = {}
    name = ""
    for line in text.splitlines():
        if match := REQUIREMENT.match(line):
            name = match.group(1)
            found[name] = (match.group(2), 0)
        elif HASH.match(line) and name:
            found[name] = (found[name][0], found[name][1] + 1)
        elif line and not COMMENT.match(line):
            msg = f"not a line of a lock: `{line}`"
            raise ValueError(msg)
    return found


@pytest.fixture(scope="module")
def locks(repository: Path) -> dict[str, dict[str, tuple[str, int]]]:
    return {name: pins((repository / "requirements" / f"{name}.lock").read_text(encoding="utf-8")) for name in LOCKS}


def heavy(names: set[str]) -> set[str]:
    """Return what must not stand in the environment that serves."""
    unwanted = {"torch", "transformers", "optimum", "triton", "onnxruntime"}
    return {name for name in names if name in unwanted or name.startswith(("nvidia-", "cuda-"))}


@pytest.mark.parametrize(
    "line",
    ["--index" + "-url https://example.org/simple", "numpy @ https://example.org/n.whl", "-e .", "numpy>=2", "-f ./x"],
)
def test_a_line_that_is_no_pin_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="not a line of a lock"):
        pins(f"# head\n{line}\n")


@pytest.mark.parametrize("name", LOCKS)
def test_every_requirement_has_a_hash(locks: dict[str, dict[str, tuple[str, int]]], name: str) -> None:
    assert len(locks[name]) >= 1
    assert {pin for pin, (_, hashes) in locks[name].items() if hashes == 0} == set()


@pytest.mark.parametrize("name", LOCKS)
def test_the_head_of_a_lock_names_no_machine(repository: Path, name: str) -> None:
    text = (repository / "requirements" / f"{name}.lock").read_text(encoding="utf-8")
    assert "make lock" in text.splitlines()[1]
    assert "://" not in text


def test_serving_holds_no_torch_no_cuda_and_one_onnxruntime(locks: dict[str, dict[str, tuple[str, int]]]) -> None:
    assert heavy(set(locks["export"])) >= {"torch", "nvidia-cublas"}, "the search finds nothing"
    assert heavy(set(locks["serve"])) == set()
    assert heavy(set(locks["test"])) == set()
    for name in ("serve", "test", "export"):
        assert "onnxruntime-gpu" in locks[name]
        assert "onnxruntime" not in locks[name]


def test_tests_run_on_what_serves(locks: dict[str, dict[str, tuple[str, int]]]) -> None:
    assert {name: pin for name, pin in locks["serve"].items() if locks["test"].get(name) != pin} == {}


def test_the_export_is_compared_on_the_same_engine(locks: dict[str, dict[str, tuple[str, int]]]) -> None:
    for name in ("onnxruntime-gpu", "onnx", "gguf", "numpy"):
        assert locks["export"][name][0] == locks["serve"][name][0]


def test_the_export_environment_is_the_export_extra(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (repository / "requirements" / "export.in").read_text(encoding="utf-8").splitlines()
    wanted = project["optional-dependencies"]["export"]
    assert len(wanted) > 0
    assert [requirement for requirement in wanted if requirement not in lines] == []


def test_what_is_declared_is_locked(repository: Path, locks: dict[str, dict[str, tuple[str, int]]]) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for lock, requirements in (("serve", project["dependencies"]), ("test", project["optional-dependencies"]["test"])):
        names = {re.split(r"[<>=~!;\[ ]", requirement)[0].lower() for requirement in requirements}
        assert names - set(locks[lock]) == set(), f"run `make lock`: {lock}"
