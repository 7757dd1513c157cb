"""A clause that stands in the way and a situation go in, the steps that might change it come out; the only place that
says what of a request, of a person or of a carrier could be otherwise.

A step changes one thing: how it is asked (purpose, time, model, carrier, parameters, who), or one attribute or one
membership of the principal or the carrier. What is asked about, fields and models, is never classed anew: that would
open it for everybody. Whether a step helps the engine says, not this module.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Final, Literal

from sluicegate.enforcer.access import Rules
from sluicegate.enforcer.directory import split_uid
from sluicegate.policy.cases import Asked
from sluicegate.policy.situation import with_entity
from sluicegate.policy.tree import Expression, Question, literals, paths
from sluicegate.policy.values import Absent, ancestors, reference, steps_of, uids_in, value_at
from sluicegate.schemas.events import RequestSubmitted
from sluicegate.schemas.ids import EntityUid, entity_uid

HOURS_OF_A_WEEK: Final = 168
CANDIDATES_MAX: Final = 32  # of one kind for one clause
_HOUR_MS: Final = 3_600_000


Taken = Callable[[Asked, Rules], Asked]
"""What is asked after a step; the rules are those with what is put so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One thing that is otherwise: of the request, of the directory, or who asks; in words, and as a change."""

    of: Literal["request", "directory", "requester"]
    text: str
    take: Taken


Steps = Sequence[Edit]
"""Alternatives in order of nearness: the first that helps is the one to take."""


def edits(part: Expression, asked: Asked, question: Question, rules: Rules) -> Iterator[Steps]:
    """What might change whether `part` holds for the question; `rules` are those with `asked.put`."""
    read = paths(part)
    around = (*(entity_uid(*each) for each in literals(part)), *_seen(read, question, rules))
    named = tuple(dict.fromkeys(around))[:CANDIDATES_MAX]
    for path in read:
        yield from _of_request(path, part, asked, question, rules)
    for path in read:
        yield from _of_directory(path, part, asked, question, rules, named)


def _seen(read: Sequence[str], question: Question, rules: Rules) -> Iterator[EntityUid]:
    """Every entity that stands at one of the paths, and what the principal is in."""
    for path in read:
        value = value_at(path, question, rules)
        if not isinstance(value, Absent) and path != "context":
            yield from uids_in(value)
    if "principal" in read:
        yield from ancestors(EntityUid(question.principal), rules)


def _of_request(path: str, part: Expression, asked: Asked, question: Question, rules: Rules) -> Iterator[Steps]:
    """Steps that need nobody's leave but the requester's."""
    request = asked.request
    match steps_of(path):
        case ("context", "purpose"):
            for name in sorted(rules.bundle.enums.get("Purpose", frozenset()) - {request.purpose}):
                yield [_request(f"ask for the purpose `{name}`", partial(replace, purpose=name))]
        case ("context", "clock", *what):
            yield _times(asked, weekday="weekday" in what or not what)
        case ("context", "asked", "outputTokens"):
            now = request.parameters.max_tokens
            wanted = {each + step for each in numbers(part) for step in (-1, 0, 1)} - {now}
            yield [
                _request(f"ask for {count} tokens", partial(_with_tokens, count=count))
                for count in sorted(wanted, key=lambda each: (abs(each - (now or each)), each))
                if count > 0
            ]
        case ("context", "asked", "stream"):
            stream = not request.parameters.stream
            text = f"ask {'with' if stream else 'without'} stream"
            yield [_request(text, partial(_with_stream, stream=stream))]
        case ("context", "via", *_):
            for name in _ids("Service", rules):
                if asked.actor != asked.principal and ("Service", name) != asked.actor:
                    text = f"let the service `{name}` carry it"
                    yield [Edit(of="request", text=text, take=partial(_by, actor=("Service", name)))]
        case ("resource", *_) | ("context", "model", *_):
            if path != "resource" or question.resource.startswith('Model::"'):
                for name in _ids("Model", rules):
                    if name != request.model:
                        yield [_request(f"ask the model `{name}`", partial(replace, model=name))]
        case _:
            return


def _of_directory(
    path: str, part: Expression, asked: Asked, question: Question, rules: Rules, named: Sequence[EntityUid]
) -> Iterator[Steps]:
    """Steps that whoever keeps the directory would take."""
    match steps_of(path):
        case ("principal",):
            yield from _memberships(EntityUid(question.principal), rules, named)
            for uid in named:
                kind, name = split_uid(uid)
                if rules.directory.has(uid) and kind in {"User", "Service"} and (kind, name) != asked.principal:
                    actor = (kind, name) if kind == "Service" else asked.actor
                    take = partial(_by, principal=(kind, name), actor=actor)
                    yield [Edit(of="requester", text=f"ask as {uid}", take=take)]
        case ("principal", name):
            yield from _attribute(EntityUid(question.principal), name, part, rules, named)
        case ("context", "via", name):
            yield from _attribute(entity_uid(*asked.actor), name, part, rules, named)
        case _:
            return


def _memberships(uid: EntityUid, rules: Rules, named: Sequence[EntityUid]) -> Iterator[Steps]:
    entry = rules.directory.entries.get(uid)
    for other in named if entry is not None else ():
        kind, name = split_uid(other)
        take = partial(_turned, uid=uid, member="parents", name=None, value={"type": kind, "id": name})
        if entry is not None and other in entry.parents:
            yield [Edit(of="directory", text=f"take {uid} out of {other}", take=take)]
        elif split_uid(uid)[0] != kind:
            yield [Edit(of="directory", text=f"put {uid} into {other}", take=take)]


def _attribute(
    uid: EntityUid, name: str, part: Expression, rules: Rules, named: Sequence[EntityUid]
) -> Iterator[Steps]:
    entry = rules.directory.entries.get(uid)
    value = None if entry is None else json.loads(entry.text)["attrs"].get(name)
    take = partial(_turned, uid=uid, member="attrs", name=name)
    if isinstance(value, bool):
        text = f"set `{name}` of {uid} to {str(not value).lower()}"
        yield [Edit(of="directory", text=text, take=partial(take, value=not value))]
    elif isinstance(value, int):
        for number in sorted({each + step for each in numbers(part) for step in (-1, 0, 1)} - {value}):
            text = f"set `{name}` of {uid} to {number}"
            yield [Edit(of="directory", text=text, take=partial(take, value=number))]
    elif isinstance(value, list):
        for other in named:
            one = reference(other)
            text = f"take {other} out of `{name}` of {uid}" if one in value else f"add {other} to `{name}` of {uid}"
            yield [Edit(of="directory", text=text, take=partial(take, value=one))]


def _turned(asked: Asked, rules: Rules, *, uid: EntityUid, member: str, name: str | None, value: object) -> Asked:
    """The entity with another value; a list is given the value, or loses it where it holds it."""
    entity = json.loads(rules.directory.entries[uid].text)
    holder, key = (entity, member) if name is None else (entity[member], name)
    before = holder[key]
    if isinstance(before, list):
        value = [each for each in before if each != value] if value in before else [*before, value]
    holder[key] = value
    return replace(asked, put=with_entity(asked.put, uid, entity))


def _times(asked: Asked, *, weekday: bool) -> list[Edit]:
    """The full hours after the event time: of a week where the weekday counts, of a day where it does not."""
    start = asked.time_ms - asked.time_ms % _HOUR_MS
    found = []
    for hours in range(1, (HOURS_OF_A_WEEK if weekday else 24) + 1):
        time_ms = start + hours * _HOUR_MS
        when = datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        found.append(Edit(of="request", text=f"ask at {when} UTC", take=partial(_at, time_ms=time_ms)))
    return found


def numbers(part: object) -> Iterator[int]:
    """Every whole number that stands in an expression."""
    if isinstance(part, dict):
        value = part.get("Value")
        if isinstance(value, int) and not isinstance(value, bool):
            yield value
        for each in part.values():
            yield from numbers(each)
    elif isinstance(part, list):
        for each in part:
            yield from numbers(each)


def _with_tokens(request: RequestSubmitted, *, count: int) -> RequestSubmitted:
    return replace(request, parameters=replace(request.parameters, max_tokens=count))


def _with_stream(request: RequestSubmitted, *, stream: bool) -> RequestSubmitted:
    return replace(request, parameters=replace(request.parameters, stream=stream))


def _at(asked: Asked, _: Rules, *, time_ms: int) -> Asked:
    return replace(asked, time_ms=time_ms)


def _by(asked: Asked, _: Rules, *, actor: tuple[str, str], principal: tuple[str, str] | None = None) -> Asked:
    return replace(asked, actor=actor, principal=asked.principal if principal is None else principal)


def _request(text: str, change: Callable[[RequestSubmitted], RequestSubmitted]) -> Edit:
    return Edit(of="request", text=text, take=lambda asked, _: replace(asked, request=change(asked.request)))


def _ids(kind: str, rules: Rules) -> list[str]:
    prefix = f'{kind}::"'
    uids = sorted(uid for uid in rules.directory.entries if uid.startswith(prefix))
    return [split_uid(uid)[1] for uid in uids[:CANDIDATES_MAX]]
