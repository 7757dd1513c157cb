"""`sluicegate run STAGE`: one stage of the stack in this process, with its log on standard error as JSON lines."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable

import click

from sluicegate import logs
from sluicegate.home import open_home
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.settings import Settings, load_settings
from sluicegate.supervisor import RUNNABLE

logger = logging.getLogger(__name__)


@click.command()
@click.argument("stage", type=click.Choice(RUNNABLE))
def run(stage: str) -> int:
    """Run STAGE in the foreground until SIGTERM or Ctrl-C.

    Settings come from the environment; `SLUICEGATE_BOOTSTRAP` must name a broker. `sluicegate up` runs all stages.
    """
    settings = load_settings()
    logs.log_to_stderr(settings.log_level)
    if not settings.bootstrap:
        msg = "a single stage needs a broker: set `SLUICEGATE_BOOTSTRAP`, or start the whole stack with `sluicegate up`"
        raise ConfigurationError(msg)
    settings = settings.model_copy(update={"home": open_home(settings.home).root})
    from sluicegate.wiring import run_stage  # the stages' libraries, for this command alone

    asyncio.run(until_told(run_stage, stage, settings))
    return 0


async def until_told(run_stage: Callable[[str, Settings], Awaitable[None]], stage: str, settings: Settings) -> None:
    """Run a stage; until it takes the signals over itself, SIGTERM or SIGINT cancels it.

    Raises:
        SluicegateError: what the stage raised.
    """

    async def body() -> None:
        await run_stage(stage, settings)

    task = asyncio.create_task(body())
    loop = asyncio.get_running_loop()
    told = False

    def tell() -> None:
        nonlocal told
        told = True
        logger.info("told to stop", extra={"stage": stage})
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, tell)
    try:
        await task
    except asyncio.CancelledError:
        if not told:
            raise
    logger.info("stage ended", extra={"stage": stage})
