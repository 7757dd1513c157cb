"""`sluicegate policy test` and the table of `sluicegate policy`, as a user calls them."""

from pathlib import Path
from xml.etree.ElementTree import fromstring

import click
import pytest

from sluicegate import cli
from sluicegate.commands.policy import COMMANDS, policy

CASE = "tests/answers.yaml"


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


def run(*words: str) -> int:
    return cli.main(["policy", "test", "--bundle", "team", *words])


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_of_the_table_imports_and_shows_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(policy.get_command(click.Context(policy), name), click.Command)
    assert cli.main(["policy", name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: sluicegate policy {name} ")


@pytest.mark.usefixtures("team")
def test_the_cases_of_a_new_bundle_pass_and_notice_every_change(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--min-mutation-score", "1") == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "6 of 6 cases passed",
        "reached: 11 of 11 policies, 16 of 16 clause outcomes",
        "mutation score 1.00: 41 of 41 noticed",
    ]


def test_a_wrong_expectation_is_one_with_a_diff(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(team / CASE, "policies: [staff-may-write]", "policies: [support-answers-customers]")
    assert run() == 1
    said = capsys.readouterr().out
    assert said.startswith("FAILED tests/answers.yaml:34: for another purpose ")
    assert "  policies:\n    - support-answers-customers\n    + staff-may-write\n" in said
    assert "5 of 6 cases passed" in said


@pytest.mark.usefixtures("team")
def test_cases_are_chosen_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--case", "nobody*", "--no-coverage") == 0
    assert capsys.readouterr().out == "1 of 1 cases passed\n"
    assert run("--case", "nothing*") == 1
    assert "no case to run: " in capsys.readouterr().err


def test_a_change_that_no_case_notices_is_counted(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (team / CASE).read_text(encoding="utf-8")
    kept, _, _ = text.partition("- name: who is on leave")
    (team / CASE).write_text(kept, encoding="utf-8")
    assert run("--mutation") == 0
    said = capsys.readouterr().out
    assert "brakes.cedar:14: no case notices when the policy is dropped (`on-leave`)" in said
    assert "mutation score 0.85: 35 of 41 noticed" in said
    assert run("--min-mutation-score", "0.9") == 1
    assert "the score is below 0.90" in capsys.readouterr().err


@pytest.mark.usefixtures("team")
def test_a_junit_report_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--junit", "report.xml") == 0
    root = fromstring(Path("report.xml").read_bytes())
    assert root.attrib == {"name": "team", "tests": "6", "failures": "0", "errors": "0"}
    assert run("--junit", "nowhere/report.xml") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_cases_that_do_not_read_are_found_by_check_and_stop_the_test(
    team: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(team / CASE, "  who: ben\n  request: {purpose: ticket", "  whom: ben\n  request: {purpose: ticket")
    assert cli.main(["policy", "check", "--bundle", "team"]) == 1
    said = capsys.readouterr().out
    assert "team/tests/answers.yaml:49: error: unknown key `whom`; remove it [test-cases]\n" in said
    assert run() == 1
    assert "tests/answers.yaml:49: unknown key `whom`" in capsys.readouterr().err
