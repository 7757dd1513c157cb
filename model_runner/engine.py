"""A job goes in, an outcome comes out: the engine that runs one request at a time behind the port.

The only place that decides when a generation ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sluicegate.model_runner.build import GRAPH_FILE, read_config, read_manifest
from sluicegate.model_runner.constrain import Constrainer, Constraint
from sluicegate.model_runner.draw import draw_token
from sluicegate.model_runner.errors import ModelRefused
from sluicegate.model_runner.ports import Finish, Job, Outcome
from sluicegate.model_runner.session import GraphSession, Provider
from sluicegate.model_runner.tokenizer import Tokenizer

WINDOW_TOKENS_DEFAULT = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """The tokens of one generation and why there are no more; `text` is cut before a stop string."""

    text: bytes
    tokens: int
    finish: Finish


class Engine:
    """A loaded model. Safe to use from several threads: one generation runs, the others wait."""

    def __init__(
        self,
        session: GraphSession,
        tokenizer: Tokenizer,
        *,
        window_tokens: int,
        graph_digest: str,
    ) -> None:
        self._session = session
        self._constrainer = Constrainer(tokenizer)
        self._lock = threading.Lock()
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
    ) -> Engine:
        """Load a built model after comparing every byte of it with its manifest.

        `threads` is how many cores one model call may use; prompt and answer together hold at most `window_tokens`.

        Raises:
            ModelRefused: the build is damaged, of another version, or shorter than `window_tokens`.
            ProviderRefused: the provider is not there or two runtimes are installed.
        """
        manifest = read_manifest(model_dir)
        config = read_config(manifest)
        if not 1 < window_tokens <= config.context_tokens:
            raise ModelRefused(
                f"a window of `{window_tokens}` tokens does not fit this model, use 2 to {config.context_tokens}"
            )
        session = GraphSession(model_dir / GRAPH_FILE, config, provider=provider, threads=threads)
        return cls(
            session,
            Tokenizer.open(model_dir),
            window_tokens=window_tokens,
            graph_digest=str(manifest["graph_digest"]),
        )

    def generate(self, job: Job, cancelled: Callable[[], bool]) -> Outcome:
        """Run `job` to its end (`sluicegate.model_runner.ports.Generator`).

        A prompt that leaves no room for one token in the window, or that has more tokens than the job allows, is
        `too_long` and never reaches the model.

        Raises:
            TextRefused: a message or choice holds a byte that no token stands for.
        """
        prompt = self.tokenizer.prompt_tokens(job.messages)
        constraint = self._constrainer.start(job.choices)
        allowed = self.window_tokens if job.prompt_tokens_max is None else job.prompt_tokens_max + 1
        if len(prompt) >= min(allowed, self.window_tokens):
            written = _Written(text=b"", tokens=0, finish="too_long")
        else:
            with self._lock:
                written = self._write(prompt, job, constraint, cancelled)
        return Outcome(
            text=written.text.decode(errors="replace"),
            finish=written.finish,
            prompt_tokens=len(prompt),
            output_tokens=written.tokens,
            seed=job.seed,
            provider=self.provider,
            graph_digest=self.graph_digest,
            tokenizer_digest=self.tokenizer.digest,
        )

    def _write(self, prompt: list[int], job: Job, constraint: Constraint, cancelled: Callable[[], bool]) -> _Written:
        """Draw token after token; the window was checked for the prompt, and bounds the answer here."""
        stops = [text.encode() for text in job.stop]
        limit = min(job.max_tokens, self.window_tokens - len(prompt))
        cache, fresh, text = self._session.new_cache(), prompt, b""
        for position in range(limit):
            if cancelled():
                return _Written(text=text, tokens=position, finish="cancelled")
            if job.deadline_monotonic_s is not None and time.monotonic() >= job.deadline_monotonic_s:
                return _Written(text=text, tokens=position, finish="expired")
            allow = constraint.mask()
            if not allow.any():
                return _Written(text=text, tokens=position, finish="blocked")
            best = self._session.step(fresh, cache, allow)
            if not len(best.ids):
                return _Written(text=text, tokens=position, finish="blocked")
            token = draw_token(
                best.ids,
                best.logits,
                seed=job.seed,
                position=position,
                temperature=job.temperature,
                top_p=job.top_p,
                top_k=job.top_k,
            )
            if token in self.tokenizer.end_ids:
                return _Written(text=text, tokens=position, finish="stop")
            constraint.take(token)
            # A stop string may have begun in earlier tokens, so it is looked for in all bytes so far.
            text += self.tokenizer.token_bytes[token]
            cuts = [place for stop in stops if (place := text.find(stop)) >= 0]
            if cuts:
                return _Written(text=text[: min(cuts)], tokens=position + 1, finish="stop")
            if constraint.finished():
                return _Written(text=text, tokens=position + 1, finish="stop")
            fresh = [token]
        return _Written(text=text, tokens=limit, finish="length")
