"""A request, its effective decision and a candidate go in, what the candidate would have said comes out; only here.

Checks 4 to 7 are decided again by the candidate, with the identity, the event time and the directory of the decision.
The outcome holds names, codes and digests: no text of a request, a prompt or an answer.

    loosened   newly allowed, or still allowed and every difference gives more: a field that is read, an obligation
               gone, a longer answer
    tightened  newly denied, or still allowed and every difference gives less
    other      both at once, or a difference that is neither (another template, a changed value, another reason)
    same       the requester and the model would have noticed nothing; the policies that said it may be others
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from sluicegate.enforcer.candidate import NoShadow, Shadow
from sluicegate.enforcer.gate import Known, judged
from sluicegate.enforcer.obligations import CATALOGUE, Law, MergedObligations, merge, value_json
from sluicegate.enforcer.parameters import OUTPUT_TOKENS_MAX
from sluicegate.enforcer.seal import source_digest
from sluicegate.schemas.codes import Code
from sluicegate.schemas.errors import CodecError
from sluicegate.schemas.events import DecisionMade, Obligation, RequestSubmitted, Verdict
from sluicegate.schemas.ids import Digest, PolicyId
from sluicegate.schemas.meanings import MEANINGS
from sluicegate.schemas.reading import read_request
from sluicegate.schemas.records import Record
from sluicegate.schemas.shadow_events import Difference, Said

FIRST_CHECK: Final = 4
LAST_CHECK: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowOutcome:
    """What the active bundle said of one request and what the candidate would have. `newly_readable`: fields,
    DATASET.FIELD, that enter the prompt by the candidate alone. Made again from equal input it is equal.
    """

    decision_id: str
    request_id: str | None
    time_ms: int
    bundle_digest: str
    candidate_digest: Digest
    candidate_version: int
    active: Said
    shadow: Said
    difference: Difference
    newly_readable: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotShadowed:
    """The candidate was not asked, and why. `failed`: it was to be and could not."""

    decision_id: str
    reason: str
    failed: bool = False


def shadow_decide(
    record: Record | None, decision: DecisionMade, shadow: Shadow | NoShadow, *, schema_ids: Mapping[int, str]
) -> ShadowOutcome | NotShadowed:
    """What `shadow`, as `PolicyLog.shadow_at(decision.time_ms)` gave it, says of the request in `record`.

    `decision` must be effective, and that of this record; anything else is refused, as is a request that the gate
    ended before check 4, where no bundle was asked. `record`: None where its log keeps it no more; `schema_ids`: as the
    gate's.
    """
    if isinstance(shadow, NoShadow):
        return NotShadowed(decision_id=decision.decision_id, reason=shadow.reason, failed=shadow.standing)
    policy, identity = decision.policy, decision.identity
    if policy is None or identity is None or not asks_a_bundle(decision):
        return NotShadowed(decision_id=decision.decision_id, reason="no bundle was asked")
    if record is None:
        return NotShadowed(decision_id=decision.decision_id, reason="the request is kept no more", failed=True)
    same_source = decision.source.offset == record.offset and decision.source.digest == source_digest(
        record.key, record.value
    )
    if not same_source:
        return NotShadowed(decision_id=decision.decision_id, reason="the request is not the decided one", failed=True)
    request = _request(record, schema_ids)
    if request is None:
        return NotShadowed(decision_id=decision.decision_id, reason="the request cannot be read", failed=True)
    again = judged(_known(decision), shadow.judging, identity, request)
    newly_readable = tuple(sorted(_read_by(again) - _read_by(decision)))
    return ShadowOutcome(
        decision_id=decision.decision_id,
        request_id=decision.request_id,
        time_ms=decision.time_ms,
        bundle_digest=policy.bundle_digest,
        candidate_digest=shadow.digest,
        candidate_version=shadow.version,
        active=_said(decision),
        shadow=_said(again),
        difference=_difference(decision, again),
        newly_readable=newly_readable,
    )


def asks_a_bundle(decision: DecisionMade) -> bool:
    """Whether the gate came as far as check 4."""
    return decision.code is Code.OK or FIRST_CHECK <= MEANINGS[decision.code].check <= LAST_CHECK


def _request(record: Record, schema_ids: Mapping[int, str]) -> RequestSubmitted | None:
    try:
        return read_request(record, schema_ids)
    except CodecError:
        return None


def _known(decision: DecisionMade) -> Known:
    """What checks 1 to 3 found, and nothing of what was said after them."""
    known = Known(
        decision_id=decision.decision_id,
        source=decision.source,
        time_ms=decision.time_ms,
        deadline_ms=decision.deadline_ms,
    )
    if decision.request_id is not None:
        known["request_id"] = decision.request_id
    if decision.model is not None:
        known["model"] = decision.model
    if decision.purpose is not None:
        known["purpose"] = decision.purpose
    if decision.policy is not None:
        known["policy"] = decision.policy
    if decision.identity is not None:
        known["identity"] = decision.identity
    return known


def _said(decision: DecisionMade) -> Said:
    listed = sorted((each.name, each.value) for each in decision.obligations)
    digest = sha256(json.dumps(listed, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()
    return Said(
        verdict=decision.verdict,
        code=decision.code,
        determining=decision.determining,
        obligations=Digest(f"sha256:{digest}"),
    )


def _read_by(decision: DecisionMade) -> frozenset[str]:
    """The fields that enter the prompt; a denied request has none."""
    return frozenset(decision.admitted) if decision.verdict is Verdict.ALLOW else frozenset()


def _difference(before: DecisionMade, after: DecisionMade) -> Difference:
    allowed = (before.verdict is Verdict.ALLOW, after.verdict is Verdict.ALLOW)
    if allowed == (False, True):
        return Difference.LOOSENED
    if allowed == (True, False):
        return Difference.TIGHTENED
    if allowed == (False, False):
        same = (before.code, before.reason) == (after.code, after.reason)
        return Difference.SAME if same else Difference.OTHER
    found = _steps(before, after)
    if not found:
        return Difference.SAME
    return found.pop() if len(found) == 1 else Difference.OTHER


def _steps(before: DecisionMade, after: DecisionMade) -> set[Difference]:
    """Each way in which two allows differ."""
    found: set[Difference] = set()
    read_before, read_after = _read_by(before), _read_by(after)
    if read_after - read_before:
        found.add(Difference.LOOSENED)
    if read_before - read_after:
        found.add(Difference.TIGHTENED)
    values_before, values_after = _values(before.obligations), _values(after.obligations)
    for name in sorted(values_before.keys() | values_after.keys()):
        step = _step(name, values_before.get(name), values_after.get(name))
        if step is not Difference.SAME:
            found.add(step)
    if not found and (before.prompt, before.granted, before.clamps) != (after.prompt, after.granted, after.clamps):
        found.add(Difference.OTHER)
    return found


def _step(name: str, before: str | None, after: str | None) -> Difference:
    """How one obligation changed: merged by its own law with what was before, the stricter of two values stays."""
    entry = CATALOGUE[name]
    if entry.law is Law.STRICTEST:
        before, after = before or entry.levels[0], after or entry.levels[0]
    if before == after:
        return Difference.SAME
    if entry.law is Law.EQUAL:  # no template and no grammar is tighter than another
        return Difference.OTHER
    if before is None:
        return Difference.TIGHTENED
    if after is None:
        return Difference.LOOSENED
    both = merge((PolicyId(who), name, raw) for who, raw in (("before", before), ("after", after)))
    if isinstance(both, MergedObligations):
        merged = _raw(name, value_json(both.values[name]))
        if merged in (before, after):
            return Difference.TIGHTENED if merged == after else Difference.LOOSENED
    return Difference.OTHER


def _values(obligations: tuple[Obligation, ...]) -> dict[str, str]:
    """Each obligation as an annotation states it; what no policy limits has the limit that the gate gives it."""
    return {"max_tokens": str(OUTPUT_TOKENS_MAX)} | {each.name: _raw(each.name, each.value) for each in obligations}


def _raw(name: str, value: str) -> str:
    read: object = json.loads(value, parse_float=str)
    if name == "stop":  # whose annotation may be JSON, for its texts may hold anything
        return value
    if isinstance(read, dict):
        return ",".join(f"{key}={read[key]}" for key in sorted(read))
    return ",".join(read) if isinstance(read, list) else str(read)
