"""What a code means: every code has a meaning, its outcome follows from it, and the document says the same."""

from pathlib import Path

import pytest

from sluicegate.schemas.codes import Code, ReleaseOutcome
from sluicegate.schemas.meanings import MEANINGS, markdown_table

DOCUMENT = Path(__file__).parents[3] / "docs" / "codes.md"


def test_every_code_has_exactly_one_meaning() -> None:
    assert list(MEANINGS) == list(Code), "in the order of the checks"


def test_the_document_holds_the_table_word_for_word() -> None:
    assert DOCUMENT.read_text(encoding="utf-8").endswith("\n\n" + markdown_table()), (
        "the table of docs/codes.md is `schemas.meanings.markdown_table()`: put it there"
    )


def test_the_table_has_a_row_for_every_code() -> None:
    rows = markdown_table().splitlines()[2:]
    assert [row.split("|")[1].strip(" `") for row in rows] == [code.value for code in Code]
    assert {row.count("|") for row in rows} == {8}, "a cell holds a bar"


@pytest.mark.parametrize("code", Code)
def test_a_meaning_says_what_to_do(code: Code) -> None:
    meaning = MEANINGS[code]
    assert meaning.text
    assert meaning.mend
    assert meaning.text == meaning.text.strip(" .")
    assert meaning.retryable == (meaning.retry_after_ms is not None)
    assert (meaning.outcome is ReleaseOutcome.RELEASED) == (code is Code.OK), "only OK releases an answer"


@pytest.mark.parametrize("code", [Code.POISON, Code.FORGED, Code.POLICY_NOT_READY, Code.POLICY_ERROR])
def test_what_a_stage_found_out_inside_is_not_told(code: Code) -> None:
    assert MEANINGS[code].told("the fourth root is held by mallory") == MEANINGS[code].text


def test_a_policys_own_reason_is_told() -> None:
    """Positive control of the one above."""
    assert MEANINGS[Code.DENIED].told("interns ask later") == "interns ask later"
    assert MEANINGS[Code.DENIED].told(None) == MEANINGS[Code.DENIED].text
