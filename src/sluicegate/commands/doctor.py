"""`sluicegate doctor`: looks at this installation and its deployment, and says how to mend what is wrong."""

import asyncio
import importlib.metadata
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sluicegate.attached import attach
from sluicegate.doctor.findings import Finding, Level, warn
from sluicegate.doctor.machine import (
    PACKAGE,
    check_clock,
    check_disk,
    check_keys,
    check_libraries,
    check_model,
    check_ports,
    check_provider,
    check_runtimes,
    check_transport,
    clock_state,
    installed_versions,
    listening_of,
)
from sluicegate.home import Home, open_home
from sluicegate.schemas.errors import Unavailable
from sluicegate.settings import Settings, load_settings

STYLES: Final = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a finding.")
def doctor(*, as_json: bool) -> int:
    """Check libraries, runtimes, disk, clock, keys, ports, broker, topics, rights, policy and stages.

    Exit code 1 when something fails. Settings come from the environment, as for `sluicegate run`.
    """
    settings = load_settings()
    home = open_home(settings.home)
    found = [*_machine(settings, home), *asyncio.run(_deployment(settings, home))]
    if as_json:
        for each in found:
            click.echo(json.dumps(asdict(each) | {"level": each.level.name.lower()}))
    else:
        Console(soft_wrap=True, highlight=False).print(_table(found))
    return 1 if any(each.level is Level.FAIL for each in found) else 0


def _machine(settings: Settings, home: Home) -> Iterator[Finding]:
    installed = installed_versions()
    yield from check_libraries(importlib.metadata.requires(PACKAGE) or (), installed)
    runtimes = list(check_runtimes(installed))
    yield from runtimes
    if all(each.level is Level.OK for each in runtimes):
        import onnxruntime  # a second of its own, and broken where two are installed over each other

        yield from check_provider(settings.model_provider, onnxruntime.get_available_providers())
    yield from check_model(settings)
    yield from check_disk(home.root, settings.disk_free_mb_min)
    yield from check_keys(settings.keys_dir or home.keys)
    yield from check_clock(clock_state())
    yield from check_ports(listening_of(_pids(home)))
    yield from check_transport(settings)


def _pids(home: Home) -> dict[str, int]:
    try:
        state = home.running(ready=False)
    except Unavailable:
        return {}
    return {"up": state.pid, **{child.name: child.pid for child in state.children}}


async def _deployment(settings: Settings, home: Home) -> list[Finding]:
    from sluicegate.doctor.deployment import check_audit, check_deployment, check_registry  # a moment to load

    try:
        settings, one_box = attach(settings, home)
    except Unavailable as error:
        return [warn("broker", str(error), "run `sluicegate up`, or set `SLUICEGATE_BOOTSTRAP`")]
    found = [each async for each in check_deployment(settings, one_box=one_box)]
    found += [each async for each in check_registry(settings)]
    return [*found, *(check_audit(settings, home) if one_box or settings.clickhouse_host else ())]


def _table(found: list[Finding]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1))
    for each in found:
        what = Text(each.what)
        if each.mend:
            what.append(f"\n{each.mend}", style="dim")
        table.add_row(Text(each.level.name.lower(), style=STYLES[each.level]), each.check, what)
    return table
