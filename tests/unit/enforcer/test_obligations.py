"""Each law of the catalogue on small tables; what holds for all of them is in tests/property."""

import pytest

from sluicegate.enforcer.judgement import Refused
from sluicegate.enforcer.obligations import CATALOGUE, MERGED, BadValue, MergedObligations, merge, parse
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import Obligation


def test_this_release_carries_out():
    carried = {"max_tokens", "system", "withheld", "alias", "redact", "seed", "output", "numbers"}
    carried |= {"temperature", "top_p", "top_k", "stop", "stream", "over_limit", "max_prompt_tokens"}
    carried |= {"client_system", "redact_prompt"}
    assert set(MERGED) == carried
    assert {name for name, entry in CATALOGUE.items() if entry.supported} == carried | {"reason"}
    assert len(CATALOGUE) == 25


@pytest.mark.parametrize(
    ("name", "values", "wanted", "sources"),
    [
        ("max_tokens", ["64", "24", "256"], "24", ["p1"]),
        ("max_tokens", ["64", "64"], "64", ["p0", "p1"]),
        ("seed", ["client", "fixed"], '"fixed"', ["p1"]),
        ("numbers", ["from_context", "free"], '"from_context"', ["p0"]),
        ("withheld", ["drop", "label", "refuse"], '"refuse"', ["p2"]),
        ("withheld", ["label", "drop"], '"drop"', ["p1"]),
        ("system", ["a", "a"], '"a"', ["p0", "p1"]),
        ("alias", ["b,a", "c", "a"], '["a","b","c"]', ["p0", "p1", "p2"]),
        ("redact", ["IBAN=last4, CARD=label", "IBAN=label"], '{"CARD":"label","IBAN":"label"}', ["p0", "p1"]),
        ("redact", ["IBAN=label", "IBAN=last4"], '{"IBAN":"label"}', ["p0"]),
        ("temperature", ["0.30", "1", "0.3"], "0.3", ["p0", "p2"]),
        ("temperature", ["0.000001", "0"], "0", ["p1"]),
        ("top_p", ["0.9", "1"], "0.9", ["p0"]),
        ("top_k", ["64", "8"], "8", ["p1"]),
        ("stop", ["Regards, Ana", '["\\n\\n", "Regards, Ana"]'], '["\\n\\n","Regards, Ana"]', ["p0", "p1"]),
        ("over_limit", ["clamp", "refuse"], '"refuse"', ["p1"]),
        ("stream", ["no", "yes"], '"no"', ["p0"]),
        ("client_system", ["demote", "drop"], '"drop"', ["p1"]),
        ("redact_prompt", ["SECRET=last4", "SECRET=label"], '{"SECRET":"label"}', ["p1"]),
        # Nothing of p0 is left in the value: it is not what the value came from.
        ("redact", ["IBAN=last4", "IBAN=label"], '{"IBAN":"label"}', ["p1"]),
    ],
)
def test_law(name, values, wanted, sources):
    merged = merge((f"p{index}", name, value) for index, value in enumerate(values))
    assert isinstance(merged, MergedObligations)
    assert merged.recorded == (Obligation(name=name, value=wanted, policies=tuple(sources)),)


def test_readers():
    merged = merge([
        ("a", "max_tokens", "8"), ("a", "seed", "fixed"), ("b", "alias", "y, x"), ("b", "redact", "EMAIL=label"),
    ])  # fmt: skip
    assert isinstance(merged, MergedObligations)
    assert (merged.limit("max_tokens"), merged.word("seed"), merged.names("alias")) == (8, "fixed", ("x", "y"))
    assert dict(merged.operators("redact")) == {"EMAIL": "label"}
    assert (merged.limit("seed"), merged.word("output"), merged.names("seed"), merged.sources("output")) == (
        None,
        None,
        (),
        (),
    )
    assert [obligation.name for obligation in merged.recorded] == ["alias", "max_tokens", "redact", "seed"]


@pytest.mark.parametrize("name", ["system", "output"])
def test_conflict_denies(name):
    refused = merge([("one", name, "a"), ("two", name, "b")])
    assert isinstance(refused, Refused)
    assert refused.code is Code.OBLIGATION_CONFLICT
    assert refused.reason == f"policies one, two ask for different values of {name}"


@pytest.mark.parametrize("name", ["ban", "charge", "mask_output", "reason", "nonsense"])
def test_what_no_stage_carries_out_denies(name):
    refused = merge([("one", "max_tokens", "8"), ("two", name, "b")])
    assert isinstance(refused, Refused)
    assert refused.code is Code.OBLIGATION_UNSUPPORTED


def test_malformed_is_a_bug_here():
    with pytest.raises(BadValue):
        merge([("one", "max_tokens", "many")])
    with pytest.raises(KeyError):
        parse("ban", "x")
    assert merge([]) == merge(iter(()))


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("max_tokens", "6 4"), ("max_tokens", " 64"), ("max_tokens", "64\n"), ("max_tokens", "6_4"), ("max_tokens",
     "064"),
        ("max_tokens", "9" * 5000), ("max_tokens", ""), ("seed", ""), ("alias", "a,,b"), ("alias", "a,a"), ("alias",
     "a b"),
        ("system", "../x"), ("system", "a,b"), ("redact", ""), ("redact", "EMAIL"), ("redact", "EMAIL="),
        ("redact", "EMAIL=label="), ("redact", "email=label"), ("redact", "EMAIL=label,"),
        ("temperature", "2.1"), ("temperature", "-1"), ("temperature", "1e1"), ("temperature", "0.1234567"),
        ("temperature", "nan"), ("temperature", ".5"), ("top_p", "0"), ("top_p", "0.0"), ("top_p", "1.01"),
        ("top_k", "65"), ("stop", ""), ("stop", "[]"), ("stop", "[1]"), ("stop", "[\"a\", \"a\"]"), ("stop", "["),
        ("stop", "a" * 257), ("stop", '["\\ud800"]'), ("stop", '[""]'), ("over_limit", "warn"),
        ("redact_prompt", "SECRET=token"), ("max_prompt_tokens", "0"),
    ],
)  # fmt: skip
def test_values_are_read_strictly(name, raw):
    with pytest.raises(BadValue):
        parse(name, raw)
