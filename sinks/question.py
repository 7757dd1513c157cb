"""An auditor's SQL goes in, rows come out; the only place that decides which SQL may run.

`readonly` is no sandbox in an embedded engine (it lets `file('/etc/passwd')` through), so four doors stand one
behind the other, and each refuses what it does not know: 1 the engine's parser says one statement that only reads
and names no secret; 2 its syntax tree holds only nodes, functions and tables of our lists; 3 the session is read-
only within limits; 4 the user of the engine was granted SELECT and INSERT on the audit and nothing else.
"""

import json
import re
from dataclasses import dataclass
from typing import Final

from sluicegate.schemas.errors import ConfigurationError
from sluicegate.sinks.clickhouse import AUDITOR_ROWS_MAX, DATABASE, AuditDatabase, QuestionRefused
from sluicegate.sinks.functions import ROW_MAKERS, is_allowed

TREE_LINES_MAX: Final = 5_000  # well under the rows that a session returns, so a tree is never seen cut
SQL_CHARACTERS_MAX: Final = 50_000
_ROOTS: Final = frozenset({"SelectWithUnionQuery", "DescribeQuery"})
_NODES: Final = frozenset({
    "ArrayJoin", "Asterisk", "ColumnsExceptTransformer", "ColumnsReplaceTransformer",
    "ColumnsReplaceTransformer::Replacement", "ColumnsTransformerList", "DescribeQuery", "ExpressionList", "Function",
    "Identifier", "Literal", "OrderByElement", "QualifiedAsterisk", "SelectIntersectExceptQuery", "SelectQuery",
    "SelectWithUnionQuery", "Subquery", "TableExpression", "TableIdentifier", "TableJoin", "TablesInSelectQuery",
    "TablesInSelectQueryElement", "WindowDefinition", "WindowListElement", "WithElement",
})  # fmt: skip
_LINE: Final = re.compile(r"(?P<indent> *)(?P<node>[A-Za-z:]+)(?: (?P<rest>.*))?")
_NAME: Final = re.compile(r"(?P<name>[^ ]+)(?: \(alias .*\))?(?: \(children \d+\))?")
# Databases other than the audit: reachable by a qualified name alone.
_FOREIGN: Final = ("system.", "information_schema.", "default.", "_temporary_and_external_tables.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Rows as plain values: times as text, 64-bit numbers as int. `more` says that rows were left out."""

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    more: bool = False

    def notice(self) -> str | None:
        """What to tell whoever asked, where rows were left out."""
        return f"only the first {len(self.rows)} rows are shown; add a LIMIT or ask for figures" if self.more else None


def run_sql(database: AuditDatabase, sql: str) -> Result:
    """Runs one question that only reads the audit.

    Raises:
        QuestionRefused: it is not one, or the database cannot answer it; the text says why.
        Unavailable: it costs more time or memory than an auditor has, or the database is away.
    """
    text = sql.strip().removesuffix(";").rstrip()
    if not text or len(text) > SQL_CHARACTERS_MAX or "\0" in text:
        raise QuestionRefused(f"send one SELECT of at most {SQL_CHARACTERS_MAX} characters")
    _classify(database, text)
    check_tree(_tree(database, text))
    with database.reading() as client:
        answer = client.raw_query(text, fmt="JSONCompact")
    found = json.loads(answer)
    rows = found["data"]
    return Result(
        columns=tuple(column["name"] for column in found["meta"]),
        rows=tuple(tuple(row) for row in rows[:AUDITOR_ROWS_MAX]),
        more=len(rows) > AUDITOR_ROWS_MAX,
    )


def _classify(database: AuditDatabase, sql: str) -> None:
    """Door 1; a server takes one statement a call anyway, so the embedded engine alone is asked."""
    if database.classifier is None:
        return
    classify = getattr(getattr(database.classifier, "_conn", None), "classify_query", None)
    if classify is None:
        raise ConfigurationError("this chdb has no `classify_query`; install chdb 4.4 or newer")
    try:
        report = classify(sql, DATABASE)
    except RuntimeError as error:
        raise QuestionRefused(f"the question does not parse: {str(error).splitlines()[0][:300]}") from None
    if int(report["statement_count"]) != 1:
        raise QuestionRefused("send one statement at a time")
    if getattr(report["query_class"], "name", "") != "READ_ONLY" or report["changes_database_lifecycle"]:
        raise QuestionRefused("the audit is only read here; send a SELECT")
    if report["has_secrets"]:
        raise QuestionRefused("a question must not carry credentials")


def _tree(database: AuditDatabase, sql: str) -> str:
    with database.reading() as client:
        return client.raw_query(f"EXPLAIN AST {sql}", fmt="TabSeparatedRaw").decode("utf-8", "replace")


def check_tree(tree: str) -> None:
    """Door 2: holds every line of an `EXPLAIN AST` against the lists.

    A name with a line break in it can add lines, never hide one, so whatever it adds is held against the lists too.

    Raises:
        QuestionRefused: a node, function or table that is not on them.
    """
    parents: list[str] = []
    lines = tree.rstrip("\n").split("\n")
    if len(lines) > TREE_LINES_MAX:
        raise QuestionRefused("the question is too long; ask for less at a time")
    for number, line in enumerate(lines):
        found = _LINE.fullmatch(line)
        if found is None or found["node"] not in _NODES:
            what = found["node"] if found else "a name with a line break"
            raise QuestionRefused(f"`{what[:60]}` is not part of a plain SELECT; leave it out")
        if number == 0 and found["node"] not in _ROOTS:
            raise QuestionRefused("the audit is only read here; send a SELECT")
        depth = len(found["indent"])
        _check_node(found["node"], found["rest"] or "", parents[depth - 1] if 0 < depth <= len(parents) else "")
        parents[depth:] = [found["node"]]


def _check_node(node: str, rest: str, parent: str) -> None:
    if node not in ("Function", "TableIdentifier", "Identifier"):
        return
    found = _NAME.fullmatch(rest)
    name = found["name"] if found else rest
    match node:
        case "Function" if parent == "TableExpression":
            if name.lower() not in ROW_MAKERS:
                raise QuestionRefused(f"`{name[:60]}` reads from outside the audit; ask its tables and views")
        case "Function":
            if not is_allowed(name):
                raise QuestionRefused(f"the function `{name[:60]}` is not on the list for auditors")
        case "TableIdentifier":
            if found is None or ("." in name and not name.startswith(f"{DATABASE}.")):
                raise QuestionRefused(f"`{name[:60]}` is no table of the audit; ask its tables and views")
        case _:
            if name.lower().startswith(_FOREIGN):
                raise QuestionRefused(f"`{name[:60]}` is no table of the audit; ask its tables and views")
