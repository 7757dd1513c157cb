"""What differs between two bundles goes in, a plan comes out, as lines and as JSON; the only place for its form."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sluicegate.enforcer.directory import split_uid
from sluicegate.policy.changes import PolicyChange
from sluicegate.policy.contents import ContentChange
from sluicegate.policy.page import lay_out
from sluicegate.policy.render import sentences
from sluicegate.policy.space import ASKED, Asking
from sluicegate.policy.strictness import Direction, Step
from sluicegate.policy.witnesses import FieldChange, Found, Kind, Outcome, Witness
from sluicegate.schemas.codes import Code
from sluicegate.schemas.ids import Digest

_KINDS: Final = {
    Kind.FIELD_READABLE: "newly readable field",
    Kind.ALLOWED: "newly allowed",
    Kind.LOOSENED: "obligation loosened",
    Kind.FIELD_WITHHELD: "field no longer readable",
    Kind.DENIED: "newly denied",
    Kind.TIGHTENED: "obligation tightened",
    Kind.OTHER: "decided by other policies",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that differs between two bundles. `found` is None where no request was made up, and `why_not` says why."""

    digests: tuple[Digest, Digest]
    policies: tuple[PolicyChange, ...]
    contents: tuple[ContentChange, ...]
    found: Found | None
    why_not: str = ""

    @property
    def empty(self) -> bool:
        """Whether nothing differs."""
        return not (self.policies or self.contents or (self.found is not None and self.found.witnesses))

    def summary(self) -> str:
        """One line, as terraform ends its plans."""
        if self.empty:
            return "No differences."
        signs = [each.sign for each in self.policies]
        steps = [step.direction for each in self.policies for step in each.obligations]
        said = [
            f"policies: {signs.count('+')} to add, {signs.count('~')} to change, {signs.count('-')} to remove",
            f"obligations: {steps.count(Direction.TIGHTENED)} tightened, {steps.count(Direction.LOOSENED)} loosened",
        ]
        if self.found is not None:
            readable = [each.readable for each in self.found.fields]
            said.append(f"fields: {readable.count(True)} newly readable, {readable.count(False)} no longer")
            ways = len(self.found.witnesses)
            said.append(f"requests: decided otherwise in {ways} way{'' if ways == 1 else 's'}")
        if self.contents:
            said.append(f"other content: {len(self.contents)} changed")
        return f"Plan: {'; '.join(said)}."


def plan_lines(plan: Plan, witnesses_max: int) -> Iterator[str]:
    """The plan for people; `witnesses_max` bounds the requests that are shown."""
    sections = (
        ("Fields", [line for each in _fields(plan) for line in _field_lines(each)]),
        ("Policies", [line for each in plan.policies for line in _policy_lines(each)]),
        ("Obligations", [line for each in plan.policies for line in _obligation_lines(each)]),
        ("Other content", [line for each in plan.contents for line in _content_lines(each)]),
        ("Requests that are decided otherwise", list(_request_lines(plan, witnesses_max))),
    )
    for heading, lines in sections:
        if lines:
            yield heading
            yield from lines
            yield ""
    yield plan.summary()


def plan_json(plan: Plan, witnesses_max: int) -> dict[str, object]:
    """The same as JSON values; `asks` of a request is what `sluicegate policy explain` reads."""
    found = plan.found
    shown = () if found is None else found.witnesses[:witnesses_max]
    return {
        "before": plan.digests[0],
        "after": plan.digests[1],
        "different": not plan.empty,
        "summary": plan.summary(),
        "policies": [_policy_json(each) for each in plan.policies],
        "contents": [
            {"sign": each.sign, "kind": each.kind, "name": each.name, "lines": list(each.lines)}
            for each in plan.contents
        ],
        "fields": [
            {
                "field": split_uid(each.field)[1],
                "readable": each.readable,
                "principals": list(each.principals),
                "more": each.more,
                "policies": list(each.policies),
            }
            for each in _fields(plan)
        ],
        "requests": [_witness_json(each) for each in shown],
        "requests_found": 0 if found is None else len(found.witnesses),
        "requests_tried": 0 if found is None else found.tried,
        "sampled": found is not None and found.sampled,
        "requests_missing": plan.why_not or None,
    }


def _fields(plan: Plan) -> Sequence[FieldChange]:
    return () if plan.found is None else plan.found.fields


# ---- lines ---------------------------------------------------------------------------------------------------------


def _field_lines(change: FieldChange) -> Iterator[str]:
    name = split_uid(change.field)[1]
    said = "newly readable" if change.readable else "no longer readable"
    by = f", by {', '.join(change.policies)}" if change.policies else ""
    yield f"  {'+' if change.readable else '-'} {name} {said}{by}"
    more = f" and {change.more} more like these" if change.more else ""
    yield f"      for {', '.join(change.principals)}{more}"


def _policy_lines(change: PolicyChange) -> Iterator[str]:
    places = [each for each in dict.fromkeys((change.before, change.after)) if each is not None]
    yield f"  {change.sign} {change.policy} ({change.effect}, {' -> '.join(places)})"
    for part in change.parts:
        reach = f"  ({part.reach})" if part.reach else ""
        yield f"      {part.sign} {part.text}{reach}"
    tree = change.trees[1] if change.sign == "+" else change.trees[0]
    if change.sign == "~" or tree is None:
        yield from (f"      ~ {step.text()}" for step in change.steps)
    else:
        yield from (f"      {line}" for line in lay_out(sentences(tree), "text") if line)


def _obligation_lines(change: PolicyChange) -> Iterator[str]:
    for step in change.obligations:
        if step.direction is not Direction.OTHER:
            yield f"  {step.direction.value:9} {change.policy} {step.text()}"


def _content_lines(change: ContentChange) -> Iterator[str]:
    yield f"  {change.sign} {change.kind} {change.name}"
    yield from (f"      {line}" for line in change.lines)


def _request_lines(plan: Plan, witnesses_max: int) -> Iterator[str]:
    if plan.found is None:
        yield f"  none looked for: {plan.why_not}"
        return
    for number, each in enumerate(plan.found.witnesses[:witnesses_max], start=1):
        alike = f" ({each.alike} more like it)" if each.alike else ""
        yield f"  {number}. {_KINDS[each.kind]}: {_asking_text(each.asking)}{alike}"
        before, after = list(_outcome_lines(each.before)), list(_outcome_lines(each.after))
        yield from (f"      - {line}" for line in before if line not in after)
        yield from (f"      + {line}" for line in after if line not in before)
        yield from (f"        {line}" for line in after if line in before)
    if plan.found.sampled:
        yield f"  {plan.found.tried} of more requests were looked at: look at more with `--budget`"
    more = len(plan.found.witnesses) - witnesses_max
    if more > 0:
        yield f"  and {more} more: show them with `--requests {len(plan.found.witnesses)}`"


def _asking_text(asking: Asking) -> str:
    field = f" with {split_uid(asking.field)[1]}" if asking.field is not None else ""
    tokens = f", {asking.when.max_tokens} tokens" if asking.when.max_tokens is not None else ""
    stream = ", streamed" if asking.when.stream else ""
    by = f" by {asking.actor}" if asking.actor != asking.principal else ""
    return f"{asking.principal}{by} asks {asking.model} for {asking.purpose}{field}{tokens}{stream} at {_time(asking)}"


def _outcome_lines(outcome: Outcome) -> Iterator[str]:
    if not outcome.allowed:
        by = f" by {', '.join(outcome.policies)}" if outcome.policies else ": nothing permits it"
        yield f"denied ({outcome.code.value}){by if outcome.code is Code.DENIED else ''}"
        if outcome.reason is not None:
            yield f"told: {outcome.reason}"
        return
    yield f"allowed by {', '.join(outcome.policies)}"
    readers = f" by {', '.join(outcome.readers)}" if outcome.readers else ""
    yield from (f"{each} enters the prompt{readers}" for each in outcome.admitted)
    yield from (f"{each} is withheld{readers or ': nothing permits it'}" for each in outcome.withheld)
    yield from (f"@{each.name} {each.value} from {', '.join(each.policies)}" for each in outcome.obligations)


def _time(asking: Asking) -> str:
    return datetime.fromtimestamp(asking.time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# ---- JSON ----------------------------------------------------------------------------------------------------------


def _policy_json(change: PolicyChange) -> dict[str, object]:
    return {
        "sign": change.sign,
        "policy": change.policy,
        "effect": change.effect,
        "before": change.before,
        "after": change.after,
        "parts": [{"sign": each.sign, "text": each.text, "reach": each.reach} for each in change.parts],
        "annotations": list(_steps_json(change.steps)),
        "obligations": list(_steps_json(change.obligations)),
    }


def _steps_json(steps: Iterable[Step]) -> Iterator[dict[str, str]]:
    for each in steps:
        yield {"name": each.name, "before": each.before, "after": each.after, "direction": each.direction.value}


def _witness_json(witness: Witness) -> dict[str, object]:
    asking = witness.asking
    request: dict[str, object] = {
        "model": split_uid(asking.model)[1],
        "purpose": asking.purpose,
        "messages": [ASKED],
    }
    if asking.field is not None:
        dataset, _, name = split_uid(asking.field)[1].partition(".")
        request["documents"] = [{"dataset": dataset, "id": "1", "fields": [{"name": name, "text": ASKED}]}]
    if asking.when.max_tokens is not None or asking.when.stream:
        tokens = {} if asking.when.max_tokens is None else {"max_tokens": asking.when.max_tokens}
        request["parameters"] = {**tokens, "stream": asking.when.stream}
    return {
        "kind": _KINDS[witness.kind],
        "asks": {
            "who": asking.principal,
            "via": asking.actor,
            "at": _time(asking),
            "request": request,
        },
        "before": _outcome_json(witness.before),
        "after": _outcome_json(witness.after),
        "obligations": list(_steps_json(witness.steps)),
        "alike": witness.alike,
    }


def _outcome_json(outcome: Outcome) -> dict[str, object]:
    return {
        "verdict": "allow" if outcome.allowed else "deny",
        "code": outcome.code.value,
        "reason": outcome.reason,
        "policies": list(outcome.policies),
        "obligations": {
            each.name: {"value": json.loads(each.value), "from": list(each.policies)} for each in outcome.obligations
        },
        "admitted": list(outcome.admitted),
        "withheld": list(outcome.withheld),
        "read_by": list(outcome.readers),
    }
