"""A stage's own output partition, folded in offset order: what is effective, where the next slice must stand, how
far it got.

Compare-and-append: a slice is sealed for the offset `end` that its writer has seen everything before. If the broker
puts it
anywhere else, it is void by position, and the writer reads back and decides again. State folded from a log is therefore
sound exactly when it has seen every record before `end`. Frontier: the next source offset after the last effective
slice.
"""

from sluicegate.enforcer.seal import Effective, Verifier, Void
from sluicegate.schemas.errors import ContinuityError
from sluicegate.schemas.events import SliceStatement
from sluicegate.schemas.records import Record


class SealedLog:
    """Folds one sealed partition. `in_order` stages cover their input without holes, so each slice must start at the
    frontier.

    `end`: offset at which the next record will stand. `time_ms`: event time T, never running backwards.
    `source_next`: frontier; None until the first effective slice of a log whose start is not kept.
    """

    def __init__(
        self, verifier: Verifier, *, start: int = 0, source_start: int | None = 0, in_order: bool = True
    ) -> None:
        self._verifier = verifier
        self.place = verifier.place
        self._in_order = in_order
        self._open: tuple[SliceStatement, int] | None = None
        self.end = start
        self.time_ms = 0
        self.source_next = source_start
        self.effective_count = 0
        self.void_count = 0

    def observe(self, record: Record) -> Effective | Void:
        """Takes the next record as the broker returned it. Offsets may jump forward (holes), never back.

        Raises:
            ContinuityError: an effective slice is torn, or does not start at the frontier: the log or a key is not
            sound.
            ValueError: the offset was observed before; a caller's bug.
        """
        if record.offset < self.end:
            raise ValueError(f"offset {record.offset} was observed; the next is {self.end}")
        verdict = self._verifier.verify(record)
        if isinstance(verdict, Effective) and verdict.statement.time_ms < self.time_ms:
            verdict = Void(record=record, reason="sealed before the event time of the log")
        self.end = record.offset + 1
        match verdict:
            case Void():
                self.void_count += 1
                self._must_not_be_open(record)
            case Effective(statement=statement):
                self._advance(record, statement)
        return verdict

    def _must_not_be_open(self, record: Record) -> None:
        if self._open is not None:
            raise ContinuityError(f"a slice of {record.topic}/{record.partition} is torn at offset {record.offset}")

    def _advance(self, record: Record, statement: SliceStatement) -> None:
        index = record.offset - statement.at
        if index == 0:
            self._must_not_be_open(record)
            frontier = self.source_next
            if self._in_order and frontier is not None and statement.source_first != frontier:
                raise ContinuityError(
                    f"the slice at {record.topic}/{record.partition}/{record.offset} covers sources from "
                    f"{statement.source_first}, but the frontier is {frontier}"
                )
        elif self._open != (statement, index) and not (self._open is None and self.effective_count == 0):
            raise ContinuityError(f"a slice of {record.topic}/{record.partition} is torn at offset {record.offset}")
        self.effective_count += 1
        self.time_ms = statement.time_ms
        if index + 1 < statement.count:
            self._open = (statement, index + 1)
            return
        self._open = None
        if self._in_order:
            self.source_next = statement.source_last + 1
        else:
            self.source_next = max(self.source_next or 0, statement.source_last + 1)
