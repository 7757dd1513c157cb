"""`sluicegate demo` for real: own home, own broker, the real model and audit; then an evaluator's own keyboard."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sluicegate.demo.cases import Expected, read_candidate, read_day, read_expected
from sluicegate.demo.judged import expected_part
from sluicegate.home import open_home

REPOSITORY = Path(__file__).resolve().parents[2]
DEMO = REPOSITORY / "demo"
DAY = read_day(DEMO)
EXPECTED = read_expected(DEMO)
COMMAND_S, DEMO_S, EDIT_S = 240, 1500, 60
ROLE, NOBODY = 'permit (principal in Role::"people", ', "permit (principal, "

pytestmark = pytest.mark.timeout(DEMO_S + 4 * COMMAND_S)


@dataclass(frozen=True)
class Stack:
    home: Path
    policies: Path

    def run(self, *arguments: str, timeout_s: int = COMMAND_S) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLUICEGATE_")}
        environment |= {
            "SLUICEGATE_HOME": str(self.home),
            "SLUICEGATE_BUNDLE_DIR": str(self.policies),
            "SLUICEGATE_READY_TIMEOUT_S": "300",
            "COLUMNS": "100",
        }
        command = (sys.executable, "-P", "-m", "sluicegate", *arguments)
        return subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def ask(self, person: str, question: str, *more: str) -> dict[str, Any]:
        done = self.run("ask", "--as", person, question, "--json", *more)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def edit(self, find: str, replace: str) -> None:
        """Save another pay.cedar and wait until it is in force."""
        file = self.policies / "pay.cedar"
        text = file.read_text(encoding="utf-8")
        assert text.count(find) == 1
        before = self.version()
        file.write_text(text.replace(find, replace), encoding="utf-8")
        deadline = time.monotonic() + EDIT_S
        while self.version() == before:
            assert time.monotonic() < deadline, "the edit was not published"

    def version(self) -> str:
        return next(line for line in self.run("status").stdout.splitlines() if "policy" in line).split()[1]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, smollm2_dir: Path) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("h")
    policies = tmp_path_factory.mktemp("p") / "policies"
    shutil.copytree(REPOSITORY / "policies", policies)
    # Building the graph has a test of its own; here it is only taken along.
    shutil.copytree(smollm2_dir, open_home(home).models / smollm2_dir.name, copy_function=_linked)
    found = Stack(home=home, policies=policies)
    try:
        yield found
    finally:
        found.run("down")


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@pytest.fixture(scope="module")
def day(stack: Stack) -> dict[str, Any]:
    done = stack.run("demo", "--json", timeout_s=DEMO_S)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def rows(day: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["row"]: row for row in day["rows"]}


@pytest.mark.parametrize("expected", EXPECTED.values(), ids=lambda expected: expected.row)
def test_the_row_comes_out_as_expected(rows: dict[str, dict[str, Any]], expected: Expected) -> None:
    found = rows[expected.row]
    assert found["verdict"] == expected.verdict
    if expected.verdict == "FORGED":
        return
    part = expected_part(expected)
    assert {name: found[name] for name in part} == part
    assert found.get("reason") == expected.reason or expected.code == "POISON"
    assert (found["outcome"] == "RELEASED") == (expected.verdict == "ALLOW")
    assert tuple(found["redacted"]) == expected.redacted
    assert found["unsupported"] == expected.unsupported
    assert found["answer"] == expected.answer
    for text in expected.holds:
        assert text in found["answer"]
    for text in expected.holds_not:
        assert text not in found["answer"]


def test_every_row_was_sent(rows: dict[str, dict[str, Any]]) -> None:
    assert list(rows) == [row.row for row in DAY.rows]


def test_the_figures_come_from_the_audit_and_add_up(day: dict[str, Any]) -> None:
    figures = dict(day["counts"])
    figures.pop("displaced")  # how many decisions a forged record pushed from their place depends on the moment
    allowed = sum(each.verdict == "ALLOW" for each in EXPECTED.values())
    assert figures == {
        "requests": 50,
        "answered": allowed,
        "denied": 50 - allowed,
        "refused_as_forged": 3,
        "dead_letters": 1,
        "lost": 0,
        "inferences_without_an_allow": 0,
    }


def test_the_audit_questions_are_answered(day: dict[str, Any]) -> None:
    answers = {each["name"]: each for each in day["questions"]}
    for name, each in answers.items():
        assert bool(each["rows"]) == (name != "inferences-without-an-allow"), name
    salary = [dict(zip(answers["salary"]["columns"], row, strict=True)) for row in answers["salary"]["rows"]]
    assert {row["seen_by"] for row in salary if row["use"] == "admitted"} == {'User::"pia.people"'}
    assert {row["principal"] for row in salary if row["use"] == "withheld"} == {'User::"ian.intern"'}
    asked = answers["who-asked"]
    assert sum(row[asked["columns"].index("requests")] for row in asked["rows"]) == 50


def test_the_replay_finds_the_leaked_salary_and_no_changed_verdict(day: dict[str, Any]) -> None:
    report = day["replay"]
    assert {(each["field"], each["principal"], each["request"]) for each in report["newly_readable"]} == {
        ("people.salary", 'User::"ian.intern"', "demo-6"),
        ("people.salary", 'User::"ian.intern"', "demo-33"),
    }
    assert report["metrics"]["newly-allowed"] == report["metrics"]["newly-denied"] == 0
    assert report["mismatches"] == []
    assert report["decided"] > 100


def test_the_replay_command_fails_on_the_leak_and_not_on_the_bundle_itself(stack: Stack, day: dict[str, Any]) -> None:
    leak = stack.run("replay", "--bundle", str(stack.home / "candidate"), "--fail-on", "newly-readable>0")
    assert leak.returncode == 1, leak.stderr
    assert "people.salary" in leak.stdout
    same = stack.run("replay", "--bundle", str(stack.policies), "--fail-on", "newly-readable>0", "--json")
    assert same.returncode == 0, same.stderr
    assert not any(json.loads(same.stdout)["metrics"].values())
    edit = read_candidate(DEMO)
    assert (stack.home / "candidate" / edit.file).read_text() != (stack.policies / edit.file).read_text()


def test_one_question_two_people_two_names(stack: Stack, day: dict[str, Any]) -> None:
    question = "What is the new cargo bike called?"
    assert stack.ask("ian", question)["answer"] == "The new cargo bike is called Project 12."
    assert stack.ask("eva", question)["answer"] == "The new cargo bike is called Bluefin."


def test_a_stranger_is_refused_by_the_gate(stack: Stack, day: dict[str, Any]) -> None:
    found = stack.ask("mallory", "What is the capital of France?")
    assert (found["verdict"], found["code"], found["answer"]) == ("DENY", "UNKNOWN_PRINCIPAL", None)


def test_ask_says_which_document_it_attached_and_which_line_did_it(stack: Stack, day: dict[str, Any]) -> None:
    done = stack.run("ask", "--as", "ian", "What is the new cargo bike called?")
    assert done.returncode == 0, done.stderr
    for text in ("roadmap/cargo-bike", "ALLOW", "interns-may-practise access.cedar:", "sluicegate audit show"):
        assert text in " ".join(done.stdout.split())
    plain = stack.run("ask", "--as", "ian", "--about", "none", "What is the capital of France?")
    assert "no document attached" in plain.stdout
    unknown = stack.run("ask", "--as", "ian", "--about", "roadmap/none", "What?")
    assert unknown.returncode == 2
    assert "there is no document `roadmap/none`" in unknown.stderr


def test_the_whole_story_of_row_5_is_one_screen(stack: Stack, day: dict[str, Any]) -> None:
    done = stack.run("audit", "show", "5")
    assert done.returncode == 0, done.stderr
    for text in ("pia.people", "people-team-asks-about-people", "[unsupported]", "41,500 pounds", "demo-5"):
        assert text in done.stdout


def test_an_edit_of_a_policy_file_changes_the_next_answer(stack: Stack, day: dict[str, Any]) -> None:
    question = "How much does Priya Shah earn?"
    before = stack.ask("ian", question)
    assert before["withheld"] == ["people.salary"]
    assert "41,500" not in before["answer"]
    stack.edit(ROLE, NOBODY)
    leaked = stack.ask("ian", question)
    assert leaked["withheld"] == []
    assert "41,500" in leaked["answer"]
    stack.edit(NOBODY, ROLE)
    after = stack.ask("ian", question)
    assert after["withheld"] == ["people.salary"]
    assert after["answer"] == before["answer"]
