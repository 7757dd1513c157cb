"""Grants go in, what the engine made of them comes out: the runner's model port, carried out by `model_runner`."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sluicegate.enforcer.grant import Grant
from sluicegate.model_runner.build import ensure_built
from sluicegate.model_runner.engine import Capacity, Engine
from sluicegate.model_runner.errors import ModelFailed, ModelRefused, ProviderRefused, TextRefused
from sluicegate.model_runner.ports import Finish, Generator, Job, Message, Outcome
from sluicegate.schemas.codes import Code
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.schemas.events import ModelRun
from sluicegate.settings import Settings
from sluicegate.streams.generate import Ran

logger = logging.getLogger(__name__)
CODES: Final[dict[Finish, Code]] = {
    "stop": Code.OK,
    "length": Code.OK,
    "blocked": Code.BLOCKED,
    "cancelled": Code.MODEL_FAILED,
    "expired": Code.EXPIRED,
    "too_long": Code.PROMPT_TOO_LONG,
}


def load_engine(settings: Settings, models: Path) -> Engine:
    """The engine over the configured model, built into `models` where it is not there yet.

    Raises:
        ConfigurationError: the source is missing or refused, the disk is full, or the provider is not there.
    """
    source = Path(settings.model_source)
    if not source.exists():
        raise ConfigurationError(f"there is no model at `{source}`; run `make model`, or set `SLUICEGATE_MODEL_SOURCE`")
    try:
        folder = ensure_built(source, models)
        return Engine.load(
            folder,
            provider=settings.model_provider,
            threads=settings.model_threads,
            capacity=Capacity(slots=settings.model_slots, memory_bytes=settings.model_memory_mb * 2**20),
        )
    except (ModelRefused, ProviderRefused) as error:
        raise ConfigurationError(str(error)) from None
    except OSError as error:
        raise ConfigurationError(
            f"the model cannot be built in `{models}`: {error.strerror}; free some space"
        ) from None


class EngineModel:
    """One engine behind `streams.generate.Model`. `model_id` is the directory's name of the model that it holds."""

    def __init__(self, engine: Generator, *, model_id: str, now_ms: Callable[[], int]) -> None:
        self._engine = engine
        self._model_id = model_id
        self._now_ms = now_ms
        self._places = asyncio.Semaphore(engine.jobs_max)

    async def run(self, grant: Grant, *, cancelled: Callable[[], bool]) -> Ran:
        """Runs one grant beside all others that run: the engine has a thread of its own, so heartbeats go on."""
        if grant.decision.model != self._model_id:
            return Ran(code=Code.MODEL_MISSING, text=None, run=None)
        try:
            async with self._places:
                # Shielded: a job that nobody waits for any more still has its place in the engine.
                ran = asyncio.wrap_future(self._engine.submit(self._job(grant), cancelled))
                outcome = await asyncio.shield(ran)
        except TextRefused:
            return Ran(code=Code.CONTROL_CHARACTER, text=None, run=None)
        except ModelFailed:
            logger.exception("model call failed", extra={"decision": grant.decision.decision_id})
            return Ran(code=Code.MODEL_FAILED, text=None, run=None)
        return _ran(outcome)

    def _job(self, grant: Grant) -> Job:
        granted, deadline_ms, identity = grant.granted, grant.decision.deadline_ms, grant.decision.identity
        deadline_s = None if deadline_ms is None else time.monotonic() + (deadline_ms - self._now_ms()) / 1000
        return Job(
            messages=tuple(
                Message(role=message.role.value, content=message.text()) for message in grant.decision.prompt
            ),
            max_tokens=granted.max_tokens,
            seed=granted.seed,
            temperature=granted.temperature,
            top_p=granted.top_p,
            top_k=granted.top_k,
            choices=granted.choices or None,
            stop=granted.stop,
            principal="" if identity is None else identity.principal,
            deadline_monotonic_s=deadline_s,
            prompt_tokens_max=grant.decision.prompt_tokens_max,
        )


def _ran(outcome: Outcome) -> Ran:
    code = CODES[outcome.finish]
    run = ModelRun(
        provider=outcome.provider,
        graph_digest=outcome.graph_digest,
        tokenizer_digest=outcome.tokenizer_digest,
        seed=outcome.seed,
        prompt_tokens=outcome.prompt_tokens,
        output_tokens=outcome.output_tokens,
        finish=outcome.finish,
    )
    called = outcome.finish != "too_long"
    return Ran(code=code, text=outcome.text if code is Code.OK else None, run=run if called else None)
