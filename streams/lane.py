"""One partition of an in-order stage: records in, sealed outputs appended exactly where they were sealed for; the only
place that does compare-and-append for such a stage.

Order of effects: read back own output to the high watermark, fold it, decide a slice, seal it for the offset where the
log ends, append it as one batch, compare. Where the acknowledged offset differs, or none came, read back and redo.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from sluicegate.enforcer.log import SealedLog
from sluicegate.enforcer.ports import Proposal, Stage
from sluicegate.enforcer.seal import (
    SLICE_RECORDS_MAX,
    Effective,
    Signer,
    Verifier,
    Void,
    as_landed,
    seal_slice,
    source_digest,
    without_effect,
)
from sluicegate.schemas import codec
from sluicegate.schemas.errors import ContinuityError, Unavailable
from sluicegate.schemas.events import DecisionMade, ReleaseMade, Source
from sluicegate.schemas.records import Record, Unsent
from sluicegate.schemas.shadow_events import ShadowDecided
from sluicegate.streams.ports import Log, PolicyCurrent, always_covered, always_current
from sluicegate.streams.read_back import VERIFIED_BEFORE_YIELD, find_fold_start

log = logging.getLogger(__name__)
APPENDS_MAX = 50
VOIDS_MAX = 1_000  # in a row; then whoever drives the lane is told, and may ask again
PAUSE_S = 0.05
PAUSE_MAX_S = 2.0
COVER_POLL_S = 0.005
COVER_LATE_S = 5.0


class Lane:
    """`recover` first, then `advance` with records in offset order, from one task. Never shared, never used after the
    partition was given up: a later assignment makes a new one.

    `source_topic`: what the stage reads. `output`: the event its bodies are, which names the source of each.
    `may_append`: whether the partition is still held, asked before each append. `clock_ms`: see `Stage.decide`.
    `schema_ids`: which schema a registry knows under which id, where outputs come in its framing.
    `may_decide`: whether everything is known that can be in force at an event time, or all is denied for want of it; a
    slice waits for that. `passes_deleted`: whether what retention took of the input before it was answered is passed
    as a hole, which only suits a stage that nobody waits for; else it is a broken log.
    """

    def __init__(
        self,
        *,
        broker: Log,
        stage: Stage,
        verifier: Verifier,
        signer: Signer,
        source_topic: str,
        output: type[DecisionMade | ReleaseMade | ShadowDecided],
        slice_bytes_max: int,
        may_append: Callable[[], bool],
        clock_ms: Callable[[], int | None] = lambda: None,
        slice_records_max: int = SLICE_RECORDS_MAX,
        schema_ids: Mapping[int, str] | None = None,
        policy_current: PolicyCurrent = always_current,
        may_decide: Callable[[int], bool] = always_covered,
        passes_deleted: bool = False,
    ) -> None:
        self._broker = broker
        self._policy_current = policy_current
        self._may_decide = may_decide
        self._passes_deleted = passes_deleted
        self._stage = stage
        self._verifier = verifier
        self._signer = signer
        self._source_topic = source_topic
        self._output: type[DecisionMade | ReleaseMade | ShadowDecided] = output
        self._slice_bytes_max = slice_bytes_max
        self._may_append = may_append
        self._schema_ids = schema_ids or {}
        self._clock_ms = clock_ms
        self._records_max = min(slice_records_max, SLICE_RECORDS_MAX)
        self._records_now = self._records_max
        self._log: SealedLog | None = None
        self._unsettled = True
        self._anchor: Source | None = None
        self._closed = False
        self._in_flight = asyncio.Lock()
        self.redone = 0

    @property
    def frontier(self) -> int:
        """The next source offset without an effective output.

        Raises:
            RuntimeError: `recover` has not returned yet.
        """
        if self._log is None or self._log.source_next is None:
            raise RuntimeError("a lane is recovered before it is used")
        return self._log.source_next

    @property
    def time_ms(self) -> int:
        """Event time T of the last effective output; 0 before the first."""
        return 0 if self._log is None else self._log.time_ms

    @property
    def void_count(self) -> int:
        """How many records without effect stand in what was read of the output so far; more than our own redone slices
        means a foreign writer.
        """
        return 0 if self._log is None else self._log.void_count

    async def recover(self) -> int:
        """Reads back as much of the stage's own output as it must remember, folds it, and checks that its input is
        still the one it was made from.

        Raises:
            ContinuityError: a log was cut, recreated or rewritten.
            Unavailable: the broker does not answer.
        """
        place = self._verifier.place
        await self._policy_current()
        if self._log is None:
            found = await find_fold_start(
                self._broker,
                self._verifier,
                memory=self._stage.memory,
                is_anchor=lambda each: bool(self._anchor_of(each)),
            )
            if found.lost_ms is not None:
                where = {"topic": place.topic, "partition": place.partition, "offset": found.at}
                log.warning("the log keeps less than is to be remembered", extra=where)
                self._stage.lose(found.lost_ms)
            self._log = SealedLog(self._verifier, start=found.at, source_start=0 if found.at == 0 else None)
        await self._read_back(self._log)
        if self._log.source_next is None:
            self._log.source_next = await self._frontier_of_nothing()
        if self._log.source_next is None:
            raise ContinuityError(
                f"`{place.topic}`/{place.partition} starts at {self._log.end} and no slice that it keeps is effective: "
                "take a new epoch"
            )
        await self._check_source()
        return self.frontier

    async def _frontier_of_nothing(self) -> int | None:
        """Where retention deleted every output: the end of the input, if it deleted all of that too. What was asked
        since may have been answered or not, so then nobody knows.
        """
        partition = self._verifier.place.partition
        start = await self._broker.start_offset(self._source_topic, partition)
        end = await self._broker.end_offset(self._source_topic, partition)
        return start if start == end or self._passes_deleted else None

    async def _check_source(self) -> None:
        partition = self._verifier.place.partition
        start = await self._broker.start_offset(self._source_topic, partition)
        end = await self._broker.end_offset(self._source_topic, partition)
        lost = self.frontier < start and not self._passes_deleted
        if lost or self.frontier > end:
            raise ContinuityError(
                f"`{self._source_topic}`/{partition} holds {start} to {end}, but the next to be answered is "
                f"{self.frontier}: it was cut or recreated; take a new epoch"
            )
        anchor = self._anchor
        if anchor is None or anchor.offset < start:
            return
        reading = self._broker.read(self._source_topic, partition, start=anchor.offset, end=anchor.offset + 1)
        found = [record async for batch in reading for record in batch]
        same = [
            record
            for record in found
            if source_digest(record.key, record.value) == anchor.digest and record.timestamp_ms == anchor.timestamp_ms
        ]
        if len(same) != 1:
            raise ContinuityError(
                f"`{self._source_topic}`/{partition}/{anchor.offset} is not the record that was answered: it was "
                "recreated or rewritten; take a new epoch"
            )

    async def _read_back(self, sealed: SealedLog) -> None:
        place = self._verifier.place
        seen = 0
        async for batch in self._broker.read(place.topic, place.partition, start=sealed.end):
            await self._policy_current()
            effective: list[Record] = []
            for record in batch:
                if isinstance(self._fold(sealed, record), Effective):
                    effective.append(record)
                seen += 1
                if seen % VERIFIED_BEFORE_YIELD == 0:
                    await asyncio.sleep(0)
            self._drop_anchor(effective)
        self._unsettled = False

    def _fold(self, sealed: SealedLog, record: Record) -> Effective | Void:
        verdict = sealed.observe(record)
        if isinstance(verdict, Effective):
            self._stage.fold(verdict)
        return verdict

    def _drop_anchor(self, effective: Sequence[Record]) -> None:
        """Remembers the last output that answers one record, for `recover` to hold the input against."""
        for record in reversed(effective):
            anchor = self._anchor_of(record)
            if anchor is not None:
                self._anchor = anchor
                return

    def _anchor_of(self, record: Record) -> Source | None:
        source = codec.decode(record.value, self._output, ids=self._schema_ids).source
        return source if source.digest and source.count == 1 else None

    async def advance(self, records: Sequence[Record]) -> None:
        """Returns when every record has an effective output. What is below the frontier is left out; an offset missing
        from `records` above it is a confirmed hole.

        Raises:
            Unavailable: the broker does not answer; call again with the same records.
            ContinuityError: the output log is not sound.
            ConfigurationError: the stage's own key is not admitted, or the broker refuses a slice.
            ValueError: the stage proposed what cannot be appended; a bug.
        """
        if self._log is None:
            raise RuntimeError("a lane is recovered before it is used")
        attempts, voids, pause_s = 0, 0, PAUSE_S
        while True:
            if voids >= VOIDS_MAX:
                place = self._verifier.place
                raise Unavailable(
                    f"{voids} slices in a row for `{place.topic}`/{place.partition} landed elsewhere: take the "
                    "right to write there from everybody else"
                )
            try:
                if self._unsettled:
                    await self._read_back(self._log)
                pending = [record for record in records if record.offset >= self.frontier]
                if not pending:
                    return
                clock_ms = self._clock_ms()
                await self._until_decidable(self._log, pending[: self._records_now], clock_ms)
                async with self._in_flight:
                    landed = await self._append_slice(self._log, pending, clock_ms)
                if landed:
                    attempts, voids, pause_s = 0, 0, PAUSE_S
                    continue
                self.redone += 1
                voids += 1
            except Unavailable as error:
                attempts += 1
                if self._closed or attempts >= APPENDS_MAX:
                    raise
                log.warning("append waits", extra={"topic": self._verifier.place.topic, "why": str(error)})
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_MAX_S)

    async def close(self) -> None:
        """The partition was given up: waits for the append in flight, and nothing is appended once this returns."""
        self._closed = True
        async with self._in_flight:
            pass

    async def _until_decidable(self, sealed: SealedLog, chosen: Sequence[Record], clock_ms: int | None) -> None:
        """Waits outside of `_in_flight`, so that a partition can be given up meanwhile."""
        stamps = [record.timestamp_ms for record in chosen] if clock_ms is None else [clock_ms]
        time_ms = max(sealed.time_ms, *stamps)
        late_s = time.monotonic() + COVER_LATE_S
        while not self._may_decide(time_ms):
            if self._closed:
                raise Unavailable("the partition was given up before the policy was known to be complete")
            if time.monotonic() > late_s:
                late_s += COVER_LATE_S
                place = self._verifier.place
                log.warning(
                    "slice waits for a promise that the policy is complete",
                    extra={"topic": place.topic, "partition": place.partition, "time_ms": time_ms},
                )
            await asyncio.sleep(COVER_POLL_S)

    async def _append_slice(self, sealed: SealedLog, pending: Sequence[Record], clock_ms: int | None) -> bool:
        """Whether a slice landed where it was sealed for. If not, the log is to be read back before the next one."""
        proposal, slice_ = self._sealed_slice(sealed, pending, clock_ms)
        place = self._verifier.place
        if self._closed or not self._may_append():
            raise Unavailable("the partition is not held for certain: no heartbeat was acknowledged lately")
        at = sealed.end
        self._unsettled = True
        base = await self._broker.append(place.topic, place.partition, slice_)
        if base != at:
            where = {"topic": place.topic, "partition": place.partition, "at": at, "base": base}
            log.warning("slice is void", extra=where)
            return False
        landed = as_landed(slice_, place=place, base=base)
        for record in landed:
            verdict = self._fold(sealed, record)
            if isinstance(verdict, Void):
                raise without_effect(verdict, signer=self._signer, stage=place.stage)
        self._drop_anchor(landed)
        self._unsettled = False
        if self.frontier != proposal.source_last + 1:
            raise ValueError(f"the frontier is {self.frontier} after a slice up to {proposal.source_last}")
        return True

    def _sealed_slice(
        self, sealed: SealedLog, pending: Sequence[Record], clock_ms: int | None
    ) -> tuple[Proposal, tuple[Unsent, ...]]:
        while True:
            chosen = pending[: self._records_now]
            proposal = self._stage.decide(chosen, frontier=self.frontier, time_ms=sealed.time_ms, clock_ms=clock_ms)
            if proposal.source_first != self.frontier or not self.frontier <= proposal.source_last <= chosen[-1].offset:
                raise ValueError(f"a slice from {self.frontier} was asked for, not {proposal.source_first}")
            if proposal.time_ms < sealed.time_ms:
                raise ValueError("event time runs backwards")
            slice_ = seal_slice(
                proposal.outputs,
                place=self._verifier.place,
                at=sealed.end,
                source_first=proposal.source_first,
                source_last=proposal.source_last,
                time_ms=proposal.time_ms,
                policy_position=proposal.policy_position,
                signer=self._signer,
            )
            size = sum(record.size_bytes() for record in slice_)
            if size <= self._slice_bytes_max:
                self._records_now = min(2 * len(chosen) + 1, self._records_max)
                return proposal, slice_
            if len(chosen) == 1:
                raise ValueError(f"one output of {size} bytes is over the slice limit of {self._slice_bytes_max} bytes")
            # Fewer records make the same outputs again, and fewer of them.
            self._records_now = max(1, min(len(chosen) // 2, len(chosen) * self._slice_bytes_max // size))
