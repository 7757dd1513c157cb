"""A story goes in, one screen of it comes out; the only place that lays it out for people."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sluicegate.schemas.events import Clamp, DecisionMade, Material, Obligation, Verdict
from sluicegate.sinks.story import Story

_COLOURS = {
    "field": "cyan",
    "withheld": "yellow",
    "redacted": "yellow",
    "alias": "green",
    "template": "magenta",
    "message": "default",
    "frame": "dim",
}


def render(story: Story) -> RenderableType:
    """The whole story: who asked, what was decided and why, what the model read and said, what left the house."""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column(overflow="fold")
    for label, content in (*_asking(story), *_deciding(story.decision), *_answering(story), *_places(story)):
        rows.add_row(label, content if isinstance(content, Text) else Text(content))
    decision = story.decision
    colour = "green" if decision.verdict is Verdict.ALLOW else "red"
    return Panel(
        rows,
        title=f"{decision.request_id or decision.decision_id}  {decision.verdict}",
        border_style=colour,
        title_align="left",
    )


def _asking(story: Story) -> Iterator[tuple[str, str]]:
    decision = story.decision
    identity = decision.identity
    if identity is None:
        yield "who", "not proved"
    else:
        roles = f" ({', '.join(story.roles)})" if story.roles else ""
        yield "who", identity.principal + roles
        token = f", token of {identity.token_issuer}" if identity.token_issuer else ""
        yield "via", f"{identity.actor}, proof {identity.proof_id} under key {identity.proof_key_id}{token}"
    if story.request is None:
        yield "asked", f"(unreadable: {story.unreadable})"
    else:
        for message in story.request.messages:
            yield "asked", message.content
    yield "model", f"{decision.model or '-'} for purpose {decision.purpose or '-'}"


def _deciding(decision: DecisionMade) -> Iterator[tuple[str, str | Text]]:
    colour = "bold green" if decision.verdict is Verdict.ALLOW else "bold red"
    check = "" if decision.verdict is Verdict.ALLOW else f"  {decision.code} at check {decision.check}"
    yield "verdict", Text.assemble((str(decision.verdict), colour), check)
    if decision.reason:
        yield "reason", decision.reason
    if decision.duplicate_of:
        yield "duplicate of", decision.duplicate_of
    yield "policies", ", ".join(decision.determining) or "none matched"
    if decision.policy is not None:
        policy = decision.policy
        yield (
            "under",
            f"bundle {policy.bundle_version} {policy.bundle_digest[:19]}, directory {policy.directory_version}",
        )
    for obligation in decision.obligations:
        yield "obligation", _obligation(obligation)
    for ruling in decision.rulings:
        if ruling.action == "read":
            said = "may enter" if ruling.allowed else "withheld"
            yield (
                "field",
                f"{ruling.resource} {said} ({', '.join((*ruling.policies, *ruling.errors)) or 'no policy permits'})",
            )
    for clamp in decision.clamps:
        yield "clamped", _clamp(clamp)
    for redaction in decision.prompt_redactions:
        found = f"{redaction.count} {redaction.redaction_class} as {redaction.operator}, rule {redaction.rule_id}"
        yield "not read", f"{found}, in {redaction.source}"
    if decision.prompt_tokens_max is not None:
        yield "prompt", f"at most {decision.prompt_tokens_max} tokens"
    for alias in decision.aliases:
        yield "aliased", f"{alias.count} of {alias.term_list} read as {alias.alias}"


def _answering(story: Story) -> Iterator[tuple[str, str | Text]]:
    for message in story.decision.prompt:
        text = Text()
        for segment in message.segments:
            text.append(segment.text, style=_COLOURS.get(segment.source.split(":")[0], "default"))
        yield f"read ({message.role})", text
        sources = dict.fromkeys(segment.source for segment in message.segments if segment.source != "frame")
        yield "", Text(" + ".join(sources), style="dim")
    for material in story.decision.materials:
        yield "made of", _material(material, story)
    generation, release = story.generation, story.release
    if generation is None:
        yield "generation", "none yet"
    elif generation.run is None:
        yield "generation", f"no model ran: {generation.outcome} {generation.code}"
    else:
        run = generation.run
        yield "model said", generation.text or ""
        yield (
            "",
            Text(
                f"{run.provider}, seed {run.seed}, {run.prompt_tokens} tokens read, {run.output_tokens} written, "
                f"{run.finish}, graph {run.graph_digest[:19]}",
                style="dim",
            ),
        )
    if release is None:
        yield "release", "none yet"
        return
    yield (
        "released",
        Text.assemble((f"{release.outcome} ", "bold"), release.text or f"{release.code}: {release.reason or ''}"),
    )
    for redaction in release.redactions:
        place = f"characters {redaction.start} to {redaction.end}"
        yield "redacted", f"{redaction.redaction_class} as {redaction.operator}, {place}, rule {redaction.rule_id}"
    if release.unsupported:
        yield "unsupported", f"{release.unsupported} not in what was admitted"
    if release.withheld:
        yield "withheld", ", ".join(release.withheld)


def _places(story: Story) -> Iterator[tuple[str, Text]]:
    keys = [("request", story.request_key), (story.decision.decision_id, story.decision_key)]
    if story.generation is not None and story.generation_key is not None:
        keys.append((story.generation.generation_id, story.generation_key))
    if story.release is not None and story.release_key is not None:
        keys.append((story.release.release_id, story.release_key))
    yield "events", Text("\n".join(f"{name} at {key}" for name, key in keys), style="dim")


def _obligation(obligation: Obligation) -> str:
    return f"{obligation.name} = {obligation.value}  ({', '.join(obligation.policies) or 'the gate itself'})"


def _material(material: Material, story: Story) -> str:
    """A row of the bill of materials: how many bytes, of what, from which documents, by which policies."""
    documents = () if story.request is None else story.request.documents
    ids = [documents[place].document_id for place in material.documents if place < len(documents)]
    origin = f" of {', '.join(ids)}" if ids else ""
    return f"{material.bytes} bytes {material.source}{origin}  ({', '.join(material.policies) or 'the gate itself'})"


def _clamp(clamp: Clamp) -> str:
    return f"{clamp.name} {clamp.asked} to {clamp.granted}  ({', '.join(clamp.policies) or 'the gate itself'})"
