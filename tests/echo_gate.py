"""A gate, a redactor and a delivery stage in a few lines: requests in, sealed releases out, as the real ones would.

It answers with the question. What it holds a client to is what the real gate does: a proof counts once, a request id
stands for its first body, a release is sealed for one place of `releases` and goes to the service that asked.
"""

import json
from collections.abc import Callable
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sluicegate.enforcer.seal import Signer, StageKey, seal_slice, source_digest
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import ReleaseMade, Source
from sluicegate.schemas.ids import KeyId, decision_id, entity_uid, release_id
from sluicegate.schemas.meanings import MEANINGS
from sluicegate.schemas.reading import read_request
from sluicegate.schemas.records import Record, Unsent
from sluicegate.schemas.strict_json import decode_base64url
from sluicegate.streams.topology import REDACTOR, Topology

PRIVATE = Ed25519PrivateKey.from_private_bytes(b"r" * 32)
ROGUE = Ed25519PrivateKey.from_private_bytes(b"x" * 32)
KEY = StageKey(key_id=KeyId("red"), stage=REDACTOR, public=PRIVATE.public_key(), not_before_ms=0, revoked_at_ms=None)
KEYS = {KEY.key_id: KEY}
Copy = tuple[str, int, Unsent]


class EchoGate:
    """One tenant. `reason_to_refuse` may refuse a request before it is answered."""

    def __init__(self, topology: Topology, *, env: str = "local", epoch: int = 1) -> None:
        self.topology, self.env, self.epoch = topology, env, epoch
        self.reason_to_refuse: Callable[[Record], Code | None] = lambda record: None
        self.answered: dict[tuple[str, str], list[ReleaseMade]] = {}
        self.decided = 0
        self._proofs: set[str] = set()
        self._first: dict[tuple[int, str, str], tuple[bytes, str]] = {}
        self._ends: dict[int, int] = {}

    def judge(self, record: Record) -> Copy:
        """The copy of the release for one record of the request topic: where it goes, and what."""
        self.decided += 1
        claims = _claims(record)
        where = {"epoch": self.epoch, "partition": record.partition, "offset": record.offset}
        if claims is None or claims["jti"] in self._proofs:
            code = Code.PROOF_MISSING if claims is None else Code.PROOF_REPLAYED
            return self._copy(record, _release(record, code, release_id=release_id(**where)), None)
        self._proofs.add(claims["jti"])
        request, service = read_request(record), claims["iss"]
        name = (record.partition, service, request.request_id)
        digest = source_digest(record.key, record.value)
        first = self._first.get(name)
        code, text, duplicate_of = Code.OK, request.messages[-1].content, None
        refused = self.reason_to_refuse(record)
        if refused is not None:
            code, text = refused, None
        elif first is None:
            self._first[name] = (digest, decision_id(**where))
        elif first[0] == digest:
            code, text, duplicate_of = Code.DUPLICATE_OF, None, first[1]
        else:
            code, text = Code.REQUEST_ID_REUSED, None
        release = _release(record, code, release_id=release_id(**where))
        release = replace(
            release,
            request_id=request.request_id,
            decision_id=decision_id(**where),
            duplicate_of=duplicate_of,
            actor=entity_uid("Service", service),
            principal=(record.key or b"").decode(),
            text=text,
        )
        self.answered.setdefault((service, request.request_id), []).append(release)
        return self._copy(record, release, service)

    def _copy(self, record: Record, release: ReleaseMade, service: str | None) -> Copy:
        topic = self.topology.refusals if service is None else self.topology.reply(service)
        return topic, record.partition, self.seal(release, record.partition)

    def seal(self, release: ReleaseMade, partition: int, *, private: Ed25519PrivateKey = PRIVATE) -> Unsent:
        """The release as the redactor seals it for the next place of `releases`; or a rogue, with its own key."""
        at = self._ends.get(partition, 0)
        self._ends[partition] = at + 1
        [sealed] = seal_slice(
            [Unsent(key=None, value=codec.encode(release))],
            place=self.topology.place(REDACTOR, env=self.env, epoch=self.epoch, partition=partition),
            at=at,
            source_first=at,
            source_last=at,
            time_ms=1,
            policy_position=1,
            signer=Signer(key_id=KEY.key_id, private=private),
        )
        return sealed


def _claims(record: Record) -> dict[str, str] | None:
    proof = record.header("sg-proof")
    return None if proof is None else json.loads(decode_base64url(proof.split(b".")[1]))


def _release(record: Record, code: Code, *, release_id: str) -> ReleaseMade:
    meaning = MEANINGS[code]
    return ReleaseMade(
        release_id=release_id,
        source=Source(offset=record.offset, count=1, digest=b"", timestamp_ms=0),
        outcome=meaning.outcome,
        code=code,
        retryable=meaning.retryable,
        retry_after_ms=meaning.retry_after_ms,
        request_offset=record.offset,
        reason=None if code is Code.OK else meaning.text,
    )
