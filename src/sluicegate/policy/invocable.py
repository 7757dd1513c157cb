"""The rules, a principal and a time go in, the models that it may invoke come out; the only place that lists them.

A model is listed if and only if the gate's own checks 4 to 7 allow the principal a plain question to it (one message,
no document) at that time: for some purpose, carried by some service, asking for some number of tokens, streamed or not.
Of the numbers of tokens between two that a policy compares with, one is tried, for no policy can tell them apart.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from sluicegate.enforcer.access import Rules, judge
from sluicegate.enforcer.directory import split_uid
from sluicegate.enforcer.judgement import Ask
from sluicegate.policy.space import ASKED, whens
from sluicegate.policy.tree import read_tree
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import Granted, Message, Parameters, RequestSubmitted, Role
from sluicegate.schemas.ids import EntityUid, entity_uid

Uid = tuple[str, str]
"""Cedar type and id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocable:
    """One way in: a model, the purpose and the service that carries the request, the policies that permit it, and what
    is granted for the parameters asked.
    """

    model: str
    purpose: str
    actor: Uid
    asked: Parameters
    policies: tuple[str, ...]
    granted: Granted


def invocable(
    rules: Rules,
    principal: Uid,
    *,
    time_ms: int,
    actors: Sequence[Uid] | None = None,
    purposes: Sequence[str] | None = None,
) -> tuple[Invocable, ...]:
    """Every model with each purpose and carrier for which it may be invoked, sorted; event time in milliseconds.

    `actors`: the services that may carry the request; None: the principal itself where it is a service, else every
    service of the directory. `purposes`: None: every purpose of the schema.
    """
    carriers = _carriers(rules, principal) if actors is None else actors
    wanted = sorted(rules.bundle.enums.get("Purpose", ())) if purposes is None else purposes
    tried = parameters_tried(rules)
    return tuple(
        found
        for model in _of_type(rules, "Model")
        for purpose in wanted
        for actor in carriers
        if (found := _way(rules, partial(plain_question, principal, actor, purpose, model[1], time_ms), tried))
        is not None
    )


def plain_question(principal: Uid, actor: Uid, purpose: str, model: str, time_ms: int, parameters: Parameters) -> Ask:
    """What is asked of the gate: one message without documents."""
    request = RequestSubmitted(
        request_id="r1",
        model=model,
        purpose=purpose,
        messages=(Message(role=Role.USER, content=ASKED),),
        parameters=parameters,
    )
    return Ask(principal=principal, actor=actor, request=request, time_ms=time_ms, default_seed=0)


def parameters_tried(rules: Rules) -> tuple[Parameters, ...]:
    """Parameters of which no policy can tell any others apart; first those of a request that asks for nothing."""
    trees = [read_tree(source) for source in rules.bundle.policies.values()]
    asked = dict.fromkeys((each.max_tokens, each.stream) for each in whens(trees))
    return (
        Parameters(),
        *(Parameters(max_tokens=tokens, stream=stream) for tokens, stream in asked if tokens is not None or stream),
    )


def _way(rules: Rules, ask: Callable[[Parameters], Ask], tried: Iterable[Parameters]) -> Invocable | None:
    for parameters in tried:
        asked = ask(parameters)
        found = judge(rules, asked)
        if found.code is Code.OK and found.granted is not None:
            return Invocable(
                model=asked.request.model,
                purpose=asked.request.purpose,
                actor=asked.actor,
                asked=parameters,
                policies=found.determining,
                granted=found.granted,
            )
    return None


def _carriers(rules: Rules, principal: Uid) -> Iterable[Uid]:
    return (principal,) if principal[0] == "Service" else tuple(_of_type(rules, "Service"))


def _of_type(rules: Rules, wanted: str) -> Iterator[Uid]:
    """The entities of the directory of one type, sorted."""
    uids: Iterable[EntityUid] = (uid for uid, type_ in rules.directory.types.items() if type_ == wanted)
    return iter(sorted(split_uid(uid) for uid in uids))


def known(rules: Rules, uid: Uid) -> bool:
    """Whether the directory has this entity."""
    return rules.directory.has(entity_uid(*uid))
