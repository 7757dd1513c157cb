"""Seals: a stage's signature over a slice of records and the one place in the log they may stand; made and verified
only here.

DSSE pre-authentication encoding (github.com/secure-systems-lab/dsse, protocol.md) over a `SliceStatement`; Ed25519
(RFC 8032);
RFC 6962 root over the records. A record is *effective* when its seal verifies and `at` + its index is the offset it
stands at.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sluicegate.enforcer import tree
from sluicegate.schemas import codec
from sluicegate.schemas.errors import CodecError, ConfigurationError
from sluicegate.schemas.events import SliceSeal, SliceStatement
from sluicegate.schemas.ids import KeyId
from sluicegate.schemas.records import Record, Unsent

SEAL_HEADER = "sg-seal"
SLICE_RECORDS_MAX = 512
SEAL_BYTES_MAX = 1_000
"""Upper bound of what a seal adds to a record: its statement with names as long as they come, a signature, a path."""
VERIFIED_SLICES_KEPT = 256
KEY_UNKNOWN = "key is not the writing stage's"
"""Why a record is void whose key the policy state does not hold, or does not hold yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageKey:
    """A stage's public key as the policy log admitted it; sealing counts from `not_before_ms` until `revoked_at_ms`
    (T).
    """

    key_id: KeyId
    stage: str
    public: Ed25519PublicKey
    not_before_ms: int
    revoked_at_ms: int | None


class SigningKey(Protocol):
    """The port for a private key, wherever it is: in memory (an `Ed25519PrivateKey` is one), in a KMS or an HSM.

    For the implementer: `sign` is called from the event loop and MUST return or raise within a second, or heartbeats
    starve; it MUST raise `Unavailable` when the key is out of reach for now, and the caller MUST then try again.
    """

    def sign(self, data: bytes, /) -> bytes:
        """The signature over the bytes as they are: 64 bytes, of RFC 8032 for Ed25519, r and s for ES256."""

    def public_key(self) -> Ed25519PublicKey | EllipticCurvePublicKey:
        """The public half. Seals take Ed25519 alone, proofs both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A stage's private key (Ed25519) with the id under which the policy log admits it."""

    key_id: KeyId
    private: SigningKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One partition of one sealed topic: what a seal must name. `event` is the payload type, `stage` the only
    writer.
    """

    env: str
    tenant: str
    epoch: int
    topic: str
    partition: int
    event: str
    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """A record whose seal verifies and which stands where it was sealed for."""

    record: Record
    statement: SliceStatement


@dataclass(frozen=True, slots=True, kw_only=True)
class Void:
    """A record that has no effect, and why."""

    record: Record
    reason: str


def without_effect(void: Void, *, signer: Signer, stage: str) -> ConfigurationError:
    """What a writer raises whose own slice stands where it was sealed for and still does not count."""
    return ConfigurationError(
        f"what this stage seals has no effect ({void.reason}): its key `{signer.key_id}` is revoked or not admitted; "
        f"run `sluicegate keys new stage {stage}`, then `sluicegate publish`, and start it again"
    )


def source_digest(key: bytes | None, value: bytes | None) -> bytes:
    """SHA-256 over key and value, each behind its length (8 bytes, big-endian; all ones for null)."""
    return sha256(_framed(key) + _framed(value)).digest()


def _framed(part: bytes | None) -> bytes:
    return b"\xff" * 8 if part is None else len(part).to_bytes(8, "big") + part


def _leaf(key: bytes | None, value: bytes | None) -> bytes:
    return tree.leaf_hash(_framed(key) + _framed(value))


def pre_authentication_encoding(event: str, statement: bytes) -> bytes:
    """DSSE's PAE of a statement under the payload type `application/vnd.sluicegate.<event>.v1`."""
    kind = f"application/vnd.sluicegate.{event}.v1".encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(statement), statement)


def seal_slice(
    records: Sequence[Unsent],
    *,
    place: Place,
    at: int,
    source_first: int,
    source_last: int,
    time_ms: int,
    policy_position: int,
    signer: Signer,
) -> tuple[Unsent, ...]:
    """The records with their seals, to be appended as one batch that must land at offset `at`.

    Raises:
        ValueError: no record, more than `SLICE_RECORDS_MAX`, or a record that carries a seal already.
    """
    if not 0 < len(records) <= SLICE_RECORDS_MAX:
        raise ValueError(f"a slice holds 1 to {SLICE_RECORDS_MAX} records, not {len(records)}")
    if any(name == SEAL_HEADER for record in records for name, _ in record.headers):
        raise ValueError("a record is sealed once")
    built = tree.levels([_leaf(record.key, record.value) for record in records])
    statement = codec.encode(
        SliceStatement(
            env=place.env,
            tenant=place.tenant,
            epoch=place.epoch,
            topic=place.topic,
            partition=place.partition,
            at=at,
            count=len(records),
            source_first=source_first,
            source_last=source_last,
            time_ms=time_ms,
            policy_position=policy_position,
            key_id=signer.key_id,
            root=built[-1][0],
        )
    )
    signature = signer.private.sign(pre_authentication_encoding(place.event, statement))
    return tuple(
        Unsent(
            key=record.key,
            value=record.value,
            headers=(
                *record.headers,
                (
                    SEAL_HEADER,
                    codec.encode(
                        SliceSeal(statement=statement, signature=signature, index=index, path=tree.path(built, index))
                    ),
                ),
            ),
        )
        for index, record in enumerate(records)
    )


def as_landed(sealed: Sequence[Unsent], *, place: Place, base: int) -> tuple[Record, ...]:
    """The records as a reader will find them once the broker acknowledged the batch at offset `base` (stamps
    unknown: 0).
    """
    return tuple(
        Record(
            topic=place.topic,
            partition=place.partition,
            offset=base + index,
            timestamp_ms=0,
            key=record.key,
            value=record.value,
            headers=record.headers,
        )
        for index, record in enumerate(sealed)
    )


class Verifier:
    """Tells effective records of one place from void ones; one signature check a slice, kept for its other records.

    `keys` returns the stage keys admitted now; it is asked for every record, so a revoked key counts at once.
    """

    def __init__(self, place: Place, keys: Callable[[], Mapping[KeyId, StageKey]]) -> None:
        self.place = place
        self._keys = keys
        self._verified: OrderedDict[tuple[bytes, bytes, bytes], None] = OrderedDict()
        self._decoded: tuple[bytes, SliceStatement] | None = None

    def verify(self, record: Record) -> Effective | Void:
        """The cheap checks come first, so that a flood of foreign records costs no signature check.

        1 one seal header that decodes; 2 sealed place and position; 3 key of the writing stage, in force at the
        sealed T;
        4 signature over the bytes received; 5 path of the bytes received.
        """
        # 1
        opened = self._opened(record)
        return opened if isinstance(opened, Void) else self._checked(record, *opened)

    def verify_copy(self, copy: Record) -> Effective | Void:
        """See the function of this name."""
        opened = self._opened(copy)
        if isinstance(opened, Void):
            return opened
        seal, statement = opened
        original = replace(copy, topic=self.place.topic, offset=statement.at + seal.index)
        return self._checked(original, seal, statement)

    def _opened(self, record: Record) -> tuple[SliceSeal, SliceStatement] | Void:
        header = record.header(SEAL_HEADER)
        if header is None:
            return Void(record=record, reason="no seal")
        try:
            seal = codec.decode(header, SliceSeal)
            return seal, self._statement(seal.statement)
        except CodecError:
            return Void(record=record, reason="unreadable seal")

    def _checked(self, record: Record, seal: SliceSeal, statement: SliceStatement) -> Effective | Void:
        # 2
        place = self.place
        sealed_for = (statement.env, statement.tenant, statement.epoch, statement.topic, statement.partition)
        if sealed_for != (place.env, place.tenant, place.epoch, place.topic, place.partition):
            return Void(record=record, reason="sealed for another place")
        if (record.topic, record.partition) != (place.topic, place.partition):
            return Void(record=record, reason="read from another place")
        if not 0 <= seal.index < statement.count <= SLICE_RECORDS_MAX:
            return Void(record=record, reason="sealed index outside its slice")
        if statement.at + seal.index != record.offset:
            return Void(record=record, reason="sealed for another offset")
        # 3
        key = self._keys().get(KeyId(statement.key_id))
        if key is None or key.stage != place.stage:
            return Void(record=record, reason=KEY_UNKNOWN)
        revoked = key.revoked_at_ms is not None and statement.time_ms >= key.revoked_at_ms
        if revoked or statement.time_ms < key.not_before_ms:
            return Void(record=record, reason="key is not in force")
        # 4
        if not self._signature_holds(key.public, seal):
            return Void(record=record, reason="signature does not verify")
        # 5
        leaf = _leaf(record.key, record.value)
        if tree.root_of_path(leaf, index=seal.index, count=statement.count, siblings=seal.path) != statement.root:
            return Void(record=record, reason="bytes are not those sealed")
        return Effective(record=record, statement=statement)

    def vouches(self, effective: Effective) -> bool:
        """Whether nobody but an honest writer can have sealed this: its key was not revoked since. What a revoked key
        seals today may carry any event time before its end, so it says nothing of where in the log that time was.
        """
        key = self._keys().get(KeyId(effective.statement.key_id))
        return key is not None and key.revoked_at_ms is None

    def _statement(self, encoded: bytes) -> SliceStatement:
        """Decoded once a slice: its records follow each other and carry the same bytes."""
        if self._decoded is None or self._decoded[0] != encoded:
            self._decoded = (encoded, codec.decode(encoded, SliceStatement))
        return self._decoded[1]

    def _signature_holds(self, public: Ed25519PublicKey, seal: SliceSeal) -> bool:
        name = (public.public_bytes_raw(), seal.signature, sha256(seal.statement).digest())
        if name in self._verified:
            self._verified.move_to_end(name)
            return True
        try:
            public.verify(seal.signature, pre_authentication_encoding(self.place.event, seal.statement))
        except InvalidSignature:
            return False
        self._verified[name] = None
        if len(self._verified) > VERIFIED_SLICES_KEPT:
            self._verified.popitem(last=False)
        return True


def verify_copy(verifier: Verifier, copy: Record) -> Effective | Void:
    """Whether a record of another topic is, byte for byte, one that was sealed for the verifier's place.

    An `Effective` holds the record at the offset that its seal names, not where the copy stands. The copy must stand on
    the partition that it was sealed for. That the original landed there is the writer's word, not proved by the copy.
    """
    verdict = verifier.verify_copy(copy)
    return verdict if isinstance(verdict, Effective) else Void(record=copy, reason=verdict.reason)
