"""`sluicegate directory`: people and data of other systems as changes of it, and the directory as it was."""

import asyncio
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

from sluicegate.attached import attach
from sluicegate.bundle_folder import read_bundle
from sluicegate.commands.audit import auditor_config
from sluicegate.directory_history import empty_log, standing_log
from sluicegate.directory_publish import change_in_force
from sluicegate.enforcer.bundle import load_bundle
from sluicegate.enforcer.directory_change import read_whole
from sluicegate.enforcer.directory_import import COLUMNS, FILE_BYTES_MAX, Listing, read_csv, read_scim
from sluicegate.enforcer.directory_merge import Import, import_change
from sluicegate.enforcer.history import rules_then
from sluicegate.home import open_home
from sluicegate.schemas.errors import ConfigurationError, InvalidDirectory, Unavailable
from sluicegate.settings import load_settings
from sluicegate.sinks.policy_history import kept_log
from sluicegate.sinks.serve import asking
from sluicegate.stopping import signer_from

SHOWN_MAX = 100
PATH = click.Path(path_type=Path, dir_okay=False)


@click.group()
def directory() -> None:
    """Bring people, services, models and data fields of other systems into the directory."""


@directory.command(name="import")
@click.argument("file", type=PATH)
@click.option(
    "--type", "kind", type=click.Choice(list(COLUMNS)), default="User", show_default=True, help="Of all rows."
)
@click.option("--format", "form", type=click.Choice(["csv", "scim"]), help="[default: scim for .json, else csv]")
@click.option("--group", "groups", multiple=True, metavar="GROUP=ROLE", help="SCIM group that stands for a role.")
@click.option("--prune", is_flag=True, help="Remove the entities of this type that the file lacks.")
@click.option("--dry-run", is_flag=True, help="Print only what would be put and removed.")
@click.option("--directory", "held", type=PATH, help="Change this file's directory.  [default: the one in force]")
@click.option(
    "--bundle", type=click.Path(path_type=Path), help="With `--directory`: its bundle.  [default: the setting]"
)
@click.option("--publish", is_flag=True, help="Publish the change.")
@click.option("--key", type=PATH, help="File of a private key that signs the publication.  [default: the publisher's]")
def import_file(
    *,
    file: Path,
    kind: str,
    form: str | None,
    groups: tuple[str, ...],
    prune: bool,
    dry_run: bool,
    held: Path | None,
    bundle: Path | None,
    publish: bool,
    key: Path | None,
) -> int:
    """Print the change of the directory by which it says what FILE says: CSV, or a SCIM list of users and groups.

    What is put and removed is told on standard error. Nothing is in force before it is published. Exit code 1: the file
    or what would come of it is refused.
    """
    if publish and (dry_run or held is not None):
        raise click.UsageError("`--publish` changes the directory in force; leave `--dry-run` and `--directory` out")
    if (key is not None and not publish) or (bundle is not None and held is None):
        raise click.UsageError("`--key` goes with `--publish`, and `--bundle` with `--directory`")
    scim = form == "scim" or (form is None and file.suffix == ".json")
    if (scim and kind != "User") or (groups and not scim):
        raise click.UsageError("a SCIM list has users, and `--group` is for such a list; give `--type User`")
    try:
        listing = _listing(file, kind, groups, scim=scim)
        made = partial(import_change, listing, kind, file=file.name, prune=prune)
        settings, version = load_settings(), None
        if held is None:
            attached, _ = attach(settings, open_home(settings.home))
            signer = None if key is None else signer_from(key)
            found, version = asyncio.run(change_in_force(attached, made, publish=publish, signer=signer))
        else:
            found = made(read_whole(_bytes(held)), load_bundle(read_bundle(bundle or settings.bundle_dir)))
    except InvalidDirectory as error:
        for problem in error.problems:
            click.echo(f"sluicegate: {problem}", err=True)
        return 1
    _tell(found, err=not dry_run)
    if version is not None:
        click.echo(f"  published directory v{version}", err=True)
    elif found.content and not dry_run and not publish:
        click.echo(found.content)
    return 0


@directory.command()
@click.option(
    "--at", "then", metavar="TIME", help="ISO 8601 with its offset, such as 2026-11-24T09:30Z.  [default: now]"
)
@click.option("--audit", "from_audit", is_flag=True, help="From the audit, also where the policy log stands.")
def show(*, then: str | None, from_audit: bool) -> int:
    """Print the directory that was in force at TIME, one entity a line; its version and digest on standard error.

    From the policy log where it stands whole, else from the audit, by the fold that the stages run.
    """
    time_ms = time.time_ns() // 1_000_000 if then is None else _time_ms(then)
    settings = load_settings()
    records = None
    if not from_audit:
        try:
            attached, _ = attach(settings, open_home(settings.home))
            records = asyncio.run(standing_log(attached))
        except Unavailable as error:
            click.echo(f"  {error}; asking the audit", err=True)
        if records and records[0].timestamp_ms > time_ms:
            records = None  # a log that was begun anew since
    if records is None:
        with asking(auditor_config()) as auditor:
            rules = rules_then(kept_log(auditor, time_ms), empty_log(settings), time_ms)
    else:
        rules = rules_then(records, empty_log(settings), time_ms)
    entries = rules.judging.directory.entries
    click.echo(f"  directory v{rules.version.directory_version} {rules.version.directory_digest}", err=True)
    for uid in sorted(entries):
        click.echo(entries[uid].text)
    return 0


def _time_ms(text: str) -> int:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise click.UsageError("write `--at` as ISO 8601 with its offset, such as 2026-11-24T09:30Z")
    return int(found.astimezone(UTC).timestamp() * 1000)


def _listing(file: Path, kind: str, groups: tuple[str, ...], *, scim: bool) -> Listing:
    roles_of = {}
    for each in groups:
        group, sign, role = each.partition("=")
        if not (group and sign and role):
            raise click.UsageError("write `--group` as GROUP=ROLE")
        roles_of[group] = role
    data = _bytes(file)
    return read_scim(data, file=file.name, roles_of=roles_of) if scim else read_csv(data, kind=kind, file=file.name)


def _bytes(path: Path) -> bytes:
    """A little more than the limit at most: the reader then says that it is too much."""
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"`{path}` cannot be read: {error.strerror}; name another file") from None


def _tell(found: Import, *, err: bool) -> None:
    """What is different; all of it where that is what was asked for (`err` is false), else the first of it."""
    shown = found.differences[:SHOWN_MAX] if err else found.differences
    width = max((len(each.uid) for each in shown), default=0)
    for each in shown:
        click.echo(f"  {each.mark} {each.uid:{width}}  {each.detail}".rstrip(), err=err)
    if len(shown) < len(found.differences):
        click.echo(f"  and {len(found.differences) - len(shown)} more; `--dry-run` shows all", err=err)
    counted = [sum(each.mark == mark for each in found.differences) for mark in "+~-"]
    click.echo("  {} new, {} changed, {} removed".format(*counted), err=err)
