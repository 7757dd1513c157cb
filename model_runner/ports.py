"""The port between the stage that holds a grant and whatever runs the model: a job in, an outcome out.

The only place for the types of that port. One engine at a time stands behind it; the stage must not care which.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, Protocol

Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "blocked", "cancelled", "expired", "too_long"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of the shaped prompt; `content` is plain text and can never become a role of its own."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the grant says is to be generated: the shaped prompt and the clamped parameters, nothing of the request.

    `temperature` 0 is greedy. `top_k` counts tokens and 0 means all candidates; `top_p` is in (0, 1].
    `choices`, when given, holds the only texts that may come out. `principal` only says whose turn it uses: jobs that
    wait take turns by it. `deadline_monotonic_s` is on `time.monotonic`. `prompt_tokens_max`, when given, is the most
    tokens of the whole prompt, frame included.

    Raises:
        ValueError: a parameter is out of range: the enforcer clamps before it grants, so this is a bug.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    seed: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    choices: tuple[str, ...] | None = None
    stop: tuple[str, ...] = ()
    principal: str = ""
    deadline_monotonic_s: float | None = None
    prompt_tokens_max: int | None = None

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError("`max_tokens` must be at least 1")
        if self.prompt_tokens_max is not None and self.prompt_tokens_max < 1:
            raise ValueError("`prompt_tokens_max` must be at least 1")
        if not 0.0 <= self.temperature <= 100.0:
            raise ValueError("`temperature` must be between 0 and 100")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError("`top_p` must be above 0 and at most 1")
        if self.top_k < 0:
            raise ValueError("`top_k` must not be negative")
        if any(not text for text in self.stop):
            raise ValueError("a stop string must not be empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the model made of one job, with everything needed to say how.

    `finish`: `stop` the model or a stop string ended it, `length` a token limit did, `blocked` no token was allowed,
    `cancelled` and `expired` the text is what there was by then, `too_long` the model was never called.
    `output_tokens` counts the tokens drawn, without the end token. `provider` is what the session really runs on.
    """

    text: str
    finish: Finish
    prompt_tokens: int
    output_tokens: int
    seed: int
    provider: str
    graph_digest: str
    tokenizer_digest: str


class Generator(Protocol):
    """Runs jobs.

    An implementation MUST be safe to call from several threads, MUST give the same outcome for the same job whatever
    else it runs at the time, MUST ask `cancelled` before every token, and MUST NOT log or raise any text, token
    or answer. A caller MUST hold an effective allow for the job, MUST record every outcome, `too_long` included, and
    MUST NOT have more than `jobs_max` jobs open: one more waits inside `submit`, and all of the caller with it.
    """

    @property
    def jobs_max(self) -> int:
        """How many jobs may run or wait at once."""
        ...

    def submit(self, job: Job, cancelled: Callable[[], bool]) -> Future[Outcome]:
        """Begin `job`, which runs to its end, or until `cancelled` says so; `cancelled` is asked in another thread.

        The future is never cancelled by its holder. It raises ModelFailed where the runtime failed and nothing was
        generated.

        Raises:
            TextRefused: a message or choice holds a byte that no token stands for.
        """
        ...
