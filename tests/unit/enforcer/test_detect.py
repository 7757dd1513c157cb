"""The example's rule table finds what it says, in any disguise of characters, and nothing in ordinary sentences."""

import copy
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.enforcer import detect
from sluicegate.enforcer.detect import CLASSES, RuleTable, RuleTableRefused, ScanFailed, Scanner, compile_table
from sluicegate.enforcer.views import fold

TABLE = Path(__file__).resolve().parents[3] / "policies" / "redaction.yaml"


@cache
def document() -> dict[str, Any]:
    loaded = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


@cache
def scanner() -> Scanner:
    return compile_table(RuleTable.parse(document()))


def found(text: str) -> set[tuple[str, str]]:
    return {(finding.class_.value, text[finding.start : finding.end]) for finding in scanner().scan(text)}


PLANTED = {
    "mara.lind@example.com": "EMAIL",
    "a@b.co": "EMAIL",
    "ana [at] example [dot] com": "EMAIL",
    "020 7946 0958": "PHONE",
    "+44 20 7946 0958": "PHONE",
    "(415) 555-0132": "PHONE",
    "07700 900123": "PHONE",
    "4111 1111 1111 1111": "CARD",
    "5105-1051-0510-5100": "CARD",
    "378282246310005": "CARD",
    "GB29NWBK60161331926819": "IBAN",
    "GB29 NWBK 6016 1331 9268 19": "IBAN",
    "DE89 3704 0044 0532 0130 00": "IBAN",
    "sk_live_51HxQz7LkPq": "SECRET",
    "AKIAIOSFODNN7EXAMPLE": "SECRET",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a": "SECRET",
    "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJhIn0.c2lnbmF0dXJl": "SECRET",
    "10.20.30.40": "IP",
    "2001:db8::8a2e:370:7334": "IP",
}
PLAIN = [
    "A customer reported a rear brake squeal after a previous service.",
    "Customer: Mara Lind / Bike: Heron 7 / Problem: the rear brake squeals since the last service",
    "Priya Shah earns 41,500 pounds a year and started in May 2021.",
    "The checkout failed at 02:14 because the payment key had expired. Jonas Weber replaced the key at 02:32.",
    "Tyne Steel has sent an invoice for 4,250 euros. It must be paid by 30 November.",
    "The new cargo bike is called Project 12. It carries 180 kg and will be launched in March.",
    "On 2026-11-23 at 12:32:32 version 1.2.3 replaced 1.2.2, order 20231130, 02.11.2026 14:30.",
    "The token: see below. The secret is out. My password is long. std::vector<int> a::b",
    "Mail me @ noon. 3.14159265358979 and 1,234,567,890.12 and 1/3 and 10-15 and 24/7",
    "The original user's phone number is [withheld], [PHONE], [IBAN ...6819], [SECRET].",
]


@pytest.mark.parametrize("text", PLAIN)
def test_ordinary_sentences_hold_nothing(text: str) -> None:
    assert found(text) == set()


@pytest.mark.parametrize(("value", "class_"), PLANTED.items())
@pytest.mark.parametrize("frame", ["{}", "Reach it: {}.", "({})", "7 x {}, 14 days", "\n{}\n", "é {} 李"])
def test_a_planted_value_is_found_exactly(value: str, class_: str, frame: str) -> None:
    assert (class_, value) in found(frame.format(value))


@given(
    st.sampled_from(sorted(PLANTED.items())),
    st.text("abc ,;é李😀\n", max_size=60),
    st.text("xyz ,;é李😀\n", max_size=60),
)
def test_offsets_slice_exactly_to_the_planted_value(planted: tuple[str, str], before: str, after: str) -> None:
    value, class_ = planted
    text = f"{before} {value} {after}"
    assert (class_, value) in found(text)
    start = len(before) + 1
    assert any((f.start, f.end) == (start, start + len(value)) for f in scanner().scan(text))


@given(st.text("abcdefg hijklm nopqrst ,.;!?\n", max_size=300))
def test_text_without_digits_or_at_signs_holds_nothing(text: str) -> None:
    assert scanner().scan(text) == ()


FULLWIDTH = {ord(c): chr(ord(c) + 0xFEE0) for c in map(chr, range(0x21, 0x7F))}
ARABIC = {ord("0") + n: chr(0x0660 + n) for n in range(10)}
CYRILLIC = str.maketrans("aeopcxyKMHBTA", "аеорсхуКМНВТА")
DISGUISES: dict[str, Callable[[str], str]] = {
    "fullwidth": lambda value: value.translate(FULLWIDTH),
    "arabic digits": lambda value: value.translate(ARABIC),
    "homoglyphs": lambda value: value.translate(CYRILLIC),
    "zero-width space": lambda value: "\u200b".join(value),
    "soft hyphen": lambda value: "\u00ad".join(value),
    "struck through": lambda value: "\u0336".join(value),
    "control characters": lambda value: value[:3] + "\x04" + value[3:],
    "no-break space": lambda value: value.replace(" ", "\u00a0"),
    "figure dash": lambda value: value.replace("-", "\u2012"),
    "mathematical digits": lambda value: value.translate({ord("0") + n: chr(0x1D7D8 + n) for n in range(10)}),
}


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize(("value", "class_"), PLANTED.items())
def test_a_disguised_value_is_found_in_the_characters_of_the_original(disguise: str, value: str, class_: str) -> None:
    hidden = DISGUISES[disguise](value)
    assert (class_, hidden) in found(f"so {hidden} it is")


def test_folding_does_not_hide_what_stands_in_plain_sight() -> None:
    assert ("CARD", "4111111111111111") in found("4111111111111111²")  # the mark folds to a 17th digit
    assert ("CARD", "4111111111111111") in found("4111111111111111\u200b7")  # without the space 17 digits
    assert ("EMAIL", "ana@example.com") in found("éta\u200bana@example.com")
    fullwidth = "4111111111111111".translate(FULLWIDTH)
    assert ("CARD", fullwidth) in found(f"{fullwidth}\u200b7")  # only a space for the invisible shows it


def test_context_words_count_within_their_sentence_and_labels_are_none() -> None:
    assert ("PHONE", "7946 0958") in found("You can call her: 7946 0958")
    assert ("PHONE", "7946 0958") in found("7946 0958 is her mobile.")
    assert found("You can call her. The order is 7946 0958") == set()
    assert found("[PHONE] 7946 0958") == set()
    assert ("IBAN", "GB29NWBK6016133") in found("Pay it to the account GB29NWBK6016133")  # cut short by a token limit


def test_a_telephone_number_inside_an_iban_is_none_and_beside_it_is_one() -> None:
    assert found("DE89 3704 0044 0532 0130 00") == {("IBAN", "DE89 3704 0044 0532 0130 00")}
    assert ("PHONE", "0044 0532 0130 00") in found("DE88 3704, 0044 0532 0130 00")


def test_a_private_key_is_found_with_its_body() -> None:
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7\nabc\n-----END RSA PRIVATE KEY-----"
    assert ("SECRET", key) in found(f"It says {key} there")


@pytest.mark.parametrize("text", ["1" * 100_000, "a@b.co " * 3_000, "x" * (detect.TEXT_BYTES_MAX + 1), "\ud800"])
def test_over_a_budget_or_invalid_is_an_error_never_clean(text: str) -> None:
    with pytest.raises(ScanFailed):
        scanner().scan(text)
    assert found("a@b.co")  # the scanner is still good


def test_threads_do_not_share_scratch() -> None:
    results: list[int] = []
    shared = scanner()
    threads = [
        threading.Thread(target=lambda: results.extend(len(shared.scan("a@b.co " * 50)) for _ in range(20)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [50] * 80


@given(st.text(max_size=200))
def test_a_folded_view_points_back_into_its_text(text: str) -> None:
    view = fold(text)
    for at in range(len(view.text)):
        start, end = view.original(at, at + 1)
        assert 0 <= start < end <= len(text)
        assert view.text[at] in fold(text[start:end]).text


def test_every_class_has_a_rule_and_the_digest_is_of_the_content() -> None:
    table = RuleTable.parse(document())
    assert {rule.class_ for rule in table.rules} == CLASSES
    assert table.digest == RuleTable.parse(copy.deepcopy(document())).digest
    changed = copy.deepcopy(document())
    changed["rules"][0]["priority"] += 1
    assert RuleTable.parse(changed).digest != table.digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "unknown key `colour`"),
        ({"class": "EMIAL"}, "class `EMIAL` is unknown"),
        ({"validator": "luhn"}, "validator `luhn` is unknown"),
        ({"priority": 101}, "priority `101`"),
        ({"priority": True}, "priority `True`"),
        ({"context": ["Phone"]}, "context must be"),
        ({"context": "phone"}, "context must be"),
        ({"context": [1]}, "context must be"),
        ({"id": "Two Words"}, "rule id `Two Words`"),
        ({"id": "ipv4"}, "used twice"),
        ({"pattern": "a.*b"}, "`*` repeats without a bound"),
        ({"pattern": "a.+b"}, "`+` repeats without a bound"),
        ({"pattern": "[a-z]+"}, "`+` repeats without a bound"),
        ({"pattern": "a.{3,}b"}, "`{3,}` repeats without a bound"),
        ({"pattern": "a.{3,900}b"}, "`{3,900}` repeats more than"),
        ({"pattern": "(?:a*)b"}, "`*` repeats without a bound"),
        ({"pattern": "a(?=b)"}, "does not compile"),
        ({"pattern": "(a"}, "does not compile"),
        ({"pattern": "a?"}, "does not compile"),  # would match everywhere
        ({"pattern": ""}, "pattern must be"),
        ({"pattern": "x" * 501}, "pattern must be"),
    ],
)
def test_a_bad_rule_is_refused_and_named(change: dict[str, Any], message: str) -> None:
    changed = copy.deepcopy(document())
    changed["rules"][0].update(change)
    with pytest.raises(RuleTableRefused) as refusal:
        RuleTable.parse(changed)
    assert message in str(refusal.value)


def test_a_plus_or_star_that_repeats_nothing_is_no_repeat() -> None:
    assert detect.unbounded(r"[+*]\+\*[^]+*]a{1,40}b{3}(?i:c)") is None


@pytest.mark.parametrize(
    "bad", [{}, {"version": 2, "rules": []}, {"version": 1, "rules": []}, {"version": 1, "rules": "all"},
            {"version": 1, "rules": [1]}, {"version": 1, "rules": [{}], "more": 1}],
)  # fmt: skip
def test_a_bad_table_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(RuleTableRefused):
        RuleTable.parse(bad)


def test_a_class_without_a_rule_is_refused() -> None:
    changed = copy.deepcopy(document())
    changed["rules"] = [rule for rule in changed["rules"] if rule["class"] != "IP"]
    with pytest.raises(RuleTableRefused, match="class `IP` has no rule"):
        RuleTable.parse(changed)
