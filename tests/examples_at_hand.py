"""The example programs as a person runs them: the lines of docs/producing.md, in a copy of the tree's examples."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

REPOSITORY: Final = Path(__file__).resolve().parent.parent
PAGE: Final = REPOSITORY / "docs" / "producing.md"
LOCAL: Final = (".venv/bin/python", "examples/local.py")
FETCH_LIMIT_S: Final = 300.0
RUN_LIMIT_S: Final = 180.0  # a program gives up after 60 s; the first run of a language fetches and compiles
NEEDED: Final = {"python": (), "node": ("node", "npm"), "go": ("go",), "java": ("java", "mvn")}
"""What must be on the machine for each language."""
SOURCES: Final = {
    "python": "python/producer.py",
    "node": "node/producer.mjs",
    "go": "go/main.go",
    "java": "java/src/main/java/Producer.java",
}


def shown(page: str, start: Sequence[str]) -> list[list[str]]:
    """The words of each shell line of a page that begins with `start`."""
    lines = [shlex.split(line) for line in page.splitlines() if line.startswith(f"{start[0]} ")]
    return [words for words in lines if words[: len(start)] == list(start)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One language's program in a folder of its own, its libraries fetched. `command`: as shown, less `local.py`."""

    language: str
    folder: Path
    command: tuple[str, ...]

    @property
    def schemas(self) -> str:
        """Where its copy of the Avro schemas lies."""
        return str(self.folder / "schemas" / "avro")

    def asking(self, questions: Sequence[str]) -> tuple[str, ...]:
        """The command as it is shown, with other questions."""
        *before, last = self.command
        option, sign, _ = last.partition("=")
        if sign and option.startswith("-D"):  # Maven takes the arguments as one
            return (*before, f"{option}={shlex.join(questions)}")
        return (*before, *questions)

    def run(self, command: Sequence[str], **environment: str) -> "subprocess.CompletedProcess[str]":
        """Runs it in the copy, with no setting of ours but those given."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SG_", "SLUICEGATE_"))}
        return _run(command, self.folder, RUN_LIMIT_S, {**kept, **environment})


def prepare(language: str, folder: Path) -> Example:
    """Copies an example out of the tree and fetches its libraries; skips where its language is not on this machine."""
    missing = [tool for tool in NEEDED[language] if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"`{missing[0]}` is not on this machine, so the {language} example was not run")
    ignored = shutil.ignore_patterns("node_modules", "target", "__pycache__")
    shutil.copytree(REPOSITORY / "examples", folder / "examples", ignore=ignored)
    shutil.copytree(REPOSITORY / "schemas" / "avro", folder / "schemas" / "avro")
    page = PAGE.read_text(encoding="utf-8")
    if language == "node":
        (fetch,) = shown(page, ("npm", "ci"))
        fetched = _run(fetch, folder, FETCH_LIMIT_S, os.environ)
        assert fetched.returncode == 0, fetched.stderr
    (words,) = [each for each in shown(page, LOCAL) if any(f"examples/{language}" in word for word in each)]
    return Example(language=language, folder=folder, command=tuple(words[len(LOCAL) :]))


def _run(
    command: Sequence[str], folder: Path, limit_s: float, environment: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    typed = [sys.executable if word == ".venv/bin/python" else word for word in command]
    return subprocess.run(
        typed, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=limit_s, check=False,
    )  # fmt: skip
