"""A record of a log goes in, the row that keeps it comes out; the only place that says which column holds what.

Every row keeps the bytes as they were received; the typed columns are read from them. A record that cannot be read
lands whole all the same, with the reason and empty typed columns.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final

import msgspec

from sluicegate.schemas.codec import decode
from sluicegate.schemas.errors import CodecError
from sluicegate.schemas.events import (
    DecisionMade,
    DirectoryChanged,
    GenerationFinished,
    PolicyPublished,
    ReleaseMade,
    RequestSubmitted,
    Source,
)
from sluicegate.schemas.records import Record

# An access token is a credential for as long as it lives; the spent proof is worth nothing any more and stays.
DROPPED_HEADERS: Final = frozenset({"sg-token"})
DIRECTORY: Final = "DIRECTORY"
Columns = dict[str, object]


class Table(StrEnum):
    """The tables of the audit: one for each topic of a tenant."""

    REQUESTS = "requests"
    DECISIONS = "decisions"
    GENERATIONS = "generations"
    RELEASES = "releases"
    POLICY = "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Landing:
    """A record on its way into the audit, and whether it counts, as the caller verified it. For a hole in the log: a
    record without key and value, not effective. Requests and policy records carry no slice seal: there it means
    accepted.
    """

    record: Record
    effective: bool
    void_reason: str | None = None


def row_of(table: Table, epoch: int, landing: Landing) -> Columns:
    """The columns of the row for `landing`; typed columns are missing where the value cannot be read."""
    record = landing.record
    columns: Columns = {
        "epoch": epoch,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp_ms,
        "key": record.key,
        "value": record.value,
        "headers": [
            (name.encode("utf-8", "surrogateescape"), value or b"")
            for name, value in record.headers
            if name.lower() not in DROPPED_HEADERS
        ],
        "effective": int(landing.effective),
        "void_reason": landing.void_reason,
        "undecodable": None,
    }
    try:
        columns |= _TYPED[table](record.value)
    except CodecError as error:
        columns["undecodable"] = str(error)
        if table is Table.POLICY:
            columns |= {"metadata": b"", "content": b""}  # a column is all bytes or all text
    return columns


def _plain(event: object) -> Columns:
    """The event's fields as lists, mappings and scalars."""
    plain: Columns = msgspec.to_builtins(event, builtin_types=(bytes,))
    return plain


def _source(source: Source) -> Columns:
    return {
        "source_offset": source.offset,
        "source_count": source.count,
        "source_digest": source.digest.hex(),
        "source_time": source.timestamp_ms,
    }


def _request(value: bytes | None) -> Columns:
    event = decode(value, RequestSubmitted)
    plain = _plain(event)
    del plain["parameters"]
    return plain | _plain(event.parameters)


def _decision(value: bytes | None) -> Columns:
    event = decode(value, DecisionMade)
    plain = _plain(event)
    for group in ("source", "time_ms", "identity", "policy", "granted"):
        del plain[group]
    plain |= _source(event.source)
    plain |= {"time": event.time_ms, "granted": [] if event.granted is None else [_plain(event.granted)]}
    identity, policy = event.identity, event.policy
    if identity is not None:
        plain |= {
            "principal": identity.principal,
            "actor": identity.actor,
            "proof_issuer": identity.proof_issuer,
            "proof_id": identity.proof_id,
            "proof_issued_at": identity.proof_issued_at_s,
            "proof_key_id": identity.proof_key_id,
            "token_issuer": identity.token_issuer,
            "token_key_id": identity.token_key_id,
            "token_expires_at": identity.token_expires_at_s,
        }
    if policy is not None:
        plain |= _plain(policy)
        plain["policy_position"] = plain.pop("position")
    return plain


def _generation(value: bytes | None) -> Columns:
    event = decode(value, GenerationFinished)
    plain = _plain(event)
    for group in ("source", "window", "run"):
        del plain[group]
    plain |= _source(event.source)
    plain |= {"window_first": event.window.first, "window_size": event.window.size, "ran": event.run is not None}
    return plain if event.run is None else plain | _plain(event.run)


def _release(value: bytes | None) -> Columns:
    event = decode(value, ReleaseMade)
    plain = _plain(event)
    del plain["source"]
    return plain | _source(event.source)


def _policy(value: bytes | None) -> Columns:
    """Two kinds of event share the policy log; the fingerprint in front says which one stands here."""
    try:
        event: PolicyPublished | DirectoryChanged = decode(value, PolicyPublished)
        kind = str(event.kind) if isinstance(event, PolicyPublished) else DIRECTORY
    except CodecError as error:
        try:
            event, kind = decode(value, DirectoryChanged), DIRECTORY
        except CodecError:
            raise error from None
    return {
        "kind": kind,
        "version": event.version,
        "metadata": event.metadata,
        "content": event.content,
        "content_digest": "sha256:" + sha256(event.content).hexdigest(),
    }


_TYPED: Final[Mapping[Table, Callable[[bytes | None], Columns]]] = {
    Table.REQUESTS: _request,
    Table.DECISIONS: _decision,
    Table.GENERATIONS: _generation,
    Table.RELEASES: _release,
    Table.POLICY: _policy,
}
