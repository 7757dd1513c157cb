"""The audit of requests in JSON and in a registry's framing: read, told and replayed later, without that registry."""

from collections.abc import Iterator
from dataclasses import replace

import msgspec
import pytest
from unit.sinks import heron
from unit.sinks.replaying import again

from sluicegate.schemas import codec
from sluicegate.schemas.errors import CodecError
from sluicegate.schemas.events import ReleaseMade, RequestSubmitted
from sluicegate.sinks.auditor import LocalAuditor
from sluicegate.sinks.clickhouse import AuditConfig, AuditDatabase, open_audit
from sluicegate.sinks.rows import Landing, Table, row_of
from sluicegate.sinks.sink import Sink
from sluicegate.sinks.story import story

IDS = {101: codec.LATEST[RequestSubmitted], 102: codec.LATEST[ReleaseMade]}
FORMS = ("json", "confluent", "avro")


def form_of(landing: Landing) -> str:
    return FORMS[landing.record.offset % len(FORMS)]


def reframed(table: Table, landing: Landing) -> Landing:
    """The same event as JSON or in Confluent framing; poison stays as it is."""
    record = landing.record
    form = form_of(landing)
    try:
        if table is Table.REQUESTS and form != "avro":
            request = codec.decode(record.value, RequestSubmitted)
            json = form == "json"
            value = msgspec.json.encode(request) if json else codec.encode(request, schema_id=101)
            headers = (
                (*record.headers, ("Content-Type", b"application/json; charset=utf-8")) if json else record.headers
            )
            return replace(landing, record=replace(record, value=value, headers=headers))
        if table is Table.RELEASES and form == "confluent":
            release = codec.decode(record.value, ReleaseMade)
            return replace(landing, record=replace(record, value=codec.encode(release, schema_id=102)))
    except CodecError:
        pass
    return landing


@pytest.fixture(scope="module")
def history() -> heron.History:
    return heron.company()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, history: heron.History) -> Iterator[AuditDatabase]:
    with open_audit(AuditConfig(path=tmp_path_factory.mktemp("formats") / "audit")) as opened:
        sink = Sink(opened, heron.TOPICS, IDS)
        for table, landings in history.landings.items():
            changed = [reframed(table, landing) for landing in landings]
            sink.land(heron.EPOCH, heron.topic(table), 0, changed)
        yield opened


@pytest.mark.parametrize("table", [Table.REQUESTS, Table.RELEASES])
def test_a_row_says_the_same_whatever_the_form(history: heron.History, table: Table) -> None:
    changed = 0
    for landing in history.landings[table]:
        other = reframed(table, landing)
        before, after = row_of(table, 1, landing), row_of(table, 1, other, IDS)
        changed += before["value"] != after["value"]
        for columns in (before, after):
            for name in ("value", "headers", "schema"):
                columns.pop(name, None)
        assert before == after
    assert changed >= 2


def test_without_its_ids_a_framed_row_is_kept_unreadable(history: heron.History) -> None:
    framed = [reframed(Table.REQUESTS, each) for each in history.landings[Table.REQUESTS]]
    rows = [row_of(Table.REQUESTS, 1, each) for each in framed if codec.confluent_id(each.record.value) is not None]
    assert rows
    assert all("none is configured" in str(row["undecodable"]) and row["value"] for row in rows)


def test_the_rows_say_under_which_schema_they_were_written(database: AuditDatabase) -> None:
    found = LocalAuditor(database).sql(
        "SELECT hex(substring(value, 1, 1)) AS front, groupUniqArray(schema) FROM requests "
        "WHERE undecodable IS NULL GROUP BY front ORDER BY front"
    )
    assert [list(row) for row in found.rows] == [
        ["00", ["RequestSubmitted.v1"]],
        ["7B", [""]],
        ["C3", ["RequestSubmitted.v1"]],
    ]


def test_stories_are_told_without_the_registry(database: AuditDatabase) -> None:
    auditor = LocalAuditor(database)
    forms = set()
    for beat in heron.BEATS:
        found = story(auditor, f"demo-{beat.number:02}")
        assert found.request is not None
        assert (found.request.request_id, found.request.messages[0].content) == (f"demo-{beat.number:02}", beat.asks)
        assert found.release is not None
        assert found.release.text == (beat.released or None)
        forms.add(FORMS[found.request_key.offset % len(FORMS)])
    assert forms == set(FORMS)


def test_history_in_every_form_is_replayed(database: AuditDatabase) -> None:
    report = again(LocalAuditor(database), heron.BUNDLE)
    assert report.changes_nothing()
    assert (report.decided, report.requests, report.mismatches) == (18, 6, ())
    assert report.not_replayable == {}
