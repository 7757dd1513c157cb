"""The name of a request goes in, its whole story comes out as the events themselves; the only place that gathers them.

A request is named by its request id, its decision id, or the number at the end of its request id (`5` for
`demo-05`).
"""

import re
from dataclasses import dataclass
from typing import Final, TypeVar

from sluicegate.schemas.codec import decode
from sluicegate.schemas.errors import CodecError, SluicegateError
from sluicegate.schemas.events import DecisionMade, Event, GenerationFinished, ReleaseMade, RequestSubmitted
from sluicegate.schemas.ids import EventKey
from sluicegate.sinks.auditor import Auditor, literal
from sluicegate.sinks.rows import CONTENT_TYPES, Table, stored_ids, stored_request

_DECISION_ID: Final = re.compile(r"d\d+-\d+-\d+")
_NUMBER: Final = re.compile(r"\d{1,18}")
_NAMED_MAX: Final = 10
E_ = TypeVar("E_", bound=Event)


class NoSuchRequest(SluicegateError):
    """No request, or more than one, goes by this name; ask by another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """The effective events of one request, each with its event key; None where there is none (yet) or none to read.

    `roles` are those of the principal in the directory that decided.
    """

    decision: DecisionMade
    decision_key: EventKey
    request_key: EventKey
    request: RequestSubmitted | None = None
    unreadable: str | None = None
    generation: GenerationFinished | None = None
    generation_key: EventKey | None = None
    release: ReleaseMade | None = None
    release_key: EventKey | None = None
    roles: tuple[str, ...] = ()


def story(auditor: Auditor, name: str) -> Story:
    """The story of the request called `name`. Of several decisions on one id, the first that is not a duplicate's.

    Raises:
        NoSuchRequest: nothing goes by that name, or requests with different ids do.
        QuestionRefused, Unavailable: as `Auditor.sql`.
    """
    epoch, partition, offset, source_offset, topic = _find(auditor, name.strip())
    decision_key = EventKey(epoch=epoch, topic=topic, partition=partition, offset=offset)
    decision = decode(_value(auditor, Table.DECISIONS, decision_key), DecisionMade)
    request, request_key, unreadable = _request(auditor, epoch, partition, source_offset)
    generation, generation_key = _answer(auditor, Table.GENERATIONS, decision_key, GenerationFinished)
    release, release_key = None, None
    if generation_key is not None:
        release, release_key = _answer(auditor, Table.RELEASES, generation_key, ReleaseMade)
    return Story(
        decision=decision,
        decision_key=decision_key,
        request=request,
        request_key=request_key,
        unreadable=unreadable,
        generation=generation,
        generation_key=generation_key,
        release=release,
        release_key=release_key,
        roles=_roles(auditor, decision, decision_key.epoch),
    )


def _find(auditor: Auditor, name: str) -> tuple[int, int, int, int, str]:
    """Where the decision that is meant stands: epoch, partition, offset, offset of the request, topic."""
    if _DECISION_ID.fullmatch(name):
        condition = f"decision_id = {literal(name)}"
    elif _NUMBER.fullmatch(name):
        ending = f"toUInt64OrNull(extract(ifNull(request_id, ''), '([0-9]{{1,18}})$')) = {int(name)}"
        condition = f"(request_id = {literal(name)} OR {ending})"
    else:
        condition = f"request_id = {literal(name)}"
    found = auditor.sql(
        "SELECT epoch, partition, offset, source_offset, topic, request_id, "  # noqa: S608
        "code IN ('DUPLICATE_OF', 'REQUEST_ID_REUSED') AS again "
        f"FROM decisions WHERE effective = 1 AND {condition} ORDER BY again, epoch DESC, partition, offset LIMIT 1000"
    ).rows
    if not found:
        raise NoSuchRequest(f"no request `{name}` in the audit; give its request id, decision id or number")
    ids = sorted({str(row[5]) for row in found})
    if name not in ids and len(ids) > 1:
        shown = ", ".join(ids[:_NAMED_MAX]) + (", ..." if len(ids) > _NAMED_MAX else "")
        raise NoSuchRequest(f"several requests end in `{name}` ({shown}); give the whole request id")
    first = next(row for row in found if row[5] == name) if name in ids else found[0]
    epoch, partition, offset, source_offset, topic = first[:5]
    return _number(epoch), _number(partition), _number(offset), _number(source_offset), str(topic)


def _value(auditor: Auditor, table: Table, key: EventKey) -> bytes:
    found = auditor.sql(f"SELECT hex(value) FROM {table} WHERE {_at(key)}").rows  # noqa: S608
    return bytes.fromhex(str(found[0][0]))


def _at(key: EventKey) -> str:
    place = f"epoch = {key.epoch} AND partition = {key.partition} AND offset = {key.offset}"
    return f"{place} AND topic = {literal(key.topic)}"


def _request(
    auditor: Auditor, epoch: int, partition: int, offset: int
) -> tuple[RequestSubmitted | None, EventKey, str | None]:
    found = auditor.sql(
        f"SELECT topic, undecodable, hex(value), schema, {CONTENT_TYPES} FROM requests WHERE epoch = {epoch} "  # noqa: S608
        f"AND partition = {partition} AND offset = {offset}"
    ).rows
    if not found:
        missing = EventKey(epoch=epoch, topic="", partition=partition, offset=offset)
        return None, missing, "the audit does not hold the request"
    topic, undecodable, value, schema, types = found[0]
    key = EventKey(epoch=epoch, topic=str(topic), partition=partition, offset=offset)
    if undecodable is not None or value is None:
        return None, key, str(undecodable)
    return stored_request(bytes.fromhex(str(value)), schema, types), key, None


def _answer(auditor: Auditor, table: Table, source: EventKey, kind: type[E_]) -> tuple[E_ | None, EventKey | None]:
    """The effective record of `table` that answers the record at `source`."""
    schema = ", schema" if table is Table.RELEASES else ", ''"
    found = auditor.sql(
        f"SELECT offset, topic, hex(value){schema} FROM {table} WHERE effective = 1 AND epoch = {source.epoch} "  # noqa: S608
        f"AND partition = {source.partition} AND source_offset = {source.offset} AND undecodable IS NULL "
        "ORDER BY offset LIMIT 1"
    ).rows
    if not found:
        return None, None
    offset, topic, value, name = found[0]
    key = EventKey(epoch=source.epoch, topic=str(topic), partition=source.partition, offset=_number(offset))
    try:
        data = bytes.fromhex(str(value))
        return decode(data, kind, ids=stored_ids(data, name)), key
    except CodecError:
        return None, key


def _roles(auditor: Auditor, decision: DecisionMade, epoch: int) -> tuple[str, ...]:
    if decision.identity is None or decision.policy is None:
        return ()
    version = decision.policy.directory_version
    found = auditor.sql(
        f"SELECT roles FROM roles WHERE epoch = {epoch} AND from_version <= {version} AND until_version > {version} "  # noqa: S608
        f"AND principal = {literal(decision.identity.principal)} LIMIT 1"
    ).rows
    roles = found[0][0] if found else []
    return tuple(str(role) for role in roles) if isinstance(roles, list) else ()


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError("the audit keeps places in the log as whole numbers")
    return value
