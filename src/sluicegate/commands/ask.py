"""`sluicegate ask --as ian "..."`: one question by one person through the whole stack, and which line did what."""

import asyncio
import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
from rich.text import Text

from sluicegate.client import Client
from sluicegate.demo import screen
from sluicegate.demo.cases import FOLDER, HELPDESK, Attachment, People, Row, read_day, read_people
from sluicegate.demo.findings import Finding, decision_of, policy_of
from sluicegate.demo.notes import PolicyLines
from sluicegate.dev_service import person_token, service_config
from sluicegate.home import Home, open_home
from sluicegate.schemas.codes import Code
from sluicegate.schemas.errors import ConfigurationError, SluicegateError
from sluicegate.schemas.events import DecisionMade, Message, Parameters, ReleaseMade, RequestSubmitted, Role
from sluicegate.settings import Settings, load_settings
from sluicegate.sinks.clickhouse import AuditConfig
from sluicegate.sinks.serve import asking

ANSWER_TIMEOUT_S: Final = 180.0
FIRST_NUMBER: Final = 101
"""Above the demo's rows, so that `sluicegate audit show N` means one request."""
# What a document of a dataset is asked about for, unless `--purpose` says otherwise.
PURPOSES: Final = {
    "tickets": "ticket",
    "invoices": "invoice",
    "people": "people",
    "incidents": "incident",
    "roadmap": "roadmap",
}
PURPOSE_WITHOUT_DOCUMENT: Final = "writing"
NO_DOCUMENT: Final = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Who asks what, with which document; `chosen` says that the question itself chose it."""

    person: str
    via: str
    request: RequestSubmitted
    attached: Attachment | None
    chosen: bool


@click.command()
@click.argument("question")
@click.option("--as", "person", required=True, help="Who asks: `ian` for ian.intern.")
@click.option("--about", help="Document to attach, as roadmap/cargo-bike; `none` attaches none.")
@click.option("--purpose", help="What it is for.  [default: what the document is for, else writing]")
@click.option("--via", default=HELPDESK, show_default=True, help="Service that carries the request.")
@click.option("--model", help="Model to ask.  [default: the one that runs]")
@click.option("--max-tokens", type=int, help="Tokens to ask for; policy may grant fewer.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--cases", type=click.Path(path_type=Path, file_okay=False), default=FOLDER, show_default=True, help="Documents."
)
def ask(
    question: str,
    *,
    person: str,
    about: str | None,
    purpose: str | None,
    via: str,
    model: str | None,
    max_tokens: int | None,
    as_json: bool,
    cases: Path,
) -> int:
    """Ask the running stack QUESTION as one of the directory's people."""
    settings = load_settings()
    home = open_home(settings.home)
    state = home.running()
    settings = settings.model_copy(update={"home": home.root}).attached(
        bootstrap=state.bootstrap, epoch=state.epoch, broker=state.broker
    )
    people = read_people(settings.directory)
    attached = choose_document(read_day(cases).documents, question, about)
    dataset = None if attached is None else attached.document().dataset
    asked = Question(
        person=people.resolve(person),
        via=via,
        request=RequestSubmitted(
            request_id=f"ask-{_next_number(home)}",
            model=model or settings.model_name,
            purpose=purpose or PURPOSES.get(dataset or "", PURPOSE_WITHOUT_DOCUMENT),
            messages=(Message(role=Role.USER, content=question),),
            documents=() if attached is None else (attached.document(),),
            parameters=Parameters(max_tokens=max_tokens),
        ),
        attached=attached,
        chosen=about is None,
    )
    release = asyncio.run(_submit(settings, asked))
    _tell(home, asked, release, people, as_json=as_json)
    return 0


async def _submit(settings: Settings, asked: Question) -> ReleaseMade:
    config = await service_config(settings, asked.via, timeout_s=ANSWER_TIMEOUT_S)
    request = asked.request
    async with Client(config) as client:
        answer = await client.ask(
            model=request.model,
            purpose=request.purpose,
            messages=request.messages,
            documents=request.documents,
            parameters=request.parameters,
            request_id=request.request_id,
            person_token=person_token(settings, service=asked.via, person=asked.person),
            principal=asked.person,
        )
    return answer.release


def choose_document(documents: Mapping[str, Attachment], question: str, about: str | None) -> Attachment | None:
    """The document that `about` names, or else the one that the question speaks of; the first where it is several.

    Raises:
        ConfigurationError: there is no document `about`.
    """
    if about == NO_DOCUMENT:
        return None
    if about is None:
        return next((each for each in documents.values() if each.is_about(question)), None)
    if about not in documents:
        raise ConfigurationError(f"there is no document `{about}`: use {NO_DOCUMENT}, {', '.join(documents)}")
    return documents[about]


def _next_number(home: Home) -> int:
    """A number that no question of this installation had; two commands at once get two."""
    descriptor = os.open(home.root / "asked", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        text = os.pread(descriptor, 32, 0).decode("ascii", errors="replace").strip()
        number = int(text) + 1 if text.isdigit() else FIRST_NUMBER
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{number}\n".encode(), 0)
        return number
    finally:
        os.close(descriptor)


def _tell(home: Home, asked: Question, release: ReleaseMade, people: People, *, as_json: bool) -> None:
    if release.decision_id is None:
        raise SluicegateError(f"the release names no decision ({release.code.value}): see the log of the redactor")
    with asking(AuditConfig(path=home.audit)) as auditor:
        decision = decision_of(auditor, release.decision_id)
        policy = None if decision.policy is None else policy_of(auditor, decision.policy)
    found = Finding(row=_row(asked), decision=decision, release=release)
    if as_json:
        click.echo(json.dumps(found.as_json() | {"request_id": asked.request.request_id}, indent=1))
        return
    console = screen.console_of()
    lines = None if policy is None else PolicyLines.of(*policy)
    console.print(Text(_heading(asked, people), style="dim"))
    console.print(
        Text("  ").append_text(screen.verdict_text(found.verdict)).append("  ").append(screen.seen_text(found))
    )
    for line in screen.told_lines(found, lines, whole=True):
        console.print(Text(f"         {line}", style="dim"), soft_wrap=True)
    console.print(Text(_ending(asked, decision, people), style="dim"), soft_wrap=True)


def _row(asked: Question) -> Row:
    number = asked.request.request_id.rpartition("-")[2]
    return Row(row=number, who=asked.person, via=asked.via, purpose=asked.request.purpose, asks="")


def _heading(asked: Question, people: People) -> str:
    who = asked.person if asked.person in people.users else f"{asked.person} (not in the directory)"
    start = f"  {who} asks {asked.request.model}, purpose {asked.request.purpose}"
    if asked.attached is None:
        return f"{start}, no document attached (`--about ID` attaches one)"
    how = "the question speaks of it; `--about` chooses another" if asked.chosen else "as `--about` says"
    return f"{start}, with {asked.attached.id} ({how})"


def _ending(asked: Question, decision: DecisionMade, people: People) -> str:
    version = "" if decision.policy is None else f"policy v{decision.policy.bundle_version}, "
    text = f"  {version}whole story: sluicegate audit show {asked.request.request_id.rpartition('-')[2]}"
    if decision.code is Code.UNKNOWN_PRINCIPAL:
        text += f"\n  the directory knows {', '.join(people.short(each) for each in people.users)}"
    return text
