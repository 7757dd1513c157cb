"""`sluicegate keys`: keys are made, listed and taken out of force; private halves never leave their folder."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from sluicegate.attached import attach
from sluicegate.commands.keys_rotate import rotate
from sluicegate.home import Home, open_home
from sluicegate.installation import ROOT_FILE, Installation, service_key_entry
from sluicegate.key_admission import admissions, find_key, stage_keys_in_force
from sluicegate.key_admission import revoke as revoke_key
from sluicegate.keys import PRIVATE, PUBLIC, REVOKED, KeyKind, KeyName, PrivateKey, key_id_of, load_key, new_p256
from sluicegate.policy_writer import Admission
from sluicegate.schemas.errors import ConfigurationError, SluicegateError, Unavailable
from sluicegate.settings import Settings, load_settings

STAGES: Final = ("enforcer", "runner", "redactor", "shadow")
DAY_S: Final = 86_400


@click.group()
def keys() -> None:
    """Make, list and revoke the keys of this installation: root, publisher, freshness, stages, services."""


keys.add_command(rotate)


@keys.group()
def new() -> None:
    """Make a key in `SLUICEGATE_KEYS_DIR` (default: `keys` in `SLUICEGATE_HOME`); none is ever overwritten."""


def _installation() -> tuple[Settings, Home, Installation]:
    settings = load_settings()
    home = open_home(settings.home)
    return settings, home, Installation(settings, home)


def _made(installation: Installation, kind: KeyKind, owner: str = "", **options: Callable[[], PrivateKey]) -> KeyName:
    """Makes a key and tells its id and where it is."""
    folder = installation.keys
    name = folder.new(kind, owner, **options)
    click.echo(f"  key      {key_id_of(folder.public(name), name.prefix)}")
    click.echo(f"  private  {folder.file(name)}")
    click.echo(f"  public   {folder.file(name, PUBLIC)}")
    return name


@new.command()
def root() -> int:
    """Make the root key and, over the public halves of publisher and freshness, the root of trust that all pin."""
    installation = _installation()[2]
    held = installation.keys.of(KeyKind.ROOT)
    if held and installation.root_file.exists():
        raise ConfigurationError(f"there is a root of trust at `{installation.root_file}`; nobody replaces one")
    if not held:
        _made(installation, KeyKind.ROOT)
    _sign_root(installation)
    return 0


@new.command()
def publisher() -> int:
    """Make the key that signs bundles, directories and stage keys."""
    installation = _installation()[2]
    if installation.keys.of(KeyKind.PUBLISHER, endings=(PRIVATE, PUBLIC)):
        raise ConfigurationError(
            f"there is a publisher's key in `{installation.keys.path}`; the root names it: `sluicegate keys rotate "
            "publisher` replaces it"
        )
    _made(installation, KeyKind.PUBLISHER)
    if installation.keys.of(KeyKind.ROOT):
        _sign_root(installation)
    else:
        click.echo(f"  next     put `publisher{PUBLIC}` beside the root key and run `sluicegate keys new root` there")
    return 0


@new.command()
def freshness() -> int:
    """Make a key that signs freshness; one more where it has some, for a new root to name."""
    installation = _installation()[2]
    _made(installation, KeyKind.FRESHNESS)
    if installation.keys.of(KeyKind.ROOT) and not installation.root_file.exists():
        _sign_root(installation)
    else:
        click.echo(f"  next     put `freshness{PUBLIC}` beside the root key and run `sluicegate keys new root` there")
    return 0


def _sign_root(installation: Installation) -> None:
    needed = (KeyKind.PUBLISHER, KeyKind.FRESHNESS)
    missing = [kind for kind in needed if not installation.keys.of(kind, endings=(PRIVATE, PUBLIC))]
    for kind in missing:
        click.echo(f"  next     run `sluicegate keys new {kind}`, or bring its `{kind}{PUBLIC}`: the root names it")
    if missing:
        click.echo("  next     run `sluicegate keys new root`: it makes the root of trust once both are here")
        return
    installation.make_root()
    click.echo(f"  root     {installation.root_file}  {installation.root_digest()}")
    click.echo(f"  next     give every stage and the publisher this `{ROOT_FILE}`; keep the private root key offline")


@new.command()
@click.argument("name", type=click.Choice(STAGES))
def stage(name: str) -> int:
    """Make a key that the stage NAME seals with; one more where it has some."""
    installation = _installation()[2]
    made = _made(installation, KeyKind.STAGE, name)
    file = installation.keys.file(made, PUBLIC).name
    click.echo(
        f"  next     put `{file}` into the publisher's key folder, run `sluicegate publish` there, and start the"
    )
    click.echo(f"           {name} again: it takes its newest admitted key")
    return 0


@new.command()
@click.argument("name")
@click.option("--alg", type=click.Choice(["ed25519", "es256"]), default="ed25519", show_default=True)
def service(name: str, alg: str) -> int:
    """Make a key that the service NAME proves its requests with; prints its entry for the directory."""
    installation = _installation()[2]
    options: dict[str, Callable[[], PrivateKey]] = {"make": new_p256} if alg == "es256" else {}
    made = _made(installation, KeyKind.SERVICE, name, **options)
    click.echo("  next     add this to `service_keys` of the directory, and run `sluicegate publish`:")
    click.echo(json.dumps(service_key_entry(installation.keys, made)))
    return 0


@keys.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a key")
@click.option("--public", is_flag=True, help="the stage keys that clients trust, as the policy log admits them")
def list_keys(*, as_json: bool, public: bool) -> int:
    """Show every key of the folder, and what the policy log says of it where a broker is reached.

    Exit code 1 where a key cannot be used: open to others, or no key.
    """
    settings, home, installation = _installation()
    if public:
        attached, _ = attach(settings, home)
        click.echo(asyncio.run(stage_keys_in_force(attached)))
        return 0
    said, why = _admissions(settings, home)
    rows = [_row(installation, name, ending, said) for name, ending in _files(installation)]
    held = {row["id"] for row in rows}
    rows += [
        {"kind": each.kind, "owner": each.owner, "id": key_id, "file": "", "age_days": None, "problem": "",
         "admitted": _stamp(each.since_ms), "revoked": _stamp(each.until_ms)}
        for key_id, each in (said or {}).items() if key_id not in held
    ]  # fmt: skip
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
    else:
        Console(soft_wrap=True, highlight=False).print(_table(rows))
    if why:
        click.echo(f"  what is admitted is not known: {why}", err=True)
    return 1 if any(row["problem"] for row in rows) else 0


def _files(installation: Installation) -> list[tuple[KeyName, str]]:
    folder = installation.keys
    private = folder.names(PRIVATE)
    carried = [name for name in folder.names(PUBLIC) if name not in private]
    retired = folder.names(REVOKED)
    return [
        *((name, PRIVATE) for name in private),
        *((name, PUBLIC) for name in carried),
        *((name, REVOKED) for name in retired),
    ]


def _row(
    installation: Installation, name: KeyName, ending: str, said: Mapping[str, Admission] | None
) -> dict[str, object]:
    path = installation.keys.file(name, ending)
    key_id, problem = "", ""
    try:
        key = load_key(path).public_key() if ending == REVOKED else installation.keys.public(name)
        key_id = key_id_of(key, name.prefix)
    except ConfigurationError as error:
        problem = str(error)
    found = None if said is None else said.get(key_id)
    return {
        "kind": str(name.kind),
        "owner": name.owner,
        "id": key_id,
        "file": path.name,
        "age_days": round((time.time() - path.stat().st_mtime) / DAY_S, 1),
        "problem": problem,
        "admitted": None if found is None else _stamp(found.since_ms),
        "revoked": None if found is None else _stamp(found.until_ms),
    }


def _admissions(settings: Settings, home: Home) -> tuple[Mapping[str, Admission] | None, str]:
    try:
        attached, _ = attach(settings, home)
    except Unavailable as error:
        return None, str(error)
    try:
        return asyncio.run(admissions(attached)), ""
    except SluicegateError as error:
        return None, str(error)


def _stamp(time_ms: int | None) -> str | None:
    return None if time_ms is None else datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="seconds")


def _table(rows: list[dict[str, object]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("kind", "owner", "id", "file", "days", "admitted", "revoked", "problem"):
        table.add_column(column, overflow="fold")
    for row in rows:
        words = (row[name] for name in ("kind", "owner", "id", "file", "age_days", "admitted", "revoked", "problem"))
        table.add_row(*("-" if word is None else str(word) for word in words))
    return table


@keys.command()
@click.argument("key_id")
@click.option("--at", "at", type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ"]), help="event time, UTC, for a stage's key")
def revoke(key_id: str, at: datetime | None) -> int:
    """Take the key KEY_ID out of force, by a signed version on the policy log. It needs the publisher's key."""
    settings, home, installation = _installation()
    attached, one_box = attach(settings, home)
    at_ms = None if at is None else int(at.replace(tzinfo=UTC).timestamp() * 1000)
    done = asyncio.run(revoke_key(attached, key_id, at_ms=at_ms))
    if not done.changed:
        click.echo(f"  `{key_id}` was out of force already, from {_stamp(done.until_ms)} on")
        return 0
    if done.kind == "stage":
        click.echo(
            f"  revoked  `{key_id}` by stage keys v{done.version}: what it seals from {_stamp(done.until_ms)} on"
        )
        click.echo("           (event time) has no effect; what it sealed before keeps it")
    else:
        click.echo(f"  revoked  `{key_id}` by directory v{done.version}, which lists it no more")
        click.echo(f"  next     take its entry out of `{attached.directory}`: a publication that lists it is refused")
    name = find_key(installation.keys, key_id)
    retired = None if name is None else installation.keys.retire(name)
    if retired is not None:
        click.echo(f"  file     now `{retired}`")
    elif not one_box:
        click.echo("  file     not in this folder: remove it on its host")
    if done.left == 0:
        click.echo(
            f"  next     `{done.owner}` has no other key: run `sluicegate keys new {done.kind} {done.owner}`, then"
        )
        click.echo("           `sluicegate publish`, and start it again")
    return 0
