"""The bar: however brokers and clients are killed, each request gets exactly one terminal release, and a second
application with credentials of its own reads none of them.

The suite does 120 requests; `REQUESTS=1000 pytest tests/fault/test_client_bar.py` is the long form (faults in
proportion: one restart of the broker for 200 requests and one kill of a client for 40; `SEED=` chooses others).
"""

import asyncio
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from broker_user import OK, TOPIC_REFUSED, BrokerUser
from fault.bar import REPLIES, SECOND, SERVICE, TENANT, Bar, standing
from fixtures_broker import ADMIN, need_kafka
from fixtures_stack import whole

from sluicegate.client import Client, NotAnswered
from sluicegate.enforcer.seal import Effective, Verifier
from sluicegate.enforcer.stage_keys import read_stage_keys
from sluicegate.key_admission import stage_keys_in_force
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.errors import CodecError
from sluicegate.schemas.events import ReleaseMade
from sluicegate.schemas.records import Record, Unsent
from sluicegate.streams.kafka import Broker
from sluicegate.streams.topology import REDACTOR, Topology

REQUESTS = int(os.environ.get("REQUESTS", "120"))
SEED = int(os.environ.get("SEED", "20261124"))
REQUESTS_A_RESTART, REQUESTS_A_KILL = 200, 40
PARTITIONS = 2
TOPOLOGY = Topology(tenant=TENANT, partitions=PARTITIONS)
IDS = frozenset(f"bar-{number}" for number in range(REQUESTS))
NOT_FOR_THEM = ("requests", "decisions", "generations", "releases", "policy")


@dataclass
class Logs:
    """What the logs hold, by seals alone."""

    requests: int = 0
    covered: Counter[tuple[int, int]] = field(default_factory=Counter)
    terminal: dict[str, list[ReleaseMade]] = field(default_factory=dict)
    repeated: int = 0


async def read_logs(bar: Bar) -> Logs:
    keys = read_stage_keys(bar.trust.read_bytes())
    logs = Logs()
    async with Broker(bar.kafka.config(ADMIN)) as broker:
        for partition in range(PARTITIONS):
            logs.requests += len(await whole(broker, TOPOLOGY.requests, partition))
            verifier = Verifier(TOPOLOGY.place(REDACTOR, env="local", epoch=1, partition=partition), lambda: keys)
            for record in await whole(broker, TOPOLOGY.releases, partition):
                if isinstance(verifier.verify(record), Effective):
                    release = codec.decode(record.value, ReleaseMade)
                    assert release.request_offset is not None, release.code
                    logs.covered[partition, release.request_offset] += 1
                    if release.code in (Code.DUPLICATE_OF, Code.PROOF_REPLAYED):
                        logs.repeated += 1
                    else:
                        logs.terminal.setdefault(release.request_id or "", []).append(release)
    return logs


async def torment(bar: Bar) -> None:
    """Every fault at its share of the work, so that each one strikes while requests wait."""
    faults = ["restart"] * max(1, REQUESTS // REQUESTS_A_RESTART) + ["kill"] * max(2, REQUESTS // REQUESTS_A_KILL)
    bar.chance.shuffle(faults)
    for number, fault in enumerate(faults, start=1):
        await bar.until_done(REQUESTS * number // (len(faults) + 1), limit_s=240.0)
        if fault == "restart":
            await bar.restart_the_broker()
        else:
            bar.kill_a_client()
    await bar.until_done(REQUESTS, limit_s=300.0)


@pytest.mark.timeout(240 + 2 * REQUESTS)
def test_one_terminal_release_each_and_none_for_another(tmp_path: Path) -> None:
    need_kafka()
    asyncio.run(run(tmp_path))


async def run(folder: Path) -> None:
    async with standing(folder, SEED) as bar:
        settings = bar.deployment.publisher.loaded()
        bar.trust.write_text(await stage_keys_in_force(settings))
        bar.write_jobs(REQUESTS)
        for client in range(3):
            bar.start_client(client)
        await torment(bar)
        told = bar.done()
        logs = await read_logs(bar)
        how = Counter(words[5] for words in told)
        print(
            f"\n{REQUESTS} requests, {bar.restarts} restarts of the broker, {bar.kills} kills of a client: "
            f"{logs.requests} sends, {logs.repeated} of them repeats; answers {dict(how)}; "
            f"stages that ended by themselves: {bar.stages_ended}"
        )
        assert bar.restarts >= 1
        assert bar.kills >= 1
        check_one_each(told, logs)
        await check_second_application(bar)
        await check_forgery_is_counted(bar, logs)


def check_one_each(told: list[list[str]], logs: Logs) -> None:
    """Positive control: a repeated and a missing one are found."""
    assert not problems(told, logs)
    assert problems([*told, told[0]], logs)
    assert problems(told[1:], logs)
    [name, *_], twice = told[0], dict(logs.terminal)
    twice[name] = [*twice[name], *twice[name]]
    assert problems(told, replace(logs, terminal=twice))


def problems(told: list[list[str]], logs: Logs) -> list[str]:
    found = [f"{name} was told {n} times" for name, n in Counter(words[0] for words in told).items() if n != 1]
    found += [f"{name} was never told" for name in IDS - {words[0] for words in told}]
    for name, release_id, outcome, code, *_ in told:
        terminal = logs.terminal.get(name, [])
        if [each.release_id for each in terminal] != [release_id]:
            found.append(f"{name} has {len(terminal)} terminal releases, or another than the one told")
        if (outcome, code) != ("RELEASED", "OK"):
            found.append(f"{name} was not answered: {code}")
    found += [f"release without a request of ours: {name}" for name in logs.terminal.keys() - IDS]
    if sum(logs.covered.values()) != logs.requests or set(logs.covered.values()) != {1}:
        found.append("a send has no release, or several")
    return found


async def check_second_application(bar: Bar) -> None:
    """Positive control: read with the first application's credentials, the same counter counts every request."""
    assert await ids_seen_by(bar, SERVICE) == IDS
    assert await ids_seen_by(bar, SECOND) == frozenset()
    async with Client(bar.config(SECOND)) as client:
        for name in sorted(IDS)[:3]:
            with pytest.raises(NotAnswered):
                await client.find(name, timeout_s=1.0)
        own = await client.ask(model="smollm2", purpose="ticket", text="Say hello.", request_id="own")
        assert own.release.actor == f'Service::"{SECOND}"'
        assert client.counts.genuine == 1


async def ids_seen_by(bar: Bar, service: str) -> frozenset[str]:
    """The request ids in whatever the broker lets this user read of the tenant's topics."""
    seen: set[str] = set()
    async with BrokerUser(bar.kafka.config(service)) as user:
        for topic in (*map(TOPOLOGY.topic, NOT_FOR_THEM), TOPOLOGY.refusals, *map(TOPOLOGY.reply, REPLIES.values())):
            allowed = topic in (TOPOLOGY.refusals, TOPOLOGY.reply(REPLIES[service]))
            for partition in range(1 if topic == TOPOLOGY.policy else PARTITIONS):
                values = await everything(user, topic, partition, OK if allowed else TOPIC_REFUSED)
                seen |= {request_id for value in values if (request_id := id_in(value)) in IDS}
    return frozenset(seen)


async def everything(user: BrokerUser, topic: str, partition: int, wanted: int) -> list[bytes | None]:
    values: list[bytes | None] = []
    while True:
        code, found = await user.read(topic, partition=partition, offset=len(values))
        assert code == wanted, (topic, code)
        if not found:
            return values
        values += found


def id_in(value: bytes | None) -> str:
    try:
        return codec.decode(value, ReleaseMade).request_id or ""
    except CodecError:
        return ""


async def check_forgery_is_counted(bar: Bar, logs: Logs) -> None:
    """Whoever got hold of the delivery stage's credentials can plant copies, and nobody believes them."""
    name = min(IDS)
    [genuine] = logs.terminal[name]
    async with Client(bar.config(SERVICE)) as client, Broker(bar.kafka.config("main.delivery")) as thief:
        partition, copy = await copy_of(bar, name)
        forged = codec.encode(replace(genuine, text="forged", release_id="r1-0-999999"))
        await thief.append(TOPOLOGY.reply(REPLIES[SERVICE]), partition, [
            Unsent(key=copy.key, value=forged, headers=copy.headers),
            Unsent(key=copy.key, value=copy.value or b"", headers=copy.headers),
        ])  # fmt: skip
        async with asyncio.timeout(20):
            while client.counts.unverified + client.counts.genuine < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert (client.counts.unverified, client.counts.genuine) == (1, 1)
        assert (await client.find(name)).release == genuine


async def copy_of(bar: Bar, name: str) -> tuple[int, Record]:
    async with Broker(bar.kafka.config(ADMIN)) as broker:
        for partition in range(PARTITIONS):
            for record in await whole(broker, TOPOLOGY.reply(REPLIES[SERVICE]), partition):
                if id_in(record.value) == name:
                    return partition, record
    raise AssertionError(f"no copy of {name}")
