"""`sluicegate policy check`: what is wrong with a bundle and its directory, with file, line and fix."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from sluicegate.bundle_folder import read_bundle
from sluicegate.enforcer.bundle import load_bundle
from sluicegate.policy.findings import Finding, Severity, from_problem, sort
from sluicegate.policy.lint import lint, lint_directory
from sluicegate.schemas.errors import ConfigurationError, InvalidBundle
from sluicegate.settings import load_settings


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), help="folder of the bundle (default: the setting)")
@click.option(
    "--directory", type=click.Path(path_type=Path), help="the directory (default: the setting, if it is there)"
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="json: a list of objects; github: workflow commands, shown at the lines of a pull request",
)
@click.option("--strict", is_flag=True, help="exit 1 on warnings too")
def check(bundle: Path | None, directory: Path | None, form: str, *, strict: bool) -> int:
    """Say what is wrong with a bundle, and with a directory under it: file, line, and what to do.

    Exit code 1: there are errors, which publishing refuses or which make a policy useless.
    """
    settings = load_settings()
    folder = settings.bundle_dir if bundle is None else bundle
    known = directory or settings.model_copy(update={"bundle_dir": folder}).directory
    content = _read(known) if directory is not None or known.is_file() else None
    findings = [each.under(_from_here(folder)) for each in _bundle_findings(folder)]
    if content is None:
        about = f"no directory looked at: `{known}` is not there"
    elif any(each.severity is Severity.ERROR for each in findings):
        about = "directory not looked at: it is read under a bundle without errors"
    else:
        about = f"directory `{known}`"
        findings += lint_directory(content, load_bundle(read_bundle(folder)), _from_here(known))
    for line in _lines(findings, form):
        click.echo(line)
    errors = sum(each.severity is Severity.ERROR for each in findings)
    warnings = len(findings) - errors
    click.echo(f"{_count(errors, 'error')}, {_count(warnings, 'warning')}: bundle `{folder}`, {about}", err=True)
    return 1 if errors or (strict and warnings) else 0


def _bundle_findings(folder: Path) -> Sequence[Finding]:
    try:
        content = read_bundle(folder)
    except InvalidBundle as error:
        return sort(from_problem(problem, {}) for problem in error.problems)
    return lint(content)


def _lines(findings: Sequence[Finding], form: str) -> Iterator[str]:
    if form == "json":
        yield json.dumps([each.to_json() for each in findings], indent=1, ensure_ascii=False)
        return
    for each in findings:
        yield each.to_github() if form == "github" else each.to_text()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"`{path}` cannot be read: {error.strerror}; name it with `--directory`") from None


def _from_here(path: Path) -> str:
    """The path as a forge wants it: from the working folder, where it is in it."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.as_posix()


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
