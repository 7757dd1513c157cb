"""The one way out: operators, overlaps, the support check beside the scanner, the laws, and the type of what leaves."""

import copy
import dataclasses
import pickle
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.enforcer.detect import CLASSES, RedactionClass, RuleTable, Scanner, compile_table
from sluicegate.enforcer.redact import (
    STRICTNESS,
    SUPPORTED_OPERATORS,
    UNCHECKED_TEXT,
    Numbers,
    Operator,
    Redacted,
    redact,
)

TABLE = Path(__file__).resolve().parents[3] / "policies" / "redaction.yaml"
EVERYONE = {
    RedactionClass.CARD: Operator.LABEL,
    RedactionClass.IBAN: Operator.LAST4,
    RedactionClass.SECRET: Operator.LABEL,
}
OTHERS = EVERYONE | {RedactionClass.EMAIL: Operator.LABEL, RedactionClass.PHONE: Operator.LABEL}
ALL_LABELS = dict.fromkeys(RedactionClass, Operator.LABEL)
VALUES = [
    "mara.lind@example.com", "020 7946 0958", "4111 1111 1111 1111", "GB29NWBK60161331926819", "sk_live_51HxQz7LkPq",
    "10.20.30.40", "+44 20 7946 0958", "GB29 NWBK 6016 1331 9268 19", "fe80::1a2b", "password=hunter2x9Qz",
]  # fmt: skip
PAY = "Priya Shah is the workshop lead. She earns 41,500 pounds a year and started in May 2021."
INVOICE = "Tyne Steel has sent an invoice for 4,250 euros, due by 30 November, to the account GB29NWBK60161331926819."


@cache
def scanner() -> Scanner:
    return compile_table(RuleTable.parse(yaml.safe_load(TABLE.read_text(encoding="utf-8"))))


def redacted(
    text: str,
    operators: Mapping[RedactionClass, Operator] = ALL_LABELS,
    numbers: Numbers = "free",
    admitted: Sequence[str] = (),
) -> Redacted:
    return redact(text=text, scanner=scanner(), operators=operators, numbers=numbers, admitted=admitted)


@pytest.mark.parametrize(
    ("text", "operators", "admitted", "wanted", "unsupported"),
    [  # the beats of the demo, word for word
        ("Mara Lind's phone number is 020 7946 0958.", EVERYONE, "Mara Lind: 020 7946 0958",
         "Mara Lind's phone number is 020 7946 0958.", 0),
        ("Mara Lind's phone number is 020 7946 0958.", OTHERS, "Mara Lind: 020 7946 0958",
         "Mara Lind's phone number is [PHONE].", 0),
        ("The original user's phone number is [withheld].", OTHERS, "Phone: [withheld]",
         "The original user's phone number is [withheld].", 0),
        ("Priya Shah earns 41,500 pounds a year, which is 1,200 pounds more than the previous year.", OTHERS, PAY,
         "Priya Shah earns 41,500 pounds a year, which is [unsupported] pounds more than the previous year.", 1),
        ("Tyne Steel must pay the 4,250 euros to the account GB29NWBK60161331926819.", OTHERS, INVOICE,
         "Tyne Steel must pay the 4,250 euros to the account [IBAN ...6819].", 0),
        ("The checkout failed because the key sk_live_51HxQz7LkPq had expired.", OTHERS, "key sk_live_51HxQz7LkPq",
         "The checkout failed because the key [SECRET] had expired.", 0),
        # both checks at one place
        ("Pay GB29 NWBK 6016 1331 9268 19.", OTHERS, INVOICE, "Pay [IBAN ...6819].", 0),
        ("Pay DE89370400440532013000.", OTHERS, INVOICE, "Pay [IBAN].", 1),  # invented: no part of it is shown
        ("Call 020 7946 0958.", EVERYONE, INVOICE, "Call [unsupported].", 1),
        ("Call 020 7946 0958.", OTHERS, INVOICE, "Call [PHONE].", 1),
        ("Mail m.lind@example.com or 7.", OTHERS, "m.lind@example.com", "Mail [EMAIL] or [unsupported].", 1),
        ("GB29NWBK6016 is 20 tokens", OTHERS, INVOICE, "[unsupported] is [unsupported] tokens", 2),
    ],
)  # fmt: skip
def test_the_answers_of_the_demo(
    text: str, operators: Mapping[RedactionClass, Operator], admitted: str, wanted: str, unsupported: int
) -> None:
    result = redacted(text, operators, "from_context", [admitted])
    assert (result.text, result.unsupported, result.checked) == (wanted, unsupported, True)
    assert result.rules_digest == scanner().rules_digest


@pytest.mark.parametrize(
    ("operator", "text", "wanted"),
    [
        ("keep", "GB29NWBK60161331926819", "GB29NWBK60161331926819"),
        ("last4", "GB29 NWBK 6016 1331 9268 19", "[IBAN ...6819]"),
        ("label", "GB29NWBK60161331926819", "[IBAN]"),
    ],
)
def test_operators(operator: str, text: str, wanted: str) -> None:
    assert redacted(text, {RedactionClass.IBAN: Operator(operator)}).text == wanted


def test_last4_labels_a_short_value_whole() -> None:
    assert redacted("call 794 60958", {RedactionClass.PHONE: Operator.LAST4}).text == "call [PHONE]"


def test_a_finding_says_where_and_which_rule_and_never_what() -> None:
    result = redacted("é call 020 7946 0958!")
    (finding,) = result.findings
    assert "é call 020 7946 0958!"[finding.start : finding.end] == "020 7946 0958"
    assert (finding.class_, finding.rule_id, finding.operator) == ("PHONE", "phone-national", "label")
    assert "7946" not in repr(result)
    assert "call" not in repr(result)


def test_where_values_overlap_the_stricter_operator_and_the_higher_priority_win() -> None:
    text = "token=GB29NWBK60161331926819"
    loose, strict = {RedactionClass.IBAN: Operator.LAST4}, {RedactionClass.SECRET: Operator.LABEL}
    assert redacted(text, loose).text == "token=[IBAN ...6819]"
    assert redacted(text, loose | strict).text == "token=[IBAN]"
    longer = "password=378282246310005xQzW end"  # the card ends where the secret does not
    assert redacted(longer, {RedactionClass.CARD: Operator.LABEL}).text == "password=[CARD]xQzW end"
    assert redacted(longer, {RedactionClass.CARD: Operator.LABEL} | strict).text == "password=[CARD] end"


@pytest.mark.parametrize("operator", sorted(set(Operator) - SUPPORTED_OPERATORS))
def test_an_operator_that_is_not_carried_out_is_refused(operator: Operator) -> None:
    with pytest.raises(ValueError, match="is not carried out"):
        redacted("x", {RedactionClass.IBAN: operator})


def test_unknown_classes_operators_and_modes_are_refused() -> None:
    for operators, numbers in (({"EMIAL": "label"}, "free"), ({"EMAIL": "blur"}, "free"), ({}, "some")):
        with pytest.raises(ValueError):
            redact(text="x", scanner=scanner(), operators=operators, numbers=numbers, admitted=())  # type: ignore[arg-type]


def test_the_order_of_operators_is_the_catalogues() -> None:
    assert list(STRICTNESS) == ["keep", "last4", "token", "hash", "label", "drop"]
    assert sorted(SUPPORTED_OPERATORS) == ["keep", "label", "last4"]
    assert sorted(CLASSES) == ["CARD", "EMAIL", "IBAN", "IP", "PHONE", "SECRET"]


@pytest.mark.parametrize("text", ["1" * 100_000, "a@b.co " * 3_000, "x" * 1_048_577, "\ud800 020 7946 0958"])
def test_what_cannot_be_checked_is_replaced_whole(text: str) -> None:
    result = redacted(text)
    assert (result.text, result.checked, result.findings) == (UNCHECKED_TEXT, False, ())
    assert redacted(result.text).text == UNCHECKED_TEXT
    assert redacted("Heron 7").checked  # the control: an ordinary text is checked


def test_admitted_text_that_cannot_be_checked_fails_closed_too() -> None:
    assert not redacted("Heron 7", numbers="from_context", admitted=["1" * 100_000]).checked
    assert redacted("Heron 7", numbers="from_context", admitted=["Heron 7"]).text == "Heron 7"


surroundings = st.text("abc é李😀,;.\n", max_size=40)


@given(st.lists(st.sampled_from(VALUES), min_size=1, max_size=5), st.lists(surroundings, min_size=6, max_size=6))
def test_no_planted_value_survives_a_label(values: list[str], between: list[str]) -> None:
    text = between[0] + "".join(f" {value} {gap}" for value, gap in zip(values, between[1:], strict=False))
    assert any(character.isdigit() or character == "@" for character in text)  # the control
    result = redacted(text)
    assert not any(character.isdigit() or character == "@" for character in result.text)
    for value in values:
        assert value not in result.text


@given(st.text("abcdefg hijklm nopqrst ,.;!?\n[]", max_size=200))
def test_text_without_values_is_unchanged(text: str) -> None:
    for numbers in ("free", "from_context"):
        result = redacted(text, numbers=numbers)
        assert (result.text, result.findings, result.unsupported) == (text, (), 0)


pieces = st.lists(
    st.sampled_from([*VALUES, "phone", "account", "card", "7", "41,500", "1.", "token=", "(", "+"]) | surroundings,
    max_size=10,
).map(" ".join)  # fmt: skip
operator_maps = st.dictionaries(st.sampled_from(list(RedactionClass)), st.sampled_from(sorted(SUPPORTED_OPERATORS)))


@given(pieces, operator_maps, st.sampled_from(["free", "from_context"]))
def test_redacting_twice_changes_nothing_more(
    text: str, operators: dict[RedactionClass, Operator], numbers: Numbers
) -> None:
    admitted = ["Heron 7 and 41,500 pounds, GB29NWBK60161331926819, 020 7946 0958"]
    once = redacted(text, operators, numbers, admitted)
    twice = redacted(once.text, operators, numbers, admitted)
    assert twice.text == once.text


def shown(text: str, operators: Mapping[RedactionClass, Operator]) -> set[int]:
    """The places of `text` that a reader of the redacted text sees (last4: its four letters or digits)."""
    places = set(range(len(text)))
    for finding in redacted(text, operators).findings:
        span = range(finding.start, finding.end)
        places -= set(span)
        if finding.operator is Operator.LAST4:
            places |= set([at for at in span if text[at].isalnum()][-4:])
    return places


@given(pieces, operator_maps, st.sampled_from(list(RedactionClass)), st.sampled_from(sorted(SUPPORTED_OPERATORS)))
def test_another_class_or_a_stricter_operator_never_shows_more(
    text: str, operators: dict[RedactionClass, Operator], class_: RedactionClass, operator: Operator
) -> None:
    stricter = max(operators.get(class_, Operator.KEEP), operator, key=STRICTNESS.index)
    assert shown(text, operators | {class_: stricter}) <= shown(text, operators)


def test_the_last_law_sees_a_difference() -> None:
    text = "to GB29NWBK60161331926819"
    kept, last4, label = (
        shown(text, {RedactionClass.IBAN: o}) for o in (Operator.KEEP, Operator.LAST4, Operator.LABEL)
    )
    assert kept > last4 > label


def test_nobody_else_makes_or_changes_a_redacted_text() -> None:
    result = redacted("call 020 7946 0958")
    fields = {"text": "020 7946 0958", "findings": (), "unsupported": 0, "rules_digest": "x", "checked": True}
    with pytest.raises(TypeError):
        Redacted(**fields)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="made by `redact` only"):
        Redacted(**fields, mint=object())  # type: ignore[arg-type]
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(result, text="020 7946 0958")  # type: ignore[call-arg]
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.text = "020 7946 0958"  # type: ignore[misc]
    with pytest.raises(TypeError):
        pickle.dumps(result)
    with pytest.raises(TypeError):
        copy.copy(result)
    with pytest.raises(TypeError):
        result.__setstate__([*fields.values()])
    with pytest.raises(TypeError, match="no subclasses"):
        type("Loose", (Redacted,), {})
    with pytest.raises(AttributeError):
        _ = object.__new__(Redacted).text
