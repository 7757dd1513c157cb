"""Keys, places and ready-made sealed decisions for tests of the stages behind the gate."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sluicegate.enforcer.seal import Place, Signer, StageKey, Verifier, seal_slice
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import (
    DecisionMade,
    Granted,
    Identity,
    Obligation,
    PolicyVersion,
    Role,
    Segment,
    ShapedMessage,
    Source,
    Verdict,
)
from sluicegate.schemas.ids import KeyId
from sluicegate.schemas.records import Unsent

STAGES = ("enforcer", "runner", "redactor", "shadow")
EVENTS = {"enforcer": "decision", "runner": "generation", "redactor": "release", "shadow": "shadow"}
TOPICS = {"enforcer": "t.decisions", "runner": "t.generations", "redactor": "t.releases", "shadow": "t.shadow"}
PRIVATE = {stage: Ed25519PrivateKey.from_private_bytes(bytes([n + 1]) * 32) for n, stage in enumerate(STAGES)}
KEYS = {
    KeyId(stage): StageKey(
        key_id=KeyId(stage), stage=stage, public=PRIVATE[stage].public_key(), not_before_ms=0, revoked_at_ms=None
    )
    for stage in STAGES
}


def place(stage: str, partition: int = 0) -> Place:
    return Place(
        env="test",
        tenant="t",
        epoch=1,
        topic=TOPICS[stage],
        partition=partition,
        event=EVENTS[stage],
        stage=stage,
    )


def signer(stage: str) -> Signer:
    return Signer(key_id=KeyId(stage), private=PRIVATE[stage])


def verifier(stage: str) -> Verifier:
    return Verifier(place(stage), lambda: KEYS)


def sealed(
    stage: str, records: list[Unsent], *, at: int, source_first: int, source_last: int, time_ms: int = 1_000
) -> tuple[Unsent, ...]:
    return seal_slice(
        records,
        place=place(stage),
        at=at,
        source_first=source_first,
        source_last=source_last,
        time_ms=time_ms,
        policy_position=3,
        signer=signer(stage),
    )


def decision(
    offset: int,
    *,
    allow: bool = True,
    text: str = "Call Mara at 020 7946 0958.",
    obligations: tuple[Obligation, ...] = (),
    deadline_ms: int | None = None,
) -> DecisionMade:
    """An allow whose prompt is `text`, or a denial."""
    return DecisionMade(
        decision_id=f"d1-0-{offset}",
        source=Source(offset=offset, count=1, digest=b"\x00" * 32, timestamp_ms=1_000),
        time_ms=1_000,
        verdict=Verdict.ALLOW if allow else Verdict.DENY,
        code=Code.OK if allow else Code.DENIED,
        check=0 if allow else 4,
        reason=None if allow else "not for you",
        request_id=f"r{offset}",
        identity=Identity(
            principal='User::"ana"',
            actor='Service::"desk"',
            proof_issuer="desk",
            proof_id=f"j{offset}",
            proof_issued_at_s=1,
            proof_key_id="k",
        ),
        model="m",
        purpose="p",
        policy=PolicyVersion(
            position=3,
            root_version=1,
            bundle_version=1,
            bundle_digest="sha256:b",
            directory_version=1,
            directory_digest="sha256:d",
        ),
        obligations=obligations,
        prompt=(ShapedMessage(role=Role.USER, segments=(Segment(text=text, source="message:0"),)),) if allow else (),
        granted=Granted(max_tokens=8, temperature=0.0, top_p=1.0, top_k=64, seed=0) if allow else None,
        withheld=("tickets.phone",),
        deadline_ms=deadline_ms,
    )


def as_unsent(event: DecisionMade) -> Unsent:
    return Unsent(key=b"k", value=codec.encode(event))
