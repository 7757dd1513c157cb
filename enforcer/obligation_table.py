"""`obligations.yaml` of a bundle goes in, the obligations that it declares come out; the only reader of that file.

It says for each annotation of the bundle what its value is, how values merge and which stage carries it out, and each
row must say what this release does: a bundle is refused rather than meaning something else under another release.
"""

from typing import Final

from sluicegate.enforcer.obligations import CATALOGUE
from sluicegate.enforcer.vocabulary import BadFile, lines_of, read_yaml
from sluicegate.schemas.errors import Problem

FILE: Final = "obligations.yaml"


def read_table(text: str) -> tuple[frozenset[str], list[Problem]]:
    """The names of all rows, right or wrong, and what is to be mended in them."""
    try:
        rows = read_yaml(text)
    except BadFile as error:
        return frozenset(CATALOGUE), [Problem("obligation-table", str(error), file=FILE, line=error.line)]
    lines = lines_of(text)
    found = ((name, _wrong(name, row)) for name, row in rows.items())
    return frozenset(rows), [
        Problem(wrong[0], wrong[1], file=FILE, line=lines[name,]) for name, wrong in found if wrong is not None
    ]


def _wrong(name: str, row: object) -> tuple[str, str] | None:
    """Code and text of what is wrong with one row."""
    entry = CATALOGUE.get(name)
    if entry is None:
        return "unknown-annotation", f"obligation `{name}` is unknown; correct it or remove it"
    if not entry.supported:
        text = f"OBLIGATION_UNSUPPORTED: `{name}` is carried out by no stage of this release; remove it"
        return "unsupported-obligation", text
    if not isinstance(row, dict):
        return "obligation-table", f"`{name}` must be a mapping; write `{entry.row_text()}`"
    wanted = entry.row()
    keys = [str(key) for key in (*wanted, *(row.keys() - wanted)) if key not in row or row[key] != wanted.get(key)]
    if not keys:
        return None
    text = f"`{name}` says of {', '.join(keys)} what this release does not do; write `{entry.row_text()}`"
    return "obligation-table", text
