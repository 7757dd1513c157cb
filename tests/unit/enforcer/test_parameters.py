"""Check 7: each parameter clamped or refused, the policies that did it named, and no statement ever loosens."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluicegate.enforcer.judgement import Ask, Refused
from sluicegate.enforcer.obligations import CATALOGUE, MergedObligations, merge
from sluicegate.enforcer.parameters import Clamped, clamp
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import Clamp, Granted, Message, Parameters, RequestSubmitted, Role

ASK = Ask(
    principal=("User", "ana"),
    actor=("Service", "app"),
    request=RequestSubmitted(
        request_id="r1", model="m", purpose="p", messages=(Message(role=Role.USER, content="A question?"),)
    ),
    time_ms=0,
    default_seed=77,
)


def granted(bundle, parameters, *obligations):
    merged = merge((f"p{index}", *each) for index, each in enumerate(obligations))
    assert isinstance(merged, MergedObligations)
    return clamp(replace(ASK, request=replace(ASK.request, parameters=parameters)), merged, bundle)


# name, bound, asked over it, granted then, as the clamp says it
OVER = [
    ("max_tokens", "64", 65, 64, ("65", "64")),
    ("temperature", "0.3", 0.31, 0.3, ("0.31", "0.3")),
    ("top_p", "0.9", 0.95, 0.9, ("0.95", "0.9")),
    ("top_k", "8", 9, 8, ("9", "8")),
    ("seed", "fixed", 5, 0, ("5", "0")),
    ("stream", "no", True, None, ("yes", "no")),
]


@pytest.mark.parametrize(("name", "bound", "asked", "given_", "told"), OVER, ids=[row[0] for row in OVER])
def test_what_is_over_a_limit_is_clamped_or_refused_as_policy_says(heron, name, bound, asked, given_, told):
    parameters = Parameters(**{name: asked})
    for said in ((), (("over_limit", "clamp"),)):
        found = granted(heron.bundle, parameters, (name, bound), *said)
        assert isinstance(found, Clamped)
        assert found.clamps == (Clamp(name=name, asked=told[0], granted=told[1], policies=("p0",)),)
        if given_ is not None:
            assert getattr(found.granted, name) == given_
    refused = granted(heron.bundle, parameters, (name, bound), ("over_limit", "clamp"), ("over_limit", "refuse"))
    assert isinstance(refused, Refused)
    assert refused.code is Code.OVER_LIMIT
    assert refused.reason.startswith(f"{name} is ")


@pytest.mark.parametrize(
    "parameters",
    [
        Parameters(),
        Parameters(max_tokens=64, temperature=0.3, top_p=0.9, top_k=8, seed=0, stop=("x",)),
        Parameters(max_tokens=1, temperature=0.0, top_p=0.01, top_k=1),
    ],
)
def test_at_or_under_every_limit_nothing_is_refused(heron, parameters):
    limits = [row[:2] for row in OVER]
    found = granted(heron.bundle, parameters, *limits, ("over_limit", "refuse"))
    assert isinstance(found, Clamped)
    assert found.clamps == ()


def test_who_asks_nothing_gets_no_more_than_the_limits(heron):
    found = granted(heron.bundle, Parameters(), *(row[:2] for row in OVER))
    assert found.granted == Granted(max_tokens=64, temperature=0.0, top_p=0.9, top_k=8, seed=0)
    assert granted(heron.bundle, Parameters()).granted == Granted(
        max_tokens=256, temperature=0.0, top_p=1.0, top_k=64, seed=77
    )


def test_policy_adds_stops_to_those_that_were_asked_for(heron):
    found = granted(heron.bundle, Parameters(stop=("b", "a")), ("stop", "a"), ("stop", '["\\n\\n", "c"]'))
    assert found.granted.stop == ("b", "a", "\n\n", "c")


def test_all_that_is_over_is_named_together(heron):
    refused = granted(
        heron.bundle, Parameters(max_tokens=9, top_k=9), ("max_tokens", "8"), ("top_k", "8"), ("over_limit", "refuse")
    )
    assert refused == Refused(code=Code.OVER_LIMIT, reason="max_tokens is over 8; top_k is over 8")


# ---- the law, at what is granted -----------------------------------------------------------------------------------

ASKED = st.builds(
    Parameters,
    max_tokens=st.none() | st.integers(1, 32_768),
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0.001, 1),
    top_k=st.none() | st.integers(1, 64),
    seed=st.none() | st.integers(0, 9),
    stop=st.lists(st.sampled_from(["a", "b", "c"]), max_size=3, unique=True).map(tuple),
    stream=st.booleans(),
)
SAID = st.one_of(
    st.tuples(st.just("max_tokens"), st.integers(1, 32_768).map(str)),
    st.tuples(st.just("temperature"), st.integers(0, 2_000).map(lambda each: f"{each / 1000:.3f}")),
    st.tuples(st.just("top_p"), st.integers(1, 1_000).map(lambda each: f"{each / 1000:.3f}")),
    st.tuples(st.just("top_k"), st.integers(1, 64).map(str)),
    st.tuples(st.just("stop"), st.sampled_from(["a", "b", "d"])),
    *(st.tuples(st.just(name), st.sampled_from(CATALOGUE[name].levels)) for name in ("seed", "stream", "over_limit")),
)


def no_looser(after: Clamped | Refused, before: Clamped | Refused) -> bool:
    if isinstance(after, Refused):
        return True
    if isinstance(before, Refused):
        return False
    tight, loose = after.granted, before.granted
    return (
        tight.max_tokens <= loose.max_tokens
        and tight.temperature <= loose.temperature
        and tight.top_p <= loose.top_p
        and tight.top_k <= loose.top_k
        and set(tight.stop) >= set(loose.stop)
        and (tight.seed == loose.seed or tight.seed == 0)
        and len(after.clamps) >= len(before.clamps)
    )


@settings(max_examples=300)
@given(ASKED, st.lists(SAID, max_size=6), SAID)
def test_one_more_obligation_never_grants_more(heron, asked, said, more):
    assert no_looser(granted(heron.bundle, asked, *said, more), granted(heron.bundle, asked, *said))


def test_the_law_can_say_no(heron):
    asked = Parameters(max_tokens=1000, stop=("a",))
    loose, tight = granted(heron.bundle, asked), granted(heron.bundle, asked, ("max_tokens", "8"))
    assert not no_looser(loose, tight)
    assert not no_looser(granted(heron.bundle, Parameters(max_tokens=1000)), loose)
    assert not no_looser(loose, Refused(code=Code.OVER_LIMIT))
