"""The redactor's lane: generations in, releases out, with the decisions that they name read beside them.

Order of effects: read the decisions that a slice names, decide its releases, seal, append, compare (all in `Lane`). The
decisions log is read, never a copy that a runner carries: a sealed allow that did not land is no grant.
"""

from collections import OrderedDict
from collections.abc import Sequence

from sluicegate.enforcer.detect import Scanner, compile_table
from sluicegate.enforcer.release import Redactor
from sluicegate.enforcer.seal import KEY_UNKNOWN, Effective, Verifier, Void
from sluicegate.schemas.records import Record
from sluicegate.streams.policy_tail import PolicyTail
from sluicegate.streams.ports import Log, PartitionLane, PolicyCurrent, always_current

DECISIONS_KEPT = 4096
RECORDS_AT_ONCE = 256
READ_AT_ONCE = 1024


class DecisionReader:
    """Verdicts on the decision records of one partition, by offset; what was read last is kept."""

    def __init__(self, log: Log, verifier: Verifier, policy_current: PolicyCurrent = always_current) -> None:
        self._log = log
        self._policy_current = policy_current
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
            await known_to(self._verifier, batch, self._policy_current)
            for record in batch:
                if start <= record.offset < end:
                    self._verdicts[record.offset] = self._verifier.verify(record)


async def known_to(verifier: Verifier, records: Sequence[Record], policy_current: PolicyCurrent) -> None:
    """Returns once the verifier's word on these records is the last one: the key that sealed one may be new."""
    for record in records:
        verdict = verifier.verify(record)
        if isinstance(verdict, Void) and verdict.reason == KEY_UNKNOWN:
            await policy_current()
            return


class Scanners:
    """The compiled redaction rules of every bundle in the policy log, by bundle digest, compiled once."""

    def __init__(self, policy: PolicyTail) -> None:
        self._policy = policy
        self._scanners: dict[str, Scanner] = {}

    def of(self, bundle_digest: str) -> Scanner | None:
        """None where no accepted bundle has this digest."""
        found = self._scanners.get(bundle_digest)
        if found is None:
            bundle = self._policy.state.bundle(bundle_digest)
            if bundle is None:
                return None
            found = self._scanners[bundle_digest] = compile_table(bundle.redaction)
        return found


class ReleaseLane:
    """One partition of the redactor: an in-order lane fed with slices whose decisions are at hand."""

    def __init__(
        self,
        *,
        inner: PartitionLane,
        stage: Redactor,
        decisions: DecisionReader,
        generations: Verifier,
        policy_current: PolicyCurrent = always_current,
    ) -> None:
        self._generations = generations
        self._policy_current = policy_current
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
            await known_to(self._generations, piece, self._policy_current)
            await self._decisions.fetch(self._stage.sources(piece))
            await self._inner.advance(piece)

    async def close(self) -> None:
        """As the inner lane's."""
        await self._inner.close()
