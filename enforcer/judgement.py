"""What checks 4 to 7 found, allow or deny: everything of a decision that policy determines."""

from dataclasses import dataclass

from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import (
    AliasUse,
    Clamp,
    Granted,
    Material,
    Obligation,
    PromptRedaction,
    RequestSubmitted,
    Ruling,
    ShapedMessage,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Bad input, as a value: the code of the first check that failed and, where it helps the producer, why."""

    code: Code
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Who asks what: the proved principal and actor (Cedar type and id each), the request, and event time."""

    principal: tuple[str, str]
    actor: tuple[str, str]
    request: RequestSubmitted
    time_ms: int
    default_seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The outcome of checks 4 to 7. It allows if and only if `code` is `OK`; then `granted` is set and `prompt` is
    not empty.
    """

    code: Code
    reason: str | None = None
    determining: tuple[str, ...] = ()
    rulings: tuple[Ruling, ...] = ()
    obligations: tuple[Obligation, ...] = ()
    prompt: tuple[ShapedMessage, ...] = ()
    granted: Granted | None = None
    clamps: tuple[Clamp, ...] = ()
    admitted: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()
    aliases: tuple[AliasUse, ...] = ()
    materials: tuple[Material, ...] = ()
    prompt_redactions: tuple[PromptRedaction, ...] = ()
    prompt_tokens_max: int | None = None
