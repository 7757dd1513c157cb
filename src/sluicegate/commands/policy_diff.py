"""`sluicegate policy diff`: what a changed bundle would do otherwise, as a plan with requests that show it."""

import json
from pathlib import Path

import click

from sluicegate.bundle_folder import read_bundle
from sluicegate.enforcer.access import Rules
from sluicegate.enforcer.bundle import Bundle, load_bundle
from sluicegate.enforcer.decide import Decider
from sluicegate.enforcer.directory import load_directory
from sluicegate.policy.changes import policy_changes
from sluicegate.policy.contents import content_changes
from sluicegate.policy.plan import Plan, plan_json, plan_lines
from sluicegate.policy.witnesses import BUDGET, Found, find
from sluicegate.schemas.errors import ConfigurationError, InvalidBundle, InvalidDirectory
from sluicegate.settings import load_settings

_FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("old", type=_FOLDER)
@click.argument("new", type=_FOLDER)
@click.option("--directory", type=_FOLDER, help="the directory (default: the setting, else NEW's or OLD's own)")
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="json: one object"
)
@click.option(
    "--requests", "shown", type=click.IntRange(0), default=20, show_default=True, help="how many requests to show"
)
@click.option(
    "--budget",
    type=click.IntRange(1, 10_000_000),
    default=BUDGET,
    show_default=True,
    help="how many requests, and as many reads of fields, to try",
)
def diff(old: Path, new: Path, directory: Path | None, form: str, shown: int, budget: int) -> int:
    """Say what the bundle NEW does otherwise than the bundle OLD; both are folders.

    Every request that is shown was decided under both by the checks that the gate runs. Exit code 1: they differ.
    """
    before, after = _bundle(old), _bundle(new)
    plan = _plan(before, after, _content(directory, old, new), budget)
    if form == "json":
        click.echo(json.dumps(plan_json(plan, shown), indent=1, ensure_ascii=False))
    else:
        for line in plan_lines(plan, shown):
            click.echo(line)
    return 0 if plan.empty else 1


def _bundle(folder: Path) -> Bundle:
    try:
        return load_bundle(read_bundle(folder))
    except InvalidBundle as error:
        # Exit code 1 says that two sound bundles differ.
        text = f"bundle `{folder}` is refused: {error}; mend what `sluicegate policy check --bundle {folder}` shows"
        raise ConfigurationError(text) from None


def _plan(old: Bundle, new: Bundle, directory: bytes, budget: int) -> Plan:
    policies, contents = policy_changes(old, new), content_changes(old, new)
    found: Found | None = None
    why_not = ""
    try:
        before, after = _rules(old, directory), _rules(new, directory)
    except InvalidDirectory as error:
        if str(old.schema) == str(new.schema):
            raise ConfigurationError(f"the directory is refused: {error}; name another with `--directory`") from None
        why_not = f"the directory conforms to one of the two schemas only ({error})"
    else:
        schema_changed = any(each.kind == "schema" for each in contents)
        found = find(before, after, policies, everything=schema_changed, budget=budget)
    return Plan(digests=(old.digest, new.digest), policies=policies, contents=contents, found=found, why_not=why_not)


def _rules(bundle: Bundle, content: bytes) -> Rules:
    directory = load_directory(content, bundle)
    return Rules(bundle=bundle, directory=directory, decider=Decider(bundle, directory))


def _content(path: Path | None, old: Path, new: Path) -> bytes:
    """The directory that is named; else that of the settings, the new bundle's or the old one's, the first that is."""
    known = (load_settings().directory, new / "directory.json", old / "directory.json")
    chosen = path or next((each for each in known if each.is_file()), known[0])
    try:
        return chosen.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"`{chosen}` cannot be read: {error.strerror}; name it with `--directory`") from None
