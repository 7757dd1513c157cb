"""Records land in the audit once each, in order, whole, and nobody can change them afterwards."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from unit.sinks import heron

from sluicegate.schemas.codec import decode
from sluicegate.schemas.errors import ConfigurationError, ContinuityError
from sluicegate.schemas.events import DecisionMade
from sluicegate.schemas.records import Record
from sluicegate.sinks.clickhouse import AuditConfig, AuditDatabase, QuestionRefused, open_audit, translated
from sluicegate.sinks.rows import Landing, Table
from sluicegate.sinks.sink import Sink

BULK = "heron.bulk"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditDatabase]:
    with open_audit(AuditConfig(path=tmp_path_factory.mktemp("sink") / "audit")) as opened:
        yield opened


@pytest.fixture(scope="module")
def history() -> heron.History:
    return heron.company()


@pytest.fixture(scope="module")
def sink(database: AuditDatabase, history: heron.History) -> Sink:
    made = Sink(database, heron.TOPICS)
    for table, landings in history.landings.items():
        half = len(landings) // 2
        assert made.land(heron.EPOCH, heron.topic(table), 0, landings[:half]) == half
        assert made.land(heron.EPOCH, heron.topic(table), 0, landings[half:]) == len(landings)
    return made


def record(offset: int, *, topic: str = "heron.requests", partition: int = 1, value: bytes | None = b"x") -> Landing:
    return Landing(
        record=Record(topic=topic, partition=partition, offset=offset, timestamp_ms=5, key=None, value=value),
        effective=True,
    )


def test_every_record_lands_once_with_its_bytes(database: AuditDatabase, sink: Sink, history: heron.History) -> None:
    for table, landings in history.landings.items():
        found = database.writer.query(
            f"SELECT offset, value, effective, toUnixTimestamp64Milli(timestamp) FROM {table} ORDER BY offset",
            column_formats={"value": "bytes"},
        ).result_rows
        wanted = [
            (each.record.offset, each.record.value, int(each.effective), each.record.timestamp_ms) for each in landings
        ]
        assert [tuple(row) for row in found] == wanted
        assert sink.faults(heron.EPOCH, heron.topic(table), 0) == ()


def test_typed_columns_say_what_the_bytes_say(database: AuditDatabase, sink: Sink, history: heron.History) -> None:
    decision = decode(history.landings[Table.DECISIONS][2].record.value, DecisionMade)
    row = next(iter(database.writer.query("SELECT * FROM decisions WHERE offset = 2").named_results()))
    assert row["decision_id"] == decision.decision_id
    assert row["source_digest"] == decision.source.digest.hex()
    assert row["principal"] == 'User::"ian.intern"'
    assert row["bundle_digest"] == heron.load_bundle(heron.BUNDLE).digest
    assert row["withheld"] == ["people.salary"]
    assert [(each["name"], each["granted"]) for each in row["clamps"]] == [("max_tokens", "24")]
    assert [each["policies"] for each in row["rulings"]] == [list(each.policies) for each in decision.rulings]
    assert row["granted"][0]["max_tokens"] == 24
    assert row["undecodable"] is None


def test_a_token_never_lands_and_the_proof_does(database: AuditDatabase, sink: Sink) -> None:
    headers = database.writer.query("SELECT headers FROM requests WHERE offset = 0").result_rows[0][0]
    assert [(each["name"], each["value"]) for each in headers] == [("sg-proof", "proof")]


def test_what_cannot_be_read_lands_whole_with_the_reason(database: AuditDatabase, sink: Sink) -> None:
    row = next(
        iter(
            database.writer.query(
                "SELECT * FROM requests WHERE undecodable IS NOT NULL", column_formats={"value": "bytes"}
            ).named_results()
        )
    )
    assert row["value"] == b"\xc3\x01\xff\x00torn"
    assert "single-object encoding" in row["undecodable"]
    assert (row["request_id"], row["messages"], row["effective"]) == ("", [], 1)


def test_a_batch_of_read_and_unreadable_policy_records_lands(
    database: AuditDatabase, sink: Sink, history: heron.History
) -> None:
    good = history.landings[Table.POLICY][0]
    landings = [
        replace(each, record=replace(each.record, partition=1, offset=index)) for index, each in enumerate([good, good])
    ]
    landings.insert(1, record(1, topic=heron.topic(Table.POLICY), value=b"\x00"))
    landings[2] = replace(landings[2], record=replace(landings[2].record, offset=2))
    assert sink.land(7, heron.topic(Table.POLICY), 1, landings) == 3
    found = database.writer.query(
        "SELECT undecodable IS NULL, kind FROM policy WHERE epoch = 7 ORDER BY offset"
    ).result_rows
    assert [tuple(row) for row in found] == [(1, "ROOT"), (0, ""), (1, "ROOT")]


@pytest.mark.parametrize(
    "offsets",
    [[1], [0, 2], [0, 0], [1, 0], [-1]],
    ids=["gap before", "gap inside", "twice", "backwards", "below zero"],
)
def test_records_that_do_not_go_on_from_the_frontier_are_refused_whole(sink: Sink, offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="read the frontier"):
        sink.land(heron.EPOCH, "heron.requests", 1, [record(offset) for offset in offsets])
    assert sink.frontier(heron.EPOCH, "heron.requests", 1) == 0


def test_records_of_another_partition_are_refused(sink: Sink) -> None:
    with pytest.raises(ValueError, match="among those of"):
        sink.land(heron.EPOCH, "heron.requests", 1, [record(0, partition=2)])


def test_landing_twice_is_refused(sink: Sink, history: heron.History) -> None:
    landings = history.landings[Table.RELEASES]
    with pytest.raises(ValueError, match=f"where {len(landings)} is expected"):
        sink.land(heron.EPOCH, heron.topic(Table.RELEASES), 0, landings)


def test_an_epoch_starts_at_zero_again(sink: Sink) -> None:
    assert sink.frontier(heron.EPOCH, "heron.requests", 0) > 0
    assert sink.frontier(heron.EPOCH + 1, "heron.requests", 0) == 0


def test_one_insert_is_one_block_of_one_partition_however_large(database: AuditDatabase, sink: Sink) -> None:
    landings = [record(offset, partition=5, value=offset.to_bytes(8, "big") * 300) for offset in range(10_000)]
    sink.land(heron.EPOCH, "heron.requests", 5, landings)
    parts = database.writer.query("SELECT uniqExact(_part), count() FROM requests WHERE partition = 5").result_rows[0]
    assert tuple(parts) == (1, 10_000)


def test_continuity_holds_against_the_log_as_it_was(sink: Sink, history: heron.History) -> None:
    for table, landings in history.landings.items():
        frontier = sink.check_continuity(
            heron.EPOCH, heron.topic(table), 0, log_start=0, log_end=len(landings) + 3, log_record=landings[-1].record
        )
        assert frontier == len(landings)
    assert sink.check_continuity(99, "heron.requests", 0, log_start=0, log_end=0, log_record=None) == 0


def test_continuity_refuses_a_log_that_was_cut_recreated_or_rewritten(sink: Sink, history: heron.History) -> None:
    landings = history.landings[Table.REQUESTS]
    last, end = landings[-1].record, len(landings)
    for what, start, log_end, found in (
        ("ends at", 0, end - 1, last),
        ("another record", 0, end, replace(last, value=b"other")),
        ("another record", 0, end, replace(last, timestamp_ms=last.timestamp_ms + 1)),
        ("no longer holds", 0, end, None),
        ("records are lost", end + 1, end + 2, None),
    ):
        with pytest.raises(ContinuityError, match=what):
            sink.check_continuity(
                heron.EPOCH, heron.topic(Table.REQUESTS), 0, log_start=start, log_end=log_end, log_record=found
            )


def test_continuity_refuses_an_audit_with_a_planted_gap_or_duplicate(database: AuditDatabase, sink: Sink) -> None:
    columns = "epoch, topic, partition, offset"
    for partition, offsets, problem in (
        (11, (0, 1, 3), "offsets 2 to 2 lost"),
        (12, (0, 1, 1), "offsets 1 to 1 repeated"),
    ):
        for offset in offsets:
            database.writer.command(
                f"INSERT INTO requests ({columns}) VALUES (1, 'heron.requests', {partition}, {offset})"
            )
        with pytest.raises(ContinuityError, match=problem):
            sink.check_continuity(1, "heron.requests", partition, log_start=0, log_end=9, log_record=None)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE decisions UPDATE code = 'OK' WHERE 1",
        "ALTER TABLE decisions DELETE WHERE 1",
        "DELETE FROM decisions WHERE 1",
        "ALTER TABLE decisions DROP PARTITION (3, 0)",
        "TRUNCATE TABLE decisions",
        "DROP TABLE decisions",
        "DROP DATABASE sluicegate",
        "CREATE TABLE more (a Int8) ENGINE = Memory",
        "OPTIMIZE TABLE decisions FINAL",
        "RENAME TABLE decisions TO others",
    ],
)
def test_the_sink_itself_can_add_and_read_and_nothing_else(database: AuditDatabase, sink: Sink, statement: str) -> None:
    with pytest.raises(QuestionRefused, match="Not enough privileges"), translated():
        database.writer.command(statement)


def test_two_topics_in_one_table_are_refused(database: AuditDatabase) -> None:
    with pytest.raises(ConfigurationError, match="one table"):
        Sink(database, {"a": Table.REQUESTS, "b": Table.REQUESTS})


def test_a_second_process_is_told_who_owns_the_audit(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from sluicegate.sinks import clickhouse as c;"
        "from sluicegate.schemas.errors import ConfigurationError\n"
        f"try: c._own(Path({str(tmp_path)!r}))\n"
        "except ConfigurationError as error: print(error)\n"
        "else: print('owned')"
    )
    import os

    from sluicegate.sinks.clickhouse import _own

    lock = _own(tmp_path)
    try:
        refused = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    finally:
        os.close(lock)
    assert f"process {os.getpid()} owns the audit" in refused
    again = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert again.strip() == "owned"
