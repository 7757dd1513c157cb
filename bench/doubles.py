"""Two checks of the enforcer, taken out for one process of the bench: what they cost is what then falls away.

The product has no setting for either. They are replaced from outside, in the code that calls them, so that all around
them is the product's own; where a name is gone, `mock.patch` raises.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from unittest import mock

from bench.traffic import SERVICE
from sluicegate.enforcer.credentials import Credentials
from sluicegate.enforcer.seal import Effective, Place, Signer, StageKey, Verifier, Void
from sluicegate.enforcer.seen import SeenProofs
from sluicegate.installation import ISSUER
from sluicegate.schemas.events import Identity, SliceStatement
from sluicegate.schemas.ids import KeyId, entity_uid
from sluicegate.schemas.records import Record, Unsent


def without_proof() -> AbstractContextManager[object]:
    """The gate believes the record key. Identities are as long as proved ones, so decisions are as large."""
    return mock.patch("sluicegate.enforcer.gate.prove", _believe)


def _believe(
    record: Record,
    *,
    audience: str,  # noqa: ARG001 - the signature of `identity.prove`
    partition_count: int,  # noqa: ARG001
    time_ms: int,
    credentials: Credentials,  # noqa: ARG001
    seen: SeenProofs,  # noqa: ARG001
) -> Identity:
    return Identity(
        principal=(record.key or b"").decode(),
        actor=entity_uid("Service", SERVICE),
        proof_issuer=SERVICE,
        proof_id=f"{record.offset:022d}",
        proof_issued_at_s=time_ms // 1000,
        proof_key_id="service-0123456789abcdef",
        token_issuer=ISSUER,
        token_key_id="issuer-0123456789abcdef",
        token_expires_at_s=time_ms // 1000 + 600,
    )


class Unsealed:
    """Slices without a tree, a signature or headers; their statements stay in memory, for this process alone."""

    def __init__(self) -> None:
        self._statements: dict[int, SliceStatement] = {}

    def patched(self) -> AbstractContextManager[object]:
        """The lanes of this process seal nothing. Their verifiers MUST be this object's."""
        return mock.patch("sluicegate.streams.lane.seal_slice", self._seal)

    def _seal(
        self,
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
        self._statements[place.partition] = SliceStatement(
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
            root=b"",
        )
        return tuple(records)

    def verifier(self, place: Place, keys: Callable[[], Mapping[KeyId, StageKey]]) -> Verifier:
        """Takes every record of the slice made last for the real thing where it stands where it should."""
        statements = self._statements

        class Believing(Verifier):
            def verify(self, record: Record) -> Effective | Void:
                statement = statements[record.partition]
                if not 0 <= record.offset - statement.at < statement.count:
                    return Void(record=record, reason="stands elsewhere")
                return Effective(record=record, statement=statement)

        return Believing(place, keys)
