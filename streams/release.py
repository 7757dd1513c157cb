"""The redactor's lane: generations in, releases out, with the decisions that they name read beside them.

Order of effects: read the decisions that a slice names, decide its releases, seal, append, compare (all in `Lane`). The
decisions log is read, never a copy that a runner carries: a sealed allow that did not land is no grant.
"""

from collections import OrderedDict
from collections.abc import Sequence

from sluicegate.enforcer.release import Redactor
from sluicegate.enforcer.seal import Effective, Verifier, Void
from sluicegate.schemas.records import Record
from sluicegate.streams.ports import Log, PartitionLane

DECISIONS_KEPT = 4096
RECORDS_AT_ONCE = 256
READ_AT_ONCE = 1024


class DecisionReader:
    """Verdicts on the decision records of one partition, by offset; what was read last is kept."""

    def __init__(self, log: Log, verifier: Verifier) -> None:
        self._log = log
        self._verifier = verifier
        self._verdicts: OrderedDict[int, Effective | Void] = OrderedDict()

    def at(self, offset: int) -> Effective | Void | None:
        """The verdict on the record at `offset`; None where the log holds none."""
        return self._verdicts.get(offset)

    async def fetch(self, offsets: Sequence[int]) -> None:
        """Makes `at` answer for these offsets, ascending, as far as the log reaches."""
        missing = [offset for offset in offsets if offset not in self._verdicts]
        while missing:
            start = missing[0]
            near = [offset for offset in missing if offset < start + READ_AT_ONCE]
            await self._read(start, near[-1] + 1)
            missing = missing[len(near) :]
        while len(self._verdicts) > DECISIONS_KEPT + len(offsets):
            self._verdicts.popitem(last=False)

    async def _read(self, start: int, end: int) -> None:
        place = self._verifier.place
        async for batch in self._log.read(place.topic, place.partition, start=start, end=end):
            for record in batch:
                if start <= record.offset < end:
                    self._verdicts[record.offset] = self._verifier.verify(record)


class ReleaseLane:
    """One partition of the redactor: an in-order lane fed with slices whose decisions are at hand."""

    def __init__(self, *, inner: PartitionLane, stage: Redactor, decisions: DecisionReader) -> None:
        self._inner = inner
        self._stage = stage
        self._decisions = decisions

    @property
    def frontier(self) -> int:
        """The next generation offset to be released."""
        return self._inner.frontier

    async def recover(self) -> int:
        """As the inner lane's."""
        return await self._inner.recover()

    async def advance(self, records: Sequence[Record]) -> None:
        """Reads the decisions named, then releases."""
        for first in range(0, len(records), RECORDS_AT_ONCE):
            piece = records[first : first + RECORDS_AT_ONCE]
            await self._decisions.fetch(self._stage.sources(piece))
            await self._inner.advance(piece)

    async def close(self) -> None:
        """As the inner lane's."""
        await self._inner.close()
