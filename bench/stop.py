"""How long does a stop take to cut a generation in flight: `python -m bench.stop`.

The product's enforcer and freshness stage, a process each, and its runner around a model that writes a token every
20 ms and never ends, on a broker of the bench's own. A round: a request is decided and generated under; once the model
writes, the grant is stopped. Measured: from the append of the signed event to the sealed outcome as a reader gets it.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Final

from rich.console import Console

from bench.enforcer import RESULTS
from bench.report import machine
from bench.stages import Stages, running_stages
from bench.stand import ENV, PARTITIONS
from bench.traffic import SHELL, make_load
from sluicegate.enforcer.grant import Grant
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.stops import Scope, Stop, stops_content
from sluicegate.process import Process, stage_process
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import GenerationFinished
from sluicegate.streams.generate import GenerationLane, Ran
from sluicegate.streams.loop import run_group
from sluicegate.streams.topology import ENFORCER, FRESHNESS, RUNNER

TOKEN_S, LIMIT_S, ROUND_S, READY_S = 0.02, 2.0, 30.0, 120.0
PEOPLE: Final = (("eva.eng", "writing"), ("ian.intern", "writing"), ("una.both", "writing"))
Outcomes = dict[str, tuple[float, Code]]


class EndlessModel:
    """Writes a token every `TOKEN_S` until it is told to stop, and says which grant it writes under."""

    def __init__(self) -> None:
        self.writing: asyncio.Queue[str] = asyncio.Queue()

    async def run(self, grant: Grant, *, cancelled: Callable[[], bool]) -> Ran:
        """Ends when it is cancelled, and not before."""
        if not cancelled():
            self.writing.put_nowait(grant.decision.decision_id)
        while not cancelled():  # noqa: ASYNC110 - as an engine asks, before each token
            await asyncio.sleep(TOKEN_S)
        return Ran(code=Code.MODEL_FAILED, text=None, run=None)


async def run_runner(process: Process, model: EndlessModel) -> None:
    """The runner as `wiring` makes it, around another model."""
    signer = process.signer(RUNNER)

    def make_lane(partition: int, may_append: Callable[[], bool]) -> GenerationLane:
        return GenerationLane(
            broker=process.broker,
            model=model,
            decisions=process.verifier(ENFORCER, partition),
            generations=process.verifier(RUNNER, partition),
            signer=signer,
            window_size=process.settings.window_size,
            slice_bytes_max=process.settings.slice_bytes_max,
            clock_ms=process.now_ms,
            may_append=may_append,
            policy_current=process.policy_current,
            stopped=process.policy.stopped,
        )

    await run_group(process.broker.config, **process.group(RUNNER), make_lane=make_lane, ready=process.ready)


async def watch(stages: Stages, partition: int, outcomes: Outcomes, changed: asyncio.Event) -> None:
    """Notes when each outcome is there to be read."""
    tail = stages.broker.tail(stages.topology.generations, partition, start=0)
    try:
        async for batch in tail:
            at_s = time.monotonic()
            for record in batch:
                made = codec.decode(record.value, GenerationFinished)
                outcomes[made.decision_id or ""] = (at_s, made.code)
            changed.set()
    finally:
        await tail.aclose()


async def measure(kind: str, rounds: int) -> list[float]:
    """Milliseconds from stop to outcome, one stop after the other.

    Raises:
        ValueError: a generation ended otherwise than by its stop.
    """
    async with running_stages(kind, (FRESHNESS, ENFORCER)) as stages, AsyncExitStack() as stack:
        load = make_load(
            SHELL,
            2 * rounds,
            topic=stages.topology.requests,
            partitions=PARTITIONS,
            env=ENV,
            installation=stages.installation,
            now_ms=time.time_ns() // 1_000_000 + 10_000,
            people=PEOPLE,
        )
        asked = [(partition, each) for partition, records in load.partitions.items() for each in records][:rounds]
        process = await stack.enter_async_context(stage_process(RUNNER, stages.settings, None))
        model, outcomes, changed, took_ms = EndlessModel(), Outcomes(), asyncio.Event(), list[float]()
        tasks = [asyncio.create_task(run_runner(process, model))]
        tasks += [asyncio.create_task(watch(stages, each, outcomes, changed)) for each in range(PARTITIONS)]
        for task in tasks:
            stack.callback(task.cancel)
        for number, (partition, request) in enumerate(asked):
            async with asyncio.timeout(ROUND_S if number else READY_S):
                stamp_ms = time.time_ns() // 1_000_000
                await stages.broker.append(load.topic, partition, [request], timestamp_ms=stamp_ms)
                decision_id = await model.writing.get()
                stop = stops_content([Stop(scope=Scope.GRANT, name=decision_id)])
                event = stages.signed(Kind.STOP, number + 1, stop)
                start_s = time.monotonic()
                await stages.append(event)
                while decision_id not in outcomes:
                    changed.clear()
                    await changed.wait()
                at_s, code = outcomes[decision_id]
            if code is not Code.STOPPED:
                raise ValueError(f"round {number} ended as {code}, not by its stop")
            took_ms.append((at_s - start_s) * 1e3)
        process.stopping.set()
        await tasks[0]
        return took_ms


def main(arguments: Sequence[str]) -> int:
    """Measures, shows and saves; 1 where one in a hundred stops takes 2 s or longer."""
    parser = argparse.ArgumentParser(prog="python -m bench.stop", description="from a stop to the cut generation")
    parser.add_argument("--broker", choices=("kafka", "embedded"), default="kafka", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=100, help="stops, at least 2 (default: %(default)s)")
    parser.add_argument("--no-save", action="store_true", help="leave the results folder alone")
    options, console = parser.parse_args(arguments), Console()
    before = os.getloadavg()[0]
    took_ms = asyncio.run(measure(options.broker, options.rounds))
    load = [round(before, 1), round(os.getloadavg()[0], 1)]
    cuts = statistics.quantiles(took_ms, n=100, method="inclusive")
    console.print(
        f"{options.broker}: {len(took_ms)} stops, ms from append to sealed outcome: p50 {cuts[49]:.0f}, "
        f"p99 {cuts[98]:.0f}, most {max(took_ms):.0f}; load average {load[0]} before, {load[1]} after"
    )
    if not options.no_save:
        path = RESULTS / f"stop-{datetime.now(UTC):%Y-%m-%d}.json"
        figures = [round(each, 1) for each in took_ms]
        document = {"machine": machine(), "broker": options.broker, "load_average": load, "took_ms": figures}
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        console.print(f"raw numbers: {path.name}")
    return 1 if cuts[98] >= LIMIT_S * 1e3 else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
