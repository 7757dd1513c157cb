"""`sluicegate audit`: questions in SQL, ready ones, and the whole story of one request, from the rows of the audit."""

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sluicegate.audit_access import audit_config
from sluicegate.home import open_home
from sluicegate.keys import read_secret
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.settings import load_settings
from sluicegate.sinks.clickhouse import DATABASE, AuditConfig
from sluicegate.sinks.clickhouse import install as install_audit
from sluicegate.sinks.queries import QUESTIONS, Question, question
from sluicegate.sinks.question import Result
from sluicegate.sinks.serve import asking
from sluicegate.sinks.story import story
from sluicegate.sinks.story_view import render


@click.group()
def audit() -> None:
    """Ask the audit: who asked what, why it was allowed or denied, what the model read and what left the house."""


def auditor_config() -> AuditConfig:
    """Where this installation's audit lies, for somebody who reads it."""
    settings = load_settings()
    return audit_config(settings, open_home(settings.home), reads=True)


@audit.command()
@click.option("--admin", default="default", show_default=True, help="account of the server that may make users")
@click.option("--admin-password-file", type=click.Path(path_type=Path), required=True, help="mode 600, one line")
@click.option("--network", "networks", multiple=True, metavar="CIDR", help="whence both may come [default: anywhere]")
def install(admin: str, admin_password_file: Path, networks: tuple[str, ...]) -> int:
    """Make tables, views and the two accounts on the ClickHouse server of `SLUICEGATE_CLICKHOUSE_HOST`.

    Once, and again to change the accounts' passwords; the embedded audit needs no such thing.
    """
    settings = load_settings()
    if not settings.clickhouse_host:
        raise ConfigurationError(
            "the embedded audit makes its own tables; for a server set `SLUICEGATE_CLICKHOUSE_HOST`"
        )
    config = audit_config(settings, open_home(settings.home), writes=True, reads=True)
    install_audit(config, user=admin, password=read_secret(admin_password_file), networks=networks)
    click.echo(f"  installed: database `{DATABASE}`, `{config.user}` may add rows, `{config.auditor}` may read them")
    return 0


@audit.command()
@click.argument("query")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a row")
def sql(query: str, *, as_json: bool) -> int:
    """Run QUERY, which may only read: tables and views are listed in docs/auditing.md."""
    with asking(auditor_config()) as auditor:
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
    with asking(auditor_config()) as auditor:
        found = story(auditor, request)
    Console().print(render(found))
    return 0


@audit.command()
@click.argument("name", required=False, type=click.Choice([each.name for each in QUESTIONS]))
def questions(name: str | None) -> int:
    """Answer the ready questions, each with its SQL; exit code 1 where an answer that must be empty is not."""
    console = Console()
    bad = False
    with asking(auditor_config()) as auditor:
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
