"""What a request asks of the sampler and the merged obligations go in, what is granted comes out; check 7.

The only place that clamps a parameter. Each in its range first, then as tight as the obligations say: what is asked
for beyond that is granted tighter, or refused where `over_limit` says so. What holds where no policy says anything is
the loosest value of its obligation, so that a policy that says something only tightens.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sluicegate.enforcer.bundle import Bundle
from sluicegate.enforcer.judgement import Ask, Refused
from sluicegate.enforcer.obligations import STOP_CHARACTERS_MAX, STOPS_MAX, MergedObligations
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import Clamp, Granted, Parameters
from sluicegate.schemas.ids import PolicyId

OUTPUT_TOKENS_DEFAULT: Final = 256  # tokens, asked for by a request that asks nothing
OUTPUT_TOKENS_MAX: Final = 32_768  # tokens, granted where no policy limits; the model's window bounds them again
SEED_MAX: Final = 2**63 - 1
SEED_FIXED: Final = 0
TOP_K_MAX: Final = 64
TEMPERATURE_MAX: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Clamped:
    """The parameters of the grant, and each that was granted tighter than asked, with the policies that did it."""

    granted: Granted
    clamps: tuple[Clamp, ...]


def asked_tokens(parameters: Parameters) -> int:
    """How many tokens of answer a request asks for."""
    return OUTPUT_TOKENS_DEFAULT if parameters.max_tokens is None else parameters.max_tokens


def out_of_range(parameters: Parameters) -> Iterator[str]:
    """What to change in the parameters, one line each; values are not repeated."""
    if parameters.max_tokens is not None and not 1 <= parameters.max_tokens <= OUTPUT_TOKENS_MAX:
        yield f"max_tokens must be 1 to {OUTPUT_TOKENS_MAX}"
    temperature, top_p = parameters.temperature, parameters.top_p
    if temperature is not None and not (math.isfinite(temperature) and 0 <= temperature <= TEMPERATURE_MAX):
        yield f"temperature must be 0 to {TEMPERATURE_MAX}"
    if top_p is not None and not (math.isfinite(top_p) and 0 < top_p <= 1):
        yield "top_p must be above 0, up to 1"
    if parameters.top_k is not None and not 1 <= parameters.top_k <= TOP_K_MAX:
        yield f"top_k must be 1 to {TOP_K_MAX}"
    if parameters.seed is not None and not 0 <= parameters.seed <= SEED_MAX:
        yield "seed must be 0 to 2^63-1"
    if len(parameters.stop) > STOPS_MAX or not all(0 < len(stop) <= STOP_CHARACTERS_MAX for stop in parameters.stop):
        yield f"stop must be up to {STOPS_MAX} texts of 1 to {STOP_CHARACTERS_MAX} characters"


class _Limits:
    """Takes each parameter down to its limit and keeps where more was asked for."""

    def __init__(self, merged: MergedObligations) -> None:
        self._merged = merged
        self.clamps: list[Clamp] = []
        self.limits: list[str] = []

    def whole(self, name: str, asked: int | None, *, usual: int, most: int) -> int:
        limit = self._merged.limit(name)
        limit = most if limit is None else limit
        if asked is None or asked <= limit:
            return min(usual, limit) if asked is None else asked
        self.over(name, str(asked), str(limit), f"{name} is over {limit}")
        return limit

    def decimal(self, name: str, asked: float | None, *, usual: float) -> float:
        """Compared as the numbers are written: a bound of 0.3 and a wish of 0.3 are equal."""
        bound = self._merged.bound(name)
        limit = math.inf if bound is None else float(bound)
        if asked is None or asked <= limit:
            return min(usual, limit) if asked is None else asked
        self.over(name, repr(asked), repr(limit), f"{name} is over {bound}")
        return limit

    def over(self, name: str, asked: str, granted: str, text: str) -> None:
        policies: tuple[PolicyId, ...] = self._merged.sources(name)
        self.clamps.append(Clamp(name=name, asked=asked, granted=granted, policies=policies))
        self.limits.append(text)


def clamp(ask: Ask, merged: MergedObligations, bundle: Bundle) -> Clamped | Refused:
    """The parameters of the grant. `ask.request.parameters` are in their ranges (`out_of_range` yields nothing).

    Refused with `OVER_LIMIT` where more is asked for than granted and the obligation `over_limit` refuses that.
    """
    parameters, limits = ask.request.parameters, _Limits(merged)
    max_tokens = limits.whole("max_tokens", parameters.max_tokens, usual=OUTPUT_TOKENS_DEFAULT, most=OUTPUT_TOKENS_MAX)
    temperature = limits.decimal("temperature", parameters.temperature, usual=0.0)
    top_p = limits.decimal("top_p", parameters.top_p, usual=1.0)
    top_k = limits.whole("top_k", parameters.top_k, usual=TOP_K_MAX, most=TOP_K_MAX)
    seed = ask.default_seed if parameters.seed is None else parameters.seed
    if merged.word("seed") == "fixed":
        if parameters.seed is not None and parameters.seed != SEED_FIXED:
            limits.over("seed", str(parameters.seed), str(SEED_FIXED), "seed is fixed")
        seed = SEED_FIXED
    if parameters.stream:  # no stage streams yet: the terminal release is all there is
        limits.over("stream", "yes", "no", "stream is not granted")
    if limits.limits and merged.word("over_limit") == "refuse":
        return Refused(code=Code.OVER_LIMIT, reason="; ".join(limits.limits))
    grammar = merged.word("output")
    granted = Granted(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=seed,
        stop=(*parameters.stop, *(text for text in merged.names("stop") if text not in parameters.stop)),
        choices=() if grammar is None else bundle.grammars[grammar].choices,
    )
    return Clamped(granted=granted, clamps=tuple(limits.clamps))
