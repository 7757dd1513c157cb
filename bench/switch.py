"""How long is a partition without a decision while the policy under it is switched: `python -m bench.switch`.

The product's enforcer and freshness stage, a process each, on a broker of the bench's own; a directory of 10,000
entities, requests evenly over the partitions at a steady rate. A round is four windows of the same length: nothing
(the control), a bundle with the same schema, a bundle with another schema, a whole directory in which every entity is
another. For each partition: the longest time between two decisions, as they reach a reader, and the longest wait from
a request to its decision. Versions are signed beforehand, so that publishing costs an append and no more.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Final

from aiokafka import AIOKafkaProducer
from rich.console import Console
from rich.table import Table

from bench.enforcer import POLICIES, RESULTS
from bench.report import machine
from bench.stages import Stages, larger_directory, running_stages
from bench.stand import ENV, PARTITIONS, broker_config
from bench.traffic import SHELL, Load, make_load
from sluicegate.bundle_folder import read_bundle
from sluicegate.enforcer.bundle import bundle_content
from sluicegate.enforcer.partition import partition_of
from sluicegate.enforcer.policy_kinds import Event, Kind
from sluicegate.schemas import codec
from sluicegate.schemas.events import DecisionMade
from sluicegate.schemas.ids import entity_uid
from sluicegate.settings import Settings
from sluicegate.streams.kafka import Broker
from sluicegate.streams.topology import ENFORCER, FRESHNESS

ENTITIES, PEOPLE_EACH, RATE, TICK_S = 10_000, 20, 200, 0.002
WARM_UP_S, WINDOW_S, BETWEEN_S, READY_S = 4.0, 9.0, 1.5, 60.0
SWITCHES: Final = {
    "control": "nothing",
    "bundle": "a bundle",
    "schema": "a bundle, another schema",
    "directory": "a whole directory",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A decision as it reached the reader: when, by this process's clock, which request, under which versions."""

    at_s: float
    offset: int
    versions: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """One window on one partition; milliseconds. `in_force_ms`: from the append to the first decision by it."""

    switch: str
    round: int
    partition: int
    gap_ms: float
    wait_ms: float
    in_force_ms: float | None
    decisions: int


@dataclass(slots=True)
class Run:
    """What is being measured: when each request was sent, and each decision seen, by partition."""

    sent_s: dict[int, list[float]] = field(default_factory=lambda: {each: [] for each in range(PARTITIONS)})
    seen: dict[int, list[Seen]] = field(default_factory=lambda: {each: [] for each in range(PARTITIONS)})
    begun: asyncio.Event = field(default_factory=asyncio.Event)


def bundle_of(number: int, *, other_schema: bool) -> bytes:
    """The example company's bundle with one policy more, under its schema or one with a purpose more."""
    files: dict[str, str] = json.loads(read_bundle(POLICIES))
    files["bench.cedar"] = f'@id("bench-{number}") forbid (principal == User::"nobody-{number}", action, resource);\n'
    if other_schema:
        start = files["schema.cedarschema"].index("entity Purpose enum [") + len("entity Purpose enum [")
        files["schema.cedarschema"] = (
            f'{files["schema.cedarschema"][:start]}"bench{number}", {files["schema.cedarschema"][start:]}'
        )
    return bundle_content(files)


class Versions:
    """The next version of a bundle or the directory; the first of each were published before."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._numbers = {Kind.BUNDLE: itertools.count(2), Kind.DIRECTORY: itertools.count(2)}
        self._purposes = itertools.cycle((("writing", "incident"), ("writing", "roadmap")))

    def next(self, switch: str) -> Event:
        """The event that makes the switch."""
        kind = Kind.DIRECTORY if switch == "directory" else Kind.BUNDLE
        version = next(self._numbers[kind])
        if kind is Kind.BUNDLE:
            return self._stages.signed(kind, version, bundle_of(version, other_schema=switch == "schema"))
        directory = larger_directory(ENTITIES, next(self._purposes))
        return self._stages.signed(kind, version, self._stages.installation.directory_content(directory))


def people() -> list[tuple[str, str]]:
    """As many people of one partition as of the other, taking turns."""
    found: dict[int, list[str]] = {partition: [] for partition in range(PARTITIONS)}
    for name in (f"u{number}" for number in range(1_000)):
        found[partition_of(entity_uid("User", name).encode(), PARTITIONS)].append(name)
    turns = zip(*(each[:PEOPLE_EACH] for each in found.values()), strict=True)
    return [(name, "writing") for turn in turns for name in turn]


async def feed(settings: Settings, load: Load, run: Run, rate: int) -> None:
    """Sends one request a partition and, once that is `begun`, the others at `rate` a second in turns; notes when."""
    turns = [each for turn in zip(*load.partitions.values(), strict=False) for each in enumerate(turn)]
    producer = AIOKafkaProducer(**broker_config(settings, "feed").connection(), acks=1, linger_ms=0)
    await producer.start()
    try:
        sent, due, start = 0, PARTITIONS, time.monotonic()
        while sent < len(turns):
            for partition, each in turns[sent:due]:
                headers = list(each.headers)
                run.sent_s[partition].append(time.monotonic())
                await producer.send(load.topic, each.value, key=each.key, partition=partition, headers=headers)
            if not sent:
                await run.begun.wait()
                start = time.monotonic()
            sent = due
            await asyncio.sleep(TICK_S)
            due = min(len(turns), int((time.monotonic() - start) * rate) + PARTITIONS)
    finally:
        await producer.stop()


async def watch(broker: Broker, topic: str, partition: int, run: Run) -> None:
    """Notes when each decision is there to be read."""
    tail = broker.tail(topic, partition, start=0)
    try:
        async for batch in tail:
            at_s = time.monotonic()
            for record in batch:
                made = codec.decode(record.value, DecisionMade)
                versions = (made.policy.bundle_version, made.policy.directory_version) if made.policy else (0, 0)
                run.seen[partition].append(Seen(at_s=at_s, offset=made.source.offset, versions=versions))
    finally:
        await tail.aclose()


def stalls(run: Run, switch: str, round_: int, start_s: float) -> Iterator[Stall]:
    """What a window that began at `start_s` was like, partition by partition.

    Raises:
        ValueError: the versions that decided are not those that must have.
    """
    for partition, seen in run.seen.items():
        here = [each for each in seen if start_s <= each.at_s < start_s + WINDOW_S]
        first = next((each.at_s for each in here if each.versions != here[0].versions), None)
        if len({each.versions for each in here}) != (1 if switch == "control" else 2):
            raise ValueError(f"{switch}: decided by versions {sorted({each.versions for each in here})}")
        yield Stall(
            switch=switch,
            round=round_,
            partition=partition,
            gap_ms=max(after.at_s - before.at_s for before, after in itertools.pairwise(here)) * 1e3,
            wait_ms=max(each.at_s - run.sent_s[partition][each.offset] for each in here) * 1e3,
            in_force_ms=None if first is None else (first - start_s) * 1e3,
            decisions=len(here),
        )


async def measure(kind: str, rounds: int, rate: int) -> list[Stall]:
    """Every window, one after the other, on a broker of this bench's own."""
    directory = larger_directory(ENTITIES, ("writing",))
    async with running_stages(kind, (FRESHNESS, ENFORCER), directory) as stages, AsyncExitStack() as stack:
        run, versions = Run(), Versions(stages)
        for partition in range(PARTITIONS):
            task = asyncio.create_task(watch(stages.broker, stages.topology.decisions, partition, run))
            stack.callback(task.cancel)
        load = make_load(
            SHELL,
            int(rate * (WARM_UP_S + (WINDOW_S + BETWEEN_S) * len(SWITCHES) * rounds)),
            topic=stages.topology.requests,
            partitions=PARTITIONS,
            env=ENV,
            installation=stages.installation,
            now_ms=time.time_ns() // 1_000_000 + 5_000,
            people=people(),
        )
        feeding = asyncio.create_task(feed(stages.settings, load, run, rate))
        stack.callback(feeding.cancel)
        async with asyncio.timeout(READY_S):
            while not all(run.seen.values()):  # noqa: ASYNC110 - polled as rarely as it may
                await asyncio.sleep(0.5)
        run.begun.set()
        await asyncio.sleep(WARM_UP_S)
        found: list[Stall] = []
        for round_ in range(rounds):
            for switch in SWITCHES:
                event = None if switch == "control" else versions.next(switch)
                await asyncio.sleep(0.5)  # what signing it held up is over
                start_s = time.monotonic()
                if event is not None:
                    await stages.append(event)
                await asyncio.sleep(WINDOW_S + 0.2)
                found += stalls(run, switch, round_, start_s)
        return found


def table(kind: str, found: Sequence[Stall]) -> Table:
    """Medians and maxima over rounds and partitions."""
    shown = Table(title=f"{kind} broker: longest time without a decision, ms", title_justify="left")
    for name in ("switch", "gap: median", "most", "wait: median", "most", "in force after"):
        shown.add_column(name, justify="left" if name == "switch" else "right")
    for switch, title in SWITCHES.items():
        own = [each for each in found if each.switch == switch]
        after = [each.in_force_ms for each in own if each.in_force_ms is not None]
        gaps, waits = [each.gap_ms for each in own], [each.wait_ms for each in own]
        figures = [statistics.median(gaps), max(gaps), statistics.median(waits), max(waits)]
        shown.add_row(title, *(f"{each:.0f}" for each in figures), f"{statistics.median(after):,.0f}" if after else "")
    return shown


def main(arguments: Sequence[str]) -> int:
    """Measures, shows and saves."""
    parser = argparse.ArgumentParser(prog="python -m bench.switch", description="stalls while a policy is switched")
    parser.add_argument("--broker", choices=("kafka", "embedded"), action="append", help="one only")
    parser.add_argument("--rounds", type=int, default=3, help="switches of each kind (default: %(default)s)")
    parser.add_argument("--rate", type=int, default=RATE, help="requests a second (default: %(default)s)")
    parser.add_argument("--no-save", action="store_true", help="leave the results folder alone")
    options, console = parser.parse_args(arguments), Console()
    document: dict[str, object] = {"machine": machine(), "entities": ENTITIES, "rate": options.rate}
    for kind in options.broker or ("embedded", "kafka"):
        before = os.getloadavg()[0]
        found = asyncio.run(measure(kind, options.rounds, options.rate))
        load = [round(before, 1), round(os.getloadavg()[0], 1)]
        document[kind] = {"load_average": load, "windows": [asdict(each) for each in found]}
        console.print(table(kind, found))
        console.print(f"load average {load[0]} before, {load[1]} after")
    if not options.no_save:
        path = RESULTS / f"switch-{datetime.now(UTC):%Y-%m-%d}.json"
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        console.print(f"raw numbers: {path.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
