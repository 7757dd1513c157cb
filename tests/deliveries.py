"""What a stack delivered: a test asks where each effective release has its copies, of the logs and the keys alone."""

import asyncio
import time
from collections import Counter

from fixtures_stack import broker_of, effective, verifier_of, whole

from sluicegate.enforcer.directory import split_uid
from sluicegate.enforcer.seal import Effective, verify_copy
from sluicegate.schemas import codec
from sluicegate.schemas.events import ReleaseMade
from sluicegate.settings import Settings
from sluicegate.streams.topology import REDACTOR, Topology

Count = Counter[tuple[int, int]]


async def undelivered(settings: Settings) -> tuple[set[tuple[int, int]], Count]:
    """Effective releases without a copy where their application reads, and how many genuine copies each has."""
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    wanted: dict[tuple[int, int], str] = {}
    copies = Counter[tuple[int, int]]()
    async with broker_of(settings) as broker:
        for partition in range(settings.partitions):
            for record in await effective(broker, settings, REDACTOR, partition):
                actor = codec.decode(record.value, ReleaseMade).actor
                topic = topology.refusals if actor is None else topology.reply(split_uid(actor)[1])
                wanted[partition, record.offset] = topic
            check = verifier_of(settings, REDACTOR, partition)
            for topic in {topology.refusals, *wanted.values()}:
                for record in await whole(broker, topic, partition):
                    copy = verify_copy(check, record)
                    assert isinstance(copy, Effective), "nobody but delivery writes here"
                    place = partition, copy.record.offset
                    assert wanted[place] == topic, "an application reads an answer that is not its own"
                    copies[place] += 1
    return set(wanted) - set(copies), copies


async def all_delivered(settings: Settings, *, limit_s: float) -> Count:
    """Waits until no release is undelivered; how many copies each has."""
    deadline = time.monotonic() + limit_s
    while True:
        missing, copies = await undelivered(settings)
        if not missing:
            return copies
        assert time.monotonic() < deadline, f"not delivered: {sorted(missing)}"
        await asyncio.sleep(0.2)
