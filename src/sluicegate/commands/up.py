"""`sluicegate up`, `down` and `status`: the embedded stack's start, end and state."""

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import click

from sluicegate import logs
from sluicegate.home import AlreadyRunning, Home, open_home
from sluicegate.kafka_jars import kafka_jars, require_tools
from sluicegate.schemas.errors import ConfigurationError, SluicegateError, Unavailable
from sluicegate.settings import Settings, load_settings
from sluicegate.supervisor import STOP_ORDER

POLL_S = 0.05
# What `status` calls the broker.
BROKERS = {"embedded": "embedded (in memory)", "kafka": "Apache Kafka (log kept)", "given": "not started by us"}
BUNDLE = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option("--detach", is_flag=True, help="Leave the stack running and return when it is ready.")
@click.option("--bundle", type=BUNDLE, help="Folder of the policy bundle.  [default: policies]")
@click.option(
    "--watch/--no-watch", default=True, show_default=True, help="Publish edits of the bundle as they are saved."
)
@click.option(
    "--broker",
    type=click.Choice(["embedded", "kafka"]),
    help="Broker to start; kafka keeps its log.  [default: embedded]",
)
@click.option("--background", is_flag=True, hidden=True)
def up(*, detach: bool, bundle: Path | None, watch: bool, broker: str | None, background: bool) -> int:
    """Start broker, gate, model runner, redactor, delivery and audit; Ctrl-C stops them."""
    from sluicegate.stack import require_bundle  # the broker's libraries take a moment to load

    settings = load_settings()
    home = open_home(settings.home)
    changes: dict[str, object] = {"home": home.root}
    if bundle is not None:
        changes["bundle_dir"] = bundle
    if broker is not None:
        if settings.bootstrap:
            msg = f"`SLUICEGATE_BOOTSTRAP` names a broker at `{settings.bootstrap}`: unset it, or leave `--broker` out"
            raise ConfigurationError(msg)
        changes["broker"] = broker
    settings = settings.model_copy(update=changes)
    require_bundle(settings)
    home.require_disk(settings.disk_free_mb_min)
    if settings.broker == "kafka" and not settings.bootstrap:
        require_tools()
        kafka_jars(say=lambda text: click.echo(f"  {text}", err=True))
    if detach:
        return _detach(settings, home, watch=watch)
    with home.lock():
        logs.log_to_file(home.log_file("up"), settings.log_level)
        _serve(settings, home, watch=watch, background=background)
    return 0


def _serve(settings: Settings, home: Home, *, watch: bool, background: bool) -> None:
    from sluicegate.publish import publish
    from sluicegate.stack import Stack, Steps, stage_programs
    from sluicegate.wiring import prepare

    def ready() -> None:
        if background:
            _leave_the_screen(home)

    one_box = functools.partial(publish, development=True)
    steps = Steps(prepare=prepare, publish=one_box, programs=lambda chosen: stage_programs(chosen, home))
    stack = Stack(settings, home, steps, say=lambda text: click.echo(text, nl=False))
    asyncio.run(stack.run(pid=os.getpid(), watch=watch, ready=ready))


def _leave_the_screen(home: Home) -> None:
    """Close standard output, so that whoever waits for its end learns that the stack is ready; errors go to the log.

    What is said from here on stands in the log and in the state that `sluicegate status` shows.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with home.log_file("up").open("ab") as log, Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(log.fileno(), 2)


def _detach(settings: Settings, home: Home, *, watch: bool) -> int:
    """Start `sluicegate up` in a session of its own, show what it prints, and return when it is ready or has ended."""
    owner = home.owner()
    if owner is not None:
        # Whoever asks for a stack to be up has it.
        click.echo(f"  {AlreadyRunning(home.root, owner)}")
        home.running()
        return 0
    command = (sys.executable, "-P", "-m", "sluicegate", "up", "--background", "--watch" if watch else "--no-watch")
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=settings.environment(),
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        while piece := os.read(process.stdout.fileno(), 4096):
            click.echo(piece, nl=False)
        # Its end of the pipe is closed: it is ready, or about to end.
        while home.owner() != process.pid and process.poll() is None:
            time.sleep(POLL_S)
        if process.poll() is None:
            home.running()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    return process.returncode or 0


@click.command()
def down() -> int:
    """Stop the stack and wait until everything has landed."""
    settings = load_settings()
    home = open_home(settings.home)
    pid = home.owner()
    if not pid:
        click.echo(f"  no stack runs in {home.root}")
        return 0
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + settings.stop_timeout_s * (len(STOP_ORDER) + 1)
    while home.owner() == pid:
        if time.monotonic() > deadline:
            msg = f"the stack (pid {pid}) does not stop: see `{home.log_file('up')}`, or end it with `kill -9 {pid}`"
            raise SluicegateError(msg)
        time.sleep(POLL_S)
    click.echo("  stopped")
    return 0


@click.command()
def status() -> int:
    """Show what runs: exit code 0 when the stack takes requests, 1 when not."""
    settings = load_settings()
    home = open_home(settings.home)
    try:
        state = home.running(ready=False)
    except Unavailable as error:
        click.echo(f"  {error}")
        return 1
    age = timedelta(seconds=max(0, int(time.time() - state.started_s)))
    click.echo(f"  stack     {'ready' if state.ready else 'not ready'}  pid {state.pid}  up {age}")
    kind = BROKERS.get(state.broker, "")
    click.echo("  broker    " + "  ".join(filter(None, (state.bootstrap or "starting", kind, f"epoch {state.epoch}"))))
    click.echo(f"  policy    {state.policy or 'not published yet'}")
    for problem in state.problems:
        click.echo(f"            last edit not published: {problem}")
    for child in state.children:
        what = f"{child.state} {child.detail}".strip()
        click.echo(f"  {child.name:<9} {what}  pid {child.pid}  log {home.log_file(child.name)}")
    return 0 if state.ready else 1
