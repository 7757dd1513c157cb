"""Imported rows and a directory go in, the change that makes the directory say what they say comes out; only here."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from sluicegate.enforcer.bundle import Bundle
from sluicegate.enforcer.directory import conform, split_uid
from sluicegate.enforcer.directory_change import DirectoryContent, change_content, read_change
from sluicegate.enforcer.directory_import import COLUMNS, PROBLEMS_MAX, Column, Listing, Row
from sluicegate.schemas.errors import InvalidDirectory, Problem
from sluicegate.schemas.ids import EntityUid, entity_uid

_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One entity that is put (`+` new, `~` changed) or removed (`-`), and what of it differs."""

    mark: str
    uid: EntityUid
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """A change of a directory and what it does, by uid; `content` is empty where nothing differs."""

    content: bytes
    differences: tuple[Difference, ...]


def import_change(
    listing: Listing, kind: str, before: DirectoryContent, bundle: Bundle, *, file: str, prune: bool
) -> Import:
    """The change by which the directory `before` holds the entities of a listing, checked against `bundle`.

    `prune`: entities of this type that the listing lacks are removed, a service with its keys and reply topic.

    Raises:
        InvalidDirectory: with one line for each thing to mend; a name that is nowhere has its line and column.
    """
    if prune and not listing.whole:
        text = "is one page of a longer list, so `--prune` would remove the rest; export everybody"
        raise InvalidDirectory((Problem("page", text, file=file),))
    problems = list(_unknown(listing, kind, before, bundle, file))
    if problems:
        raise InvalidDirectory(tuple(problems[:PROBLEMS_MAX]))
    put: list[dict[str, object]] = []
    differences: list[Difference] = []
    lines: dict[EntityUid, int] = {}
    declared = frozenset(column.name for column in COLUMNS[kind] if _declares(bundle, kind, column.name))
    for row in listing.rows:
        uid = entity_uid(kind, row.id)
        lines[uid] = row.line
        old = json.loads(before.entities[uid]) if uid in before.entities else None
        new = _entity(row, kind, old, declared)
        if old is None or _flat(old) != _flat(new):
            put.append(new)
            differences.append(Difference(mark="+" if old is None else "~", uid=uid, detail=_detail(old, new)))
    change: dict[str, object] = {"put": put}
    if prune:
        gone = sorted(uid for uid in before.entities if uid.startswith(f'{kind}::"') and uid not in lines)
        differences += [Difference(mark="-", uid=uid, detail="") for uid in gone]
        change["remove"] = gone
        if kind == "Service":
            change |= _without(before, {split_uid(uid)[1] for uid in gone})
    if not differences:
        return Import(content=b"", differences=())
    content = change_content(change)
    try:
        conform(before.changed(read_change(content)), bundle, before=conform(before, bundle))
    except InvalidDirectory as error:
        raise InvalidDirectory(tuple(_placed(problem, lines, file) for problem in error.problems)) from None
    return Import(content=content, differences=tuple(sorted(differences, key=lambda each: each.uid)))


def _unknown(listing: Listing, kind: str, before: DirectoryContent, bundle: Bundle, file: str) -> Iterator[Problem]:
    """Names in cells that neither the directory nor a closed list of the schema holds."""
    here = {row.id for row in listing.rows}
    known: dict[str, set[str]] = {}
    for column in COLUMNS[kind]:
        if column.target:
            held = (uid for uid in before.entities if uid.startswith(f'{column.target}::"'))
            known[column.target] = {split_uid(uid)[1] for uid in held} | set(bundle.enums.get(column.target, ()))
    for row in listing.rows:
        for title in row.cells:
            column = _column(kind, title)
            cell = row.cells[title]
            for name in cell if isinstance(cell, tuple) and column.target else ():
                if name not in known[column.target] and not (column.target == kind and name in here):
                    near = difflib.get_close_matches(name, sorted(known[column.target]), n=1)
                    advice = f"did you mean `{near[0]}`" if near else f"add it or name another `{column.target}`"
                    at = listing.header.index(title) + 1 if title in listing.header else None
                    where = f"column {at} `{title}`" if at else "`groups`"
                    text = f"{where}: `{name}` is no `{column.target}`; {advice}"
                    yield Problem("unknown", text, file=file, line=row.line)


def _column(kind: str, title: str) -> Column:
    return next(column for column in COLUMNS[kind] if column.name == title)


def _entity(row: Row, kind: str, old: Mapping[str, object] | None, declared: frozenset[str]) -> dict[str, object]:
    """The entity after the row: what the file has no column for stays, and is empty for one that is new.

    `declared`: the columns that the schema has as attributes of this type.
    """
    old_attrs, old_parents = (old or {}).get("attrs"), (old or {}).get("parents")
    attrs: dict[str, object] = dict(old_attrs) if isinstance(old_attrs, dict) else {}
    parents: list[object] = list(old_parents) if isinstance(old_parents, list) else []
    for column in COLUMNS[kind]:
        cell = row.cells.get(column.name)
        if cell is None and (old is not None or column.kind == "parents" or column.name not in declared):
            continue
        # An imported inactive person is on leave only where the schema can say so; it has no role in any case.
        if column.kind == "flag" and column.name not in declared:
            continue
        names = cell if isinstance(cell, tuple) else ()
        match column.kind:
            case "parents":
                parents = [each for each in parents if _type_of(each) != column.target]
                parents += [{"type": column.target, "id": name} for name in names]
            case "entities":
                attrs[column.name] = [{"__entity": {"type": column.target, "id": name}} for name in names]
            case "texts":
                attrs[column.name] = list(names)
            case "flag":
                attrs[column.name] = cell is True
    if kind == "Field":
        dataset = {"type": "Dataset", "id": row.id.partition(".")[0]}
        parents = [dataset, *(each for each in parents if _type_of(each) != "Dataset")]
        attrs["dataset"] = {"__entity": dataset}
    return {"uid": {"type": kind, "id": row.id}, "attrs": attrs, "parents": parents}


def _declares(bundle: Bundle, kind: str, attribute: str) -> bool:
    """Whether the schema, as the engine writes it, gives this type the attribute."""
    declared = re.search(
        rf"^entity {kind}(?: in [^=;]*)? = \{{(?P<body>.*?)^\}};", str(bundle.schema), re.DOTALL | re.MULTILINE
    )
    return declared is not None and re.search(rf"^\s*{attribute}\??: ", declared["body"], re.MULTILINE) is not None


def _type_of(parent: object) -> object:
    inner = parent.get("__entity", parent) if isinstance(parent, dict) else None
    return inner.get("type") if isinstance(inner, dict) else None


def _flat(entity: Mapping[str, object]) -> dict[str, list[str]]:
    """What an entity says, each member as sorted texts, so that order says nothing."""
    attrs, parents = entity["attrs"], entity["parents"]
    said = dict(attrs) if isinstance(attrs, dict) else {}
    listed = {"parents": parents, **said}
    return {name: sorted(map(_name, value if isinstance(value, list) else [value])) for name, value in listed.items()}


def _name(value: object) -> str:
    inner = value.get("__entity", value) if isinstance(value, dict) else value
    if isinstance(inner, dict) and inner.keys() == {"type", "id"}:
        return entity_uid(str(inner["type"]), str(inner["id"]))
    return _CANONICAL.encode(value)


def _detail(old: Mapping[str, object] | None, new: Mapping[str, object]) -> str:
    before, after = ({} if old is None else _flat(old)), _flat(new)
    told = []
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name, []), after.get(name, [])
        parts = [f"+{each}" for each in now if each not in was] + [f"-{each}" for each in was if each not in now]
        if parts:
            told.append(f"{name} {' '.join(parts)}")
    return ", ".join(told)


def _without(before: DirectoryContent, services: set[str]) -> dict[str, object]:
    """The keys and reply topics of services that are removed."""
    keys = [kid for kid, entry in before.entries["service_keys"].items() if entry.get("service") in services]
    replies = [service for service in before.entries["replies"] if service in services]
    named = {"service_keys": keys, "replies": replies}
    return {name: {"remove": sorted(gone)} for name, gone in named.items() if gone}


def _placed(problem: str, lines: Mapping[EntityUid, int], file: str) -> str:
    """The problem of an entity with the line it comes from."""
    found = next((line for uid, line in lines.items() if problem.startswith(f"{uid}: ")), 0)
    return Problem("entity", problem, file=file, line=found) if found else problem
