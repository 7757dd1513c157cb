"""The model runner's lane: effective decisions in, one generation a decision offset out, at most one window ahead.

Order of effects for each grant: verify it (10), check stops and the deadline, run the model (11), seal the outcome for
the offset where the log ends, append, compare. Nothing is started before its decision is effective; nothing counts
before its append is.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sluicegate.enforcer import window as windows
from sluicegate.enforcer.grant import Grant, Passed, verify_grant
from sluicegate.enforcer.log import SealedLog
from sluicegate.enforcer.seal import (
    KEY_UNKNOWN,
    SEAL_BYTES_MAX,
    SLICE_RECORDS_MAX,
    Effective,
    Place,
    Signer,
    Verifier,
    Void,
    as_landed,
    seal_slice,
    without_effect,
)
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.errors import ContinuityError, Unavailable
from sluicegate.schemas.events import DecisionMade, GenerationFinished, ModelRun, Outcome, Source, Window
from sluicegate.schemas.records import Record, Unsent
from sluicegate.streams.finished import Finished, as_generation, joined, refused, still_owed
from sluicegate.streams.ports import Log, PolicyCurrent, always_current, never_stopped
from sluicegate.streams.window_read_back import restore_window

log = logging.getLogger(__name__)
LAPSED_PAUSE_S = 0.05


class LaneClosed(Exception):
    """The lane was closed while a caller waited for a place in its window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a model call ended; `code` is OK when `text` is an answer. `run` is None where no call was made."""

    code: Code
    text: str | None
    run: ModelRun | None


class Model(Protocol):
    """What turns a grant into text. MUST obey the grant's parameters; MUST NOT be given anything but a grant."""

    async def run(self, grant: Grant, *, cancelled: Callable[[], bool]) -> Ran:
        """Runs to the end, or soon after `cancelled()` turns true."""


OUTCOMES = {
    Code.OK: Outcome.ANSWERED,
    Code.EXPIRED: Outcome.EXPIRED,
    Code.BLOCKED: Outcome.BLOCKED,
    Code.PROMPT_TOO_LONG: Outcome.REFUSED,
    Code.MODEL_MISSING: Outcome.REFUSED,
    Code.CONTROL_CHARACTER: Outcome.REFUSED,
    Code.MODEL_FAILED: Outcome.FAILED,
    Code.STOPPED: Outcome.REFUSED,
}


class GenerationLane:
    """One partition of the runner. `recover` first, then `advance` with decisions in offset order, `close` at
    revocation.
    """

    def __init__(
        self,
        *,
        broker: Log,
        model: Model,
        decisions: Verifier,
        generations: Verifier,
        signer: Signer,
        window_size: int,
        slice_bytes_max: int,
        clock_ms: Callable[[], int],
        may_append: Callable[[], bool],
        policy_current: PolicyCurrent = always_current,
        stopped: Callable[[DecisionMade], bool] = never_stopped,
    ) -> None:
        """`stopped(decision)`: whether what it grants must stop; asked before a start and for every token."""
        self._broker = broker
        self._policy_current = policy_current
        self._model = model
        self._decisions = decisions
        self._generations = generations
        self._signer = signer
        self._size = window_size
        self._slice_bytes_max = slice_bytes_max
        self._clock_ms = clock_ms
        self._may_append = may_append
        self._is_stopped = stopped
        self._place: Place = generations.place
        self._closed = False
        self._changed = asyncio.Condition()
        self._grants: deque[tuple[Grant, bytes | None]] = deque()
        self._finished: list[Finished] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: BaseException | None = None
        self._unsettled = False
        self._time_ms = 0
        self._policy_position = -1
        self._next = 0
        self._window = windows.Window(size=window_size)
        self._log = SealedLog(generations, in_order=False)

    @property
    def frontier(self) -> int:
        """The next decision offset to be admitted."""
        return self._next

    async def recover(self) -> int:
        """Reads back the runner's own outputs, restores the window, starts work; returns the offset to read
        decisions from.

        Raises:
            ContinuityError: the decisions log does not reach as far as the outputs say.
        """
        restored = await restore_window(
            self._broker,
            decisions=self._decisions,
            generations=self._generations,
            size=self._size,
            policy_current=self._policy_current,
        )
        self._window, self._log, self._time_ms = restored.window, restored.folded, restored.folded.time_ms
        await self._read_back()
        end = await self._broker.end_offset(self._decisions.place.topic, self._place.partition)
        if self._window.first > end:
            raise ContinuityError(
                f"{self._decisions.place.topic}/{self._place.partition} ends at {end}, but outputs cover sources up to "
                f"{self._window.first}: the topic was recreated or cut; take a new epoch"
            )
        self._next = self._window.first
        self._tasks = [asyncio.create_task(self._generate()), asyncio.create_task(self._flush())]
        return self._next

    async def _read_back(self) -> None:
        async for batch in self._broker.read(self._place.topic, self._place.partition, start=self._log.end):
            await self._policy_current()
            self._fold(batch)

    def _fold(self, records: Sequence[Record]) -> Void | None:
        """The last record without effect, None where all of them have one."""
        void: Void | None = None
        for record in records:
            verdict = self._log.observe(record)
            match verdict:
                case Effective():
                    source = codec.decode(record.value, GenerationFinished).source
                    self._window.finish(source.offset, source.count)
                case Void():
                    void = verdict
        self._time_ms = max(self._time_ms, self._log.time_ms)
        return void

    async def advance(self, records: Sequence[Record]) -> None:
        """Admits each decision as soon as the window allows it; returns when all are admitted.

        Raises:
            ContinuityError, ValueError: the lane failed; it must be closed and recovered anew.
        """
        is_current = False
        for record in records:
            if record.offset < self._next:
                continue
            while record.offset > self._next:
                await self._admit(self._next)
                count = min(record.offset, self._window.limit) - self._next
                hole = Source(offset=self._next, count=count, digest=b"", timestamp_ms=0)
                self._pass(Passed(code=Code.GAP, denied=False, source=hole, decision_id=None), None)
                await self._notify()
                self._next += count
            await self._admit(record.offset)
            verdict = self._decisions.verify(record)
            if isinstance(verdict, Void) and verdict.reason == KEY_UNKNOWN and not is_current:
                await self._policy_current()
                verdict, is_current = self._decisions.verify(record), True
            self._next = record.offset + 1
            if isinstance(verdict, Effective):
                self._time_ms = max(self._time_ms, verdict.statement.time_ms)
                self._policy_position = max(self._policy_position, verdict.statement.policy_position)
            if self._window.is_done(record.offset):
                continue
            await self._start(verdict)

    async def _admit(self, source: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: source < self._window.limit or self._stopped())
        self._raise_failure()

    async def _start(self, verdict: Effective | Void) -> None:
        match verify_grant(verdict):
            case Passed() as passed:
                self._pass(passed, verdict.record.key)
            case Grant() as grant:
                self._grants.append((grant, verdict.record.key))
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _pass(self, passed: Passed, key: bytes | None) -> None:
        run = joined(self._finished[-1] if self._finished else None, passed)
        if run is not None:
            self._finished[-1] = run
        else:
            self._finished.append(refused(passed, key))

    def _stopped(self) -> bool:
        return self._closed or self._failure is not None

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise LaneClosed

    async def _generate(self) -> None:
        """Hands every grant to the model as soon as it is admitted: the window alone bounds how many are under way."""
        running: set[asyncio.Task[None]] = set()
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._grants) or self._stopped())
            if self._stopped():
                break
            if not self._may_append():
                await asyncio.sleep(LAPSED_PAUSE_S)
                continue
            task = asyncio.create_task(self._answer(*self._grants.popleft()))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)

    async def _answer(self, grant: Grant, key: bytes | None) -> None:
        try:
            finished = await self._run(grant, key)
        except Exception as error:  # noqa: BLE001 - worker loop: a bug stops the lane, loudly, at its caller
            await self._fail(error)
            return
        if finished is None:
            self._grants.appendleft((grant, key))
        else:
            self._finished.append(finished)
        await self._notify()

    async def _run(self, grant: Grant, key: bytes | None) -> Finished | None:
        """None where the call was told to stop: a lease that lapsed says nothing about the request."""
        stopped = halted = False

        def cancelled() -> bool:
            nonlocal stopped, halted
            halted = halted or self._is_stopped(grant.decision)
            stopped = stopped or self._closed or not self._may_append()
            return stopped or halted

        deadline = grant.decision.deadline_ms
        if self._is_stopped(grant.decision):
            ran = Ran(code=Code.STOPPED, text=None, run=None)
        elif deadline is not None and self._clock_ms() > deadline:
            ran = Ran(code=Code.EXPIRED, text=None, run=None)
        else:
            # 11 generate under the obligations
            log.debug("model call", extra={"decision": grant.decision.decision_id})
            ran = await self._model.run(grant, cancelled=cancelled)
            if halted or self._is_stopped(grant.decision):
                ran = Ran(code=Code.STOPPED, text=None, run=ran.run)
        if stopped and ran.code is Code.MODEL_FAILED:
            return None
        return Finished(
            source=grant.source,
            outcome=OUTCOMES.get(ran.code, Outcome.FAILED),
            code=ran.code,
            decision_id=grant.decision.decision_id,
            text=ran.text if ran.code is Code.OK else None,
            run=ran.run,
            key=key,
        )

    async def _flush(self) -> None:
        try:
            while True:
                async with self._changed:
                    await self._changed.wait_for(lambda: bool(self._finished) or self._closed)
                if self._closed:
                    return
                try:
                    await self._append_once()
                except Unavailable as error:  # the broker, or whoever holds the key
                    log.warning("append waits", extra={"topic": self._place.topic, "why": str(error)})
                    await asyncio.sleep(LAPSED_PAUSE_S)
                await self._notify()
        except Exception as error:  # noqa: BLE001 - worker loop: a bug stops the lane, loudly, at its caller
            await self._fail(error)

    async def _append_once(self) -> None:
        """Seals what is finished for the end of the log, appends it, and settles it only if it landed there."""
        if self._unsettled:
            await self._read_back()
            self._unsettled = False
        self._finished = [piece for each in self._finished for piece in still_owed(each, self._window)]
        batch, unsent = self._cut()
        if not batch or not self._may_append():
            await asyncio.sleep(LAPSED_PAUSE_S if batch else 0)
            return
        at = self._log.end
        self._unsettled = True
        # taken out: what waits may still be joined, what is in flight may not
        self._finished = self._finished[len(batch) :]
        try:
            sealed = seal_slice(
                unsent,
                place=self._place,
                at=at,
                source_first=min(each.source.offset for each in batch),
                source_last=max(each.source.offset + each.source.count - 1 for each in batch),
                time_ms=self._time_ms,
                policy_position=self._policy_position,
                signer=self._signer,
            )
            base = await self._broker.append(self._place.topic, self._place.partition, sealed)
        except Unavailable:
            self._finished = [*batch, *self._finished]
            raise
        if base == at:
            void = self._fold(as_landed(sealed, place=self._place, base=base))
            if void is not None:
                raise without_effect(void, signer=self._signer, stage=self._place.stage)
            self._unsettled = False
            return
        log.warning("slice is void", extra={"topic": self._place.topic, "at": at, "base": base})
        self._finished = [*batch, *self._finished]

    def _cut(self) -> tuple[list[Finished], list[Unsent]]:
        batch: list[Finished] = []
        unsent: list[Unsent] = []
        size = 0
        window = Window(first=self._window.first, size=self._size)
        for each in self._finished:
            record = as_generation(each, place=self._place, window=window)
            record_size = record.size_bytes() + SEAL_BYTES_MAX
            if batch and (size + record_size > self._slice_bytes_max or len(batch) == SLICE_RECORDS_MAX):
                break
            batch.append(each)
            unsent.append(record)
            size += record_size
        return batch, unsent

    async def _fail(self, error: BaseException) -> None:
        self._failure = error
        await self._notify()

    async def close(self) -> None:
        """Stops admission and appends; a model call in progress is told to stop. Waits for both tasks."""
        self._closed = True
        await self._notify()
        await asyncio.gather(*self._tasks, return_exceptions=True)
