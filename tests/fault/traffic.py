"""What goes on while faults happen: producers with steady requests, a rogue with write access, and a policy switch."""

import asyncio
import random
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from attacker import copied, generation, grant, release, unsent
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fixtures_stack import ask, broker_of, whole

from sluicegate.bundle_folder import read_bundle
from sluicegate.dev_client import Client
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.seal import Signer, seal_slice
from sluicegate.enforcer.trust_make import sign_targets
from sluicegate.home import Home
from sluicegate.installation import EXPIRES_MS, Installation, reply_name_of
from sluicegate.keys import signer_of
from sluicegate.schemas import codec
from sluicegate.schemas.errors import ContinuityError, Unavailable
from sluicegate.schemas.events import PolicyKind, PolicyPublished, Source
from sluicegate.schemas.records import Record, Unsent
from sluicegate.settings import Settings
from sluicegate.streams.kafka import Broker
from sluicegate.streams.topology import ENFORCER, REDACTOR, RUNNER, Topology

PEOPLE = ("eva.eng", "ian.intern", "una.both")
SERVICE = "helpdesk-app"
SWITCHED = "ian.intern"
"""Whom the bundle after the switch refuses."""
MARK = "x-rogue"
KINDS = ("forged", "replayed", "noise")
SWITCH_LEAD_MS = 6_000
"""Between the publication and the event time from which it counts: longer than anybody is frozen."""


@dataclass(kw_only=True)
class Asked:
    """What producers published, by request id; a request whose append was in doubt was sent again."""

    allowed: set[str] = field(default_factory=set)
    forbidden: set[str] = field(default_factory=set)
    switched: set[str] = field(default_factory=set)
    sent_again: int = 0


async def produce(settings: Settings, name: str, asked: Asked, stop: asyncio.Event, chance: random.Random) -> None:
    """Requests by three people; every ninth is one that nobody may ask. What may not have landed is asked again."""
    number = 0
    while not stop.is_set():
        try:
            async with Client(settings) as client:
                while not stop.is_set():
                    await _ask_one(client, f"{name}-{number}", number, asked)
                    number += 1
                    await asyncio.sleep(chance.uniform(0.02, 0.2))
        except (Unavailable, ContinuityError):
            asked.sent_again += 1
            await asyncio.sleep(0.3)


async def _ask_one(client: Client, request_id: str, number: int, asked: Asked) -> None:
    person, bad = PEOPLE[number % len(PEOPLE)], number % 9 == 8
    request = ask(request_id, f"Say {number}.", purpose="mischief" if bad else "writing", max_tokens=4)
    await client.submit(request, service=SERVICE, person=person)
    wanted = asked.forbidden if bad else asked.switched if person == SWITCHED else asked.allowed
    wanted.add(request_id)


class Rogue:
    """Somebody who may write to every topic and has no key of a stage. Each record it writes carries a number."""

    def __init__(self, settings: Settings, chance: random.Random) -> None:
        self._settings = settings
        self._chance = chance
        self._topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
        self._own = Ed25519PrivateKey.generate()
        installation = Installation(settings, Home(root=settings.home))
        self._names = {stage: installation.stage_signer(stage).key_id for stage in (ENFORCER, RUNNER, REDACTOR)}
        self._stages = {self._topology.topic(name): stage for name, stage in STAGE_OF.items()}
        copies = (self._topology.refusals, self._topology.reply(reply_name_of(SERVICE)))
        self._topics = (self._topology.requests, *self._stages, *copies)
        self._number = 0
        self.planted: Counter[str] = Counter()
        self.numbers: dict[str, set[int]] = {topic: set() for topic in self._topics}
        self.doubtful: set[int] = set()

    async def write(self, stop: asyncio.Event) -> None:
        async with broker_of(self._settings, request_timeout_s=5) as broker:
            while not stop.is_set():
                await asyncio.sleep(self._chance.uniform(0.1, 0.4))
                topic, kind = self._chance.choice(self._topics), self._chance.choice(KINDS)
                partition = self._chance.randrange(self._settings.partitions)
                try:
                    records = await self._records(broker, topic, partition, kind)
                except (Unavailable, ContinuityError):
                    continue
                if not records:
                    continue
                numbers, marked = [], []
                for record in records:
                    self._number += 1
                    numbers.append(self._number)
                    headers = (*record.headers, (MARK, b"%d" % self._number))
                    marked.append(Unsent(key=record.key, value=record.value, headers=headers))
                try:
                    await broker.append(topic, partition, marked)
                except Unavailable:
                    self.doubtful.update(numbers)
                    continue
                self.numbers[topic].update(numbers)
                self.planted[kind] += len(numbers)

    async def _records(self, broker: Broker, topic: str, partition: int, kind: str) -> list[Unsent]:
        count = self._chance.randint(1, 6)
        stage = self._stages.get(topic)
        if kind == "forged" and stage is not None:
            return await self._forged(broker, topic, partition, stage, count)
        if kind == "noise":
            return [Unsent(key=None, value=self._chance.randbytes(40), headers=(("sg-seal", b"\x00"),))] * count
        stored: list[Record] = []
        end = await broker.end_offset(topic, partition)
        first = max(0, end - self._chance.randint(1, 60))
        async for batch in broker.read(topic, partition, start=first, end=end):
            stored += batch
        chosen = self._chance.sample(stored, min(count, len(stored)))
        return [copied(each) for each in chosen if each.header(MARK) is None]

    async def _forged(self, broker: Broker, topic: str, partition: int, stage: str, count: int) -> list[Unsent]:
        """Sealed for where it is about to stand, under the stage's name, with a high event time; the key is wrong."""
        end = await broker.end_offset(topic, partition)
        source = Source(offset=max(0, end - 1), count=1, digest=b"", timestamp_ms=0)
        event = {
            ENFORCER: unsent(grant(self._chance.randrange(1000))),
            RUNNER: unsent(generation(source, f"d1-{partition}-{end}")),
            REDACTOR: unsent(release(max(0, end - 1))),
        }[stage]
        place = self._topology.place(stage, env=self._settings.env, epoch=self._settings.epoch, partition=partition)
        sealed = seal_slice(
            [event] * count, place=place, at=end, source_first=end, source_last=end + count - 1, time_ms=2**42,
            policy_position=0, signer=Signer(key_id=self._names[stage], private=self._own),
        )  # fmt: skip
        return list(sealed)


STAGE_OF = {"decisions": ENFORCER, "generations": RUNNER, "releases": REDACTOR}


@dataclass(frozen=True, kw_only=True)
class Switch:
    """A bundle version that counts from an event time on."""

    version: int
    effective_at_ms: int


async def switch_policy(settings: Settings, policies: Path) -> Switch:
    """Publishes a bundle that refuses `SWITCHED`, ahead of the event time from which it counts."""
    changed = policies.with_name("policies-switched")
    shutil.copytree(policies, changed)
    brakes = changed / "brakes.cedar"
    brakes.write_text(
        brakes.read_text() + f'\n@id("switched")\n@reason("not any more")\n'
        f'forbid (principal == User::"{SWITCHED}", action == Action::"generate", resource);\n'
    )
    content = read_bundle(changed)
    installation = Installation(settings, Home(root=settings.home))
    topic = Topology(tenant=settings.tenant, partitions=settings.partitions).policy
    async with broker_of(settings) as broker:
        history = await whole(broker, topic, 0)
        bundles = [event for event in map(published, history) if event and event.kind is PolicyKind.BUNDLE]
        version = bundles[-1].version + 1
        effective_at_ms = max(each.timestamp_ms for each in history) + 1
        effective_at_ms = max(effective_at_ms, time.time_ns() // 1_000_000) + SWITCH_LEAD_MS
        metadata = sign_targets(
            Kind.BUNDLE, content, domain=installation.domain, version=version, effective_at_ms=effective_at_ms,
            expires_ms=EXPIRES_MS, signers=(signer_of(installation.keys.publisher()),),
        )  # fmt: skip
        event = PolicyPublished(kind=PolicyKind.BUNDLE, version=version, metadata=metadata, content=content)
        await broker.append(topic, 0, [Unsent(key=None, value=codec.encode(event))])
    return Switch(version=version, effective_at_ms=effective_at_ms)


def published(record: Record) -> PolicyPublished | None:
    if (record.value or b"")[2:10] != codec.fingerprint_of("PolicyPublished.v2"):
        return None
    return codec.decode(record.value, PolicyPublished)
