"""What an answer claims is looked up by value in what was admitted: a table for each kind of claim."""

from functools import cache
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.enforcer.detect import RuleTable, Scanner, compile_table
from sluicegate.enforcer.support import find_unsupported, gather

TABLE = Path(__file__).resolve().parents[3] / "policies" / "redaction.yaml"
PAY = "Priya Shah is the workshop lead. She earns 41,500 pounds a year and started in May 2021."
IBAN = "It must be paid by 30 November to the account GB29NWBK60161331926819."
PHONE = "Mara Lind's phone number is 020 7946 0958."


@cache
def scanner() -> Scanner:
    return compile_table(RuleTable.parse(yaml.safe_load(TABLE.read_text(encoding="utf-8"))))


def unsupported(text: str, *admitted: str) -> list[str]:
    spans = find_unsupported(text, scanner().scan(text), gather(admitted, scanner()))
    return [text[start:end] for start, end in spans]


@pytest.mark.parametrize(
    ("answer", "admitted"),
    [
        ("She earns 41,500 pounds since May 2021.", PAY),
        ("She earns 41500 pounds.", PAY),
        ("She earns 41,500.00 pounds.", PAY),
        ("She earns £41,500.", PAY),
        ("**41,500**", PAY),
        ("４１,500", PAY),  # fullwidth digits
        ("41 500 pounds", PAY),
        ("Jonas Weber replaced it at 02:32.", "replaced the key at 02:32"),
        ("at 2:32", "at 02:32"),
        ("within 14 days, a 14-day wait, the 14th", "14 days"),
        ("on 1 March", "on 01 March"),
        ("at 3pm", "at 3 pm"),
        ("180kg and 180 kg", "carries 180 kg"),
        ("a Heron 7 bike", "Bike: Heron 7"),
        ("called Project 12", "called Project-12"),
        ("3 things", "List three things to check."),
        ("between 10 and 15", "10-15 people"),
        ("10-15 people", "between 10 and 15"),
        ("in 2023, on the 22nd of February", "2023-02-22"),
        ("on 2023-02-22", "2023-02-22"),
        ("invoice INV-2031-7", "invoice inv-2031-7"),
        ("pay to GB29 NWBK 6016 1331 9268 19", IBAN),
        ("pay to gb29nwbk60161331926819 by 30 November.", IBAN),
        ("020-7946-0958", PHONE),
        ("02079460958", PHONE),
        ("call 7946 0958", "her number: 7946 0958"),
        ("7946 0958", "call 7946 0958"),
        ("write to Mara.Lind@Example.com", "mara.lind@example.com"),
        ("key sk_live_51HxQz7LkPq", "the key sk_live_51HxQz7LkPq expired"),
        ("from 10.0.0.1", "host 10.0.0.1 is down"),
        ("1. Check the tires.\n2. Check the brakes.\n3) Ride.", ""),
        ("**1.** no\n", "1"),
        ("[IBAN ...6819] and [withheld] and [unsupported] and [PHONE]", ""),
        ("Three things, one of them twenty.", ""),  # number words are no claims
        ("No claim at all.", ""),
        ("", ""),
    ],
)
def test_supported(answer: str, admitted: str) -> None:
    assert unsupported(answer, "You are helpful.", admitted) == []


@pytest.mark.parametrize(
    ("answer", "admitted", "wanted"),
    [
        ("41,500 pounds, which is 1,200 pounds more", PAY, ["1,200"]),
        ("She earns $25,000.", PAY, ["25,000"]),
        ("on 2023-02-22 at 12:32:32", PAY, ["2023-02-22", "12:32:32"]),
        ("415, 500, 4150, 41 and 1,500", PAY, ["415", "500", "4150", "41", "1,500"]),
        ("021 and 2", PAY, ["021", "2"]),
        ("call 020 7946 0959", PHONE, ["020 7946 0959"]),
        ("7946 or 0958", PHONE, ["7946", "0958"]),  # part of a longer number is no support
        ("0958 7946 020", PHONE, ["0958 7946 020"]),  # the same groups in another order
        ("ends in 6819", IBAN, ["6819"]),
        ("account GB29NWBK60161331926818", IBAN, ["GB29NWBK60161331926818"]),
        ("account GB29NWBK6016133", IBAN, ["GB29NWBK6016133"]),
        ("31", "INV-31-77", ["31"]),
        ("at 02", "at 02:32", ["02"]),
        ("4250", "4.250 euros", ["4250"]),
        ("mara@example.org", "mara@example.com", ["mara@example.org"]),
        ("sk_live_51HxQz7LkPr", "sk_live_51HxQz7LkPq", ["sk_live_51HxQz7LkPr"]),
        ("1. Check.\n3. Ride.", "", ["1", "3"]),  # no list: it does not count
        ("7. Check.", "", ["7"]),
        ("6819", "pay to [IBAN ...6819]", ["6819"]),  # a label is no support
        ("an MP3", "", ["MP3"]),
        ("7 14", "Heron 7 for 14 days", []),
        ("714", "Heron 7 14 days", ["714"]),
        ("4\u200b2", "42", []),
        ("4\u200b3", "42", ["4\u200b3"]),
        ("mara@example.com,7", "mara@example.com", ["7"]),
    ],
)
def test_unsupported(answer: str, admitted: str, wanted: list[str]) -> None:
    assert unsupported(answer, admitted) == wanted


def test_one_admitted_text_is_not_glued_to_the_next() -> None:
    assert unsupported("call 7946 0958", "ext 7946", "0958 is it") == ["7946 0958"]
    assert unsupported("call 7946 0958", "ext 7946 0958 is it") == []


@given(st.integers(min_value=0, max_value=10**9), st.integers(min_value=0, max_value=10**9))
def test_a_number_supports_itself_in_any_spelling_and_no_other(said: int, admitted: int) -> None:
    for spelling in (str(said), f"{said:,}", f"{said:,}.00"):
        answer = f"It is {spelling} pounds."
        assert unsupported(answer, f"There are {admitted} pounds.") == ([] if said == admitted else [spelling])
        assert unsupported(answer, f"There are {said} pounds.") == []


@given(st.text(max_size=200))
def test_an_answer_that_repeats_what_was_admitted_is_supported(text: str) -> None:
    assert unsupported(text, text) == []
