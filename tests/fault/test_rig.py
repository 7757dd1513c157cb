"""Random faults on the real stages over Apache Kafka, and what every request got: counted from the logs, by seals.

`make torture` runs the long form: 300 faults with the day as seed; `FAULTS=` and `SEED=` change both. The seed is
printed first: with it every fault is chosen alike, though not at the very same moments.
"""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fault.rig import BROKER_AWAY, FROZEN_S, Rig
from fault.tally import Counting, Logs, Tally, read_all
from fault.traffic import SERVICE, Asked, Rogue, Switch, produce, switch_policy
from fixtures_broker import need_kafka
from fixtures_stack import broker_of, with_tiny_model

from sluicegate.enforcer.seal import seal_slice
from sluicegate.home import Home, open_home
from sluicegate.installation import Installation, reply_name_of
from sluicegate.model_runner.build import ensure_built
from sluicegate.publish import publish
from sluicegate.schemas import codec
from sluicegate.schemas.errors import ContinuityError, Unavailable
from sluicegate.schemas.events import GenerationFinished
from sluicegate.schemas.records import Unsent
from sluicegate.settings import Settings
from sluicegate.streams.topology import RUNNER, Topology
from sluicegate.wiring import prepare

SEED = int(os.environ.get("SEED", "20261124"))
FAULTS = int(os.environ.get("FAULTS", "25"))
PRODUCERS = 2
PARTITIONS = 4
BETWEEN_S = (0.4, 1.8)
OPENING_LIMIT_S = 60.0
SETTLE_LIMIT_S = 120.0


@asynccontextmanager
async def ground(folder: Path, seed: int) -> AsyncIterator[Rig]:
    """A node with topics, policy and a built model; no stage runs yet."""
    place = with_tiny_model(
        folder, SLUICEGATE_TENANT="torture", SLUICEGATE_BROKER="kafka", SLUICEGATE_PARTITIONS=str(PARTITIONS),
        SLUICEGATE_SESSION_TIMEOUT_S="3", SLUICEGATE_REQUEST_TIMEOUT_S="5", SLUICEGATE_MODEL_THREADS="1",
        SLUICEGATE_WINDOW_SIZE="8", SLUICEGATE_REPLICATION="1", SLUICEGATE_BUNDLE_DIR=str(folder / "policies"),
    )  # fmt: skip
    home = open_home(place.home.root)
    rig = Rig(place=place, folder=folder, seed=seed)
    try:
        await rig.start_broker()
        await asyncio.to_thread(ensure_built, Path(rig.settings.model_source), home.models)
        await prepare(rig.settings)
        await publish(
            rig.settings, place.folder / "policies", place.folder / "policies" / "directory.json", development=True
        )
        async with broker_of(rig.settings) as broker:
            topology = Topology(tenant=rig.settings.tenant, partitions=PARTITIONS)
            await broker.create_topics(topology.with_replies([reply_name_of(SERVICE)]))
        yield rig
    finally:
        await rig.end()


async def torment(rig: Rig, faults: int, asked: Asked, rogue: Rogue) -> Switch:
    """Does `faults` faults to the running stages while producers and the rogue write; the policy switches half-way."""
    stop = asyncio.Event()
    settings = rig.settings
    writing = [
        asyncio.create_task(produce(settings, f"p{each}", asked, stop, random.Random(rig.seed + each)))
        for each in range(PRODUCERS)
    ]
    writing.append(asyncio.create_task(rogue.write(stop)))
    switch: Switch | None = None
    try:
        async with asyncio.timeout(OPENING_LIMIT_S):
            while not asked.allowed:  # noqa: ASYNC110 - the producers tell by what they note
                await asyncio.sleep(0.1)
        for number, kind in enumerate(rig.plan(faults)):
            await asyncio.sleep(rig.chance.uniform(*BETWEEN_S))
            await rig.do(kind)
            for each in writing:
                assert not each.done(), each.exception()
            if number % 25 == 24:
                print(f"{number + 1} faults, {len(asked.allowed)} requests that may be asked, {len(rig.ended)} endings")
            if number == faults // 2:
                switch = await switched(settings, rig)
        assert switch is not None
        left_s = switch.effective_at_ms / 1000 - time.time()
        await asyncio.sleep(max(FROZEN_S, left_s + 2.0))
        await rig.settle()
    finally:
        stop.set()
        await asyncio.gather(*writing)
    return switch


async def switched(settings: Settings, rig: Rig) -> Switch:
    while True:
        try:
            return await switch_policy(settings, rig.place.folder / "policies")
        except Unavailable:
            await asyncio.sleep(0.2)


async def settled(settings: Settings, rig: Rig) -> Logs:
    """The logs once nothing has been appended for a while and each stage covers its input."""
    deadline = time.monotonic() + SETTLE_LIMIT_S
    before: dict[tuple[str, int], int] = {}
    quiet_s = time.monotonic()
    while time.monotonic() < deadline:
        try:
            async with broker_of(settings) as broker:
                logs = await read_all(broker, settings)
        except (Unavailable, ContinuityError):
            await asyncio.sleep(0.5)
            continue
        now = {name: len(records) for name, records in logs.items()}
        if now != before:
            before, quiet_s = now, time.monotonic()
        elif time.monotonic() - quiet_s > 4.0 and all_there(logs, settings):
            return logs
        await asyncio.sleep(0.5)
    return logs


def all_there(logs: Logs, settings: Settings) -> bool:
    """A cheap look; the tally looks closely."""
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    copies = (topology.reply(reply_name_of(SERVICE)), topology.refusals)
    for partition in range(settings.partitions):
        sizes = [len(logs[topic, partition]) for topic in (topology.requests, topology.decisions)]
        delivered = sum(len(logs[topic, partition]) for topic in copies)
        if sizes[1] < sizes[0] or delivered < sizes[0]:
            return False
    return True


def table(rig: Rig, tally: Tally, asked: Asked, rogue: Rogue, calls: int) -> str:
    """What was done and what came of it."""
    share = (calls - tally.model_runs) / max(1, tally.model_runs)
    rows = [
        ("seed", rig.seed),
        *((f"fault: {kind}", count) for kind, count in sorted(rig.done.items())),
        ("faults", rig.done.total()),
        ("requests", tally.requests),
        ("effective decisions", tally.decisions),
        ("effective generations", tally.generations),
        ("effective releases", tally.releases),
        ("copies delivered", f"{tally.copies} and {tally.copies_again} repeats"),
        ("decided again to the same bytes", tally.decided_again),
        ("before and after the policy switch", f"{tally.before_switch} and {tally.after_switch}"),
        ("genuine requests answered", f"{tally.released} of {tally.allowed} allowed"),
        ("sent again by producers", asked.sent_again),
        ("planted by the rogue, found without effect", f"{sum(rogue.planted.values())}, {tally.rogue_found}"),
        ("slices of our own without effect (records)", tally.redone),
        ("model calls, repeated", f"{calls}, {calls - tally.model_runs} ({share:.2%})"),
        *((f"ended by itself: {stage}", count) for stage, count in Counter(e.stage for e in rig.ended).items()),
        ("problems", len(tally.problems)),
        ("seconds", round(time.monotonic() - rig.began_s)),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


async def planted_twice(rig: Rig, settings: Settings, logs: Logs) -> Logs:
    """The control: a second generation for one decision, truly sealed with the runner's key, for where it stands."""
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    place = topology.place(RUNNER, env=settings.env, epoch=settings.epoch, partition=0)
    again = next(each for each in reversed(logs[place.topic, 0]) if each.header("x-rogue") is None)
    source = codec.decode(again.value, GenerationFinished).source
    sealed = seal_slice(
        [Unsent(key=again.key, value=again.value or b"")], place=place, at=len(logs[place.topic, 0]),
        source_first=source.offset, source_last=source.offset, time_ms=2**41, policy_position=0,
        signer=Installation(settings, Home(root=settings.home)).stage_signer(RUNNER),
    )  # fmt: skip
    async with broker_of(settings) as broker:
        await broker.append(place.topic, 0, sealed)
        return await read_all(broker, settings)


async def run(folder: Path, seed: int, faults: int) -> None:
    async with ground(folder, seed) as rig:
        settings = rig.settings
        asked, rogue = Asked(), Rogue(settings, random.Random(seed + 99))
        print(f"\nseed {seed}, {faults} faults")
        await rig.start()
        switch = await torment(rig, faults, asked, rogue)
        logs = await settled(settings, rig)

        def counted(logs: Logs) -> Tally:
            counting = Counting(
                settings, logs, rogue=rogue.numbers, doubtful=rogue.doubtful, asked=asked, switch=switch
            )
            return counting.count()

        tally = await asyncio.to_thread(counted, logs)
        print(table(rig, tally, asked, rogue, rig.model_calls()))
        assert tally.problems == []
        assert [each for each in rig.ended if not each.words.startswith(BROKER_AWAY)] == []
        assert tally.requests == tally.decisions == tally.generations == tally.releases
        assert tally.released > 0
        assert min(tally.before_switch, tally.after_switch) > 0
        assert tally.rogue_found == sum(rogue.planted.values()) > 0

        await rig.end()
        await rig.start_broker()
        await controls(rig, settings, logs, counted)


async def controls(rig: Rig, settings: Settings, logs: Logs, counted: Callable[[Logs], Tally]) -> None:
    """What the count must find in logs that were tampered with."""
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    lost = (topology.releases, 0)
    fewer = await asyncio.to_thread(counted, {**logs, lost: logs[lost][:-1]})
    assert any("without an output" in each for each in fewer.problems)
    assert any("terminal releases differ" in each for each in fewer.problems)
    copy = (topology.reply(reply_name_of(SERVICE)), 0)
    gone = next(at for at, each in reversed(list(enumerate(logs[copy]))) if each.header("x-rogue") is None)
    undelivered = await asyncio.to_thread(counted, {**logs, copy: [*logs[copy][:gone], *logs[copy][gone + 1 :]]})
    assert [each for each in undelivered.problems if "1 copies missing" in each] == undelivered.problems
    twice = await asyncio.to_thread(counted, await planted_twice(rig, settings, logs))
    assert any("inputs with two outputs" in each for each in twice.problems)


@pytest.mark.timeout(300 + 12 * FAULTS)
async def test_every_request_gets_one_answer_whatever_is_done_to_the_stages(tmp_path: Path) -> None:
    """Invariants 1, 2, 3, 5 and 8 under kills, zombies, rebalances, broker restarts and a rogue writer."""
    need_kafka()
    await run(tmp_path, SEED, FAULTS)
