"""A task a line goes in on standard input, a contender runs each in this process, a measurement a line comes out."""

import asyncio
import contextlib
import cProfile
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Final

from bench.raw_agent import run_raw
from bench.sluice import Shape, run_enforcer
from bench.stand import Stand, Task
from bench.tally import Measured
from sluicegate.enforcer.state import PolicyLog
from sluicegate.streams.kafka import Broker
from sluicegate.streams.policy_tail import PolicyTail

START_TIMEOUT_S: Final = 20.0
RUN_TIMEOUT_S: Final = 120.0
Run = Callable[[Stand, Broker, PolicyTail], Awaitable[None]]


def _enforcer(shape: Shape) -> Run:
    return lambda stand, broker, policy: run_enforcer(stand, broker, policy, shape)


def _raw(*, proof: bool, seals: bool = False) -> Run:
    async def run(stand: Stand, _: Broker, policy: PolicyTail) -> None:
        await policy.stop()  # a loop this plain follows no policy
        await run_raw(stand, policy.state.at, proof=proof, seals=seals)

    return run


async def _naive(stand: Stand, _: Broker, policy: PolicyTail) -> None:
    from bench.naive_agent import run_naive  # Faust's import, for the process that needs it

    await policy.stop()
    await run_naive(stand, policy.state.at)


async def _quix(stand: Stand, _: Broker, policy: PolicyTail) -> None:
    from bench.quix_agent import run_quix  # only in the environment of `make bench`

    await policy.stop()
    run_quix(stand, policy.state.at)


RUNS: Final[Mapping[str, Run]] = {
    "faust": _enforcer(Shape()),
    "loop": _enforcer(Shape(faust=False)),
    "faust-no-proof": _enforcer(Shape(proof=False)),
    "faust-no-seals": _enforcer(Shape(seals=False)),
    "faust-neither": _enforcer(Shape(proof=False, seals=False)),
    "raw": _raw(proof=False),
    "raw-proof": _raw(proof=True),
    "raw-proof-seals": _raw(proof=True, seals=True),
    "naive": _naive,
    "quix": _quix,
}


async def run(task: Task) -> Measured:
    """Runs the task's contender to the end of the load."""
    stand = Stand(task)
    installation = stand.installation
    async with Broker(stand.config) as broker:
        state = PolicyLog(domain=installation.domain, root_digest=installation.root_digest())
        policy = PolicyTail(broker, topic=stand.topology.policy, state=state)
        await policy.start(timeout_s=START_TIMEOUT_S)
        try:
            async with asyncio.timeout(RUN_TIMEOUT_S):
                await RUNS[task.contender](stand, broker, policy)
        finally:
            await policy.stop()
    return stand.tally.measured()


def main() -> None:
    """Takes tasks until its input ends."""
    logging.basicConfig(format="%(asctime)s %(name)s %(message)s", level=logging.INFO, stream=sys.stderr)
    for line in sys.stdin:
        task = Task(**json.loads(line))
        with cProfile.Profile() if task.profile else contextlib.nullcontext() as profiler:
            measured = asyncio.run(run(task))
        if profiler is not None:
            profiler.dump_stats(task.profile)
        print(json.dumps(asdict(measured)), flush=True)


if __name__ == "__main__":
    main()
