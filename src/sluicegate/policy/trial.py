"""A test case and the rules go in, the decision and what is otherwise than expected come out; the only judge of cases.

Checks 4 to 7 are the gate's own (`gate.judged`), and so is the record that they leave. What stands before them, who
asks and when, the case says: nothing is proved here.
"""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeGuard

import msgspec

from sluicegate.enforcer.access import Rules
from sluicegate.enforcer.directory import split_uid
from sluicegate.enforcer.gate import Known, judged
from sluicegate.enforcer.seal import source_digest
from sluicegate.policy.cases import CODE, Asked, Case, Expected
from sluicegate.policy.situation import rules_with
from sluicegate.schemas import codec
from sluicegate.schemas.errors import InvalidBundle, InvalidDirectory, Problem
from sluicegate.schemas.events import DecisionMade, Identity, PolicyVersion, Source
from sluicegate.schemas.ids import decision_id, entity_uid

_ABSENT: Final = "(absent)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One place at which a decision is otherwise than expected; texts, None where there is nothing on that side."""

    place: str
    expected: str | None
    actual: str | None

    def lines(self) -> Iterator[str]:
        """The place, then `-` for what was expected and `+` for what is; only the lines that differ of long texts."""
        yield f"{self.place}:"
        wanted = [_ABSENT] if self.expected is None else self.expected.split("\n")
        found = [_ABSENT] if self.actual is None else self.actual.split("\n")
        for line in difflib.ndiff(wanted, found):
            if not line.startswith("?"):
                yield f"  {line}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A case, the decision on it, and every difference; it passed where there is none."""

    case: Case
    decision: DecisionMade
    differences: tuple[Difference, ...]

    @property
    def passed(self) -> bool:
        """Whether the decision is as expected."""
        return not self.differences


def run_case(case: Case, rules: Rules) -> Outcome:
    """Decides the case and compares.

    Raises:
        InvalidBundle: the entities that the case puts do not conform to the bundle's schema.
    """
    try:
        decision = decide(case.asked, rules)
    except InvalidDirectory as error:
        problems = (Problem(CODE, f"`directory`: {each}", file=case.file, line=case.line) for each in error.problems)
        raise InvalidBundle(tuple(problems)) from None
    return Outcome(case=case, decision=decision, differences=tuple(_compared(case.expected, decision)))


def decide(asked: Asked, rules: Rules) -> DecisionMade:
    """The decision as the gate records it, at offset 0 of an empty log, under a proof that nobody checked.

    Raises:
        InvalidDirectory: the entities that are put do not conform to the bundle's schema.
    """
    rules = rules_with(rules, asked.put)
    request = asked.request
    principal, actor = entity_uid(*asked.principal), entity_uid(*asked.actor)
    known = Known(
        decision_id=decision_id(epoch=1, partition=0, offset=0),
        source=Source(
            offset=0,
            count=1,
            digest=source_digest(principal.encode(), codec.encode(request)),
            timestamp_ms=asked.time_ms,
        ),
        time_ms=asked.time_ms,
        request_id=request.request_id,
        model=request.model,
        purpose=request.purpose,
        deadline_ms=request.deadline_ms,
        policy=PolicyVersion(
            position=0,
            root_version=1,
            bundle_version=1,
            bundle_digest=rules.bundle.digest,
            directory_version=1,
            directory_digest=rules.directory.digest,
        ),
    )
    identity = Identity(
        principal=principal,
        actor=actor,
        proof_issuer=asked.actor[1],
        proof_id="not-proved",
        proof_issued_at_s=asked.time_ms // 1000,
        proof_key_id="not-proved",
    )
    return judged(known, rules, identity, request)


def record_of(decision: DecisionMade) -> dict[str, object]:
    """The decision as plain JSON values: what `expect.record` is compared with."""
    plain: dict[str, object] = json.loads(msgspec.json.encode(decision))
    return plain


def _compared(expected: Expected, decision: DecisionMade) -> Iterator[Difference]:
    wanted, found = _expected_part(expected), _actual_part(decision)
    for name, value in wanted.items():
        yield from _differences(name, value, found[name], partly=name == "fields")
    if expected.record is not None:
        yield from _differences("record", dict(expected.record), record_of(decision), partly=True)


def _expected_part(expected: Expected) -> dict[str, object]:
    """What is said, in the form of `_actual_part`."""
    said = expected.model_dump(by_alias=True, exclude_none=True, exclude={"record"})
    return {name: _plain(value) for name, value in said.items()}


def _actual_part(decision: DecisionMade) -> dict[str, object]:
    return {
        "verdict": decision.verdict.value.lower(),
        "code": decision.code.value,
        "reason": decision.reason,
        "policies": sorted(decision.determining),
        "obligations": {
            each.name: {"value": json.loads(each.value), "from": sorted(each.policies)} for each in decision.obligations
        },
        "admitted": sorted(decision.admitted),
        "withheld": sorted(decision.withheld),
        "fields": {
            split_uid(ruling.resource)[1]: sorted(ruling.policies)
            for ruling in decision.rulings
            if ruling.action == "read"
        },
        "clamps": {
            each.name: {"asked": each.asked, "granted": each.granted, "from": sorted(each.policies)}
            for each in decision.clamps
        },
        "prompt": [{"role": each.role.value, "text": each.text()} for each in decision.prompt],
    }


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _differences(place: str, expected: object, actual: object, *, partly: bool = False) -> Iterator[Difference]:
    """Where `actual` is otherwise; `partly`: what an expected mapping does not name is not looked at."""
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        for key in expected if partly else dict.fromkeys((*expected, *actual)):
            if key not in actual:
                yield Difference(place=f"{place}.{key}", expected=_text(expected[key]), actual=None)
            elif key not in expected:
                yield Difference(place=f"{place}.{key}", expected=None, actual=_text(actual[key]))
            else:
                yield from _differences(f"{place}.{key}", expected[key], actual[key], partly=partly)
    elif _are_mappings(expected) and _are_mappings(actual) and len(expected) == len(actual):
        for index, (wanted, found) in enumerate(zip(expected, actual, strict=True)):
            yield from _differences(f"{place}.{index}", wanted, found, partly=partly)
    elif not _same(expected, actual):
        yield Difference(place=place, expected=_text(expected), actual=None if actual is None else _text(actual))


def _are_mappings(value: object) -> TypeGuard[list[Mapping[str, object]]]:
    return isinstance(value, list) and all(isinstance(each, Mapping) for each in value)


def _same(expected: object, actual: object) -> bool:
    # `True == 1` in Python, and neither is the other in a record.
    return expected == actual and isinstance(expected, bool) == isinstance(actual, bool)


def _text(value: object) -> str:
    """A text as it is, a list of names on one line each, anything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and value and all(isinstance(each, str) for each in value):
        return "\n".join(str(each) for each in value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
