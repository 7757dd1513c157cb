"""The candidates of one position after another go in, a text and the reason why it ended come out.

The only place that decides when a generation ends, and that knows nothing of the others beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from sluicegate.model_runner.constrain import Constraint
from sluicegate.model_runner.draw import draw_token
from sluicegate.model_runner.ports import Finish, Job, Outcome
from sluicegate.model_runner.session import Candidates
from sluicegate.model_runner.tokenizer import Tokenizer


class Generation:
    """One job under way: before each model call ask `halted`, call with `allow`, then `take` what came of it.

    `prompt` and `answer` are token ids, `text` the answer's bytes, cut before a stop string.
    """

    def __init__(
        self,
        job: Job,
        prompt: list[int],
        constraint: Constraint,
        tokenizer: Tokenizer,
        *,
        tokens_max: int,
        cancelled: Callable[[], bool],
    ) -> None:
        """`tokens_max` bounds the answer."""
        self.job = job
        self.prompt = prompt
        self.answer: list[int] = []
        self.text = b""
        self.tokens_max = tokens_max
        self.future: Future[Outcome] = Future()
        self.allow: NDArray[np.bool_] = constraint.mask()
        self._cancelled = cancelled
        self._constraint = constraint
        self._tokenizer = tokenizer
        self._stops = [text.encode() for text in job.stop]
        self._longest_stop = max(map(len, self._stops), default=0)

    @property
    def tokens(self) -> int:
        """How many tokens the model holds of it after its next call but the last one drawn, which it has not read."""
        return len(self.prompt) + len(self.answer) - 1

    def halted(self, now_s: float) -> Finish | None:
        """Say why it must not go on at `now_s`, on `time.monotonic`; None where it may."""
        if self._cancelled():
            return "cancelled"
        if self.job.deadline_monotonic_s is not None and now_s >= self.job.deadline_monotonic_s:
            return "expired"
        return None if self.allow.any() else "blocked"

    def take(self, best: Candidates) -> Finish | None:
        """Draw the next token from `best` and say why it is the last one; None where it is not."""
        if not len(best.ids):
            return "blocked"
        token = draw_token(
            best.ids,
            best.logits,
            seed=self.job.seed,
            position=len(self.answer),
            temperature=self.job.temperature,
            top_p=self.job.top_p,
            top_k=self.job.top_k,
        )
        if token in self._tokenizer.end_ids:
            return "stop"
        self._constraint.take(token)
        self.answer.append(token)
        fresh = self._tokenizer.token_bytes[token]
        # A stop string may have begun in earlier tokens.
        start = max(0, len(self.text) - self._longest_stop)
        self.text += fresh
        cuts = [place for stop in self._stops if (place := self.text.find(stop, start)) >= 0]
        if cuts:
            self.text = self.text[: min(cuts)]
            return "stop"
        if self._constraint.finished():
            return "stop"
        if len(self.answer) == self.tokens_max:
            return "length"
        self.allow = self._constraint.mask()
        return None
