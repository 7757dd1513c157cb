"""An audit goes in, the policy log that it keeps comes out record by record, complete or not at all; only here."""

from collections.abc import Iterator
from typing import Final

from sluicegate.schemas.errors import ContinuityError, Unavailable
from sluicegate.schemas.records import Record
from sluicegate.sinks.auditor import Auditor

PAGE: Final = 100


def kept_log(auditor: Auditor, time_ms: int) -> Iterator[Record]:
    """The records of the policy log that was in use at `time_ms`, from its first; what came later follows.

    Raises:
        Unavailable: the audit holds no policy log that had begun by then, or is away.
        ContinuityError: as `policy_log`.
        QuestionRefused: as `Auditor.sql`.
    """
    begun = auditor.sql(
        "SELECT epoch, min(toUnixTimestamp64Milli(timestamp)) AS begun FROM policy WHERE value IS NOT NULL "
        "GROUP BY epoch ORDER BY epoch"
    ).rows
    epochs = [int(str(epoch)) for epoch, first_ms in begun if int(str(first_ms)) <= time_ms]
    if not epochs:
        raise Unavailable("the audit holds no policy log that had begun by then; ask for a later time")
    yield from policy_log(auditor, epochs[-1])


def policy_log(auditor: Auditor, epoch: int) -> Iterator[Record]:
    """The records of the policy log of one epoch, from its first, read as they are asked for.

    Raises:
        ContinuityError: a record between two is missing, so what was in force cannot be told.
        QuestionRefused, Unavailable: as `Auditor.sql`.
    """
    following, page = 0, PAGE
    while True:
        try:
            rows = auditor.sql(
                "SELECT offset, topic, toUnixTimestamp64Milli(timestamp), hex(value) FROM policy "  # noqa: S608
                f"WHERE epoch = {epoch} AND partition = 0 AND offset >= {following} ORDER BY offset LIMIT {page}"
            ).rows
        except Unavailable:
            # Large directories: ask for fewer of them.
            if page == 1:
                raise
            page = max(1, page // 4)
            continue
        for offset, topic, stamp_ms, value in rows:
            if int(str(offset)) != following or not value:
                raise ContinuityError(f"the audit lacks offset {following} of the policy log; mend or restore it")
            yield Record(
                topic=str(topic),
                partition=0,
                offset=following,
                timestamp_ms=int(str(stamp_ms)),
                key=None,
                value=bytes.fromhex(str(value)),
                headers=(),
            )
            following += 1
        if len(rows) < page:
            return
