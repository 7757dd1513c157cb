"""How long a request waits for its decision on Apache Kafka at a steady rate, by the broker's own stamps:
`python -m bench.latency`.

Both topics are stamped by the broker as it appends; a request's latency is the stamp of its decision less its own. One
enforcer, as `wiring` makes it; beside it the same worker around a gate that decides nothing, which is the limit.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaProducer
from rich.console import Console
from rich.table import Table

from bench.enforcer import POLICIES, RESULTS, Workers, running_broker
from bench.report import machine
from bench.stand import ENV, PARTITIONS, TENANT, Task, bench_settings, broker_config
from bench.traffic import SHELL, Load, make_load
from sluicegate.home import Home, open_home
from sluicegate.installation import Installation
from sluicegate.publish import publish
from sluicegate.schemas import codec
from sluicegate.schemas.events import DecisionMade
from sluicegate.settings import Settings
from sluicegate.streams.kafka import Broker
from sluicegate.wiring import prepare

PEOPLE: Final = (("eva.eng", "writing"), ("ian.intern", "writing"), ("una.both", "writing"))
"""Whom the example company's policy answers at any hour."""
STAMPED: Final = {"message.timestamp.type": "LogAppendTime"}
TICK_S: Final = 0.005
WARM_UP_S: Final = 1.0
"""Of sending, before the requests that count: a worker's first slices compile policies and fill memos."""
JOIN_S: Final = 4.0
"""For the worker to join its group before the first request."""
CONTENDERS: Final = {
    "faust": "(a) Faust, proof, seals",
    "faust-no-proof": "Faust and seals, a gate that decides nothing",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited:
    """One run: milliseconds from request to decision, and whether the requests were sent at the rate asked for."""

    contender: str
    rate: int
    repeat: int
    sent_per_s: float
    p50_ms: float
    p99_ms: float
    most_ms: float


async def feed(settings: Settings, load: Load, rate: int) -> float:
    """Sends the load record by record at `rate` a second; returns the rate that came of it."""
    waiting = [(partition, each) for partition, records in load.partitions.items() for each in records]
    waiting.sort(key=lambda each: dict(each[1].headers)["sg-proof"])  # the partitions take turns
    producer = AIOKafkaProducer(**broker_config(settings, "feed").connection(), acks=1, linger_ms=0)
    await producer.start()
    try:
        start = time.monotonic()
        sent, futures = 0, []
        while sent < len(waiting):
            due = min(len(waiting), int((time.monotonic() - start) * rate) + 1)
            for partition, each in waiting[sent:due]:
                headers = [(name, value) for name, value in each.headers]
                futures.append(
                    await producer.send(load.topic, each.value, key=each.key, partition=partition, headers=headers)
                )
            sent = due
            await asyncio.sleep(TICK_S)
        took_s = time.monotonic() - start
        await asyncio.gather(*futures)
    finally:
        await producer.stop()
    return len(waiting) / took_s


async def waits(broker: Broker, source: str, output: str) -> list[int]:
    """Milliseconds from each request to its decision, of those that came after the warm-up; every one has a decision.

    Raises:
        ValueError: one has none.
    """
    found: list[tuple[int, int]] = []
    for partition in range(PARTITIONS):
        asked = {
            record.offset: record.timestamp_ms
            async for batch in broker.read(source, partition, start=0)
            for record in batch
        }
        async for batch in broker.read(output, partition, start=0):
            for record in batch:
                decision = codec.decode(record.value, DecisionMade)
                stamp = asked.pop(decision.source.offset)
                found.append((stamp, record.timestamp_ms - stamp))
        if asked:
            raise ValueError(f"{len(asked)} requests without a decision")
    start = min(stamp for stamp, _ in found) + int(WARM_UP_S * 1000)
    return [waited for stamp, waited in found if stamp >= start]


async def measure(rates: Sequence[int], seconds: float, repeats: int) -> list[Waited]:
    """Runs each contender at each rate, one after the other, on a broker of its own."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluicegate-bench-")))
        home = open_home(folder / "home")
        bootstrap = await stack.enter_async_context(running_broker("kafka", home))
        settings = bench_settings(home=home.root, bootstrap=bootstrap, kind="kafka")
        broker = await stack.enter_async_context(Broker(broker_config(settings, "bench")))
        workers = Workers(home.logs, home.tmp)
        stack.push_async_callback(workers.stop)
        await prepare(settings)
        await publish(settings, POLICIES, POLICIES / "directory.json", development=True)
        return [
            await once(settings, broker, workers, contender, rate, repeat, seconds)
            for repeat in range(repeats)
            for rate in rates
            for contender in CONTENDERS
        ]


async def once(
    settings: Settings, broker: Broker, workers: Workers, contender: str, rate: int, repeat: int, seconds: float
) -> Waited:
    """One run of one contender at one rate."""
    name = f"{contender}-{rate}-{repeat}"
    source, output = f"{TENANT}.requests-{name}", f"{TENANT}.decisions-{name}"
    await broker.create_topics({source: PARTITIONS, output: PARTITIONS}, {source: STAMPED, output: STAMPED})
    load = make_load(
        SHELL,
        int(rate * (WARM_UP_S + seconds)),
        topic=source,
        partitions=PARTITIONS,
        env=ENV,
        installation=Installation(settings, Home(root=settings.home)),
        now_ms=time.time_ns() // 1_000_000 + int(JOIN_S * 1000),
        people=PEOPLE,
    )
    task = Task(
        contender=contender,
        home=str(settings.home),
        bootstrap=settings.bootstrap,
        source=source,
        output=output,
        warm_up=load.count // 5,
        total=load.count,
        light=contender == "faust-no-proof",
    )
    working = asyncio.create_task(workers.measure(task))
    await asyncio.sleep(JOIN_S)
    sent_per_s = await feed(settings, load, rate)
    _, fault = await working
    if fault:
        raise ValueError(f"{name}: {fault}")
    waited = sorted(await waits(broker, source, output))
    steady = statistics.quantiles(waited, n=100)
    return Waited(
        contender=contender,
        rate=rate,
        repeat=repeat,
        sent_per_s=sent_per_s,
        p50_ms=steady[49],
        p99_ms=steady[98],
        most_ms=waited[-1],
    )


def table(found: Sequence[Waited]) -> Table:
    """Medians over the repeats."""
    shown = Table(title="request to decision, milliseconds by the broker's stamps", title_justify="left")
    shown.add_column("contender")
    for name in ("asked/s", "sent/s", "p50", "p99", "most"):
        shown.add_column(name, justify="right")
    for contender, rate in dict.fromkeys((each.contender, each.rate) for each in found):
        own = [each for each in found if (each.contender, each.rate) == (contender, rate)]
        middle = [statistics.median(getattr(each, name) for each in own) for name in ("sent_per_s", "p50_ms", "p99_ms")]
        shown.add_row(
            CONTENDERS[contender],
            f"{rate:,}",
            f"{middle[0]:,.0f}",
            f"{middle[1]:.0f}",
            f"{middle[2]:.0f}",
            f"{max(each.most_ms for each in own):.0f}",
        )
    return shown


def main(arguments: Sequence[str]) -> int:
    """Measures, shows and saves."""
    parser = argparse.ArgumentParser(prog="python -m bench.latency", description="request to decision at a steady rate")
    parser.add_argument("--rate", type=int, action="append", help="requests a second (default: 200 and 2000)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a run (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (default: %(default)s)")
    parser.add_argument("--no-save", action="store_true", help="leave the results folder alone")
    options, console = parser.parse_args(arguments), Console()
    before = os.getloadavg()[0]
    found = asyncio.run(measure(options.rate or (200, 2000), options.seconds, options.repeats))
    about = machine()
    console.print(
        f"{about['cpu']}, {about['cores']} cores for broker, producer and enforcer together; load average {before:.1f} "
        f"before, {os.getloadavg()[0]:.1f} after; {options.repeats} runs each, medians"
    )
    console.print(table(found))
    if not options.no_save:
        path = RESULTS / f"latency-{datetime.now(UTC):%Y-%m-%d}.json"
        document = {"machine": about, "seconds": options.seconds, "runs": [asdict(each) for each in found]}
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        console.print(f"raw numbers: {path.relative_to(RESULTS.parent.parent)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
