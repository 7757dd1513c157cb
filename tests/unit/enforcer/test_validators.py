"""What counts as a card, an IBAN, a telephone number, an address or a secret, and where exactly it starts and ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.enforcer.validators import (
    IBAN_LENGTHS,
    VALIDATORS,
    entropy_bits,
    luhn_valid,
    mod97_valid,
)

IBANS = [  # the examples of the IBAN registry
    "GB29NWBK60161331926819", "DE89370400440532013000", "FR1420041010050500013M02606", "NO9386011117947",
    "MT84MALT011000012345MTLCAST001S", "CH9300762011623852957", "NL91ABNA0417164300", "BR1800360305000010009795493C1",
]  # fmt: skip


def cut(validator: str, text: str) -> list[str]:
    return [text[start:end] for start, end in VALIDATORS[validator](text, 0, len(text))]


@pytest.mark.parametrize("iban", IBANS)
def test_registered_ibans_are_valid_and_any_wrong_digit_is_not(iban: str) -> None:
    assert mod97_valid(iban)
    assert mod97_valid(iban.lower())
    for place, character in enumerate(iban):
        if place > 1 and character.isdigit():
            assert not mod97_valid(iban[:place] + str((int(character) + 1) % 10) + iban[place + 1 :])


def test_an_iban_needs_its_countrys_length() -> None:
    assert not mod97_valid("GB29NWBK6016133192681")
    assert not mod97_valid("XX29NWBK60161331926819")
    assert len(IBAN_LENGTHS) > 75


@given(st.text("0123456789", min_size=1, max_size=30))
def test_exactly_one_check_digit_is_right(digits: str) -> None:
    assert sum(luhn_valid(digits + str(check)) for check in range(10)) == 1


@pytest.mark.parametrize(
    ("validator", "text", "wanted"),
    [
        ("card", "7 4111 1111 1111 1111", ["4111 1111 1111 1111"]),
        ("card", "4111 1111 1111 1111 7", ["4111 1111 1111 1111"]),
        ("card", "x4111111111111111x", ["4111111111111111"]),
        ("card", "378282246310005", ["378282246310005"]),
        ("card", "4111 1111 1111 1112", []),
        ("card", "9111111111111111", []),  # no issuer
        ("card_shape", "4111 1111 1111 1112", ["4111 1111 1111 1112", "1111 1111 1112"]),
        ("iban", "to GB29 NWBK 6016 1331 9268 19 by noon", ["GB29 NWBK 6016 1331 9268 19"]),
        ("iban", "xgb29nwbk60161331926819and", ["gb29nwbk60161331926819"]),
        ("iban", "GB29NWBK60161331926818", []),
        ("iban_shape", "account GB29NWBK6016133", ["GB29NWBK6016133"]),
        ("iban_shape", "account GB29 NWBK 6016 is closed", ["GB29 NWBK 6016"]),
        ("iban_shape", "account ZZ29NWBK6016133", []),
        ("phone_international", "+44 20 7946 0958", ["+44 20 7946 0958"]),
        ("phone_international", "+44 (0)20 7946 0958 rings", ["+44 (0)20 7946 0958"]),
        ("phone_international", "44 20 7946 0958", []),
        ("phone_national", "020 7946 0958", ["020 7946 0958"]),
        ("phone_national", "12 020 7946 0958 14", ["020 7946 0958"]),
        ("phone_national", "02.11.2026 14:30", []),
        ("phone_national", "0.123456789", []),
        ("phone_national", "K0161331926", []),
        ("phone_grouped", "(415) 555-0132", ["(415) 555-0132"]),
        ("phone_grouped", "120 340 5600", []),
        ("phone_shape", "7946 0958", ["7946 0958"]),
        ("phone_shape", "2026-11-23", []),
        ("ipv4", "at 10.0.0.1.", ["10.0.0.1"]),
        ("ipv4", "256.0.0.1 and 1.2.3.4.5", []),
        ("ipv6", "2001:db8::8a2e:370:7334", ["2001:db8::8a2e:370:7334"]),
        ("ipv6", "fe80::1.", ["fe80::1"]),
        ("ipv6", "12:32:32", []),
        ("ipv6", "std::vector", []),
        ("email", "x@mail.example.com", ["x@mail.example.com"]),
        ("email", "x@localhost.1", []),
        ("email_spelled", "ana [at] example [dot] com", ["ana [at] example [dot] com"]),
        ("token", "sk_live_51HxQz7LkPq.", ["sk_live_51HxQz7LkPq."]),  # the match itself is taken whole
        ("jwt", "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJhIn0.c2ln", ["eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJhIn0.c2ln"]),
        ("jwt", "eyJhbGciOiJFUzI1NiJ9 alone", []),
        ("assigned", "password = hunter2x9Q", ["hunter2x9Q"]),
        ("assigned", "password: correcthorse", []),
        ("assigned", "token: aaaaaaa1", []),
    ],
)
def test_what_is_cut_out(validator: str, text: str, wanted: list[str]) -> None:
    assert cut(validator, text) == wanted


def test_a_private_key_goes_with_its_body_with_or_without_its_end() -> None:
    header, body = "-----BEGIN PRIVATE KEY-----", "\nMIIEvQIBADANBgkqhkiG9w0BAQEF\nAASCBKcwggSj"
    whole = header + body + "\n-----END PRIVATE KEY-----"
    assert [whole[a:b] for a, b in VALIDATORS["pem"](whole + " was", 0, len(header))] == [whole]
    cut_short = header + body
    assert [cut_short[a:b] for a, b in VALIDATORS["pem"](cut_short, 0, len(header))] == [cut_short]
    prose = header + " was found in the log of the till"
    assert [prose[a:b] for a, b in VALIDATORS["pem"](prose, 0, len(header))] == [header]


def test_a_key_is_followed_to_its_end() -> None:
    text = "ghp_" + "a1" * 60
    assert list(VALIDATORS["token"](text, 0, 24)) == [(0, len(text))]


def test_entropy_of_known_distributions() -> None:
    assert entropy_bits("aaaa") == 0
    assert entropy_bits("abcdefgh") == 3
