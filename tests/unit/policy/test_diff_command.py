"""`sluicegate policy diff` as a user calls it: exit codes, both forms, and what stands outside policies."""

import json
import shutil
from pathlib import Path

import pytest

from sluicegate import cli
from sluicegate.policy.cases import read_question

POLICIES = Path(__file__).parents[3] / "policies"


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """Two small bundles that say the same, `old` and `new`, in the working folder."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["policy", "new", "old"]) == 0
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    capsys.readouterr()
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def diff(*words: str) -> int:
    return cli.main(["policy", "diff", "old", "new", *words])


def test_no_difference_is_zero(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Line ends and comments are no difference; nor are test cases, which decide nothing.
    path = team / "new" / "access.cedar"
    path.write_bytes(b"// more\r\n" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert diff() == 0
    assert capsys.readouterr().out == "No differences.\n"
    assert diff("--format", "json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["different"], said["requests"], said["requests_tried"]) == (False, [], 0)
    assert said["before"] != said["after"]


def test_differences_are_one(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(team / "new" / "access.cedar", '@max_tokens("64")', '@max_tokens("65")')
    assert diff() == 1
    out = capsys.readouterr().out
    assert "  loosened  support-answers-customers @max_tokens: 64 -> 65\n" in out
    assert "      + @max_tokens 65 from support-answers-customers\n" in out
    assert out.splitlines()[-1] == (
        "Plan: policies: 0 to add, 1 to change, 0 to remove; obligations: 0 tightened, 1 loosened; "
        "fields: 0 newly readable, 0 no longer; requests: decided otherwise in 1 way."
    )


def test_what_is_asked_can_be_asked_again(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(team / "new" / "fields.cedar", '\nwhen { context.purpose == Purpose::"ticket" };', ";")
    assert diff("--format", "json") == 1
    said = json.loads(capsys.readouterr().out)
    assert said["fields"] != []
    first = said["requests"][0]
    assert first["kind"] == "newly readable field"
    asked = read_question("asks.yaml", json.dumps(first["asks"]))
    assert asked.request.purpose == first["asks"]["request"]["purpose"]
    assert [f"{each.dataset}.{field.name}" for each in asked.request.documents for field in each.fields] == (
        first["after"]["admitted"]
    )
    assert first["before"]["admitted"] == []


def test_no_more_requests_are_shown_than_wanted(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(team / "new" / "shape.cedar", "IBAN=last4", "IBAN=label")
    assert diff() == 1
    whole = capsys.readouterr().out
    assert diff() == 1
    assert capsys.readouterr().out == whole, "the same twice"
    assert diff("--requests", "1") == 1
    out = capsys.readouterr().out
    assert "  1. obligation tightened: " in out
    assert "  2. " not in out
    assert "more: show them with `--requests " in out


@pytest.mark.parametrize(
    ("file", "old", "new", "lines", "requests"),
    [
        ("redaction.yaml", "validator: email\n    priority: 70", "validator: email\n    priority: 71",
         ["  ~ redaction rule email", "      - priority: 70", "      + priority: 71"], 0),
        ("templates/support-agent.txt", "helpful", "terse", ["  ~ template support-agent"], 0),
        ("schema.cedarschema", '"writing"', '"writing", "rest"', ["  ~ schema schema.cedarschema"], 1),
        ("bundle.yaml", "name: old", "name: fresh", ["  ~ name fresh", "      - old", "      + fresh"], 0),
    ],
)  # fmt: skip
def test_what_stands_outside_policies_is_compared(
    team: Path, capsys: pytest.CaptureFixture[str], file: str, old: str, new: str, lines: list[str], requests: int
) -> None:
    edit(team / "new" / file, old, new)
    assert diff() == 1
    said = capsys.readouterr().out.splitlines()
    # A new purpose is denied before and after, first because nobody knows it.
    assert [line for line in lines if line not in said] == []
    assert said[-1].endswith(
        f"decided otherwise in {requests} way{'' if requests == 1 else 's'}; other content: 1 changed."
    )


def test_a_budget_that_is_spent_is_said(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(team / "new" / "access.cedar", '@max_tokens("64")', '@max_tokens("65")')
    assert diff("--budget", "1") == 1
    assert "of more requests were looked at" in capsys.readouterr().out
    assert diff() == 1
    assert "of more requests were looked at" not in capsys.readouterr().out


def test_term_lists_and_grammars_are_compared(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("old", "new"):
        for folder in ("terms", "grammars"):
            shutil.copytree(POLICIES / folder, team / name / folder)
    edit(team / "new" / "terms" / "unreleased-bikes.yaml", "Project 12", "Project 13")
    edit(team / "new" / "grammars" / "ticket-mood.yaml", "negative", "negative, neutral")
    assert diff() == 1
    said = capsys.readouterr().out
    assert "  ~ grammar ticket-mood\n      + neutral\n" in said
    assert "      - Bluefin -> Project 12\n      + Bluefin -> Project 13\n" in said


def test_a_directory_that_conforms_to_one_schema_only_is_said(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(team / "new" / "schema.cedarschema", '"onLeave": Bool', '"onLeave": Bool, "age": Long')
    assert diff() == 1
    said = capsys.readouterr().out
    assert "  none looked for: the directory conforms to one of the two schemas only (" in said
    assert "requests:" not in said


def test_what_cannot_be_read_is_two(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert diff("--directory", "none.json") == 2
    assert "`none.json` cannot be read" in capsys.readouterr().err
    assert cli.main(["policy", "diff", "old"]) == 2
    assert cli.main(["policy", "diff", "old", "none"]) == 2
    edit(team / "new" / "access.cedar", "permit", "permits")
    assert diff() == 2
