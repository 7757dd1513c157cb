"""Policy files, a directory and a row go in, what the gate's checks 4 to 7 say of it comes out; no broker, no model.

The rows that fail before check 4 (forged, truncated, a stolen proof) have nothing that policy could say.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sluicegate.demo.cases import Attack, Day, Expected, People, Row
from sluicegate.enforcer.access import Rules, judge
from sluicegate.enforcer.bundle import Bundle
from sluicegate.enforcer.decide import Decider
from sluicegate.enforcer.directory import Directory, split_uid
from sluicegate.enforcer.judgement import Ask, Judgement
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import AliasUse, Clamp, Obligation, Ruling

HOUR_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A row and what policy says of it at its hour."""

    row: Row
    judgement: Judgement


def judge_day(day: Day, people: People, bundle: Bundle, directory: Directory) -> dict[str, Judged]:
    """Judges every row that reaches policy, by row, at the hour that the rows before it set."""
    rules = Rules(bundle=bundle, directory=directory, decider=Decider(bundle, directory))
    found: dict[str, Judged] = {}
    hour = 0
    for row in day.rows:
        hour = hour if row.clock is None else row.clock
        if row.attack is not None:
            continue
        ask = Ask(
            principal=("Service", row.who) if row.by_service else ("User", people.resolve(row.who)),
            actor=("Service", row.via),
            request=day.request(row),
            time_ms=hour * HOUR_MS,
            default_seed=0,
        )
        found[row.row] = Judged(row=row, judgement=judge(rules, ask))
    return found


def before_policy(row: Row) -> Code | None:
    """The code of a row that fails before check 4; None for every other."""
    match row.attack:
        case Attack.STOLEN_PROOF:
            return Code.PROOF_BODY
        case Attack.FORGED_GRANTS:
            return Code.FORGED
        case Attack.TRUNCATED:
            return Code.POISON
        case None:
            return None


def decided_part(
    *,
    code: str,
    determining: tuple[str, ...],
    rulings: tuple[Ruling, ...],
    obligations: tuple[Obligation, ...],
    withheld: tuple[str, ...],
    clamps: tuple[Clamp, ...],
    aliases: tuple[AliasUse, ...],
) -> dict[str, object]:
    """What `Expected` says of a decision, in its form: for a judgement, a live decision and a file alike."""
    return {
        "code": code,
        "policies": sorted(determining),
        "obligations": {
            each.name: {"value": each.value, "policies": sorted(each.policies)}
            for each in sorted(obligations, key=lambda each: each.name)
        },
        "reads": {
            split_uid(each.resource)[1]: sorted(each.policies)
            for each in sorted(rulings, key=lambda each: each.resource)
            if each.action == "read"
        },
        "withheld": sorted(withheld),
        "clamps": [
            {"name": each.name, "asked": each.asked, "granted": each.granted, "policies": sorted(each.policies)}
            for each in clamps
        ],
        "aliases": {each.alias: each.count for each in aliases},
    }


def judged_part(judgement: Judgement) -> dict[str, object]:
    """`decided_part` of a judgement."""
    return decided_part(
        code=judgement.code.value,
        determining=judgement.determining,
        rulings=judgement.rulings,
        obligations=judgement.obligations,
        withheld=judgement.withheld,
        clamps=judgement.clamps,
        aliases=judgement.aliases,
    )


def expected_part(expected: Expected) -> dict[str, object]:
    """`decided_part` of what is expected."""
    found: Mapping[str, object] = expected.model_dump(mode="json", include=set(_PARTS))
    return {name: found[name] for name in _PARTS}


_PARTS: Final = ("code", "policies", "obligations", "reads", "withheld", "clamps", "aliases")
