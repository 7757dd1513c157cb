"""Verified records of one partition at a time go in, rows of the audit come out; the only place that writes them.

One insert = one Kafka partition = one table partition = one block, so it lands whole or not at all. How far the
audit got is read back from the rows themselves, never remembered and never left to an insert-deduplication token:
the engine logs such a token before the rows are there, and a kill between the two loses them. After a kill at any
point: read back, then go on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from clickhouse_connect.datatypes.base import ClickHouseType
from clickhouse_connect.datatypes.registry import get_from_name
from clickhouse_connect.driver.client import Client

from sluicegate.schemas.errors import ConfigurationError, ContinuityError
from sluicegate.schemas.records import Record
from sluicegate.sinks.clickhouse import AuditDatabase
from sluicegate.sinks.rows import Columns, Landing, SchemaIds, Table, row_of

ROWS_MAX: Final = 20_000
BYTES_MAX: Final = 64_000_000
INSERT_SETTINGS: Final = {
    "async_insert": 0,
    "max_partitions_per_insert_block": 1,
    # One block however large: the engine cuts at whichever of these comes first, and neither is ever reached.
    "min_insert_block_size_rows": 1_000_000,
    "min_insert_block_size_bytes": 1_000_000_000,
    "max_insert_block_size": 1_000_000,
}
_ADVICE: Final = "stop; take a new epoch only when the topic was recreated on purpose"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Rows of a partition that are not what a log can be: `lost` or `repeated` from `first` to `last`."""

    problem: str
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """The columns of a table in their order, with the type and what stands where there is nothing."""

    names: tuple[str, ...]
    types: tuple[ClickHouseType, ...]
    empty: tuple[object, ...]


class Sink:
    """Appends to the audit. `topics` says which table keeps which topic, one each; `ids` which schema a registry knows
    under which id.
    """

    def __init__(self, database: AuditDatabase, topics: Mapping[str, Table], ids: SchemaIds | None = None) -> None:
        """Raises ConfigurationError where two topics share a table or the audit was made by another release."""
        if len(set(topics.values())) != len(topics):
            raise ConfigurationError(
                "two topics would land in one table of the audit; give each tenant an audit of its own"
            )
        self._database = database
        self._topics = dict(topics)
        self._ids = dict(ids or {})
        with database.writing() as client:
            self._layouts = {table: _layout(client, table) for table in topics.values()}

    def frontier(self, epoch: int, topic: str, partition: int) -> int:
        """The offset that the audit needs next: one past the highest that landed, 0 where nothing did.

        Raises:
            Unavailable: the database does not answer.
        """
        with self._database.writing() as client:
            found = client.query(
                f"SELECT coalesce(max(toNullable(offset)) + 1, 0) FROM {self._table(topic)} WHERE {_PLACE}",  # noqa: S608
                parameters=_place(epoch, topic, partition),
            )
        return int(found.result_rows[0][0])

    def land(self, epoch: int, topic: str, partition: int, landings: Sequence[Landing]) -> int:
        """Appends records of one partition, which start at the frontier and leave nothing out: the new frontier.

        Durable on return. Many or large ones go in several inserts, in order, so a kill between leaves a prefix.

        Raises:
            ValueError: they do not start at the frontier, leave a gap or repeat an offset, or are of another partition.
            Unavailable: the disk is full or the database away; nothing or a prefix landed: read the frontier, go on.
        """
        frontier = self.frontier(epoch, topic, partition)
        for expected, landing in enumerate(landings, start=frontier):
            record = landing.record
            if (record.topic, record.partition) != (topic, partition):
                raise ValueError(f"a record of {record.topic}/{record.partition} among those of {topic}/{partition}")
            if record.offset != expected:
                raise ValueError(
                    f"offset {record.offset} of {topic}/{partition} comes where {expected} is expected; "
                    "read the frontier and go on from it"
                )
        table = self._topics[topic]
        layout = self._layouts[table]
        for batch in _batches(landings):
            rows = [_in_order(layout, row_of(table, epoch, landing, self._ids)) for landing in batch]
            with self._database.writing() as client:
                client.insert(
                    str(table),
                    rows,
                    column_names=layout.names,
                    column_types=layout.types,
                    settings=INSERT_SETTINGS,
                )
        return frontier + len(landings)

    def faults(self, epoch: int, topic: str, partition: int) -> tuple[Fault, ...]:
        """Every gap and duplicate of a partition, located; nothing where each offset from 0 stands exactly once."""
        with self._database.writing() as client:
            found = client.query(
                f"""
                SELECT if(offset > before + 1, 'lost', 'repeated'), if(offset > before + 1, before + 1, offset),
                       if(offset > before + 1, offset - 1, before)
                FROM (
                    SELECT offset, lagInFrame(offset, 1, -1) OVER (ORDER BY offset
                           ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS before
                    FROM {self._table(topic)} WHERE {_PLACE}
                )
                WHERE offset != before + 1
                ORDER BY offset LIMIT 1000
                """,  # noqa: S608
                parameters=_place(epoch, topic, partition),
            )
        return tuple(Fault(problem=str(row[0]), first=int(row[1]), last=int(row[2])) for row in found.result_rows)

    def check_continuity(
        self, epoch: int, topic: str, partition: int, *, log_start: int, log_end: int, log_record: Record | None
    ) -> int:
        """Holds the audit of a partition against its log at start, and returns the frontier to go on from.

        `log_start` and `log_end` bound the offsets the log still holds; `log_record` is its record at frontier - 1,
        None where it holds none (nothing landed yet, a hole, or retention).

        Raises:
            ContinuityError: a gap or duplicate in the audit, or a log that was cut, recreated or rewritten.
        """
        where = f"{topic}/{partition} in epoch {epoch}"
        if faults := self.faults(epoch, topic, partition):
            first = faults[0]
            raise ContinuityError(
                f"the audit of {where} has offsets {first.first} to {first.last} {first.problem}; stop and look"
            )
        frontier = self.frontier(epoch, topic, partition)
        if log_end < frontier:
            raise ContinuityError(
                f"the log of {where} ends at {log_end}, but the audit holds up to {frontier - 1}: {_ADVICE}"
            )
        if log_start > frontier:
            raise ContinuityError(
                f"the log of {where} starts at {log_start}, but the audit needs {frontier}: records are lost"
            )
        if frontier > log_start:
            self._compare(epoch, topic, partition, frontier - 1, log_record)
        return frontier

    def _compare(self, epoch: int, topic: str, partition: int, offset: int, log_record: Record | None) -> None:
        with self._database.writing() as client:
            found = client.query(
                "SELECT value, toUnixTimestamp64Milli(timestamp), undecodable IS NOT NULL AND value IS NULL "  # noqa: S608
                f"FROM {self._table(topic)} WHERE {_PLACE} AND offset = {{offset:Int64}}",
                parameters=_place(epoch, topic, partition) | {"offset": offset},
                column_formats={"value": "bytes"},
            )
        value, timestamp_ms, hole = found.result_rows[0]
        if log_record is None and hole:
            return
        if log_record is None or log_record.offset != offset:
            raise ContinuityError(
                f"the log of {topic}/{partition} no longer holds offset {offset}, which the audit has: {_ADVICE}"
            )
        if (log_record.value, log_record.timestamp_ms) != (value, timestamp_ms):
            raise ContinuityError(
                f"offset {offset} of {topic}/{partition} in the log is another record than in the audit: {_ADVICE}"
            )

    def _table(self, topic: str) -> str:
        return str(self._topics[topic])


_PLACE: Final = "epoch = {epoch:Int64} AND topic = {topic:String} AND partition = {partition:Int32}"


def _place(epoch: int, topic: str, partition: int) -> dict[str, int | str]:
    return {"epoch": epoch, "topic": topic, "partition": partition}


def _layout(client: Client, table: Table) -> _Layout:
    described = client.query(f"DESCRIBE TABLE {table}").result_rows
    names = tuple(str(row[0]) for row in described)
    types = tuple(get_from_name(str(row[1])) for row in described)
    return _Layout(names=names, types=types, empty=tuple(_empty(str(row[1])) for row in described))


def _empty(type_name: str) -> object:
    """What stands in a column that a record has no value for."""
    if type_name.startswith("Nullable"):
        return None
    if type_name.startswith("Array"):
        return []
    return "" if "String" in type_name else 0


def _in_order(layout: _Layout, columns: Columns) -> list[object]:
    if unknown := columns.keys() - set(layout.names):
        raise ConfigurationError(
            f"the audit was made by another release: it has no column `{min(unknown)}`; keep it, start a new one"
        )
    return [columns.get(name, empty) for name, empty in zip(layout.names, layout.empty, strict=True)]


def _batches(landings: Sequence[Landing]) -> Iterator[Sequence[Landing]]:
    """Cuts by rows and bytes; a single record is never cut."""
    start = size = 0
    for index, landing in enumerate(landings):
        share = _size(landing.record)
        if index > start and (index - start >= ROWS_MAX or size + share > BYTES_MAX):
            yield landings[start:index]
            start, size = index, 0
        size += share
    if start < len(landings):
        yield landings[start:]


def _size(record: Record) -> int:
    return (
        len(record.key or b"")
        + 2 * len(record.value or b"")
        + sum(len(name) + len(value or b"") for name, value in record.headers)
    )
