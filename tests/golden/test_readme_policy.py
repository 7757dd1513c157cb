"""What the README tells policy authors to type does what it says, on the example company's bundle."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from sluicegate.cli import sluicegate

ROOT = Path(__file__).resolve().parents[2]
# `policy shadow` needs a stack that runs: `tests/integration/test_shadow_stack.py` types it.
LINES = re.findall(
    r"^sluicegate (policy (?!shadow ).*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
)
SAID = {
    "check": "0 errors, 0 warnings",
    "test": "18 of 18 policies",
    "explain": "contact-data-stays-with-support",
    "render": "Nothing is allowed but what a policy below permits",
}


def test_the_readme_names_every_command_held_here() -> None:
    assert [line.split()[1] for line in LINES] == list(SAID)


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_the_readme(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = [word.strip('"') for word in line.split()]
    found = CliRunner().invoke(sluicegate, words)
    assert found.exit_code == 0, found.output
    assert SAID[words[1]] in found.output
