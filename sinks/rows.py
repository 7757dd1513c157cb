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

from sluicegate.schemas.codec import confluent_id, decode, schema_of
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
from sluicegate.schemas.reading import CONTENT_TYPE, read_request, read_request_value
from sluicegate.schemas.records import Record
from sluicegate.schemas.shadow_events import Said, ShadowDecided

# An access token is a credential for as long as it lives; the spent proof is worth nothing any more and stays.
DROPPED_HEADERS: Final = frozenset({"sg-token"})
DIRECTORY: Final = "DIRECTORY"
CONTENT_TYPES: Final = f"arrayMap(h -> h.value, arrayFilter(h -> lower(h.name) = '{CONTENT_TYPE}', headers))"
"""SQL over a row of `requests`: the values of its content types."""
Columns = dict[str, object]
SchemaIds = Mapping[int, str]


class Table(StrEnum):
    """The tables of the audit: one for each topic of a tenant."""

    REQUESTS = "requests"
    DECISIONS = "decisions"
    GENERATIONS = "generations"
    RELEASES = "releases"
    POLICY = "policy"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Landing:
    """A record on its way into the audit, and whether it counts, as the caller verified it. For a hole in the log: a
    record without key and value, not effective. Requests and policy records carry no slice seal: there it means
    accepted.
    """

    record: Record
    effective: bool
    void_reason: str | None = None


def row_of(table: Table, epoch: int, landing: Landing, ids: SchemaIds | None = None) -> Columns:
    """The columns of the row for `landing`; typed columns are missing where the value cannot be read. `ids`: which
    schema a registry knows under which id.
    """
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
        columns |= _TYPED[table](record, ids or {})
    except CodecError as error:
        columns["undecodable"] = str(error)
        if table is Table.POLICY:
            columns |= {"metadata": b"", "content": b""}  # a column is all bytes or all text
    return columns


def stored_ids(value: bytes, schema: object) -> SchemaIds:
    """The ids that read `value` of a row whose column `schema` holds `schema`: an audit is read without a registry."""
    found = confluent_id(value)
    return {} if found is None or not schema else {found: str(schema)}


def stored_request(value: bytes, schema: object, types: object) -> RequestSubmitted:
    """The request of a row: its columns `value` and `schema`, and what `CONTENT_TYPES` selects.

    Raises:
        CodecError: as `read_request`.
    """
    texts = types if isinstance(types, list | tuple) else ()
    return read_request_value(value, [str(each).encode() for each in texts], stored_ids(value, schema))


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


def _request(record: Record, ids: SchemaIds) -> Columns:
    event = read_request(record, ids)
    plain = _plain(event)
    del plain["parameters"]
    return plain | _plain(event.parameters) | {"schema": schema_of(record.value, ids)}


def _decision(record: Record, ids: SchemaIds) -> Columns:
    event = decode(record.value, DecisionMade, ids=ids)
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


def _generation(record: Record, ids: SchemaIds) -> Columns:
    event = decode(record.value, GenerationFinished, ids=ids)
    plain = _plain(event)
    for group in ("source", "window", "run"):
        del plain[group]
    plain |= _source(event.source)
    plain |= {"window_first": event.window.first, "window_size": event.window.size, "ran": event.run is not None}
    return plain if event.run is None else plain | _plain(event.run)


def _release(record: Record, ids: SchemaIds) -> Columns:
    event = decode(record.value, ReleaseMade, ids=ids)
    plain = _plain(event)
    del plain["source"]
    return plain | _source(event.source) | {"schema": schema_of(record.value, ids)}


def _policy(record: Record, ids: SchemaIds) -> Columns:
    """Two kinds of event share the policy log; the fingerprint in front says which one stands here."""
    try:
        event: PolicyPublished | DirectoryChanged = decode(record.value, PolicyPublished, ids=ids)
        kind = str(event.kind) if isinstance(event, PolicyPublished) else DIRECTORY
    except CodecError as error:
        try:
            event, kind = decode(record.value, DirectoryChanged, ids=ids), DIRECTORY
        except CodecError:
            raise error from None
    return {
        "kind": kind,
        "version": event.version,
        "metadata": event.metadata,
        "content": event.content,
        "content_digest": "sha256:" + sha256(event.content).hexdigest(),
    }


def _shadow(record: Record, ids: SchemaIds) -> Columns:
    event = decode(record.value, ShadowDecided, ids=ids)
    plain = _plain(event)
    for group in ("source", "time_ms", "active", "shadow"):
        del plain[group]
    plain |= _source(event.source) | {"time": event.time_ms, "difference": plain["difference"] or ""}
    return plain | _said("active", event.active) | _said("shadow", event.shadow)


def _said(who: str, said: Said | None) -> Columns:
    return {} if said is None else {f"{who}_{name}": value for name, value in _plain(said).items()}


_TYPED: Final[Mapping[Table, Callable[[Record, SchemaIds], Columns]]] = {
    Table.REQUESTS: _request,
    Table.DECISIONS: _decision,
    Table.GENERATIONS: _generation,
    Table.RELEASES: _release,
    Table.POLICY: _policy,
    Table.SHADOW: _shadow,
}
