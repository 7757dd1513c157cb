"""Rules about what people read: commands exist, links lead somewhere, tests that are named are there, examples work."""

import ast
import re
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from sluicegate.bundle_folder import read_bundle
from sluicegate.cli import COMMANDS, sluicegate
from sluicegate.enforcer.bundle import load_bundle
from sluicegate.enforcer.obligations import MERGED
from sluicegate.sinks.auditor import LocalAuditor
from sluicegate.sinks.clickhouse import AuditConfig, open_audit, statements

BLOCK = re.compile(r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]\n]+\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)
NAMED_TEST = re.compile(r"`(?P<path>tests/[\w/]+\.py)::(?P<name>\w+)`")
INVARIANTS = 15
TARGET = re.compile(r"^(?P<name>[a-z]+):", re.MULTILINE)


def blocks(text: str, kind: str) -> list[str]:
    """Return the fenced blocks of `text` that are marked `kind`."""
    return [found["text"] for found in BLOCK.finditer(text) if found["kind"] == kind]


def faults_of_command(line: str, targets: set[str], repository: Path) -> list[str]:
    """Return what a shell line names that does not exist; a word we do not know is a fault too."""
    words = shlex.split(line.removeprefix("$ "), comments=True)
    if "|" in words:
        words = words[: words.index("|")]
    match words:
        case []:
            return []
        case ["git", "clone", *_] | ["cd", _]:
            return []
        case ["make", *names]:
            wanted = [name for name in names if "=" not in name]
            return [f"make {name}" for name in wanted or ["(no target)"] if name not in targets]
        case [".venv/bin/python", script, *_]:
            return [] if (repository / script).is_file() else [script]
        case ["sluicegate" | ".venv/bin/sluicegate", *rest]:
            return list(faults_of_sluicegate(rest))
        case [script] if script.startswith("deploy/"):
            return [] if (repository / script).is_file() else [script]
        case ["docker", "compose", "run", "--rm", service, *rest]:
            return [*([] if service in services_of(repository) else [service]), *faults_of_sluicegate(rest)]
        case ["docker", "compose", *rest]:
            named = [word.partition("=")[0] for word in rest if "=" in word]
            return [name for name in named if name not in services_of(repository)]
        case ["npm" | "node" | "go" | "mvn", *rest]:
            return [word for word in rest if word.startswith("examples/") and not (repository / word).exists()]
        case _:
            return [words[0]]


def services_of(repository: Path) -> set[str]:
    return set(yaml.safe_load((repository / "compose.yaml").read_text(encoding="utf-8"))["services"])


def faults_of_sluicegate(words: list[str]) -> Iterator[str]:
    """Yield the subcommands and options that `sluicegate` does not have."""
    command: click.Command = sluicegate
    context = click.Context(sluicegate)
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        found = command.get_command(context, name)
        if found is None:
            yield f"sluicegate {name}"
            return
        command = found
    options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help", "--version"}
    yield from (word for word in rest if word.startswith("-") and word.split("=")[0] not in options)


def slug(heading: str) -> str:
    """Return the anchor that a heading gets: lower case, punctuation dropped, dashes for blanks."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def broken_links(path: Path, text: str) -> list[str]:
    """Return the relative links of the document at `path` that lead nowhere."""
    found = []
    for target in (match["target"] for match in LINK.finditer(BLOCK.sub("", text))):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        goal = path if not name else (path.parent / name)
        if not goal.exists() or (
            anchor
            and slug(anchor) not in {slug(each["text"]) for each in HEADING.finditer(goal.read_text(encoding="utf-8"))}
        ):
            found.append(target)
    return found


def missing_tests(text: str, repository: Path) -> list[str]:
    """Return the tests named in `text` that are not there."""
    missing = []
    for found in NAMED_TEST.finditer(text):
        path = repository / found["path"]
        module = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module(body=[], type_ignores=[])
        names = {node.name for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        if found["name"] not in names:
            missing.append(f"{found['path']}::{found['name']}")
    return missing


@pytest.fixture(scope="module")
def documents(tree: list[Path], repository: Path) -> dict[Path, str]:
    return {path: (repository / path).read_text(encoding="utf-8") for path in tree if path.suffix == ".md"}


@pytest.fixture(scope="module")
def targets(repository: Path) -> set[str]:
    return {found["name"] for found in TARGET.finditer((repository / "Makefile").read_text(encoding="utf-8"))}


@pytest.mark.parametrize(
    ("line", "faults"),
    [
        ("make demo", 0),
        ("make test ARGS=x", 0),
        ("make everything", 1),
        ("make", 1),
        ("$ sluicegate up --detach", 0),
        (".venv/bin/sluicegate up --no-watch | head", 0),
        ("sluicegate fly", 1),
        ("sluicegate up --without-the-gate", 1),
        ("sluicegate run runner  # one stage", 0),
        (".venv/bin/python examples/nothing.py", 1),
        ("npm ci --prefix examples/nothing", 1),
        ("npm ci --prefix examples/node", 0),
        ("docker compose up -d", 0),
        ("docker compose up -d --scale runner=0", 0),
        ("docker compose up -d --scale nobody=0", 1),
        ("docker compose run --rm auditor audit questions", 0),
        ("docker compose run --rm nobody audit answers", 2),
        ("deploy/nothing.sh", 1),
        ("curl example.com", 1),
        ("# only words", 0),
    ],
)
def test_the_search_for_commands_finds_what_is_not_there(
    line: str, faults: int, targets: set[str], repository: Path
) -> None:
    assert len(faults_of_command(line, targets, repository)) == faults


def test_every_command_that_is_shown_exists(documents: dict[Path, str], targets: set[str], repository: Path) -> None:
    lines = [
        (path, line) for path, text in documents.items() for block in blocks(text, "sh") for line in block.splitlines()
    ]
    assert len(lines) > 10, "no shell block was found"
    assert len(COMMANDS) > 3
    faults = {
        f"{path}: {line}": found for path, line in lines if (found := faults_of_command(line, targets, repository))
    }
    assert faults == {}


def test_shell_blocks_are_marked_so_that_they_are_checked(documents: dict[Path, str]) -> None:
    kinds = {found["kind"] for text in documents.values() for found in BLOCK.finditer(text)}
    assert kinds <= {"sh", "sql", "python", "text", "cedar", "yaml", "mermaid"}


def test_the_search_for_links_finds_broken_ones(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# Two words, here\n", encoding="utf-8")
    text = "[a](b.md) [b](b.md#two-words-here) [c](c.md) [d](b.md#three) [e](https://example.com) `[f](g.md)`"
    assert broken_links(tmp_path / "a.md", text) == ["c.md", "b.md#three", "g.md"]


def test_every_relative_link_leads_somewhere(documents: dict[Path, str], repository: Path) -> None:
    assert sum(len(LINK.findall(text)) for text in documents.values()) > 20, "no link was found"
    faults = {str(path): found for path, text in documents.items() if (found := broken_links(repository / path, text))}
    assert faults == {}


def test_the_search_for_tests_finds_missing_ones(repository: Path) -> None:
    here = "tests/tidy/test_documents.py"
    text = f"`{here}::test_the_search_for_tests_finds_missing_ones` `{here}::test_of_nothing` `tests/none.py::test_a`"
    assert missing_tests(text, repository) == [f"{here}::test_of_nothing", "tests/none.py::test_a"]


def test_every_test_that_is_named_exists(documents: dict[Path, str], repository: Path) -> None:
    assert len(NAMED_TEST.findall(documents[Path("docs/invariants.md")])) > INVARIANTS
    faults = {str(path): found for path, text in documents.items() if (found := missing_tests(text, repository))}
    assert faults == {}


def test_each_invariant_names_its_tests_or_says_that_it_is_not_held(documents: dict[Path, str]) -> None:
    parts = re.split(r"^## (\d+)\. ", documents[Path("docs/invariants.md")], flags=re.MULTILINE)
    numbers, texts = parts[1::2], parts[2::2]
    assert [int(number) for number in numbers] == list(range(1, INVARIANTS + 1))
    for number, text in zip(numbers, texts, strict=True):
        assert NAMED_TEST.search(text) or "Not held yet" in text, f"invariant {number} names nothing"


def test_decisions_are_numbered_without_holes_and_say_what_they_cost(documents: dict[Path, str]) -> None:
    found = {path: text for path, text in documents.items() if path.parent == Path("docs/adr")}
    numbers = sorted(int(path.name[:4]) for path in found)
    assert len(numbers) > 10
    assert numbers == list(range(1, len(numbers) + 1))
    for path, text in found.items():
        assert text.startswith(f"# {int(path.name[:4])}. "), path
        assert [each["text"] for each in HEADING.finditer(text)][1:] == ["Decision", "Why", "What it costs"], path
        assert f"(adr/{path.name})" in documents[Path("docs/architecture.md")], f"{path.name} is not in the list"


def test_every_view_and_table_is_explained(documents: dict[Path, str]) -> None:
    made = re.findall(r"CREATE OR REPLACE VIEW (\w+)", "\n".join(statements("views.sql")))
    assert len(made) > 5
    text = documents[Path("docs/auditing.md")]
    tables = ("requests", "decisions", "generations", "releases", "policy", "shadow")
    assert [name for name in (*made, *tables) if f"`{name}`" not in text] == []


def test_every_query_that_is_shown_runs(documents: dict[Path, str]) -> None:
    queries = [query for text in documents.values() for query in blocks(text, "sql")]
    assert len(queries) > 4
    with tempfile.TemporaryDirectory() as folder, open_audit(AuditConfig(path=Path(folder))) as database:
        auditor = LocalAuditor(database)
        for query in queries:
            assert auditor.sql(query).columns


def test_every_obligation_that_works_is_explained(documents: dict[Path, str]) -> None:
    text = documents[Path("docs/policies.md")]
    assert [name for name in MERGED if f"`@{name}`" not in text] == []


def test_the_picture_names_policies_where_they_stand(documents: dict[Path, str], repository: Path) -> None:
    policies = load_bundle(read_bundle(repository / "policies")).policies
    places = {(name, policy.place()) for name, policy in policies.items()}
    shown = {
        (name, place)
        for text in blocks(documents[Path("README.md")], "text")
        for name, place in re.findall(r"([a-z][a-z-]+)\s+\(?(\w+\.cedar:\d+)", text)
    }
    assert len(shown) > 5, "no policy is named: copy the picture from a run of the demo"
    assert shown - places == set(), "copy the picture anew"
