"""`sluicegate demo`: a company's day through the gate, what the audit says of it, and a replay that finds a leak."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from sluicegate.bundle_folder import read_bundle
from sluicegate.commands.replay import replay_with_progress
from sluicegate.demo import screen
from sluicegate.demo.cases import FOLDER, Day, People, Row, read_candidate, read_day, read_people
from sluicegate.demo.drive import Sent, drive
from sluicegate.demo.findings import Counts, Finding, counts, findings, policy_of, rows_before, wait_until_landed
from sluicegate.demo.notes import PolicyLines
from sluicegate.home import Home, open_home
from sluicegate.schemas.errors import ConfigurationError, SluicegateError, Unavailable
from sluicegate.schemas.events import ReleaseMade
from sluicegate.settings import Settings, load_settings
from sluicegate.sinks.auditor import Auditor
from sluicegate.sinks.clickhouse import AuditConfig
from sluicegate.sinks.queries import QUESTIONS
from sluicegate.sinks.question import Result
from sluicegate.sinks.replay_report import Report, fail_on
from sluicegate.sinks.serve import asking

LIMIT: Final = "newly-readable>0"
NEEDS_EMBEDDED: Final = (
    "the demo moves the stack's clock to other hours of the day, and only the embedded broker lets it: run "
    "`sluicegate down`, unset `SLUICEGATE_BOOTSTRAP`, or set `SLUICEGATE_HOME` to another folder than `{home}`"
)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
@click.option(
    "--cases", type=click.Path(path_type=Path, file_okay=False), default=FOLDER, show_default=True, help="Rows to send."
)
def demo(*, as_json: bool, cases: Path) -> int:
    """Watch the requests of an example company pass the gate; the stack stays up afterwards."""
    settings = load_settings()
    day, people = read_day(cases), read_people(settings.directory)
    home = open_home(settings.home)
    attached = _attach(settings.model_copy(update={"home": home.root}), home, quiet=as_json)
    console, progress = screen.console_of(), screen.console_of(stderr=True)
    sent = _send(attached, day, people, progress)
    with asking(AuditConfig(path=home.audit)) as auditor:
        wait_until_landed(auditor, attached.epoch, sent)
        found, figures = findings(auditor, attached.epoch, sent), counts(auditor, attached.epoch)
        if not as_json:
            _show_rows(console, auditor, found, figures)
        answers = [auditor.sql(question.sql) for question in QUESTIONS]
        if not as_json:
            _show_answers(console, answers)
        folder = _write_candidate(home, settings.bundle_dir, cases)
        report = replay_with_progress(auditor, read_bundle(folder), attached, progress)
    if as_json:
        click.echo(json.dumps(_as_json(attached, found, figures, answers, report), indent=1))
    else:
        command = f"sluicegate replay --bundle {_near(folder)} --fail-on '{LIMIT}'"
        _rule(console, f"somebody edits pay.cedar: {read_candidate(cases).replace.partition(',')[0]}, ... Replay says")
        console.print(screen.replay_answer(report, fail_on(LIMIT), command))
        console.print(screen.now_try(str(_near(settings.bundle_dir))))
    return 1 if figures.lost or figures.inferences_without_an_allow else 0


def _attach(settings: Settings, home: Home, *, quiet: bool) -> Settings:
    """The settings pointed at a running stack that has not seen these rows; one is started where there is none."""
    if home.owner() is not None:
        state = home.running()
        if state.broker != "embedded":
            raise ConfigurationError(NEEDS_EMBEDDED.format(home=home.root))
        with asking(AuditConfig(path=home.audit)) as auditor:
            seen = rows_before(auditor, state.epoch)
        if not seen:
            return settings.attached(bootstrap=state.bootstrap, epoch=state.epoch, broker=state.broker)
        click.echo("  the demo ran on this stack already: starting it afresh, the audit keeps both days", err=True)
        _run(settings, "down", quiet=True)
    if settings.bootstrap:
        raise ConfigurationError(NEEDS_EMBEDDED.format(home=home.root))
    if settings.broker != "embedded":
        click.echo(
            "  the demo moves the clock, which Apache Kafka keeps itself: it runs on the embedded broker", err=True
        )
    _run(settings, "up", "--detach", "--broker", "embedded", quiet=quiet)
    state = home.running()
    return settings.attached(bootstrap=state.bootstrap, epoch=state.epoch, broker=state.broker)


def _run(settings: Settings, *arguments: str, quiet: bool) -> None:
    """Runs another command of ours; what it says is seen, on standard error where ours goes to a program."""
    command = (sys.executable, "-P", "-m", "sluicegate", *arguments)
    code = subprocess.run(
        command,
        env=settings.environment(),
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr if quiet else None,
        check=False,
    ).returncode
    if code:
        raise SluicegateError(f"`sluicegate {' '.join(arguments)}` failed: mend what it says above, then try again")


def _send(settings: Settings, day: Day, people: People, console: Console) -> tuple[Sent, ...]:
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("sending", total=len(day.rows))

        def told(row: Row, release: ReleaseMade | None) -> None:
            outcome = "FORGED" if release is None else release.outcome.value
            progress.update(task, advance=1, description=f"{row.row:>3} {row.who[:14]:<14} {outcome:<8}")

        def clock_moved(now_ms: int) -> None:
            hour = now_ms // 3_600_000 % 24
            progress.console.print(f"  the stack's clock is moved forward to {hour:02d}:00 UTC", style="dim")

        return asyncio.run(drive(settings, day, people, told=told, clock_moved=clock_moved))


def _show_rows(console: Console, auditor: Auditor, found: tuple[Finding, ...], figures: Counts) -> None:
    version = next((each.decision.policy for each in found if each.decision and each.decision.policy), None)
    if version is None:
        raise Unavailable("no request was decided by a policy: see the log of the enforcer")
    lines = PolicyLines.of(*policy_of(auditor, version))
    beats = [each for each in found if screen.is_beat(each.row)]
    others = [each for each in found if not screen.is_beat(each.row)]
    _rule(console, f"a day at Heron Cycles under policy v{version.bundle_version} {version.bundle_digest[:15]}")
    console.print(
        screen.rows_table(sorted(beats, key=lambda each: (screen.number_of(each.row), each.row.row)), lines, whole=True)
    )
    _rule(console, f"{len(others)} variations by other people")
    console.print(screen.rows_table(others, lines, whole=False))
    console.print(screen.summary(figures))


def _show_answers(console: Console, answers: list[Result]) -> None:
    _rule(console, "what an auditor asks")
    for number, (question, answer) in enumerate(zip(QUESTIONS, answers, strict=True), start=1):
        console.print(screen.audit_answer(number, question, answer))


def _write_candidate(home: Home, bundle_dir: Path, cases: Path) -> Path:
    """A copy of the bundle with the leaky edit, as somebody would propose it."""
    folder = home.root / "candidate"
    for path, text in read_candidate(cases).applied(read_bundle(bundle_dir)).items():
        file = folder / path
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


def _as_json(
    settings: Settings, found: tuple[Finding, ...], figures: Counts, answers: list[Result], report: Report
) -> dict[str, object]:
    return {
        "epoch": settings.epoch,
        "rows": [each.as_json() for each in found],
        "counts": {name: getattr(figures, name) for name in Counts.__slots__},
        "questions": [
            {
                "name": question.name,
                "text": question.text,
                "sql": question.sql,
                "columns": answer.columns,
                "rows": answer.rows,
            }
            for question, answer in zip(QUESTIONS, answers, strict=True)
        ],
        "replay": report.as_json(),
    }


def _near(path: Path) -> Path:
    """The path as somebody in this folder types it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path


def _rule(console: Console, title: str) -> None:
    console.print(Padding(Text(title, style="bold reverse"), (1, 2, 0, 2)))
