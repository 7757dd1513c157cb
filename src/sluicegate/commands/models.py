"""`sluicegate models`: the models that somebody may invoke, by the gate's own decisions."""

import contextlib
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from sluicegate.commands.policy_test import load_rules
from sluicegate.enforcer.access import Rules
from sluicegate.enforcer.directory import split_uid
from sluicegate.policy.invocable import Invocable, Uid, invocable, known
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.schemas.ids import entity_uid


@click.command()
@click.option("--as", "principal", required=True, metavar="PRINCIPAL", help='a user\'s id, or Type::"id"')
@click.option("--via", metavar="SERVICE", help="the service that carries the request (default: any)")
@click.option("--purpose", help="one purpose (default: any)")
@click.option("--at", metavar="TIME", help="event time, ISO 8601 with a zone (default: now)")
@click.option("--bundle", type=click.Path(path_type=Path), help="folder of the bundle (default: the setting)")
@click.option("--directory", type=click.Path(path_type=Path), help="the directory (default: the setting)")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line")
def models(
    principal: str,
    via: str | None,
    purpose: str | None,
    at: str | None,
    bundle: Path | None,
    directory: Path | None,
    *,
    as_json: bool,
) -> int:
    """List the models that PRINCIPAL may invoke, with the purposes and services through which, and what is granted.

    A model is listed if and only if the gate would allow PRINCIPAL a plain question to it; whether something is stopped
    is not looked at. Exit code 1: there is none.
    """
    rules = load_rules(bundle, directory)
    asker = _entity(rules, principal, "User", "--as")
    if purpose is not None and not rules.bundle.declares("Purpose", purpose):
        raise ConfigurationError(f"`--purpose`: the schema lists no purpose `{purpose}`; correct it")
    found = invocable(
        rules,
        asker,
        time_ms=time.time_ns() // 1_000_000 if at is None else _time_ms(at),
        actors=None if via is None else (_entity(rules, via, "Service", "--via"),),
        purposes=None if purpose is None else (purpose,),
    )
    if as_json:
        for each in found:
            click.echo(json.dumps(_plain(each), ensure_ascii=False))
    elif found:
        Console(soft_wrap=True).print(_table(found))
    else:
        click.echo(f"{entity_uid(*asker)} may invoke no model", err=True)
    return 0 if found else 1


def _entity(rules: Rules, text: str, type_: str, option: str) -> Uid:
    try:
        uid = split_uid(text) if '"' in text else (type_, text)
    except ValueError:
        raise ConfigurationError(f'`{option}`: `{text}` is no entity; write an id, or `Type::"id"`') from None
    if not known(rules, uid):
        raise ConfigurationError(f"`{option}`: the directory does not know `{entity_uid(*uid)}`; correct it")
    return uid


def _time_ms(text: str) -> int:
    moment: datetime | None = None
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(text)
    if moment is None or moment.tzinfo is None:
        raise ConfigurationError("`--at` is no time with a zone; write it as `2026-11-20T12:00:00Z`")
    return int(moment.astimezone(UTC).timestamp() * 1000)


def _plain(each: Invocable) -> dict[str, object]:
    return {
        "model": each.model,
        "purpose": each.purpose,
        "via": entity_uid(*each.actor),
        "policies": list(each.policies),
        "max_tokens": each.granted.max_tokens,
        "temperature": each.granted.temperature,
        "only": list(each.granted.choices),
    }


def _table(found: tuple[Invocable, ...]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("model", "purpose", "via", "tokens", "policies"):
        table.add_column(column, overflow="fold")
    for each in found:
        tokens = str(each.granted.max_tokens)
        table.add_row(each.model, each.purpose, each.actor[1], tokens, ", ".join(each.policies))
    return table
