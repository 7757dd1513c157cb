"""Jobs go in, outcomes come out: the engine that runs many generations at once over one model.

The only place that joins schedule, memory and model. One thread does all the work and lives while there is some; a turn
of it reads prompts for at most one call, then draws one token for every generation whose prompt is read.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sluicegate.model_runner.build import GRAPH_FILE, read_config, read_manifest
from sluicegate.model_runner.constrain import Constrainer
from sluicegate.model_runner.errors import ModelFailed, ModelRefused
from sluicegate.model_runner.generation import Generation
from sluicegate.model_runner.memory import token_bytes
from sluicegate.model_runner.ports import Finish, Job, Outcome
from sluicegate.model_runner.schedule import Ask, Fill, Schedule
from sluicegate.model_runner.session import Candidates, GraphSession, Provider
from sluicegate.model_runner.tokenizer import Tokenizer

log = logging.getLogger(__name__)
WINDOW_TOKENS_DEFAULT = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """How much runs at once: `slots` generations that together hold `memory_bytes` of keys and values at most, and
    `waiting_max` that wait for a slot.
    """

    slots: int = 16
    waiting_max: int = 1024
    memory_bytes: int = 2**30


class Engine:
    """A loaded model. Safe to use from several threads."""

    def __init__(
        self,
        session: GraphSession,
        tokenizer: Tokenizer,
        *,
        window_tokens: int,
        graph_digest: str,
        capacity: Capacity,
        memory_tokens: int,
    ) -> None:
        self._session = session
        self._constrainer = Constrainer(tokenizer)
        self._schedule = Schedule(
            slots=capacity.slots, memory_tokens=memory_tokens, waiting_max=capacity.slots + capacity.waiting_max
        )
        self._memory = session.new_memory(rows=capacity.slots, tokens=window_tokens)
        self._lock = threading.Lock()
        self._arrived: deque[tuple[Ask, Generation]] = deque()
        self._open: dict[int, Generation] = {}
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._places = threading.BoundedSemaphore(capacity.slots + capacity.waiting_max)
        self.jobs_max = capacity.slots + capacity.waiting_max
        self.tokenizer = tokenizer
        self.window_tokens = window_tokens
        self.graph_digest = graph_digest
        self.provider = session.provider

    @classmethod
    def load(
        cls,
        model_dir: Path,
        *,
        provider: Provider = "cpu",
        threads: int = 2,
        window_tokens: int = WINDOW_TOKENS_DEFAULT,
        capacity: Capacity | None = None,
    ) -> Engine:
        """Load a built model after comparing every byte of it with its manifest.

        `threads` is how many cores one model call may use; prompt and answer together hold at most `window_tokens`.

        Raises:
            ModelRefused: the build is damaged, of another version, or shorter than `window_tokens`; the memory given
                is too small for one window.
            ProviderRefused: the provider is not there or two runtimes are installed.
        """
        capacity = capacity or Capacity()
        manifest = read_manifest(model_dir)
        config = read_config(manifest)
        if not 1 < window_tokens <= config.context_tokens:
            raise ModelRefused(
                f"a window of `{window_tokens}` tokens does not fit this model, use 2 to {config.context_tokens}"
            )
        memory_tokens = capacity.memory_bytes // token_bytes(config)
        if memory_tokens < window_tokens:
            needed = window_tokens * token_bytes(config) // 2**20 + 1
            raise ModelRefused(f"one window of `{window_tokens}` tokens needs {needed} MiB of memory, give that much")
        session = GraphSession(model_dir / GRAPH_FILE, config, provider=provider, threads=threads)
        return cls(
            session,
            Tokenizer.open(model_dir),
            window_tokens=window_tokens,
            graph_digest=str(manifest["graph_digest"]),
            capacity=capacity,
            memory_tokens=memory_tokens,
        )

    def generate(self, job: Job, cancelled: Callable[[], bool]) -> Outcome:
        """Run `job` to its end, waiting for a place where `jobs_max` run or wait already.

        Raises: as `submit` and what its future raises.
        """
        return self.submit(job, cancelled).result()

    def submit(self, job: Job, cancelled: Callable[[], bool]) -> Future[Outcome]:
        """Begin `job` (`sluicegate.model_runner.ports.Generator`).

        A prompt that leaves no room for one token in the window, or that has more tokens than the job allows, is
        `too_long` and never reaches the model.

        Raises:
            TextRefused: a message or choice holds a byte that no token stands for.
        """
        prompt = self.tokenizer.prompt_tokens(job.messages)
        room = self.window_tokens - len(prompt)
        generation = Generation(
            job,
            prompt,
            self._constrainer.start(job.choices),
            self.tokenizer,
            tokens_max=min(job.max_tokens, room),
            cancelled=cancelled,
        )
        over = job.prompt_tokens_max is not None and len(prompt) > job.prompt_tokens_max
        ended: Finish | None = "too_long" if room < 1 or over else generation.halted(time.monotonic())
        if ended is not None:
            self._end(generation, ended)
            return generation.future
        ask = Ask(
            number=next(self._numbers),
            principal=job.principal,
            prompt_tokens=len(prompt),
            tokens_max=len(prompt) + generation.tokens_max,
        )
        self._places.acquire()
        generation.future.add_done_callback(lambda _: self._places.release())
        with self._lock:
            self._arrived.append((ask, generation))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="model")
                self._thread.start()
        return generation.future

    def _work(self) -> None:
        while True:
            with self._lock:
                arrived, self._arrived = self._arrived, deque()
                if not arrived and self._schedule.is_idle:
                    self._thread = None
                    return
            try:
                for ask, generation in arrived:
                    if not self._schedule.add(ask):
                        raise RuntimeError("more jobs wait than have a place")
                    self._open[ask.number] = generation
                self._turn()
            except Exception:
                log.exception("the engine failed")
                self._open |= {ask.number: generation for ask, generation in arrived if not generation.future.done()}
                for number in list(self._open):
                    self._fail(number)

    def _turn(self) -> None:
        self._end_halted(list(self._open))
        fill = self._schedule.next_fill()
        if fill is not None:
            self._read(fill)
            # What was drawn from it may have been the last that was wanted.
            self._end_halted([ask.number for ask in self._schedule.rows])
        running = [ask.number for ask in self._schedule.rows[: self._schedule.decoding]]
        if running:
            self._step(running)

    def _end_halted(self, numbers: Sequence[int]) -> None:
        now_s = time.monotonic()
        for number in numbers:
            ended = self._open[number].halted(now_s)
            if ended is not None:
                self._close(number, ended)

    def _read(self, fill: Fill) -> None:
        numbers = [ask.number for ask in fill.asks]
        generations = [self._open[number] for number in numbers]
        prompts = [each.prompt[fill.start : fill.end] for each in generations]
        allow = np.stack([each.allow for each in generations])
        try:
            found = self._session.read(prompts, self._memory, row=fill.row, past=fill.start, allow=allow)
        except ModelFailed:
            log.exception("a model call failed", extra={"generations": len(numbers)})
            for number in numbers:
                self._fail(number)
            return
        if fill.is_last:
            self._take(numbers, found)

    def _step(self, numbers: list[int]) -> None:
        generations = [self._open[number] for number in numbers]
        try:
            found = self._session.step(
                [each.answer[-1] for each in generations],
                [each.tokens for each in generations],
                self._memory,
                np.stack([each.allow for each in generations]),
            )
        except ModelFailed:
            log.exception("a model call failed", extra={"generations": len(numbers)})
            for number in numbers:
                self._fail(number)
            return
        self._take(numbers, found)

    def _take(self, numbers: Sequence[int], found: Sequence[Candidates]) -> None:
        # From the last row on: what closes there need not be moved into an earlier gap.
        for number, best in reversed(list(zip(numbers, found, strict=True))):
            ended = self._open[number].take(best)
            if ended is not None:
                self._close(number, ended)

    def _close(self, number: int, finish: Finish) -> None:
        generation = self._open.pop(number)
        self._release(number)
        self._end(generation, finish)

    def _release(self, number: int) -> None:
        rows = self._schedule.rows
        for move in self._schedule.release(number):
            moved = rows[move.source]
            self._memory.move(move.source, move.target, moved.tokens_max)
        for row in range(len(self._schedule.rows), len(rows)):
            self._memory.wipe(row)

    def _fail(self, number: int) -> None:
        generation = self._open.pop(number)
        try:
            self._release(number)
        except KeyError:
            log.warning("a job failed before it was queued")
        generation.future.set_exception(ModelFailed("a model call failed, see the log"))

    def _end(self, generation: Generation, finish: Finish) -> None:
        generation.future.set_result(
            Outcome(
                text=generation.text.decode(errors="replace"),
                finish=finish,
                prompt_tokens=len(generation.prompt),
                output_tokens=len(generation.answer),
                seed=generation.job.seed,
                provider=self.provider,
                graph_digest=self.graph_digest,
                tokenizer_digest=self.tokenizer.digest,
            )
        )
