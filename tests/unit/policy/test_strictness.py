"""Which way an obligation goes, by every law of the catalogue that this release carries out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.enforcer.obligations import CATALOGUE, MERGED, MergedObligations, Value, merge
from sluicegate.policy.strictness import Direction, annotation_steps, steps
from sluicegate.schemas.ids import PolicyId

TIGHTENED, LOOSENED, OTHER = Direction.TIGHTENED, Direction.LOOSENED, Direction.OTHER


@pytest.mark.parametrize(
    ("name", "before", "after", "directions"),
    [
        ("max_tokens", "64", "24", [TIGHTENED]),
        ("max_tokens", "24", "64", [LOOSENED]),
        ("max_tokens", "64", "64", []),
        ("max_tokens", None, "64", [TIGHTENED]),
        ("max_tokens", None, "1024", [TIGHTENED]),  # without a word from any policy what is asked is granted
        ("max_tokens", "1024", None, [LOOSENED]),
        ("max_tokens", None, "32768", [OTHER]),
        ("temperature", "0.3", "0.31", [LOOSENED]),
        ("temperature", None, "0.3", [TIGHTENED]),
        ("stop", '["a", "b"]', "b", [LOOSENED]),
        ("client_system", None, "demote", [OTHER]),
        ("client_system", "demote", "refuse", [TIGHTENED]),
        ("seed", "client", "fixed", [TIGHTENED]),
        ("seed", "fixed", None, [LOOSENED]),
        ("withheld", None, "label", [OTHER]),
        ("withheld", "refuse", "drop", [LOOSENED]),
        ("numbers", None, "from_context", [TIGHTENED]),
        ("system", None, "a", [TIGHTENED]),
        ("system", "a", "b", [OTHER]),
        ("output", "a", None, [LOOSENED]),
        ("alias", "a, b", "b, c", [LOOSENED, TIGHTENED]),
        ("alias", "a, b", "b,a", []),
        ("redact", "IBAN=last4", "IBAN=label", [TIGHTENED]),
        ("redact", "IBAN=last4", "CARD=label", [TIGHTENED, LOOSENED]),
        ("redact", "IBAN=last4, CARD=label", "CARD=label,IBAN=last4", []),
        ("redact", None, "IBAN=keep", [OTHER]),
        ("reason", "a", "b", [OTHER]),
        ("id", "a", "b", []),
    ],
)
def test_an_annotation_goes_the_way_of_its_law(
    name: str, before: str | None, after: str | None, directions: list[Direction]
) -> None:
    old, new = ({} if raw is None else {name: raw} for raw in (before, after))
    assert [each.direction for each in annotation_steps(old, new)] == directions


def test_a_step_says_what_was_and_what_is() -> None:
    (step,) = annotation_steps({"redact": "IBAN=last4"}, {})
    assert step.text() == "@redact: IBAN=last4 -> IBAN (nothing)"
    (step,) = annotation_steps({}, {"reason": "no"})
    assert step.text() == '@reason: (nothing) -> "no"'


RAW = {
    "max_tokens": ["1", "64", "1024", "32768"],
    "max_prompt_tokens": ["1", "64"],
    "temperature": ["0", "0.3", "2"],
    "top_p": ["0.1", "1"],
    "top_k": ["1", "64"],
    "stop": ["a", '["a", "b"]'],
    "stream": ["yes", "no"],
    "over_limit": ["clamp", "refuse"],
    "client_system": ["demote", "drop", "refuse"],
    "redact_prompt": ["SECRET=label", "IBAN=last4, CARD=keep"],
    "seed": ["client", "fixed"],
    "withheld": ["label", "drop", "refuse"],
    "numbers": ["free", "from_context"],
    "alias": ["a", "a, b", "c"],
    "redact": ["IBAN=last4", "IBAN=label, CARD=keep", "PHONE=label"],
    "system": ["a"],
    "output": ["a"],
}


def merged(name: str, values: list[str]) -> Value | None:
    found = merge((PolicyId(f"p{number}"), name, raw) for number, raw in enumerate(values))
    assert isinstance(found, MergedObligations)
    return found.values.get(name)


@given(st.data())
def test_one_more_matching_policy_never_loosens(data: st.DataObject) -> None:
    """Invariant 6, in the words of this comparison: it must call no merge of more values looser than that of fewer."""
    assert RAW.keys() == set(MERGED)
    name = data.draw(st.sampled_from(sorted(RAW)))
    values = data.draw(st.lists(st.sampled_from(RAW[name]), max_size=3))
    more = data.draw(st.sampled_from(RAW[name]))
    found = list(steps(name, merged(name, values), merged(name, [*values, more])))
    assert LOOSENED not in [each.direction for each in found], CATALOGUE[name].law
    back = list(steps(name, merged(name, [*values, more]), merged(name, values)))
    turned = {TIGHTENED: LOOSENED, OTHER: OTHER}
    assert [turned[each.direction] for each in found] == [each.direction for each in back]
