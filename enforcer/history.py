"""The records of a policy log go in one by one, the rules of an event time come out, by the very fold that the stages
run; the only place that folds a log of the past.
"""

from collections.abc import Iterable

from sluicegate.enforcer.state import NotReady, PolicyLog, Rules
from sluicegate.schemas.codec import decode
from sluicegate.schemas.errors import CodecError, Unavailable
from sluicegate.schemas.events import DirectoryChanged, PolicyPublished
from sluicegate.schemas.records import Record


def decode_policy_event(record: Record) -> PolicyPublished | DirectoryChanged:
    """The policy event of a record.

    Raises:
        CodecError: it is neither.
    """
    try:
        return decode(record.value, PolicyPublished)
    except CodecError:
        return decode(record.value, DirectoryChanged)


def fold_record(state: PolicyLog, record: Record) -> None:
    """Folds the next record of the log; one that is no policy event, or is refused, changes nothing."""
    try:
        event = decode_policy_event(record)
    except CodecError:
        state.skip(record.offset)
        return
    state.fold(record.offset, event, record.timestamp_ms)


class PolicyHistory:
    """A policy log that is read no further than decisions need it. `records`: from the first on; `state`: empty."""

    def __init__(self, records: Iterable[Record], state: PolicyLog) -> None:
        self._records = iter(records)
        self.state = state

    def at(self, time_ms: int, *, position: int) -> Rules | NotReady:
        """The rules at `time_ms`. `position`: an offset of the policy log after which nothing was in force then, as a
        decision names it; a worker that had read on said the same.

        Raises:
            ContinuityError, Unavailable: as `records`.
        """
        while self.state.position < position and (record := next(self._records, None)) is not None:
            fold_record(self.state, record)
        return self.state.at(time_ms)


def rules_then(records: Iterable[Record], state: PolicyLog, time_ms: int) -> Rules:
    """The rules in force at `time_ms`. `state`: an empty log, which is left folded as far as was needed.

    Raises:
        Unavailable: nothing was in force then, and why.
    """
    found = state.at(time_ms)
    for record in records:
        # What stands later in the log than T starts later too, but for the first versions of all, which come first.
        if record.timestamp_ms > time_ms and isinstance(found, Rules):
            break
        fold_record(state, record)
        found = state.at(time_ms)
    if not isinstance(found, Rules):
        raise Unavailable(f"nothing was in force at that time: {found.reason}; ask for another")
    return found
