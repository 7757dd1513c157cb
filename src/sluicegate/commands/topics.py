"""`sluicegate topics plan|apply|check`: the topics and rights of a deployment against the table that names them."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from sluicegate.schemas.errors import ConfigurationError
from sluicegate.settings import Settings, load_settings
from sluicegate.streams.rights import Realm
from sluicegate.streams.topic_plan import Deviation
from sluicegate.topics import Applications, Examined, apply, examine, read_applications, realm_of

NOTHING = 0
LEFT = 1
CHANGES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the options name."""

    settings: Settings
    applications: Applications
    realm: Realm | None


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option("--topics-only", is_flag=True, help="Leave rights alone: somebody else looks after them."),
        click.option(
            "--user",
            "users",
            multiple=True,
            metavar="ROLE=PRINCIPAL",
            help="The broker's name for a role or a service of the directory, where it is not `<tenant>.<role>` or the "
            "service's id.",
        ),
        click.option(
            "--directory",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Directory file.  [default: setting]",
        ),
    ):
        command = option(command)
    return command


_revoke = click.option("--revoke", is_flag=True, help="Take away rights on the tenant's names that nobody should have.")


@click.group()
def topics() -> None:
    """Create and verify the topics and access rights of a real deployment.

    What is wanted stands in the table of topics, the settings and the directory's `replies`. No topic is ever deleted.
    """


@topics.command()
@_options
@_revoke
def plan(*, users: Sequence[str], directory: Path | None, topics_only: bool, as_json: bool, revoke: bool) -> int:
    """Print what `apply` would do: + create, ~ change, - remove, ! by hand. Exit code 0: nothing, 2: something."""
    asked = _ask(users, directory, topics_only=topics_only)
    found = asyncio.run(examine(asked.settings, asked.applications, realm=asked.realm, revoke=revoke))
    if as_json:
        _print_json(done=(), left=found)
    else:
        _print_lines(found.deviations)
        _print_strangers(found)
        click.echo(f"  {_summary(found.deviations)}")
    return CHANGES if found.deviations else NOTHING


@topics.command("apply")
@_options
@_revoke
def apply_(*, users: Sequence[str], directory: Path | None, topics_only: bool, as_json: bool, revoke: bool) -> int:
    """Do what `plan` prints, and print what was done. Exit code 1: something is left to be done by hand."""
    asked = _ask(users, directory, topics_only=topics_only)
    mended: list[Deviation] = []

    def done(deviation: Deviation) -> None:
        mended.append(deviation)
        if not as_json:
            click.echo(f"  {deviation.mend.value} {deviation.what}")

    left = asyncio.run(apply(asked.settings, asked.applications, realm=asked.realm, revoke=revoke, done=done))
    if as_json:
        _print_json(done=mended, left=left)
    else:
        for each in left.deviations:
            click.echo(f"  {each.mend.value} {each.what}\n      {each.how}")
        _print_strangers(left)
        click.echo(f"  done: {_count(mended)}; left: {len(left.deviations)}")
    return LEFT if left.deviations else NOTHING


@topics.command()
@_options
def check(*, users: Sequence[str], directory: Path | None, topics_only: bool, as_json: bool) -> int:
    """Print each deviation on a line, with how to mend it. Exit code 0: there is none, 1: there is one."""
    asked = _ask(users, directory, topics_only=topics_only)
    found = asyncio.run(examine(asked.settings, asked.applications, realm=asked.realm))
    if as_json:
        _print_json(done=(), left=found)
    else:
        for each in found.deviations:
            click.echo(f"  {each.what}; {each.how}")
        _print_strangers(found)
        if not found.deviations:
            click.echo("  topics and rights are as they should be" if asked.realm else "  topics are as they should be")
    return LEFT if found.deviations else NOTHING


def _ask(users: Sequence[str], directory: Path | None, *, topics_only: bool) -> Asked:
    settings = load_settings()
    if not settings.bootstrap:
        msg = "no broker is named: set `SLUICEGATE_BOOTSTRAP` (`sluicegate up` makes the topics of its own)"
        raise ConfigurationError(msg)
    applications = read_applications(directory or settings.directory)
    named: dict[str, str] = {}
    for each in users:
        role, equals, principal = each.partition("=")
        if not equals or not role or role in named:
            raise ConfigurationError(f"`--user {each}` is no ROLE=PRINCIPAL, or names a role twice")
        named[role] = principal
    if topics_only and named:
        raise ConfigurationError("`--user` is about rights, which `--topics-only` leaves alone: drop one of them")
    realm = None if topics_only else realm_of(settings, applications, named)
    return Asked(settings=settings, applications=applications, realm=realm)


def _print_lines(deviations: Sequence[Deviation]) -> None:
    for each in deviations:
        click.echo(f"  {each.mend.value} {each.what}")
        if each.action is None:
            click.echo(f"      {each.how}")


def _print_strangers(found: Examined) -> None:
    for name in found.strangers:
        click.echo(f"  (topic `{name}` is not in the table; nothing reads it, and nothing here deletes it)")


def _summary(deviations: Sequence[Deviation]) -> str:
    if not deviations:
        return "nothing to do"
    by_hand = sum(each.action is None for each in deviations)
    mended = [each for each in deviations if each.action is not None]
    return f"to do: {_count(mended)}; by hand: {by_hand}"


def _count(deviations: Sequence[Deviation]) -> str:
    words = {"+": "create", "~": "change", "-": "remove"}
    counts = {word: sum(each.mend.value == sign for each in deviations) for sign, word in words.items()}
    return ", ".join(f"{count} to {word}" for word, count in counts.items())


def _print_json(*, done: Sequence[Deviation], left: Examined) -> None:
    def entry(each: Deviation) -> dict[str, str]:
        return {"mend": each.mend.name.lower(), "what": each.what, "how": each.how}

    found = {
        "done": [entry(each) for each in done],
        "deviations": [entry(each) for each in left.deviations],
        "strangers": list(left.strangers),
    }
    click.echo(json.dumps(found, indent=1, ensure_ascii=False))
