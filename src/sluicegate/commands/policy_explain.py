"""`sluicegate policy explain`: why a request is allowed or denied, and what would have to be otherwise."""

import json
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import click
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sluicegate.commands.policy_test import load_rules
from sluicegate.enforcer.access import Rules
from sluicegate.policy.cases import Asked, read_cases, read_question
from sluicegate.policy.explain import Clause, Duty, Ends, Explanation, Matched
from sluicegate.policy.explain import explain as explained
from sluicegate.policy.explain_json import explanation_json
from sluicegate.policy.near_miss import NearMiss
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.schemas.events import Verdict
from sluicegate.schemas.ids import PolicyId, entity_uid

_HOLDS: Final = {True: ("true", "green"), False: ("false", "red"), None: ("failed", "bold red")}


@click.command()
@click.argument("request")
@click.option("--bundle", type=click.Path(path_type=Path), help="folder of the bundle (default: the setting)")
@click.option("--directory", type=click.Path(path_type=Path), help="the directory (default: the setting)")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def explain(request: str, bundle: Path | None, directory: Path | None, form: str) -> int:
    """Decide REQUEST and say why: policies with file and line, what their conditions saw, obligations, fields.

    REQUEST is a file that asks as a test case does (`who`, `via`, `at`, `request`; YAML or JSON, `-` for the standard
    input), or the name of a test case of the bundle, or as much of it as names one (`7:*`). For a denial, and for each
    field that is withheld, the nearest miss is searched and decided again.
    """
    rules = load_rules(bundle, directory)
    found = explained(_asked(request, rules), rules)
    if form == "json":
        click.echo(json.dumps(explanation_json(found), indent=1, ensure_ascii=False))
    else:
        Console(highlight=False).print(view(found, rules))
    return 0


def _asked(request: str, rules: Rules) -> Asked:
    """The question that a word of the command line means."""
    if request == "-":
        return read_question("-", click.get_text_stream("stdin").read())
    path = Path(request)
    if path.is_file():
        try:
            return read_question(request, path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            raise ConfigurationError(f"`{request}` cannot be read as UTF-8; name another file") from None
    cases = read_cases(rules.bundle.cases)
    found = [case for case in cases if case.name == request] or [
        case for case in cases if fnmatchcase(case.name, request)
    ]
    if len(found) == 1:
        return found[0].asked
    names = [case.name for case in found] or get_close_matches(request, [case.name for case in cases], n=3, cutoff=0.3)
    known = f"; there are: {', '.join(f'`{name}`' for name in names[:5])}" if names else ""
    many = f"{len(found)} test cases of the bundle" if found else "neither a file nor a test case of the bundle"
    raise ConfigurationError(f"`{request}` is {many}; name one{known}")


# ---- the screen ----------------------------------------------------------------------------------------------------


def view(found: Explanation, rules: Rules) -> RenderableType:
    """One screen: the verdict, the policies, the obligations, the two ends of each field, the nearest miss."""
    asked, decision = found.asked, found.decision
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column(overflow="fold")
    carrier = "" if asked.actor == asked.principal else f", carried by {entity_uid(*asked.actor)}"
    rows.add_row("who", Text(f"{entity_uid(*asked.principal)}{carrier}, at {found.when}"))
    rows.add_row("asks", Text(f"model {asked.request.model} for purpose {asked.request.purpose}"))
    colour = "green" if found.allowed else "red"
    if not found.allowed:
        rows.add_row("denied", Text(f"{decision.code} at check {decision.check}: {decision.reason or ''}"))
        rows.add_row("mend", Text(found.mend))
    rows.add_row("why", _policies(found.policies, _without_policy(found)))
    if found.missed:
        rows.add_row("missed", _policies(found.missed, ""))
    if found.shape:
        rows.add_row("shape", _policies(found.shape, ""))
    if found.duties:
        rows.add_row("obliges", Group(*map(_duty, found.duties)))
    for clamp in found.clamps:
        by = f" ({', '.join(clamp.policies)})" if clamp.policies else ""
        rows.add_row("clamped", Text(f"{clamp.name}: asked {clamp.asked}, granted {clamp.granted}{by}"))
    for alias in found.aliases:
        rows.add_row("aliased", Text(f"{alias.count} of {alias.term_list} read as {alias.alias}"))
    for ends in found.ends:
        rows.add_row(
            "field" if not ends.name.startswith("message ") else "message", _ends(ends, rules, allowed=found.allowed)
        )
    if not found.allowed:
        rows.add_row("nearest", _near_misses(found.nearest, "allowed", rules))
    return Panel(rows, title=decision.verdict.value, title_align="left", border_style=colour)


def _without_policy(found: Explanation) -> str:
    """Why no policy is named."""
    rulings = found.decision.rulings
    if not rulings:
        return "refused before any policy was asked"
    return "policies permit it; what was asked cannot be carried out" if rulings[-1].allowed else "no policy permits it"


def _policies(policies: Sequence[Matched], nothing: str) -> RenderableType:
    if not policies:
        return Text(nothing)
    return Group(*(each for policy in policies for each in _policy(policy)))


def _policy(policy: Matched) -> Iterator[RenderableType]:
    style = "bold red" if policy.effect == "forbid" else "bold green"
    yield Text.assemble((policy.policy, style), f"  {policy.place}  {policy.effect}")
    if policy.clauses:
        rows = Table.grid(padding=(0, 1))
        for _ in range(4):
            rows.add_column(overflow="fold")
        for clause in policy.clauses:
            word, colour = _HOLDS[clause.holds]
            kind = "" if clause.kind == "scope" else clause.kind
            rows.add_row(f"  {kind:6}", Text(word, style=colour), Text(clause.text), Text(_saw(clause), style="dim"))
        yield rows


def _saw(clause: Clause) -> str:
    return "; ".join(f"{path} = {value}" for path, value in clause.saw)


def _duty(duty: Duty) -> Text:
    """An obligation with who stated what; what was stated looser than the value is struck."""
    text = Text.assemble((duty.name, "bold"), f" = {duty.value}  ")
    text.append(f"({duty.law}; {duty.stage})" if duty.tightened else f"({duty.stage})", style="dim")
    for stated in duty.stated:
        note = "" if stated.decides else "  looser, has no effect"
        text.append(f"\n  {stated.policy}  {stated.place}  {stated.value}{note}", style="" if stated.decides else "dim")
    return text


def _ends(ends: Ends, rules: Rules, *, allowed: bool) -> RenderableType:
    """Both ends of a field; where the request is denied there is no answer to leave in."""
    by = ", ".join(f"{each.policy} {each.place}" for each in ends.policies)
    why = by or ("" if ends.enters else "no policy permits it")
    head = Text.assemble((ends.name, "bold"), "  in: ", (ends.how, "green" if ends.enters else "yellow"))
    if why and not ends.name.startswith("message "):
        head.append(f" ({why})")
    lines: list[RenderableType] = [head]
    if not allowed:
        return head
    if ends.enters:
        lines.append(Text("  out: " + ("; ".join(_leaving(ends, rules)) or "leaves as it stands")))
    else:
        lines.append(Text("  out: nothing to leave, the model does not read it"))
        lines += [Text("  nearest: " + _near_miss(each, "enters", rules)) for each in ends.nearest]
    return Group(*lines)


def _leaving(ends: Ends, rules: Rules) -> Iterator[str]:
    for each in ends.leaves:
        by = ", ".join(f"{policy} {_place(policy, rules)}" for policy in each.sources)
        yield f"{each.redaction_class} leaves as {each.operator} (rule {each.rule}; {by})"


def _near_misses(misses: Sequence[NearMiss], outcome: str, rules: Rules) -> Text:
    if not misses:
        return Text("none found: no few steps that policy readers could take lead to an allow")
    return Text("\n").join(Text(_near_miss(each, outcome, rules)) for each in misses)


def _near_miss(miss: NearMiss, outcome: str, rules: Rules) -> str:
    steps = ", and ".join(each.text for each in miss.steps)
    by = ", ".join(f"{policy} {_place(policy, rules)}" for policy in miss.policies)
    verdict = "ALLOW" if miss.decision.verdict is Verdict.ALLOW else "DENY"
    return f"{outcome} if you {steps}  (decided again: {verdict} by {by})"


def _place(policy: str, rules: Rules) -> str:
    places: Mapping[PolicyId, str] = {name: source.place() for name, source in rules.bundle.policies.items()}
    return places[PolicyId(policy)]
