"""What attackers do to the demo's stack: a request goes in, a record that nobody should believe comes out.

Each attacker can write to a topic and has no key of the stack.
"""

from dataclasses import replace
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sluicegate.dev_client import Client, Prepared
from sluicegate.enforcer.partition import partition_of
from sluicegate.enforcer.seal import Place, Signer, seal_slice
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import (
    DecisionMade,
    Granted,
    RequestSubmitted,
    Role,
    Segment,
    ShapedMessage,
    Source,
    Verdict,
)
from sluicegate.schemas.ids import KeyId, decision_id
from sluicegate.schemas.records import Unsent
from sluicegate.settings import Settings
from sluicegate.streams.topology import ENFORCER

FORGERIES: Final = 3


def steal_proof(prepared: Prepared, other: RequestSubmitted) -> Prepared:
    """The proof and token of a genuine request in front of another body."""
    return replace(prepared, value=codec.encode(other))


def truncate(prepared: Prepared) -> Prepared:
    """A genuine request of which half arrived."""
    return replace(prepared, value=prepared.value[: len(prepared.value) // 2])


async def forge_grants(client: Client, settings: Settings, key: bytes, request: RequestSubmitted) -> None:
    """Writes three allows that nobody decided: without a seal, with a foreign one, with one that claims the
    enforcer's name.

    Raises:
        Unavailable: the broker did not acknowledge them.
    """
    topology = client.topology
    partition = partition_of(key, topology.partitions)
    place = topology.place(ENFORCER, env=settings.env, epoch=settings.epoch, partition=partition)
    topic = topology.decisions
    found = await client.append(topic, partition, [_allow(request, key, place, 0)])
    for number, key_id in enumerate(("mallory", ENFORCER), start=1):
        sealed = seal_slice(
            [_allow(request, key, place, number)],
            place=place,
            at=found.offset + 1,
            source_first=number,
            source_last=number,
            time_ms=0,
            policy_position=0,
            signer=Signer(key_id=KeyId(key_id), private=Ed25519PrivateKey.generate()),
        )
        found = await client.append(topic, partition, sealed)


def _allow(request: RequestSubmitted, key: bytes, place: Place, number: int) -> Unsent:
    """An allow as the enforcer would write it, with the documents whole."""
    text = "".join(piece.text for document in request.documents for piece in document.fields)
    question = f"{text}\n{request.messages[-1].content}"
    forged = DecisionMade(
        decision_id=decision_id(epoch=place.epoch, partition=place.partition, offset=1_000_000 + number),
        source=Source(offset=1_000_000 + number, count=1, digest=b"", timestamp_ms=0),
        time_ms=0,
        verdict=Verdict.ALLOW,
        code=Code.OK,
        check=0,
        request_id=f"{request.request_id}-{number}",
        model=request.model,
        purpose=request.purpose,
        prompt=(ShapedMessage(role=Role.USER, segments=(Segment(text=question, source="message:0"),)),),
        granted=Granted(max_tokens=64, temperature=0.0, top_p=1.0, top_k=64, seed=0),
    )
    return Unsent(key=key, value=codec.encode(forged))
