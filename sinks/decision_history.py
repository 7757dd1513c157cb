"""An audit goes in, the effective decisions of an epoch come out in the order of event time, each with its request."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sluicegate.schemas.codec import decode
from sluicegate.schemas.errors import CodecError, Unavailable
from sluicegate.schemas.events import DecisionMade, RequestSubmitted
from sluicegate.sinks.auditor import Auditor
from sluicegate.sinks.rows import CONTENT_TYPES, stored_request

PAGE_DECISIONS: Final = 200  # of all partitions together
Decided = tuple[DecisionMade, RequestSubmitted | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One epoch of the audit: its partitions with decisions, and the rulings in all of them."""

    epoch: int
    partitions: tuple[int, ...]
    rulings: int


def held_epochs(auditor: Auditor) -> tuple[Held, ...]:
    """Every epoch that has an effective decision, in order."""
    rows = auditor.sql(
        "SELECT epoch, arraySort(groupUniqArray(partition)), sum(length(rulings)) FROM decisions "
        "WHERE effective = 1 GROUP BY epoch ORDER BY epoch"
    ).rows
    return tuple(
        Held(epoch=int(str(epoch)), partitions=tuple(partitions), rulings=int(str(rulings)))
        for epoch, partitions, rulings in rows
        if isinstance(partitions, list)
    )


def decisions(auditor: Auditor, held: Held) -> Iterator[Decided]:
    """Every effective decision of the epoch with its request, None where that cannot be read; partitions are merged by
    event time, which never falls within one. A page of each is in memory.

    Raises:
        QuestionRefused, Unavailable: as `Auditor.sql`.
    """
    page = max(1, PAGE_DECISIONS // max(1, len(held.partitions)))
    streams = [_partition(auditor, held.epoch, partition, page) for partition in held.partitions]
    return heapq.merge(*streams, key=lambda each: each[0].time_ms)


def _partition(auditor: Auditor, epoch: int, partition: int, size: int) -> Iterator[Decided]:
    after = -1
    while True:
        try:
            rows = auditor.sql(_page(epoch, partition, after, size)).rows
        except Unavailable:
            # Large prompts: ask for fewer of them.
            if size == 1:
                raise
            size = max(1, size // 4)
            continue
        if not rows:
            return
        for offset, value, *request in rows:
            after = int(str(offset))
            yield decode(bytes.fromhex(str(value)), DecisionMade), _request(*request)


def _page(epoch: int, partition: int, after: int, size: int) -> str:
    place = f"epoch = {epoch} AND partition = {partition}"
    page = f"FROM decisions WHERE effective = 1 AND {place} AND offset > {after} ORDER BY offset LIMIT {size}"
    return f"""
        SELECT d.offset, hex(d.value), r.value, r.schema, r.types
        FROM (SELECT offset, source_offset, value {page}) AS d
        LEFT JOIN (
            SELECT offset, toNullable(hex(value)) AS value, schema, {CONTENT_TYPES} AS types
            FROM requests WHERE undecodable IS NULL AND {place} AND offset IN (SELECT source_offset {page})
        ) AS r ON r.offset = d.source_offset
        ORDER BY d.offset
        """  # noqa: S608 - numbers of our own


def _request(value: object, schema: object, types: object) -> RequestSubmitted | None:
    if value is None:
        return None
    try:
        return stored_request(bytes.fromhex(str(value)), schema, types)
    except CodecError:
        return None
