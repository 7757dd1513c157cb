"""A CSV file or a SCIM list of one entity type goes in, the rows that it means come out; the only place that reads what
other systems say of people and data.

Nothing is guessed: what is doubled, unknown or unreadable is refused, with its line, its column and what to do.
"""

import csv
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from sluicegate.schemas.errors import InvalidDirectory, Problem
from sluicegate.schemas.strict_json import JsonObject, JsonValue, NotStrict, loads_object

FILE_BYTES_MAX: Final = 16 * 1024**2
ROWS_MAX: Final = 100_000
CELL_CHARACTERS_MAX: Final = 4_000
PROBLEMS_MAX: Final = 50
ID: Final = "id"
BETWEEN: Final = ";"
_FORMULA: Final = ("=", "+", "-", "@")
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # control, direction and other characters that nobody sees
_FLAGS: Final = MappingProxyType({"true": True, "false": False})


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What a column of an entity type becomes: parents, or an attribute of its own name. `target`: the type named."""

    name: str
    kind: Literal["parents", "entities", "texts", "flag"]
    target: str = ""


_ROLES: Final = Column(name="roles", kind="parents", target="Role")
_PURPOSES: Final = Column(name="purposes", kind="entities", target="Purpose")
COLUMNS: Final[Mapping[str, tuple[Column, ...]]] = MappingProxyType({
    "User": (_ROLES, _PURPOSES, Column(name="onLeave", kind="flag")),
    "Service": (_ROLES, _PURPOSES, Column(name="speaksFor", kind="entities", target="Role")),
    "Model": (Column(name="tiers", kind="parents", target="ModelTier"),),
    "Dataset": (Column(name="labelledBy", kind="entities", target="Service"),),
    "Field": (Column(name="class", kind="parents", target="FieldClass"), Column(name="labels", kind="texts")),
    "Role": (),
    "Purpose": (),
})  # fmt: skip
"""The header of each entity type is `id` and any of these; a column that is left out changes nothing."""
Cell = tuple[str, ...] | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One entity of a file: the line it starts on (from 1), and its cells by the columns that the file has."""

    line: int
    id: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a file says. `header`: the columns of a CSV file as they stand. `whole` is false where it is one page of
    a longer list: then nobody is missing from it.
    """

    rows: tuple[Row, ...]
    header: tuple[str, ...] = ()
    whole: bool = True


def read_csv(data: bytes, *, kind: str, file: str) -> Listing:
    """The rows of a CSV file in UTF-8, RFC 4180, with a header; a byte order mark and CRLF are taken as they come.

    Raises:
        InvalidDirectory: with one `Problem` for each thing to mend.
    """
    text = _text(data, file)
    reader = csv.reader((f"{line}\n" for line in text.removesuffix("\n").split("\n")), strict=True)
    problems: list[Problem] = []
    rows: list[Row] = []
    header: list[str] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        columns = _header(header, kind, file)
        start = reader.line_num + 1
        for cells in reader:
            line, start = start, reader.line_num + 1
            if not cells:
                continue
            if len(cells) != len(header):
                text = f"has {len(cells)} cells and the header {len(header)}; quote cells that hold a comma"
                problems.append(Problem("cells", text, file=file, line=line))
            else:
                row = _row(cells, header, columns, file, line, problems)
                rows.extend([row] if row is not None else [])
            if len(rows) > ROWS_MAX:
                problems.append(Problem("rows", f"over {ROWS_MAX} rows; split the file", file=file, line=line))
            if len(problems) >= PROBLEMS_MAX or len(rows) > ROWS_MAX:
                break
    except csv.Error:
        text = "is no CSV from here on; close the quotes and double those inside a cell"
        problems.append(Problem("csv", text, file=file, line=max(reader.line_num, 1)))
    problems += _doubled(rows, file)
    if problems:
        raise InvalidDirectory(tuple(problems[:PROBLEMS_MAX]))
    return Listing(rows=tuple(rows), header=tuple(header))


def _text(data: bytes, file: str) -> str:
    if len(data) > FILE_BYTES_MAX:
        problem = Problem("too-large", f"holds over {FILE_BYTES_MAX} bytes; split it", file=file)
        raise InvalidDirectory((problem,))
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidDirectory((Problem("utf-8", "is not UTF-8; save it as UTF-8", file=file, line=line),)) from None


def _header(header: list[str], kind: str, file: str) -> Mapping[str, Column]:
    known = {column.name: column for column in COLUMNS[kind]}
    wanted = f"use `{','.join([ID, *known])}`"
    if ID not in header or len(set(header)) != len(header) or set(header) - {ID, *known}:
        text = f"the header of `{kind}` needs `{ID}`, and each column once at most; {wanted}"
        raise InvalidDirectory((Problem("header", text, file=file, line=1),))
    return known


def _row(
    cells: list[str], header: list[str], columns: Mapping[str, Column], file: str, line: int, problems: list[Problem]
) -> Row | None:
    found: dict[str, Cell] = {}
    name, before = "", len(problems)
    for index, (title, raw) in enumerate(zip(header, cells, strict=True)):
        where = f"column {index + 1} `{title}`"
        value = raw.strip()
        parts = [part.strip() for part in value.split(BETWEEN)] if title != ID else [value]
        why = None
        for part in (raw, *parts):
            why = why or unfit(part, formulas=True)
        if why is None and title == ID:
            why = None if value else "is empty; every row needs an id"
            name = value
        elif why is None and columns[title].kind == "flag":
            why = None if value.lower() in _FLAGS else "must be `true` or `false`; write one of them"
            found[title] = _FLAGS.get(value.lower(), False)
        elif why is None:
            listed = tuple(part for part in parts if part)
            why = "names something twice; keep one" if len(set(listed)) != len(listed) else None
            found[title] = listed
        if why is not None:
            problems.append(Problem("cell", f"{where}: {why}", file=file, line=line))
    return Row(line=line, id=name, cells=found) if len(problems) == before else None


def unfit(value: str, *, formulas: bool = False) -> str | None:
    """Why a text can be no name, and what to do; the text itself is not in it. None where it can."""
    if len(value) > CELL_CHARACTERS_MAX:
        return f"has over {CELL_CHARACTERS_MAX} characters; shorten it"
    if any(unicodedata.category(each) in _UNSEEN for each in value):
        return "holds a control character or one that nobody sees; take it out"
    if formulas and value.strip().startswith(_FORMULA):
        return f"starts as a formula would ({' '.join(_FORMULA)}); rename it"
    return None


def _doubled(rows: Iterable[Row], file: str) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for row in rows:
        if row.id in seen:
            text = f"the id stands on line {seen[row.id]} too; keep one row"
            yield Problem("doubled", text, file=file, line=row.line)
        seen.setdefault(row.id, row.line)


# ---- SCIM ----------------------------------------------------------------------------------------------------------


def read_scim(data: bytes, *, file: str, roles_of: Mapping[str, str]) -> Listing:
    """The users of a SCIM ListResponse (RFC 7644 section 3.4.2) of Users and Groups (RFC 7643 section 4), as rows of
    `User` with `roles`; who is not `active` gets no role and no purpose and counts as on leave.

    `roles_of`: group -> role. Where it is empty every group must be called as a role; else other groups grant nothing.

    Raises:
        InvalidDirectory: with one `Problem` for each thing to mend.
    """
    text = _text(data, file)
    try:
        document = loads_object(text.encode())
    except NotStrict as error:
        raise InvalidDirectory(
            (Problem("json", f"is no JSON of one reading: {error}; correct it", file=file),)
        ) from None
    resources = document.get("Resources")
    if not isinstance(resources, list) or len(resources) > ROWS_MAX:
        problem = Problem("scim", f"needs `Resources`, a list of at most {ROWS_MAX}; give a ListResponse", file=file)
        raise InvalidDirectory((problem,))
    lines = _lines(text, resources)
    problems: list[Problem] = []
    joined = _members(resources, lines, file, problems)
    rows: list[Row] = []
    for each, line in zip(resources, lines, strict=True):
        if isinstance(each, dict) and "userName" in each:
            row = _person(each, joined, roles_of, file, line, problems)
            rows.extend([row] if row is not None else [])
        elif not (isinstance(each, dict) and "displayName" in each):
            problems.append(Problem("scim", "is neither a User nor a Group; take it out", file=file, line=line))
    problems += _doubled([Row(line=row.line, id=row.id.casefold(), cells={}) for row in rows], file)
    if problems:
        raise InvalidDirectory(tuple(problems[:PROBLEMS_MAX]))
    total = document.get("totalResults", len(resources))
    return Listing(rows=tuple(rows), whole=total == len(resources) and document.get("startIndex", 1) == 1)


def _lines(text: str, resources: list[JsonValue]) -> list[int]:
    """The line each resource starts on; 0 where it cannot be told."""
    at, decoder, lines = text.find("[", text.find('"Resources"')) + 1, json.JSONDecoder(), list[int]()
    line, counted = 1, 0
    try:
        for each in resources:
            while text[at] in " \t\r\n,":
                at += 1
            line, counted = line + text.count("\n", counted, at), at
            value, at = decoder.raw_decode(text, at)
            if value != each:
                return [0] * len(resources)
            lines.append(line)
    except (ValueError, IndexError):
        return [0] * len(resources)
    return lines


def _members(
    resources: list[JsonValue], lines: list[int], file: str, problems: list[Problem]
) -> Mapping[str, list[str]]:
    """The groups that list each user's `id` as a member."""
    joined: dict[str, list[str]] = {}
    for each, line in zip(resources, lines, strict=True):
        if not isinstance(each, dict) or "userName" in each:
            continue
        members = each.get("members", [])
        for member in members if isinstance(members, list) else [None]:
            value = member.get("value") if isinstance(member, dict) else None
            if not isinstance(value, str) or (isinstance(member, dict) and member.get("type", "User") != "User"):
                text = "`members` must be users, each with `value`; write out groups inside groups"
                problems.append(Problem("scim", text, file=file, line=line))
            else:
                joined.setdefault(value, []).append(str(each.get("displayName")))
    return joined


def _person(
    user: JsonObject,
    joined: Mapping[str, list[str]],
    roles_of: Mapping[str, str],
    file: str,
    line: int,
    problems: list[Problem],
) -> Row | None:
    name, active, listed = user["userName"], user.get("active", True), user.get("groups", [])
    groups = [
        each.get("display", each.get("value")) if isinstance(each, dict) else None
        for each in (listed if isinstance(listed, list) else [None])
    ]
    groups += joined.get(str(user.get("id")), [])
    named = [each for each in groups if isinstance(each, str)]
    why = None
    if not isinstance(name, str) or not name:
        why = "`userName` must be a text; correct it"
    elif not isinstance(active, bool):
        why = "`active` must be true or false; correct it"
    elif len(named) != len(groups):
        why = "`groups` must be objects with `display`; correct them"
    else:
        for title, value in (("userName", name), *(("groups", group) for group in named)):
            found = unfit(value)
            why = why or (f"`{title}` {found}" if found else None)
    if why is not None or not isinstance(name, str):
        problems.append(Problem("scim", str(why), file=file, line=line))
        return None
    if not active:
        return Row(line=line, id=name, cells={"roles": (), "purposes": (), "onLeave": True})
    roles = [roles_of[each] for each in named if each in roles_of] if roles_of else named
    return Row(line=line, id=name, cells={"roles": tuple(dict.fromkeys(roles)), "onLeave": False})
