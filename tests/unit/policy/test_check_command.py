"""`sluicegate policy new` and `policy check` as a user calls them: exit codes, and the three forms."""

import json
from pathlib import Path

import pytest

from sluicegate import cli


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A new bundle, in the working folder."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["policy", "new", "team"]) == 0
    capsys.readouterr()
    return tmp_path / "team"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_new_bundle_has_no_findings(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["policy", "check", "--bundle", "team", "--strict"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "0 errors, 0 warnings: bundle `team`, directory `team/directory.json`\n"
    assert "name: team\n" in (team / "bundle.yaml").read_text(encoding="utf-8")


def test_no_folder_is_written_over(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in team.rglob("*") if path.is_file()}
    assert cli.main(["policy", "new", "team"]) == 2
    assert cli.main(["policy", "new", "team/bundle.yaml"]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in team.rglob("*") if path.is_file()} == before


def test_errors_are_one(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(team / "access.cedar", '@max_tokens("64")', '@max_tokens("no")')
    assert cli.main(["policy", "check", "--bundle", "team"]) == 1
    said = capsys.readouterr()
    assert said.out.startswith('team/access.cedar:3: error: `@max_tokens("no")`: ')
    assert said.out.endswith("[bad-value]\n")
    assert said.out.count("\n") == 1
    assert said.err.startswith("1 error, 0 warnings: bundle `team`, directory not looked at")


def test_warnings_are_one_only_where_they_are_wanted_to_be(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(team / "shape.cedar", '@withheld("label")', '@withheld("drop")')
    assert cli.main(["policy", "check", "--bundle", "team"]) == 0
    assert cli.main(["policy", "check", "--bundle", "team", "--strict"]) == 1
    assert capsys.readouterr().out.count("team/shape.cedar:4: warning: ") == 2


def test_json_is_a_list_of_objects(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["policy", "check", "--bundle", "team", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    edit(team / "access.cedar", "when { context.purpose", "when { context.clock.hour > 23 && context.purpose")
    assert cli.main(["policy", "check", "--bundle", "team", "--format", "json"]) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert first.keys() == {"severity", "code", "file", "line", "text", "fix"}
    assert (first["severity"], first["code"], first["file"], first["line"]) == (
        "error", "never-true", "team/access.cedar", 6,
    )  # fmt: skip
    assert second["line"] == 11


def test_github_shows_it_at_the_line(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(team / "access.cedar", '@id("staff-may-write")\n', "")
    assert cli.main(["policy", "check", "--bundle", "team", "--format", "github"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("::error file=team/access.cedar,line=8,title=missing-id::the policy has no `@id`; write ")


def test_a_directory_is_looked_at(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(team / "directory.json", '{"type": "Role", "id": "staff"}]}', '{"type": "Role", "id": "staf"}]}')
    assert cli.main(["policy", "check", "--bundle", "team"]) == 1
    assert capsys.readouterr().out.startswith("team/directory.json:3: error: ")
    (team / "directory.json").rename(team.parent / "people.json")
    assert cli.main(["policy", "check", "--bundle", "team"]) == 0
    assert "no directory looked at" in capsys.readouterr().err
    assert cli.main(["policy", "check", "--bundle", "team", "--directory", "people.json"]) == 1


@pytest.mark.parametrize(
    "words", [["--bundle", "nowhere"], ["--bundle", "team", "--directory", "nowhere"], ["--format", "xml"], ["more"]]
)
@pytest.mark.usefixtures("team")
def test_usage_is_two(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["policy", "check", *words]) == 2
    assert capsys.readouterr().err.startswith("sluicegate: ")


def test_what_is_no_text_is_a_finding(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (team / "more.cedar").write_bytes(b"\xff")
    assert cli.main(["policy", "check", "--bundle", "team"]) == 1
    assert capsys.readouterr().out == "team/more.cedar:1: error: is not UTF-8; save it as UTF-8 [not-utf-8]\n"
