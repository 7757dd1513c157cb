"""A text and the place where a pattern matched go in, the exact spans that really hold a value come out.

The only place that knows what a card number, an IBAN, a telephone number or an IP address is. Patterns only find the
neighbourhood (hyperscan reports the leftmost start of every match, so "7 4111 1111 1111 1111" starts at the 7); a
validator cuts the value out of it. It looks at whole groups of digits and tries every window of groups, so that a
number beside another number is neither lost nor half covered. Offsets are characters of the text it was given.
"""

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from types import MappingProxyType
from typing import Final

Span = tuple[int, int]
Validator = Callable[[str, int, int], Iterator[Span]]

_DIGITS: Final = "0123456789"  # str.isdigit would take digits of every script; those are folded before
_GROUP: Final = re.compile(r"[0-9]+")
_WORD: Final = re.compile(r"[A-Za-z0-9_]")

_WIDEN_MAX: Final = 4096  # characters a value is followed outwards from where its pattern matched


def luhn_valid(digits: str) -> bool:
    """Say whether the last digit of `digits` is its check digit (ISO/IEC 7812-1, annex B)."""
    plain = sum(int(digit) for digit in digits[-1::-2])
    doubled = sum(_DOUBLED[int(digit)] for digit in digits[-2::-2])
    return len(digits) > 1 and (plain + doubled) % 10 == 0


_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)

# Issuer identification numbers: (first, last, how many leading digits, allowed lengths). Public ranges of the card
# schemes as ISO/IEC 7812 registers them; without them one digit string in ten would pass for a card.
_ISSUERS: Final = (
    (4, 4, 1, (13, 16, 19)),
    (51, 55, 2, (16,)),
    (2221, 2720, 4, (16,)),
    (34, 34, 2, (15,)),
    (37, 37, 2, (15,)),
    (300, 305, 3, (14,)),
    (36, 36, 2, (14,)),
    (38, 39, 2, (14,)),
    (6011, 6011, 4, (16, 19)),
    (644, 659, 3, (16, 19)),
    (3528, 3589, 4, (16, 19)),
    (62, 62, 2, (16, 17, 18, 19)),
    (50, 50, 2, (16, 18, 19)),
    (56, 58, 2, (16, 18, 19)),
    (63, 63, 2, (16, 18, 19)),
    (67, 67, 2, (16, 18, 19)),
)


def _issued(digits: str, length: int) -> bool:
    return any(length in lengths and first <= int(digits[:lead]) <= last for first, last, lead, lengths in _ISSUERS)


def _groups(text: str, start: int, end: int) -> list[Span]:
    """Return the whole runs of ASCII digits that touch `text[start:end]`."""
    while start > 0 and text[start - 1] in _DIGITS:
        start -= 1
    while end < len(text) and text[end] in _DIGITS:
        end += 1
    return [match.span() for match in _GROUP.finditer(text, start, end)]


def _windows(groups: list[Span], least: int, most: int) -> Iterator[tuple[int, int, int]]:
    """Yield (first group, last group, digits) of every run of neighbouring groups with `least` to `most` digits."""
    for first in range(len(groups)):
        digits = 0
        for last in range(first, len(groups)):
            digits += groups[last][1] - groups[last][0]
            if digits > most:
                break
            if digits >= least:
                yield first, last, digits


def card(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield windows of digit groups with an issuer's prefix and length and a right check digit."""
    groups = _groups(text, start, end)
    digits = "".join(text[begin:stop] for begin, stop in groups)
    before = list(accumulate((stop - begin for begin, stop in groups), initial=0))
    # Prefix sums of both parities make each window's Luhn sum one subtraction: a page of lone digits stays linear.
    values = [int(digit) for digit in digits]
    even = list(accumulate((v if i % 2 == 0 else _DOUBLED[v] for i, v in enumerate(values)), initial=0))
    odd = list(accumulate((v if i % 2 else _DOUBLED[v] for i, v in enumerate(values)), initial=0))
    for first, last, length in _windows(groups, 13, 19):
        begin, stop = before[first], before[last + 1]
        sums = odd if (stop - 1) % 2 else even
        if (sums[stop] - sums[begin]) % 10 == 0 and _issued(digits[begin : begin + 4], length):
            yield groups[first][0], groups[last][1]


def card_shape(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield windows of 12 to 19 digits, check digit or not: for rules that ask for a context word."""
    groups = _groups(text, start, end)
    longest = {first: last for first, last, _ in _windows(groups, 12, 19)}
    for first, last in longest.items():
        yield groups[first][0], groups[last][1]


# Length of an IBAN by country: the IBAN registry of SWIFT (ISO 13616), release 99.
IBAN_LENGTHS: Final[Mapping[str, int]] = MappingProxyType(
    {
        country: length
        for length, countries in (
            (15, "NO"), (16, "BE"), (18, "DK FO FI GL NL SD FK"), (19, "MK SI"), (20, "AT BA EE KZ XK LT LU MN"),
            (21, "HR LV LI CH"), (22, "BH BG CR GE DE IE ME RS GB VA"), (23, "GI IQ IL TL AE OM SO"),
            (24, "AD CZ MD PK RO SA SK ES SE TN VG"), (25, "LY PT ST"), (26, "IS TR"), (27, "BI DJ FR GR IT MR MC SM"),
            (28, "AL AZ BY CY DO SV GT HU LB NI PL"), (29, "BR EG PS QA UA"), (30, "JO KW MU YE"), (31, "MT SC"),
            (32, "LC"), (33, "RU"),
        )
        for country in countries.split()
    }
)  # fmt: skip
_IBAN_START: Final = re.compile(r"(?i)(?=([a-z]{2})[0-9]{2})")
_BASE36: Final = {ord(letter): str(value) for value, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ", start=10)}


def mod97_valid(iban: str) -> bool:
    """Say whether `iban` (letters and digits only) has the right length and check digits (ISO 7064 MOD 97-10)."""
    iban = iban.upper()
    if IBAN_LENGTHS.get(iban[:2]) != len(iban) or not (iban.isascii() and iban.isalnum()):
        return False
    return int((iban[4:] + iban[:4]).translate(_BASE36)) % 97 == 1


_IBAN_OF: Final = {
    length: re.compile(rf"[A-Za-z0-9](?:[ -]?[A-Za-z0-9]){{{length - 1}}}") for length in set(IBAN_LENGTHS.values())
}


def iban(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield every span from a country code on that has the country's length and right check digits.

    Neither side needs a word boundary: length and remainder are proof enough, and "xGB29..." is no way round.
    """
    for match in _IBAN_START.finditer(text, start, end):
        length = IBAN_LENGTHS.get(match[1].upper())
        value = _IBAN_OF[length].match(text, match.start()) if length is not None else None
        if value is not None and mod97_valid(value[0].replace(" ", "").replace("-", "")):
            yield value.span()


_IBAN_SHAPE: Final = re.compile(
    r"[A-Za-z]{2}[0-9]{2}[A-Za-z0-9]{0,30}(?:[ -](?=[A-Z]{0,4}[0-9]|[A-Z]{4}\b)[A-Z0-9]{1,4}){0,8}"
)


def iban_shape(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield what starts like an IBAN of a known country, cut short or with a wrong digit: needs a context word."""
    for match in _IBAN_SHAPE.finditer(text, start, min(len(text), end + 40)):
        if match.start() >= end:
            return
        known = match[0][:2].upper() in IBAN_LENGTHS
        outside = match.start() > 0 and _WORD.match(text[match.start() - 1])
        if known and not outside and sum(character.isalnum() for character in match[0]) >= 8:
            yield match.span()


_DATE: Final = re.compile(
    r"(?<![0-9])(?:[0-3]?[0-9][-./][01]?[0-9][-./](?:19|20)[0-9]{2}|(?:19|20)[0-9]{2}[-./][01]?[0-9][-./][0-3]?[0-9])(?![0-9])"
)
_CHAIN: Final = re.compile(r"(?:[ .\-()/]{0,3}[0-9]{1,20}){0,20}")
_AMOUNT_BEFORE: Final = re.compile(r"[0-9][.,:]\Z")
_AMOUNT_AFTER: Final = re.compile(r"[.,:][0-9]")
Opens = Callable[[int, int], bool]
Accepts = Callable[[list[Span], str], bool]


def _phones(text: str, start: int, end: int, least: int, most: int, opens: Opens, accepts: Accepts) -> Iterator[Span]:
    """Yield for each first group that `opens` a number the longest window that is accepted; dates are cut out."""
    chain = _CHAIN.match(text, end)  # the pattern bounds only the beginning of a number
    groups = _groups(text, start, chain.end() if chain is not None else end)
    dates = [date.span() for date in _DATE.finditer(text, groups[0][0], groups[-1][1])] if groups else []
    for date_start, date_end in dates:
        groups = [group for group in groups if group[1] <= date_start or group[0] >= date_end]
    for first, (begin, stop) in enumerate(groups):
        if not opens(begin, stop):
            continue
        if begin > 0 and (text[begin - 1].isalpha() or text[begin - 1] == "_"):
            continue  # part of an identifier: a telephone number is never glued to letters on its left
        if _AMOUNT_BEFORE.search(text[max(0, begin - 2) : begin]):
            continue  # part of an amount or a time, such as 2,020
        longest, digits = None, ""
        for last in range(first, len(groups)):
            low, high = groups[last]
            if last > first and (low - groups[last - 1][1] > 3):
                break  # a date was cut out here
            digits += text[low:high]
            if len(digits) > most:
                break
            if (
                len(digits) >= least
                and accepts(groups[first : last + 1], digits)
                and not (_AMOUNT_AFTER.match(text, high) and text[high] != ".")
            ):
                longest = high
        if longest is not None:
            yield begin, longest


def _bracketed(text: str, begin: int, stop: int) -> int:
    return begin - (begin > 0 and text[begin - 1] == "(" and ")" in text[begin:stop])


def phone_international(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield `+` and 8 to 15 digits (ITU-T E.164), a trunk zero in brackets besides."""

    def opens(begin: int, _stop: int) -> bool:
        return text[begin] != "0" and begin > 0 and text[begin - 1] == "+"

    for begin, stop in _phones(text, start, end, 8, 16, opens, _any):
        yield begin - 1, stop


def phone_national(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield numbers with a trunk prefix: 0 and 9 to 11 digits in all, or 00 and 10 to 17."""

    def opens(begin: int, stop: int) -> bool:
        return text[begin] == "0" and stop - begin >= 2  # 0.123456789 is a fraction

    def accepts(_groups: list[Span], digits: str) -> bool:
        return len(digits) >= 10 if digits.startswith("00") else len(digits) <= 11

    for begin, stop in _phones(text, start, end, 9, 17, opens, accepts):
        yield _bracketed(text, begin, stop), stop


def phone_grouped(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield ten digits as 3-3-4 with area and exchange from 2 to 9 (North American Numbering Plan)."""

    def opens(begin: int, stop: int) -> bool:
        return stop - begin == 3 and text[begin] in "23456789"

    def accepts(groups: list[Span], digits: str) -> bool:
        return [high - low for low, high in groups] == [3, 3, 4] and digits[3] in "23456789"

    for begin, stop in _phones(text, start, end, 10, 10, opens, accepts):
        yield _bracketed(text, begin, stop), stop


def phone_shape(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield any 7 to 15 digits: for rules that ask for a context word."""
    yield from _phones(text, start, end, 7, 15, _any, _any)


def _any(*_: object) -> bool:
    return True


_IPV4: Final = re.compile(r"(?<![0-9])(?<![0-9]\.)[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9]|\.[0-9])")


def ipv4(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield four numbers of 0 to 255 that are not part of a longer dotted number, such as a version."""
    for match in _IPV4.finditer(text, *_widen(text, start, end, _DIGITS)):
        if all(int(part) <= 255 for part in match[0].split(".")):
            yield match.span()


def ipv6(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield what RFC 4291 reads as an address, has a digit and is not part of a word (`std::vector` is none)."""
    start, end = _widen(text, start, end, "0123456789abcdefABCDEF:.")
    while end > start and (text[end - 1] == "." or (text[end - 1] == ":" and text[end - 2 : end] != "::")):
        end -= 1
    while end > start and (text[start] == "." or (text[start] == ":" and text[start : start + 2] != "::")):
        start += 1
    value = text[start:end]
    joined = (start > 0 and _WORD.match(text[start - 1])) or (end < len(text) and _WORD.match(text[end]))
    if joined or len(value) > 45 or len(value.strip(":")) < 4 or not any(c in _DIGITS for c in value):
        return
    try:
        ipaddress.IPv6Address(value)
    except ipaddress.AddressValueError:
        return
    yield start, end


def _widen(text: str, start: int, end: int, letters: str) -> Span:
    first, last = max(0, start - _WIDEN_MAX), min(len(text), end + _WIDEN_MAX)
    while start > first and text[start - 1] in letters:
        start -= 1
    while end < last and text[end] in letters:
        end += 1
    return start, end


_ALNUM: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_LOCAL: Final = _ALNUM + "._%+'-"


_TOP_LEVEL: Final = re.compile(r"\.(?:[A-Za-z][A-Za-z0-9-]*[A-Za-z0-9])\Z")


def email(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield the whole address round an `x@y.z`: local part and domain are followed to their ends."""
    begin, _ = _widen(text, start, start, _LOCAL)
    if not text[start].isascii():  # a local part in another script, up to where the Latin letters begin
        while begin > max(0, start - 64) and text[begin - 1].isalnum() and not text[begin - 1].isascii():
            begin -= 1
    _, stop = _widen(text, end, end, _ALNUM + ".-")
    while stop > start and text[stop - 1] in ".-":
        stop -= 1
    while begin < start and text[begin] in ".'%-":
        begin += 1
    if _TOP_LEVEL.search(text, max(start, stop - 64), stop):
        yield begin, stop


_SPELLED: Final = re.compile(
    r"(?i)[a-z0-9._%+-]{1,64} ?[\[({<] ?at ?[\])}>] ?[a-z0-9-]{1,63}"
    r"(?:(?:\.| ?[\[({<] ?dot ?[\])}>] ?)[a-z0-9-]{2,63}){1,8}"
)


def email_spelled(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield an address written with `[at]` and `[dot]` (or a plain dot) in any brackets."""
    begin, _ = _widen(text, start, start, _LOCAL)
    for match in _SPELLED.finditer(text, max(begin, start - 64), min(len(text), end + 512)):
        if match.start() < end:
            yield match.span()


def token(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield the key from its prefix on, followed to its end so that no tail of a longer key stays."""
    _, stop = _widen(text, end, end, _ALNUM + "_+/=-")
    yield start, stop


_JWT: Final = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,3}")


def jwt(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield a compact JWS or JWE (RFC 7515, 7516): a JSON header in base64url and at least one more part."""
    match = _JWT.match(text, start, min(len(text), end + 4 * _WIDEN_MAX))
    if match is not None:
        yield start, start + len(match[0].rstrip("."))


_PEM_END: Final = re.compile(r"-----END [A-Z ]{0,60}-----")
# Without an END line: header lines, lines of base64, and at the very end of the text a line that was cut short.
_PEM_BODY: Final = re.compile(
    r"(?:\s{1,4}[A-Za-z-]{1,40}: [^\n]{1,200}){0,8}(?:\s{0,4}[A-Za-z0-9+/=]{20,4096}){0,200}"
    r"(?:\s{1,4}[A-Za-z0-9+/=]{1,76}\s{0,4}\Z)?"
)


def pem(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield a private key from its header to its END line (RFC 7468), or as far as its body could go without one."""
    closing = _PEM_END.search(text, end, min(len(text), end + 4 * _WIDEN_MAX))
    if closing is not None:
        yield start, closing.end()
        return
    body = _PEM_BODY.match(text, end)
    stop = body.end() if body is not None else end
    yield start, start + len(text[start:stop].rstrip())


_ASSIGNED: Final = re.compile(r"(?:[:=]|\bis\b)[ \t]{0,3}[\"']?([A-Za-z0-9+/=_\-.~!@#$%^&*]{8,4096})")


def assigned(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield the value of `key = value` where it looks drawn, not written: letters and digits, 2.75 bits a character."""
    for match in _ASSIGNED.finditer(text, start, min(len(text), end + _WIDEN_MAX)):
        if match.start() >= end:
            return
        value = match[1].rstrip(".!")
        mixed = any(c in _DIGITS for c in value) and any(c.isalpha() for c in value)
        if mixed and len(value) >= 8 and entropy_bits(value) >= 2.75:
            yield match.start(1), match.start(1) + len(value)


def entropy_bits(value: str) -> float:
    """Return the Shannon entropy of the characters of `value`, in bits a character."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())


VALIDATORS: Final[Mapping[str, Validator]] = MappingProxyType(
    {
        validator.__name__: validator
        for validator in (
            assigned, card, card_shape, email, email_spelled, iban, iban_shape, ipv4, ipv6, jwt, pem,
            phone_grouped, phone_international, phone_national, phone_shape, token,
        )
    }
)  # fmt: skip

# Validators whose value carries its own proof, and those that go by shape alone: a shape inside a proof is none.
PROVEN: Final = frozenset({"card", "iban"})
SHAPES: Final = frozenset(
    {"card_shape", "iban_shape", "phone_grouped", "phone_international", "phone_national", "phone_shape"}
)
