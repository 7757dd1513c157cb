"""An explanation goes in, plain JSON values of it come out; the only place that says what `--format json` holds."""

import json

from sluicegate.policy.explain import Duty, Ends, Explanation, Matched
from sluicegate.policy.near_miss import NearMiss
from sluicegate.schemas.ids import entity_uid

Json = dict[str, object]


def explanation_json(found: Explanation) -> Json:
    """The whole explanation."""
    asked, decision = found.asked, found.decision
    return {
        "verdict": decision.verdict.value,
        "code": decision.code.value,
        "check": decision.check,
        "reason": decision.reason,
        "mend": None if found.allowed else found.mend,
        "who": entity_uid(*asked.principal),
        "via": entity_uid(*asked.actor),
        "at": found.when,
        "model": asked.request.model,
        "purpose": asked.request.purpose,
        "policies": [_matched(each) for each in found.policies],
        "missed": [_matched(each) for each in found.missed],
        "shape": [_matched(each) for each in found.shape],
        "obligations": [_duty(each) for each in found.duties],
        "ends": [_ends(each) for each in found.ends],
        "clamps": [
            {"name": each.name, "asked": each.asked, "granted": each.granted, "policies": list(each.policies)}
            for each in found.clamps
        ],
        "aliases": [{"term_list": each.term_list, "alias": each.alias, "count": each.count} for each in found.aliases],
        "nearest": [_near_miss(each) for each in found.nearest],
    }


def _matched(found: Matched) -> Json:
    return {
        "policy": found.policy,
        "effect": found.effect,
        "place": found.place,
        "reason": found.reason,
        "clauses": [
            {"kind": each.kind, "text": each.text, "place": each.place, "holds": each.holds, "saw": dict(each.saw)}
            for each in found.clauses
        ],
    }


def _duty(found: Duty) -> Json:
    return {
        "name": found.name,
        "value": json.loads(found.value),
        "merge": found.law,
        "stage": found.stage,
        "tightened": found.tightened,
        "stated": [
            {"policy": each.policy, "place": each.place, "value": json.loads(each.value), "decides": each.decides}
            for each in found.stated
        ],
    }


def _ends(found: Ends) -> Json:
    return {
        "name": found.name,
        "enters": found.enters,
        "how": found.how,
        "policies": [_matched(each) for each in found.policies],
        "leaves": [
            {
                "class": each.redaction_class,
                "operator": each.operator,
                "rule": each.rule,
                "policies": list(each.sources),
            }
            for each in found.leaves
        ],
        "nearest": [_near_miss(each) for each in found.nearest],
    }


def _near_miss(found: NearMiss) -> Json:
    return {
        "steps": [{"of": each.of, "text": each.text} for each in found.steps],
        "policies": list(found.policies),
        "verdict": found.decision.verdict.value,
        "admitted": list(found.decision.admitted),
    }
