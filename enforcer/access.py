"""Policy state and a proved request go in, all that policy says about it comes out; the only place of checks 4 to 7.

    4 decide access: principal, actor, model and purpose are known; Cedar `generate` allows
    5 decide each document, field and tool: dataset and fields are known; one Cedar `read` a distinct field
    6 shape the prompt: Cedar `shape` allows; obligations merge; the prompt is put together (`shape.shape_prompt`)
    7 clamp the parameters: each in its range, then as tight as the obligations say

The first check that fails denies with its code and keeps the rulings made so far.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from sluicegate.enforcer.bundle import Bundle
from sluicegate.enforcer.decide import Decider, context_json, entity_json
from sluicegate.enforcer.directory import Directory
from sluicegate.enforcer.judgement import Ask, Judgement, Refused
from sluicegate.enforcer.materials import materials
from sluicegate.enforcer.obligations import (
    MERGED,
    REASON,
    MergedObligations,
    merge,
)
from sluicegate.enforcer.parameters import asked_tokens, clamp, out_of_range
from sluicegate.enforcer.paths import field_name
from sluicegate.enforcer.shape import shape_prompt
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import RequestSubmitted, Ruling
from sluicegate.schemas.ids import PolicyId, entity_uid

_HOUR_MS: Final = 3_600_000
_CONTEXTS_MAX: Final = 4_096
_MERGED_MAX: Final = 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a request is judged by: one bundle, one directory that conforms to it, and Cedar over both."""

    bundle: Bundle
    directory: Directory
    decider: Decider
    merged: dict[tuple[str, ...], MergedObligations | Refused] = field(default_factory=dict, compare=False, repr=False)
    """A memo: the merged obligations of the policies that matched, which depend on the bundle alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fields:
    """The distinct fields of a request, DATASET.FIELD, by what `read` said."""

    admitted: frozenset[str]
    withheld: frozenset[str]


def judge(rules: Rules, ask: Ask) -> Judgement:
    """Takes a proved request through checks 4 to 7; equal inputs give equal judgements."""
    rulings: list[Ruling] = []
    # 4 decide access
    access = _decide_access(rules, ask, rulings)
    if isinstance(access, Refused):
        return _denied(access, rulings, determining=rulings[-1].policies if rulings else ())
    # 5 decide each document, field and tool
    fields = _decide_fields(rules, ask, rulings)
    if isinstance(fields, Refused):
        return _denied(fields, rulings)
    # 6 shape the prompt
    shape = rules.decider.rule("shape", access.principal, access.resource, access.context)
    rulings.append(shape)
    if not shape.allowed:
        refused = Refused(code=Code.SHAPE_DENIED, reason=_reasons(rules, shape))
        return _denied(refused, rulings, determining=shape.policies)
    merged = _merge(rules, (*access.policies, *shape.policies))
    if isinstance(merged, Refused):
        return _denied(merged, rulings)
    shaped = shape_prompt(ask.request, denied=fields.withheld, merged=merged, bundle=rules.bundle)
    if isinstance(shaped, Refused):
        return _denied(shaped, rulings)
    # 7 clamp the parameters
    wrong = next(out_of_range(ask.request.parameters), None)
    if wrong is not None:
        return _denied(Refused(code=Code.PARAMETER_INVALID, reason=wrong), rulings)
    clamped = clamp(ask, merged, rules.bundle)
    if isinstance(clamped, Refused):
        return _denied(clamped, rulings)
    return Judgement(
        code=Code.OK,
        determining=access.policies,
        rulings=tuple(rulings),
        obligations=merged.recorded,
        prompt=shaped.prompt,
        granted=clamped.granted,
        clamps=(*shaped.clamps, *clamped.clamps),
        admitted=tuple(sorted(fields.admitted)),
        withheld=tuple(sorted(fields.withheld)),
        aliases=shaped.aliases,
        materials=materials(shaped.prompt, request=ask.request, rulings=rulings, merged=merged),
        prompt_redactions=shaped.redactions,
        prompt_tokens_max=merged.limit("max_prompt_tokens"),
    )


def _denied(refused: Refused, rulings: list[Ruling], *, determining: tuple[str, ...] = ()) -> Judgement:
    return Judgement(code=refused.code, reason=refused.reason, determining=determining, rulings=tuple(rulings))


# ---- 4 decide access -----------------------------------------------------------------------------------------------


def _decide_access(rules: Rules, ask: Ask, rulings: list[Ruling]) -> Ruling | Refused:
    request = ask.request
    principal, actor, model = entity_uid(*ask.principal), entity_uid(*ask.actor), entity_uid("Model", request.model)
    if not rules.directory.has(principal):
        return Refused(code=Code.UNKNOWN_PRINCIPAL)
    if not rules.directory.has(actor):
        return Refused(code=Code.UNKNOWN_ACTOR)
    if not rules.directory.has(model):
        return Refused(code=Code.UNKNOWN_MODEL)
    if not rules.bundle.declares("Purpose", request.purpose):
        return Refused(code=Code.UNKNOWN_PURPOSE)
    ruling = rules.decider.rule("generate", principal, model, _asking_context(ask))
    rulings.append(ruling)
    return ruling if ruling.allowed else _refusal(rules, ruling)


def _asking_context(ask: Ask) -> str:
    """The context of generate and shape: what was asked, by whose hand, and when (event time, UTC; Monday is 0)."""
    parameters = ask.request.parameters
    return _asking_json(
        ask.request.purpose, ask.actor, ask.time_ms // _HOUR_MS, asked_tokens(parameters), parameters.stream
    )


@lru_cache(maxsize=_CONTEXTS_MAX)
def _asking_json(purpose: str, actor: tuple[str, str], hours: int, tokens: int, stream: bool) -> str:
    return context_json(
        {
            "purpose": entity_json("Purpose", purpose),
            "via": entity_json(*actor),
            "clock": {"hour": hours % 24, "weekday": (hours // 24 + 3) % 7},  # 1970-01-01 was a Thursday
            "asked": {"outputTokens": tokens, "stream": stream},
        }
    )


@lru_cache(maxsize=_CONTEXTS_MAX)
def _reading_json(purpose: str, actor: tuple[str, str], model: str) -> str:
    """The context of read: for what, by whose hand, and for which model."""
    return context_json(
        {
            "purpose": entity_json("Purpose", purpose),
            "via": entity_json(*actor),
            "model": entity_json("Model", model),
        }
    )


def _refusal(rules: Rules, ruling: Ruling) -> Refused:
    """A denial of `generate` or a failed `read`: a requester sees the `@reason` of the forbids and nothing else."""
    if ruling.errors:
        return Refused(code=Code.POLICY_ERROR)
    return Refused(code=Code.DENIED, reason=_reasons(rules, ruling))


def _reasons(rules: Rules, ruling: Ruling) -> str | None:
    texts = (rules.bundle.policies[PolicyId(policy)].annotations.get(REASON) for policy in ruling.policies)
    return "; ".join(text for text in texts if text is not None) or None


# ---- 5 decide each document, field and tool ------------------------------------------------------------------------


def _decide_fields(rules: Rules, ask: Ask, rulings: list[Ruling]) -> _Fields | Refused:
    request = ask.request
    if request.tools:
        return Refused(code=Code.TOOLS_UNSUPPORTED)
    names = _field_names(rules, request)
    if isinstance(names, Refused):
        return names
    context = _reading_json(request.purpose, ask.actor, request.model)
    principal = entity_uid(*ask.principal)
    admitted: set[str] = set()
    withheld: set[str] = set()
    for name in names:
        ruling = rules.decider.rule("read", principal, entity_uid("Field", name), context)
        rulings.append(ruling)
        if ruling.errors:
            return _refusal(rules, ruling)
        (admitted if ruling.allowed else withheld).add(name)
    return _Fields(admitted=frozenset(admitted), withheld=frozenset(withheld))


def _field_names(rules: Rules, request: RequestSubmitted) -> list[str] | Refused:
    """Every distinct field, DATASET.FIELD, in the order of the request; all are known before any is decided."""
    names: dict[str, None] = {}
    for document in request.documents:
        if not rules.directory.has(entity_uid("Dataset", document.dataset)):
            return Refused(code=Code.UNKNOWN_DATASET)
        for piece in document.fields:
            name = field_name(document, piece.name)
            if not rules.directory.has(entity_uid("Field", name)):
                return Refused(code=Code.UNKNOWN_FIELD)
            names[name] = None
    return list(names)


# ---- 6 shape the prompt --------------------------------------------------------------------------------------------


def _merge(rules: Rules, policies: tuple[str, ...]) -> MergedObligations | Refused:
    """The obligations of all matching permits; a loaded bundle holds none that is not carried out."""
    known = rules.merged.get(policies)
    if known is not None:
        return known
    sources = (rules.bundle.policies[PolicyId(policy)] for policy in policies)
    if len(rules.merged) >= _MERGED_MAX:
        rules.merged.clear()
    rules.merged[policies] = found = merge(
        (source.id, name, source.annotations[name])
        for source in sources
        for name in MERGED
        if name in source.annotations
    )
    return found
