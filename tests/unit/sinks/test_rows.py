"""What a record becomes in the audit."""

import pytest
from unit.sinks import heron

from sluicegate.schemas.events import Outcome
from sluicegate.schemas.records import Record
from sluicegate.sinks.rows import Landing, Table, row_of


@pytest.fixture(scope="module")
def history() -> heron.History:
    return heron.company()


def test_headers_lose_the_token_whatever_its_case_and_keep_the_proof() -> None:
    headers = (("sg-proof", b"p"), ("sg-token", heron.TOKEN), ("SG-Token", heron.TOKEN), ("trace", b"1"))
    record = Record(topic="t", partition=0, offset=0, timestamp_ms=1, key=None, value=b"x", headers=headers)
    row = row_of(Table.REQUESTS, 1, Landing(record=record, effective=True))
    assert row["headers"] == [(b"sg-proof", b"p"), (b"trace", b"1")]
    assert heron.TOKEN not in repr(row).encode()


@pytest.mark.parametrize("table", list(Table))
@pytest.mark.parametrize("value", [None, b"", b"\x00registry", b"\xc3\x01short", b"\xc3\x01" + b"\x00" * 40, b"{}"])
def test_what_cannot_be_read_keeps_its_bytes_and_says_why(table: Table, value: bytes | None) -> None:
    record = Record(topic="t", partition=0, offset=4, timestamp_ms=1, key=b"k", value=value)
    row = row_of(table, 1, Landing(record=record, effective=False, void_reason="no seal"))
    assert row["value"] == value
    assert isinstance(row["undecodable"], str)
    assert (row["effective"], row["void_reason"], row["offset"]) == (0, "no seal", 4)


@pytest.mark.parametrize("table", list(Table))
def test_a_cut_value_of_every_kind_is_kept_as_unreadable(history: heron.History, table: Table) -> None:
    whole = history.landings[table][0].record
    assert whole.value is not None
    assert row_of(table, 1, Landing(record=whole, effective=True))["undecodable"] is None
    cut = Record(topic="t", partition=0, offset=0, timestamp_ms=1, key=None, value=whole.value[:-1])
    assert "cut or damaged" in str(row_of(table, 1, Landing(record=cut, effective=True))["undecodable"])


def test_an_event_of_another_topic_is_unreadable_here(history: heron.History) -> None:
    row = row_of(Table.DECISIONS, 1, history.landings[Table.REQUESTS][0])
    assert "stands where a `DecisionMade`" in str(row["undecodable"])


def test_both_kinds_of_the_policy_log_are_read(history: heron.History) -> None:
    rows = [row_of(Table.POLICY, 1, each) for each in history.landings[Table.POLICY]]
    assert [row["kind"] for row in rows] == ["ROOT", "BUNDLE", "DIRECTORY"]
    assert rows[1]["content_digest"] == history.rules().bundle.digest
    assert rows[2]["content_digest"] == history.rules().directory.digest


def test_a_generation_that_ran_no_model_says_so(history: heron.History) -> None:
    rows = [row_of(Table.GENERATIONS, 1, each) for each in history.landings[Table.GENERATIONS]]
    assert [row["ran"] for row in rows] == [row["outcome"] == Outcome.ANSWERED for row in rows]
