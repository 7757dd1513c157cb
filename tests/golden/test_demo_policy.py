"""The demo's rows through the real policy: each verdict, policy and field, and which line decides which row.

No broker and no model: checks 4 to 7 over the files of `policies/`. `demo/mutations.yaml` changes one line at a time.
"""

from pathlib import Path

import pytest

from sluicegate.bundle_folder import read_bundle
from sluicegate.demo.cases import (
    Edit,
    Expected,
    Row,
    read_candidate,
    read_day,
    read_expected,
    read_mutations,
    read_people,
)
from sluicegate.demo.judged import before_policy, expected_part, judge_day, judged_part
from sluicegate.enforcer.bundle import Bundle, bundle_content, load_bundle
from sluicegate.enforcer.directory import load_directory

REPOSITORY = Path(__file__).resolve().parents[2]
POLICIES, DEMO = REPOSITORY / "policies", REPOSITORY / "demo"
DAY = read_day(DEMO)
EXPECTED = read_expected(DEMO)
PEOPLE = read_people(POLICIES / "directory.json")
MUTATIONS = read_mutations(DEMO)
BEATS = {*(str(number) for number in range(1, 12)), *(f"12{letter}" for letter in "abcdef"), "13", "14b"}


def judged(bundle: Bundle) -> dict[str, dict[str, object]]:
    directory = load_directory((POLICIES / "directory.json").read_bytes(), bundle)
    return {row: judged_part(each.judgement) for row, each in judge_day(DAY, PEOPLE, bundle, directory).items()}


@pytest.fixture(scope="module")
def today() -> dict[str, dict[str, object]]:
    return judged(load_bundle(read_bundle(POLICIES)))


def test_every_row_has_one_expectation() -> None:
    assert list(EXPECTED) == [row.row for row in DAY.rows]
    assert sum(row.attack is None or row.attack != "forged-grants" for row in DAY.rows) == 50


@pytest.mark.parametrize("row", DAY.rows, ids=lambda row: row.row)
def test_the_gate_decides_the_row_as_expected(row: Row, today: dict[str, dict[str, object]]) -> None:
    expected = EXPECTED[row.row]
    early = before_policy(row)
    if early is not None:
        assert expected.code == early
        assert row.row not in today
        return
    assert today[row.row] == expected_part(expected)
    assert (expected.verdict == "ALLOW") == (expected.code == "OK")


def changed_rows(edit: Edit, today: dict[str, dict[str, object]]) -> set[str]:
    changed = judged(load_bundle(bundle_content(edit.applied(read_bundle(POLICIES)))))
    return {row for row in today if changed[row] != today[row]}


@pytest.mark.parametrize("edit", MUTATIONS, ids=lambda edit: f"{edit.row}-{edit.file}")
def test_one_line_changes_its_row_and_no_other(edit: Edit, today: dict[str, dict[str, object]]) -> None:
    assert "\n" not in edit.find + edit.replace
    assert changed_rows(edit, today) == {edit.row, *edit.also}


def test_every_beat_that_policy_decides_has_a_line_of_its_own() -> None:
    # `also` may name variations only, and the six messages of beat 12 stand for one beat.
    beats = [{row for row in (edit.row, *edit.also) if row in BEATS} for edit in MUTATIONS]
    assert [sorted(each) for each in beats if len(each) > 1] == [[f"12{letter}" for letter in "abcdef"]]
    assert set().union(*beats) == BEATS


def test_a_change_that_touches_nothing_is_seen_as_none(today: dict[str, dict[str, object]]) -> None:
    same = Edit(file="pay.cedar", find="Drop the role from", replace="Take the role from")
    assert changed_rows(same, today) == set()


def test_the_candidate_leaks_a_salary_and_no_verdict_says_so(today: dict[str, dict[str, object]]) -> None:
    leak = judged(load_bundle(bundle_content(read_candidate(DEMO).applied(read_bundle(POLICIES)))))
    assert {row for row in today if leak[row] != today[row]} == {"6", "33"}
    assert {row for row in today if leak[row]["code"] != today[row]["code"]} == set()
    assert today["6"]["withheld"] == ["people.salary"]
    assert leak["6"]["withheld"] == []


def test_a_dozen_answers_are_held_to_strings() -> None:
    rows: list[Expected] = [each for each in EXPECTED.values() if each.holds and each.holds_not]
    assert len(rows) >= 12
    for each in rows:
        assert each.answer is not None
        assert all(text in each.answer for text in each.holds)
        assert not any(text in each.answer for text in each.holds_not)


def test_a_short_name_is_one_person() -> None:
    assert PEOPLE.resolve("ian") == "ian.intern"
    assert PEOPLE.resolve("ian.intern") == "ian.intern"
    assert PEOPLE.resolve("mallory") == "mallory"
    assert PEOPLE.short("ian.intern") == "ian"


@pytest.mark.parametrize(
    ("question", "document"),
    [
        ("What is the new cargo bike called?", "roadmap/cargo-bike"),
        ("how much does PRIYA SHAH earn", "people/priya-shah"),
        ("What is Otto Brandt's phone number?", "tickets/otto-brandt"),
    ],
)
def test_a_question_finds_its_document(question: str, document: str) -> None:
    assert [each.id for each in DAY.documents.values() if each.is_about(question)] == [document]


def test_a_question_about_nothing_attaches_nothing() -> None:
    assert not any(each.is_about("What is the capital of France?") for each in DAY.documents.values())
