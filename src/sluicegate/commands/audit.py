"""`sluicegate audit`: questions in SQL, ready ones, and the whole story of one request, from the rows of the audit."""

import json

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sluicegate.home import open_home
from sluicegate.settings import load_settings
from sluicegate.sinks.clickhouse import AuditConfig
from sluicegate.sinks.queries import QUESTIONS, Question, question
from sluicegate.sinks.question import Result
from sluicegate.sinks.serve import asking
from sluicegate.sinks.story import story
from sluicegate.sinks.story_view import render


@click.group()
def audit() -> None:
    """Ask the audit: who asked what, why it was allowed or denied, what the model read and what left the house."""


def audit_config() -> AuditConfig:
    """Where this installation's audit lies."""
    return AuditConfig(path=open_home(load_settings().home).audit)


@audit.command()
@click.argument("query")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a row")
def sql(query: str, *, as_json: bool) -> int:
    """Run QUERY, which may only read: tables and views are listed in docs/auditing.md."""
    with asking(audit_config()) as auditor:
        found = auditor.sql(query)
    if as_json:
        for row in found.rows:
            click.echo(json.dumps(dict(zip(found.columns, row, strict=True)), default=str, ensure_ascii=False))
    else:
        Console().print(result_table(found))
    notice = found.notice()
    if notice:
        click.echo(notice, err=True)
    return 0


@audit.command()
@click.argument("request")
def show(request: str) -> int:
    """Show the whole story of REQUEST: a request id, a decision id, or the number at the end of a request id."""
    with asking(audit_config()) as auditor:
        found = story(auditor, request)
    Console().print(render(found))
    return 0


@audit.command()
@click.argument("name", required=False, type=click.Choice([each.name for each in QUESTIONS]))
def questions(name: str | None) -> int:
    """Answer the ready questions, each with its SQL; exit code 1 where an answer that must be empty is not."""
    console = Console()
    bad = False
    with asking(audit_config()) as auditor:
        for each in QUESTIONS if name is None else (question(name),):
            found = auditor.sql(each.sql)
            print_answer(console, each, found)
            bad = bad or (each.wants_none and bool(found.rows))
    return 1 if bad else 0


def print_answer(console: Console, asked: Question, found: Result) -> None:
    """A question, its SQL and its answer."""
    console.print(Text(asked.text, style="bold"))
    console.print(Text(asked.sql, style="dim"))
    if found.rows:
        console.print(result_table(found))
    else:
        console.print(Text("0 rows", style="green" if asked.wants_none else ""))
    console.print()


def result_table(found: Result) -> Table:
    """Rows as a table; arrays are joined, nothing is cut."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in found.columns:
        table.add_column(column, overflow="fold")
    for row in found.rows:
        table.add_row(*(_cell(value) for value in row))
    return table


def _cell(value: object) -> Text:
    if value is None:
        return Text("-", style="dim")
    if isinstance(value, list | tuple):
        return Text(", ".join(str(each) for each in value))
    return Text(str(value))
