"""What became of an envelope goes in, lines for a person come out; and the options that envelope makers share."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from sluicegate.enforcer.envelope import Contents, Signing
from sluicegate.envelopes import Landed, Refusal

DIGEST_LENGTH: Final = len("sha256:") + 12
DAY_MS: Final = 24 * 3600 * 1000
EXPIRES_DAYS: Final = 90
FILE = click.Path(path_type=Path)
Command_ = TypeVar("Command_", bound=Callable[..., Any])

env_option = click.option("--env", "env", metavar="NAME", help="The environment.  [default: the one of the settings]")
key_option = click.option(
    "--key", "key_files", multiple=True, type=FILE, help="File of a private key that signs; may be given again."
)


class Moment(click.ParamType):
    """A time as milliseconds since 1970."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The time in the text."""
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            found = None
        if found is None or found.tzinfo is None:
            self.fail("write it as ISO 8601 with its offset, such as 2026-11-24T09:30Z", param, ctx)
        return int(found.timestamp() * 1000)


def term_options(command: Command_) -> Command_:
    """The options that say from when to when a version is wanted in force, and where its envelope goes."""
    for option in (
        click.option("--out", type=FILE, help="The envelope's file.  [default: ENV-KIND-vVERSION.json]"),
        key_option,
        click.option(
            "--expires-in", "days", type=click.IntRange(1, 3650), default=EXPIRES_DAYS, show_default=True,
            help="Days after which it is void.",
        ),
        click.option(
            "--effective-at", "effective_at_ms", type=Moment(), help="Event time of its start.  [default: at once]"
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def moment(time_ms: int) -> str:
    """A time as people read it, UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def short(digest: str) -> str:
    """The beginning of a digest."""
    return f"{digest[:DIGEST_LENGTH]}.."


def titled(contents: Contents) -> str:
    """What the envelope is, in a few words."""
    return f"{contents.kind.lower()} v{contents.version} for `{contents.domain.env}` {short(contents.digest)}"


def contents_lines(contents: Contents, file: Path) -> Iterator[str]:
    """What an envelope says and whom it lacks."""
    start = "at once" if not contents.effective_at_ms else f"from {moment(contents.effective_at_ms)}"
    yield f"  envelope  {titled(contents)}"
    yield f"  in force  {start} (event time), expires {moment(contents.expires_ms)}"
    if not contents.ways:
        yield f"  signed    by {len(contents.signatures)}; who is missing is not known without the policy log"
    for number, way in enumerate(contents.ways):
        for each in way:
            yield f"  {'signed' if number == 0 else 'or'}    {'' if number == 0 else '    '}{_signing(each)}"
    yield f"  file      {file}"
    if contents.complete:
        yield f"  next      sluicegate policy publish --env {contents.domain.env} {file}"
    else:
        yield f"  next      sluicegate policy sign {file} --key KEY"


def _signing(each: Signing) -> str:
    by = f"by {', '.join(each.signed)}" if each.signed else "by nobody yet"
    if each.met:
        return f"{each.role}: {by}; {each.threshold} needed"
    left = each.threshold - len(each.signed)
    return f"{each.role}: {by}; {left} of these missing: {', '.join(each.missing) or 'nobody is left'}"


def landed_line(landed: Landed, env: str) -> str:
    """What was published."""
    start = "never in force" if landed.from_ms is None else f"in force from {moment(landed.from_ms)}"
    return (
        f"  published {landed.kind.lower()} v{landed.version} for `{env}` {short(landed.digest)} at {landed.position}, "
        f"{start}, expires {moment(landed.expires_ms)}"
    )


def refusal_lines(refusal: Refusal) -> Iterator[str]:
    """Why nothing was published, and what to do."""
    yield f"  refused   {titled(refusal.contents)}: {refusal.code}"
    yield f"  why       {refusal.reason}"
    yield f"  do        {refusal.fix}"
