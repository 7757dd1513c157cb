"""`sluicegate replay`: the recorded history decided again under a candidate bundle, and what would be different."""

import json
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sluicegate.bundle_folder import read_bundle
from sluicegate.commands.audit import auditor_config
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.settings import Settings, load_settings
from sluicegate.sinks.auditor import Auditor
from sluicegate.sinks.replay import replay as replay_history
from sluicegate.sinks.replay_report import Report, fail_on, render
from sluicegate.sinks.serve import asking


@click.command()
@click.option("--bundle", required=True, type=click.Path(path_type=Path), help="folder of the candidate bundle")
@click.option("--fail-on", "limits", multiple=True, metavar="LIMIT", help="exit 1 beyond it, such as newly-readable>0")
@click.option("--json", "as_json", is_flag=True, help="the report as JSON")
def replay(bundle: Path, limits: tuple[str, ...], *, as_json: bool) -> int:
    """Decide every recorded question again under the bundle in a folder; publishes nothing.

    Exit code 1: a limit was passed, or a row was decided otherwise by its own bundle (mismatches).
    """
    wanted = [fail_on(limit) for limit in limits]
    content = read_bundle(bundle)
    with asking(auditor_config()) as auditor:
        report = replay_with_progress(auditor, content, load_settings(), Console(stderr=True))
    broken = [text for text in (limit.broken_by(report) for limit in wanted) if text is not None]
    if as_json:
        click.echo(json.dumps(report.as_json() | {"broken": broken}, indent=2, ensure_ascii=False))
    else:
        console = Console()
        console.print(render(report))
        for text in broken:
            console.print(f" [bold red]{text}[/]")
    return 1 if broken or report.mismatches else 0


def replay_with_progress(auditor: Auditor, content: bytes, settings: Settings, console: Console) -> Report:
    """A replay with a bar on a terminal.

    Raises:
        ConfigurationError: the root of trust, by which the recorded policy log is believed, is missing.
    """
    installation = Installation(settings, Home(root=settings.home))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("deciding again")
        return replay_history(
            auditor,
            content,
            domain=installation.domain,
            root_digest=installation.root_digest(),
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
