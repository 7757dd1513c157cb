"""`sluicegate policy status`: what every environment and its workers run, how they differ, and what ends soon."""

import asyncio
import json
from collections.abc import Iterator

import click

from sluicegate.commands.envelope_lines import moment, short
from sluicegate.environments import described, environment, named_environments
from sluicegate.home import Home
from sluicegate.policy_status import Status, drift_between, read_status
from sluicegate.schemas.errors import SluicegateError


@click.command()
@click.option("--env", "envs", metavar="NAME", multiple=True, help="Only this one; may be given again.  [default: all]")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def status(envs: tuple[str, ...], form: str) -> int:
    """Show what every environment and its workers run: digest, version, since when, expiry, drift.

    Exit code 1: something drifts, ends within 30 days or has ended, or an environment is not reached.
    """
    found = [_status(name) for name in (envs or _all())]
    between = drift_between(found)
    if form == "json":
        click.echo(json.dumps({"environments": [_json(each) for each in found], "drift": between}, indent=1))
    else:
        for each in found:
            for line in _lines(each):
                click.echo(line)
        if between is not None:
            click.echo(f"  ALARM     {between}")
    return 1 if between is not None or any(each.alarms or each.problem for each in found) else 0


def _all() -> list[str]:
    """Every environment with a file, and the own one where it has a stack or a broker."""
    named, own = named_environments(), described()
    runs = bool(own.settings.bootstrap) or Home(root=own.settings.home).owner() is not None
    return [*named, *([own.name] if own.name not in named and (runs or not named) else [])]


def _status(name: str) -> Status:
    described(name)
    try:
        at = environment(name)
    except SluicegateError as error:
        return Status(env=name, problem=str(error))
    return asyncio.run(read_status(at.name, at.settings))


def _lines(status: Status) -> Iterator[str]:
    yield f"{status.env}"
    for each in status.standing:
        version = each.version
        since = f"since {moment(each.since_ms)}" if each.since_ms else "from the first on"
        line = (
            f"  {version.kind.lower():9} v{version.version} {short(version.digest)}  {since}  "
            f"expires {moment(version.expires_ms)}"
        )
        if each.next_ is not None:
            newest, start_ms = each.next_
            line += f"  (next: v{newest.version}" + (f" from {moment(start_ms)})" if start_ms is not None else ")")
        yield line
    for stop in status.stopped:
        yield f"  stopped   {stop}"
    for worker in status.workers:
        if worker.policy is None or worker.time_ms is None:
            yield f"  worker    partition {worker.partition}: nothing decided lately"
        else:
            yield (
                f"  worker    partition {worker.partition}: bundle v{worker.policy.bundle_version} "
                f"{short(worker.policy.bundle_digest)}, directory v{worker.policy.directory_version}, "
                f"at {moment(worker.time_ms)}"
            )
    if status.unseen:
        yield f"  workers   not known: {status.unseen}"
    for text in (*status.alarms, *([status.problem] if status.problem else [])):
        yield f"  ALARM     {text}"


def _json(status: Status) -> dict[str, object]:
    return {
        "env": status.env,
        "versions": [
            {
                "kind": each.version.kind.value,
                "version": each.version.version,
                "digest": each.version.digest,
                "since_ms": each.since_ms,
                "expires_ms": each.version.expires_ms,
                "next_version": None if each.next_ is None else each.next_[0].version,
            }
            for each in status.standing
        ],
        "stopped": list(status.stopped),
        "workers": [
            {
                "partition": each.partition,
                "bundle_version": None if each.policy is None else each.policy.bundle_version,
                "bundle_digest": None if each.policy is None else each.policy.bundle_digest,
                "directory_version": None if each.policy is None else each.policy.directory_version,
                "directory_digest": None if each.policy is None else each.policy.directory_digest,
                "time_ms": each.time_ms,
            }
            for each in status.workers
        ],
        "alarms": list(status.alarms),
        "problem": status.problem or None,
        "workers_unknown": status.unseen or None,
    }
