"""Findings, figures, audit answers and a replay go in, what the terminal shows comes out; the only place that lays it
out.
"""

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from sluicegate.demo.cases import Row
from sluicegate.demo.findings import Counts, Finding
from sluicegate.demo.notes import PolicyLines, notes, verdict_line
from sluicegate.sinks.queries import Question
from sluicegate.sinks.question import Result
from sluicegate.sinks.replay_report import FailOn, Report
from sluicegate.sinks.replay_report import render as render_replay

WIDTH_MAX: Final = 110
BEATS: Final = 14
ANSWER_ROWS_MAX: Final = 8
WHO_WIDTH: Final = 8
_UID: Final = re.compile(r'(User|Service)::"(?P<id>[^"\\]*)"')
COLOURS: Final = {"ALLOW": "green", "DENY": "red", "FORGED": "bold red"}


def console_of(*, stderr: bool = False) -> Console:
    """The terminal, at most `WIDTH_MAX` wide."""
    console = Console(stderr=stderr, highlight=False)
    return Console(stderr=stderr, highlight=False, width=min(console.width, WIDTH_MAX))


def rows_table(found: Sequence[Finding], lines: PolicyLines | None, *, whole: bool) -> RenderableType:
    """One table of rows: who asked what, what the requester saw, the policy line that did it; `whole`: and all that
    happened on the way.

    Parts of one beat (12a, 12b, ...) that went the same way say so once.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=True, header_style="dim")
    table.add_column("#", justify="right", no_wrap=True, style="dim")
    table.add_column("who", width=WHO_WIDTH, overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("asks, sees, and the policy line that did it", ratio=1)
    before: tuple[int, tuple[str, ...]] = (0, ())
    for each in found:
        told = told_lines(each, lines, whole=whole)
        cell = Text(shown_question(each.row), style="dim italic")
        cell = Text.assemble(cell, "\n", seen_text(each))
        for line in told if (number_of(each.row), told) != before else ():
            cell.append(f"\n{line}", style="dim")
        before = (number_of(each.row), told)
        table.add_row(each.row.row, each.row.who, verdict_text(each.verdict), cell)
    return Padding(table, (0, 2))


def told_lines(found: Finding, lines: PolicyLines | None, *, whole: bool) -> tuple[str, ...]:
    """Which policy line did it and, with `whole`, what else happened."""
    if found.decision is None:
        return ()
    more = tuple(notes(found.decision, found.release, lines)) if whole else ()
    return (verdict_line(found.decision, lines), *more)


def shown_question(row: Row) -> str:
    """What is asked, and what is special about it."""
    return f"{row.question} ({row.note})" if row.note else row.question


def seen_text(found: Finding) -> Text:
    """What the requester saw, with everything that was put in place of a value made visible."""
    if found.decision is None:
        return Text("3 grants that nobody decided: the runner refused them, no model call", style="red")
    if found.answer is None:
        reason = found.decision.reason or ""
        return Text(reason, style="red")
    text = Text(found.answer)
    text.highlight_regex(r"\[(withheld|unsupported|[A-Z]+( \.\.\.\w+)?)\]", style="bold yellow")
    text.highlight_regex(r"Project 12", style="bold yellow")
    return text


def verdict_text(verdict: str) -> Text:
    """The verdict in its colour."""
    return Text(verdict, style=COLOURS.get(verdict, ""))


def summary(figures: Counts) -> RenderableType:
    """The figures; what must be none is red where it is not."""
    done = (
        (figures.requests, "requests"),
        (figures.answered, "answered"),
        (figures.denied, "denied"),
        (figures.refused_as_forged, "refused as forged"),
        (figures.dead_letters, "dead letter" if figures.dead_letters == 1 else "dead letters"),
    )
    none = ((figures.lost, "lost"), (figures.inferences_without_an_allow, "inferences without an allow"))
    parts: list[RenderableType] = [
        Text("  ").join(Text(f"{number} {what}", style="bold") for number, what in done),
        Text("  ").join(
            Text(f"{what} {number}", style="bold red" if number else "bold green") for number, what in none
        ),
    ]
    if figures.displaced:
        beside = f"{figures.displaced} decisions landed behind a forged record, where they were not sealed for"
        parts.append(Text(f"{beside}: void, and written again at their place", style="dim"))
    return Padding(Group(*parts), (1, 2))


def audit_answer(number: int, question: Question, result: Result) -> RenderableType:
    """A question, its SQL, and the first rows of its answer."""
    head = Text(f"{number}. {question.text}", style="bold")
    sql = Syntax(question.sql, "sql", background_color="default", word_wrap=True, theme="ansi_dark")
    if not result.rows:
        nothing = Text("0 rows", style="bold green" if question.wants_none else "dim")
        return Padding(Group(head, Padding(sql, (0, 3)), Padding(nothing, (0, 3))), (1, 2, 0, 2))
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    for name in result.columns:
        table.add_column(name, overflow="fold")
    for row in result.rows[:ANSWER_ROWS_MAX]:
        table.add_row(*(_cell(value) for value in row))
    left = len(result.rows) - ANSWER_ROWS_MAX
    parts: list[RenderableType] = [head, Padding(sql, (0, 3)), Padding(table, (0, 3))]
    if left > 0:
        parts.append(Text(f"   and {left} more rows: sluicegate audit questions {question.name}", style="dim"))
    return Padding(Group(*parts), (1, 2, 0, 2))


def replay_answer(report: Report, limit: FailOn, command: str) -> RenderableType:
    """The replay of the leaky edit, as the command would print it."""
    parts: list[RenderableType] = [Text(f"$ {command}", style="bold"), render_replay(report)]
    broken = limit.broken_by(report)
    if broken is not None:
        parts.append(Text(f" {broken}      exit 1", style="bold red"))
    return Padding(Group(*parts), (1, 2, 0, 2))


def now_try(bundle_dir: str) -> RenderableType:
    """What to do next, on one's own keyboard, with the command as it can be typed here."""
    name = _typed()
    steps = (
        (f'{name} ask --as ian "What is the new cargo bike called?"', "then as eva"),
        (f"{name} audit show 5", "the whole story of row 5"),
        (f"$EDITOR {bundle_dir}/pay.cedar", "drop the role, save, and ask again:"),
        (f'{name} ask --as ian "How much does Priya Shah earn?"', ""),
        (f"{name} down", "the stack stays up until then"),
    )
    lines = [Text.assemble("  ", command, (f"   # {why}" if why else "", "dim")) for command, why in steps]
    return Padding(Group(Text("Now try", style="bold"), *lines), (1, 2, 1, 2))


def _typed() -> str:
    """`sluicegate` where the shell finds it, else the path to it from here."""
    if shutil.which("sluicegate") is not None:
        return "sluicegate"
    return os.path.relpath(Path(sys.executable).parent / "sluicegate")


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(_cell(each) for each in value) or "-"
    uid = _UID.fullmatch(str(value))
    return uid["id"] if uid else str(value)


def number_of(row: Row) -> int:
    """The row's number without its letter."""
    return int(row.row.rstrip(ascii_lowercase))


def is_beat(row: Row) -> bool:
    """Whether a row is one of the fourteen of the story; the others vary them."""
    return number_of(row) <= BEATS
