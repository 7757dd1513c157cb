"""Somebody who can write to every topic of a running stack, knows all that is public, and has no key of a stage."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from by_hand import PERSON
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fixtures_stack import StackPlace, effective, whole

from sluicegate.bundle_folder import read_bundle
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.seal import Signer, seal_slice
from sluicegate.enforcer.trust import Domain
from sluicegate.enforcer.trust_make import sign_targets
from sluicegate.home import Home
from sluicegate.installation import EXPIRES_MS, Installation
from sluicegate.keys import signer_of
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code, ReleaseOutcome
from sluicegate.schemas.events import (
    DecisionMade,
    GenerationFinished,
    Granted,
    ModelRun,
    Outcome,
    PolicyKind,
    PolicyPublished,
    ReleaseMade,
    Role,
    Segment,
    ShapedMessage,
    Source,
    Verdict,
    Window,
)
from sluicegate.schemas.ids import KeyId, entity_uid
from sluicegate.schemas.records import Record, Unsent
from sluicegate.settings import Settings
from sluicegate.streams.kafka import Broker
from sluicegate.streams.topology import ENFORCER, REDACTOR, RUNNER, Topology

KEY = entity_uid("User", PERSON).encode()
LOOT = "MARA-LIND-EARNS-93000"
FAR = 1_000_000  # an offset that nothing genuine has
STAGE_OF = {"decisions": ENFORCER, "generations": RUNNER, "releases": REDACTOR}


def grant(number: int, text: str = LOOT) -> DecisionMade:
    """An allow as the enforcer would write it."""
    return DecisionMade(
        decision_id=f"d1-0-{FAR + number}",
        source=Source(offset=FAR + number, count=1, digest=b"", timestamp_ms=0),
        time_ms=0,
        verdict=Verdict.ALLOW,
        code=Code.OK,
        check=0,
        request_id=f"forged-{number}",
        model="smollm2",
        purpose="writing",
        prompt=(ShapedMessage(role=Role.USER, segments=(Segment(text=text, source="message:0"),)),),
        granted=Granted(max_tokens=4, temperature=0.0, top_p=1.0, top_k=64, seed=0),
    )


def generation(source: Source, decision_id: str, *, ran: bool = True) -> GenerationFinished:
    run = ModelRun(
        provider="cpu", graph_digest="g", tokenizer_digest="t", seed=0, prompt_tokens=1, output_tokens=1, finish="stop"
    )
    return GenerationFinished(
        generation_id=f"g1-0-{source.offset}",
        source=source,
        window=Window(first=0, size=32),
        outcome=Outcome.ANSWERED if ran else Outcome.REFUSED,
        code=Code.OK if ran else Code.FORGED,
        decision_id=decision_id,
        text=LOOT if ran else None,
        run=run if ran else None,
    )


def release(request_offset: int) -> ReleaseMade:
    return ReleaseMade(
        release_id="r1-0-0",
        source=Source(offset=FAR, count=1, digest=b"", timestamp_ms=0),
        outcome=ReleaseOutcome.RELEASED,
        code=Code.OK,
        retryable=False,
        request_offset=request_offset,
        request_id="forged",
        decision_id="d1-0-0",
        text=LOOT,
    )


def unsent(event: DecisionMade | GenerationFinished | ReleaseMade) -> Unsent:
    return Unsent(key=KEY, value=codec.encode(event))


def copied(record: Record) -> Unsent:
    """A record as anybody who reads the topic can write it again, seal and all."""
    return Unsent(key=record.key, value=record.value or b"", headers=record.headers)


@dataclass(kw_only=True)
class Attack:
    """What was forged on which topic, and where it stands."""

    planted: dict[str, list[int]] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)


class Attacker:
    """Writes to any topic of one partition; knows every public thing and holds keys of its own."""

    def __init__(self, broker: Broker, settings: Settings, partition: int) -> None:
        self.broker, self.settings, self.partition = broker, settings, partition
        self.topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
        self.installation = Installation(settings, Home(root=settings.home))
        self.attack = Attack()

    async def write(self, name: str, what: str, records: Sequence[Unsent]) -> int:
        partition = 0 if name == "policy" else self.partition
        base = await self.broker.append(self.topology.topic(name), partition, records)
        self.attack.planted.setdefault(name, []).extend(range(base, base + len(records)))
        self.attack.names.setdefault(name, []).extend([what] * len(records))
        return base

    async def sealed(
        self, name: str, what: str, event: DecisionMade | GenerationFinished | ReleaseMade, signer: Signer
    ) -> None:
        """Sealed for the very offset at which it will stand: only the key is wrong."""
        stage = STAGE_OF[name]
        topic = self.topology.topic(name)
        end = await self.broker.end_offset(topic, self.partition)
        place = self.topology.place(stage, env=self.settings.env, epoch=self.settings.epoch, partition=self.partition)
        slice_ = seal_slice(
            [unsent(event)], place=place, at=end, source_first=FAR, source_last=FAR, time_ms=2**41,
            policy_position=0, signer=signer,
        )  # fmt: skip
        assert await self.write(name, what, slice_) == end, "somebody else wrote: the attack proves nothing"

    async def genuine(self, stage: str, partition: int) -> list[Record]:
        return await effective(self.broker, self.settings, stage, partition)

    async def forge(self, name: str, event: DecisionMade | GenerationFinished | ReleaseMade) -> None:
        """The ways to write a record of a sealed topic without its stage's key."""
        stage = STAGE_OF[name]
        own = Ed25519PrivateKey.generate()
        real = self.installation.stage_signer(stage).key_id
        other = self.installation.stage_signer(RUNNER if stage == ENFORCER else ENFORCER)
        await self.write(name, "no seal", [unsent(event)])
        await self.sealed(name, "own key, own name", event, Signer(key_id=KeyId("mallory"), private=own))
        await self.sealed(name, "own key, the stage's name", event, Signer(key_id=real, private=own))
        await self.sealed(name, "another stage's key", event, other)
        here = (await self.genuine(stage, self.partition))[-1]
        there = (await self.genuine(stage, 1 - self.partition))[-1]
        await self.write(name, "genuine, at another offset", [copied(here)])
        await self.write(name, "genuine, of another partition", [copied(there)])
        seal = [header for header in here.headers if header[0] == "sg-seal"]
        await self.write(name, "a genuine seal before other bytes", [replace(unsent(event), headers=tuple(seal))])
        await self.write(name, "noise", [Unsent(key=None, value=b"\xc3\x01noise", headers=(("sg-seal", b"\x00"),))])


async def forge_policy(attacker: Attacker, place: StackPlace, candidate: Path) -> None:
    """A bundle that would let everybody in, by every way but the publisher's."""
    settings = attacker.settings
    content = read_bundle(candidate)
    domain = Domain(env=settings.env, tenant=settings.tenant)
    history = await whole(attacker.broker, attacker.topology.policy, 0)
    events = [(record, codec.decode(record.value, PolicyPublished)) for record in history if is_published(record)]
    bundles = [(record, event) for record, event in events if event.kind is PolicyKind.BUNDLE]
    version_next = max(event.version for _, event in bundles) + 1

    def signed(private: Ed25519PrivateKey, version: int, over: bytes = content) -> bytes:
        return sign_targets(
            Kind.BUNDLE, over, domain=domain, version=version, effective_at_ms=2**40, expires_ms=EXPIRES_MS,
            signers=(signer_of(private),),
        )  # fmt: skip

    def bundle(metadata: bytes, version: int = version_next) -> Unsent:
        event = PolicyPublished(kind=PolicyKind.BUNDLE, version=version, metadata=metadata, content=content)
        return Unsent(key=None, value=codec.encode(event))

    mallory, publisher = Ed25519PrivateKey.generate(), attacker.installation.keys.publisher()
    unsigned = json.loads(signed(mallory, version_next)) | {"signatures": []}
    await attacker.write("policy", "unsigned", [bundle(json.dumps(unsigned).encode())])
    await attacker.write("policy", "unknown key", [bundle(signed(mallory, version_next))])
    stage = attacker.installation.keys.stage(ENFORCER)
    await attacker.write("policy", "a stage's key", [bundle(signed(stage, version_next))])
    genuine = signed(publisher, version_next, over=b"another content")
    await attacker.write("policy", "signed for other content", [bundle(genuine)])
    await attacker.write("policy", "an old version again", [copied(bundles[0][0])])
    await attacker.write("policy", "noise", [Unsent(key=None, value=b"permit (principal, action, resource);")])


def is_published(record: Record) -> bool:
    return (record.value or b"")[2:10] == codec.fingerprint_of("PolicyPublished.v2")
