"""A decision, its release and the policy that made them go in, short lines for people come out: which line did what.

A line of policy is named as `every-answer shape.cedar:4`: its id, its file and the line where it begins.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from sluicegate.enforcer.bundle import Bundle
from sluicegate.enforcer.decide import Decider, context_json, entity_json
from sluicegate.enforcer.directory import Directory
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import DecisionMade, Obligation, ReleaseMade, Ruling, Verdict
from sluicegate.schemas.ids import PolicyId, entity_uid


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLines:
    """Names the lines of one bundle; `others_permit` asks Cedar who else might read a field."""

    bundle: Bundle
    directory: Directory
    decider: Decider

    @classmethod
    def of(cls, bundle: Bundle, directory: Directory) -> "PolicyLines":
        """The lines of a bundle, with Cedar over it and a directory."""
        return cls(bundle=bundle, directory=directory, decider=Decider(bundle, directory))

    def name(self, policies: tuple[str, ...]) -> str:
        """Where these policies stand."""
        sources = ((each, self.bundle.policies.get(PolicyId(each))) for each in policies)
        return ", ".join(name if source is None else f"{name} {source.place()}" for name, source in sources)

    def others_permit(self, ruling: Ruling) -> tuple[str, ...]:
        """The policies that would let somebody else, or another purpose, read what `ruling` withheld."""
        context = json.loads(ruling.context)
        found: set[str] = set()
        for principal, kind in self.directory.types.items():
            if kind not in ("User", "Service"):
                continue
            for purpose in self.bundle.enums.get("Purpose", ()):
                asked = context_json({**context, "purpose": entity_json("Purpose", purpose)})
                again = self.decider.rule("read", principal, ruling.resource, asked)
                found.update(again.policies if again.allowed else ())
        return tuple(sorted(found))


def verdict_line(decision: DecisionMade, lines: PolicyLines | None) -> str:
    """The policy line that allowed or denied, or the check that refused before policy."""
    if decision.determining and lines is not None:
        return lines.name(decision.determining)
    if decision.code is Code.DENIED:
        return "no policy matched"
    return f"{decision.code.value}, check {decision.check}"


def notes(decision: DecisionMade, release: ReleaseMade | None, lines: PolicyLines | None) -> Iterator[str]:
    """What else happened on the way, a line each: withheld, aliased, clamped, redacted, unsupported, cut."""
    if lines is None or decision.verdict is not Verdict.ALLOW:
        return
    owed = {each.name: each for each in decision.obligations}
    yield from _withheld(decision, lines)
    for use in decision.aliases:
        yield f'the model read "{use.alias}" instead of a name ({lines.name(owed["alias"].policies)})'
    for clamp in decision.clamps:
        by = f" ({lines.name(clamp.policies)})" if clamp.policies else ""
        yield f"{clamp.name} {clamp.asked} clamped to {clamp.granted}{by}"
    if "output" in owed and decision.granted is not None:
        yield f"only {' or '.join(decision.granted.choices)} could come out ({lines.name(owed['output'].policies)})"
    if release is None:
        return
    for redaction_class in sorted({each.redaction_class for each in release.redactions}):
        policies = _that_redact(redaction_class, owed["redact"], lines)
        yield f"{redaction_class} redacted on the way out ({lines.name(policies)})"
    if release.unsupported:
        what = "1 value" if release.unsupported == 1 else f"{release.unsupported} values"
        yield f"{what} not in anything admitted ({lines.name(owed['numbers'].policies)})"
    if release.finish == "length" and decision.granted is not None:
        yield f"cut at {decision.granted.max_tokens} tokens"


def _withheld(decision: DecisionMade, lines: PolicyLines) -> Iterator[str]:
    for ruling in decision.rulings:
        if ruling.action != "read" or ruling.allowed:
            continue
        name = next(each for each in decision.withheld if entity_uid("Field", each) == ruling.resource)
        if ruling.policies:
            why = lines.name(ruling.policies)
        else:
            others = lines.others_permit(ruling)
            why = f"only {lines.name(others)} permits it" if others else "no policy permits it to anybody"
        yield f"field withheld: {name} ({why})"


def _that_redact(redaction_class: str, redact: Obligation, lines: PolicyLines) -> tuple[str, ...]:
    """The policies of the merged obligation that name this class."""
    named = {
        policy: lines.bundle.policies[PolicyId(policy)].annotations.get("redact", "") for policy in redact.policies
    }
    return tuple(policy for policy, value in named.items() if f"{redaction_class}=" in value.replace(" ", ""))
