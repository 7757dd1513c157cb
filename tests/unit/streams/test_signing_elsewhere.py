"""The port for keys that are no files: seals and proofs by a key that another process holds, and a key that is away."""

import asyncio
import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import pytest
from counting import Counting, check_one_to_one
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from memory_log import MemoryLog
from stages import KEYS, TOPICS, as_unsent, decision, place, sealed, verifier

from sluicegate.enforcer.credentials import parse_credentials
from sluicegate.enforcer.grant import Grant
from sluicegate.enforcer.log import SealedLog
from sluicegate.enforcer.seal import Effective, Place, StageKey, Verifier
from sluicegate.installation import signer_with
from sluicegate.keys import public_jwk
from sluicegate.proof import make_proof
from sluicegate.schemas.codes import Code
from sluicegate.schemas.errors import ConfigurationError, Unavailable
from sluicegate.schemas.events import DecisionMade
from sluicegate.schemas.records import Unsent
from sluicegate.schemas.strict_json import decode_base64url
from sluicegate.streams.generate import GenerationLane, Ran
from sluicegate.streams.lane import Lane

SOURCE = "t.requests"
PLACE = Place(env="test", tenant="t", epoch=1, topic="t.decisions", partition=0, event="decision", stage="enforcer")
SEED = b"\x21" * 32


def hold_key(asked: Connection) -> None:
    """What a KMS does: answers with signatures, never with the key."""
    key = Ed25519PrivateKey.from_private_bytes(SEED)
    asked.send_bytes(key.public_key().public_bytes_raw())
    while data := asked.recv_bytes():
        asked.send_bytes(key.sign(data))


class Elsewhere:
    """A `SigningKey` whose private half is in another process. `away`: how many calls it does not answer."""

    def __init__(self, asked: Connection) -> None:
        self._asked = asked
        self._public = Ed25519PublicKey.from_public_bytes(asked.recv_bytes())
        self.away = 0
        self.signed = 0

    def sign(self, data: bytes, /) -> bytes:
        if self.away:
            self.away -= 1
            raise Unavailable("the key is out of reach")
        self.signed += 1
        self._asked.send_bytes(data)
        return self._asked.recv_bytes()

    def public_key(self) -> Ed25519PublicKey:
        return self._public


class P256Elsewhere:
    """A P-256 key as a KMS offers it: raw signatures, r and s."""

    def __init__(self) -> None:
        self._key: EllipticCurvePrivateKey = generate_private_key(SECP256R1())

    def sign(self, data: bytes, /) -> bytes:
        r, s = decode_dss_signature(self._key.sign(data, ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def public_key(self) -> EllipticCurvePublicKey:
        return self._key.public_key()


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=hold_key, args=(theirs,), daemon=True)
    process.start()
    try:
        yield Elsewhere(ours)
    finally:
        ours.send_bytes(b"")
        process.join(5)
        assert process.exitcode == 0


def admitted(key: Elsewhere, stage: str) -> dict[str, StageKey]:
    signer = signer_with(key, stage)
    return {
        signer.key_id: StageKey(
            key_id=signer.key_id, stage=stage, public=key.public_key(), not_before_ms=0, revoked_at_ms=None
        )
    }


def enforcing(log: MemoryLog, key: Elsewhere, checked: Verifier) -> Lane:
    return Lane(
        broker=log, stage=Counting(), verifier=checked, signer=signer_with(key, "enforcer"), source_topic=SOURCE,
        output=DecisionMade, slice_bytes_max=100_000, slice_records_max=4, may_append=lambda: True,
    )  # fmt: skip


async def test_a_lane_seals_with_a_key_that_another_process_holds(elsewhere: Elsewhere) -> None:
    log = MemoryLog()
    log.put(SOURCE, 0, [Unsent(key=b"k", value=b"%d" % each) for each in range(20)])
    checked = Verifier(PLACE, lambda: admitted(elsewhere, "enforcer"))
    for end in (9, 20):  # the second lane reads back what the first one sealed
        lane = enforcing(log, elsewhere, checked)
        await lane.recover()
        elsewhere.away = 2
        await lane.advance(log.partitions[SOURCE, 0][:end])
    found = await check_one_to_one(log, checked, source_topic=SOURCE)
    assert (found.answered, found.void, found.sound) == (20, 0, True)
    assert elsewhere.signed >= 5
    # The control: under another admitted key nothing of it counts.
    foreign = Verifier(PLACE, lambda: KEYS)
    assert (await check_one_to_one(log, foreign, source_topic=SOURCE)).answered == 0


class Answering:
    async def run(self, grant: Grant, *, cancelled: object) -> Ran:
        return Ran(code=Code.OK, text=grant.decision.prompt[0].text(), run=None)


def generating(log: MemoryLog, key: Elsewhere, checked: Verifier) -> GenerationLane:
    return GenerationLane(
        broker=log, model=Answering(), decisions=verifier("enforcer"), generations=checked,
        signer=signer_with(key, "runner"), window_size=4, slice_bytes_max=100_000, clock_ms=lambda: 5_000,
        may_append=lambda: True,
    )  # fmt: skip


def put_decisions(log: MemoryLog, count: int) -> None:
    batch = [as_unsent(decision(offset)) for offset in range(count)]
    log.put(TOPICS["enforcer"], 0, sealed("enforcer", batch, at=0, source_first=0, source_last=count - 1))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the condition is about the log, which tells nobody
        await asyncio.sleep(0.01)


async def test_a_runner_waits_for_a_key_that_is_away(elsewhere: Elsewhere) -> None:
    log = MemoryLog()
    put_decisions(log, 6)
    checked = Verifier(place("runner"), lambda: admitted(elsewhere, "runner"))
    lane = generating(log, elsewhere, checked)
    start = await lane.recover()
    elsewhere.away = 3
    async with asyncio.timeout(10):
        await lane.advance(log.partitions[TOPICS["enforcer"], 0][start:])
        await until(lambda: len(log.partitions.get((TOPICS["runner"], 0), [])) == 6)
    await lane.close()
    folded = SealedLog(checked, in_order=False)
    assert all(isinstance(folded.observe(each), Effective) for each in log.partitions[TOPICS["runner"], 0])
    assert elsewhere.away == 0


async def test_a_runner_whose_key_does_not_count_stops_and_says_what_to_type(elsewhere: Elsewhere) -> None:
    log = MemoryLog()
    put_decisions(log, 6)
    lane = generating(log, elsewhere, Verifier(place("runner"), lambda: KEYS))
    start = await lane.recover()
    records = log.partitions[TOPICS["enforcer"], 0][start:]
    await lane.advance(records[:4])  # a windowful is admitted before the first of it must be sealed
    with pytest.raises(ConfigurationError, match="run `sluicegate keys new stage runner`"):
        await asyncio.wait_for(lane.advance(records), 10)
    await lane.close()


def proof(key: Elsewhere | P256Elsewhere | Ed25519PrivateKey) -> str:
    return make_proof(
        key, kid="k", service="app", audience="urn:x", key=b'User::"ana"', value=b"{}", now_s=1, jti="j" * 22
    )


def test_a_proof_is_the_same_whoever_signs_it(elsewhere: Elsewhere) -> None:
    assert proof(elsewhere) == proof(Ed25519PrivateKey.from_private_bytes(SEED))


def test_a_p256_key_elsewhere_proves_as_es256() -> None:
    key = P256Elsewhere()
    entry = {"kid": "k", "service": "app", "jwk": public_jwk(key.public_key())}
    public = parse_credentials({"service_keys": [entry], "issuers": []}).service_keys["k"].public
    signed, _, signature = proof(key).rpartition(".")
    assert public.verifies(signed.encode(), decode_base64url(signature.encode()))
    assert not public.verifies(signed.encode() + b"x", decode_base64url(signature.encode()))


def test_a_stage_seals_with_nothing_but_ed25519() -> None:
    with pytest.raises(ConfigurationError, match="Ed25519"):
        signer_with(P256Elsewhere(), "enforcer")
