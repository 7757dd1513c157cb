"""`sluicegate policy shadow`: a candidate decides beside the active bundle, without effect, and what came of it."""

import asyncio
import json
import re
from pathlib import Path
from typing import Final

import click

from sluicegate.attached import attach
from sluicegate.bundle_folder import read_bundle
from sluicegate.commands.stop import KEY
from sluicegate.home import open_home
from sluicegate.settings import load_settings
from sluicegate.shadowing import start_shadow, stop_shadow
from sluicegate.stopping import signer_from

_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Duration(click.ParamType):
    """`90s`, `30m`, `2h` or `7d`, as milliseconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Refuses anything else as a usage error."""
        if isinstance(value, int):
            return value
        found = _DURATION.fullmatch(str(value))
        if found is None:
            self.fail(f"`{value}` is no duration; write 90s, 30m, 2h or 7d", param, ctx)
        return int(found[1]) * _SECONDS[found[2]] * 1000


@click.group()
def shadow() -> None:
    """Let a signed candidate decide beside the active bundle: nothing that is allowed or denied rests on it."""


@shadow.command()
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option("--for", "for_ms", type=Duration(), help="how long, such as 2h or 7d.  [default: until it is stopped]")
@KEY
def start(bundle: Path | None, for_ms: int | None, key_files: tuple[Path, ...]) -> int:
    """Let BUNDLE, a folder (default: the setting), decide in shadow, in place of any other candidate.

    The stage `shadow` does it: `sluicegate up` runs one from now on; elsewhere run `sluicegate run shadow`.
    """
    settings = load_settings()
    content = read_bundle(bundle or settings.bundle_dir)
    attached, _ = attach(settings, open_home(settings.home))
    signers = [signer_from(path) for path in key_files]
    started = asyncio.run(start_shadow(attached, content, for_ms=for_ms, signers=signers))
    click.echo(f"  in shadow  candidate v{started.version} {started.digest}")
    return 0


@shadow.command()
@KEY
def stop(key_files: tuple[Path, ...]) -> int:
    """End the shadow; what was decided in it stays in the audit."""
    settings = load_settings()
    attached, _ = attach(settings, open_home(settings.home))
    stood = asyncio.run(stop_shadow(attached, signers=[signer_from(path) for path in key_files]))
    click.echo("  the shadow has ended" if stood else "  no candidate stood")
    return 0


@shadow.command()
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def report(form: str) -> int:
    """Say what candidates would have decided otherwise, from the audit.

    Exit code 1: a candidate could not be asked, or the topic holds what is not to be believed.
    """
    # The database's libraries, for this command alone.
    from sluicegate.commands.audit import auditor_config
    from sluicegate.sinks.serve import asking
    from sluicegate.sinks.shadow_report import shadow_report
    from sluicegate.sinks.shadow_view import report_lines

    with asking(auditor_config()) as auditor:
        found = shadow_report(auditor)
    if form == "json":
        click.echo(json.dumps(found.as_json(), indent=1, ensure_ascii=False))
    else:
        for line in report_lines(found):
            click.echo(line)
    return 1 if found.failures or found.misquoting_count or found.foreign else 0
