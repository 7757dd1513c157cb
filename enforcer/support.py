"""An answer and what was admitted to its prompt go in, the numbers, e-mails and identifiers without support come out.

The only place that decides `numbers = from_context`. A *claim* is a value the scanner found (an e-mail, a telephone
number, a card, an IBAN, an address, a secret), or a run of letters and digits that holds a digit. It is supported if
the same value stands in one admitted text:

- Values are compared, not spellings: 41,500 = 41500 = 41,500.00; 02:32 = 2:32; 01 = 1; 3pm has 3; an IBAN, a card or a
  telephone number may be grouped differently; case does not matter. A comma is a thousands separator before exactly
  three digits, otherwise a decimal comma; a full stop is always decimal (4.250 does not support 4250).
- Whole values only. 1926 is not supported by GB29NWBK60161331926819, 7946 not by 020 7946 0958, 31 not by INV-31-77.
  Two exceptions, because people speak so: the parts of a date or a two-number range, and the number in Project-12.
- A claim joined by dashes or slashes is supported if each of its parts is ("10-15", "14-day").
- Number words in what was admitted support digits ("three things" supports 3); in the answer they are no claims.
- The counters of a list at line starts that count 1, 2, 3 from one are layout, not claims. A lone "7." is a claim.
- Labels ([PHONE], [IBAN ...6819], [withheld], ...) are neither claims nor support.

Years, units, currencies and signs are not understood: "25,000 dollars" is supported by "25,000 pounds".
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from sluicegate.enforcer.detect import LABEL, Finding, RedactionClass, Scanner
from sluicegate.enforcer.validators import Span
from sluicegate.enforcer.views import View, fold

_TOKEN: Final = re.compile(r"[^\W_]+(?:[-_./:,'’@][^\W_]+)*")
_WORD: Final = re.compile(r"[^\W_]+")
_BETWEEN: Final = re.compile(r"[\W_]+")
_DIGIT: Final = re.compile(r"[0-9]")
_GLUE: Final = re.compile(r"[ \-]{1,2}\Z")  # what may stand between two groups of one number
_JOINED_TOKENS_MAX: Final = 10  # groups of one number that context-less text may hold: an IBAN in fours has 9
_JOINED_CHARACTERS_MIN: Final = 7  # fewer are two numbers beside each other, not one in groups
_JOINED_CHARACTERS_MAX: Final = 64
_PARTS: Final = re.compile(r"[-/_–]")
_DATE_OR_RANGE: Final = re.compile(
    r"[0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2}|[0-9]{1,2}[-/][0-9]{1,2}[-/](?:[0-9]{2}){1,2}|[0-9.,]{1,9}[-/][0-9.,]{1,9}"
)
_NAMED: Final = re.compile(r"[^\W\d_]+-[0-9]+")
_UNIT: Final = re.compile(r"([0-9][0-9.,]*)([^\W\d_]{1,4})")
_THOUSANDS: Final = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]{1,20})?")
_PLAIN: Final = re.compile(r"[0-9]{1,40}(?:[.,][0-9]{1,20})?")
_CLOCK: Final = re.compile(r"0?([0-9]{1,2}(?::[0-9]{2}){1,2})")
_COUNTER: Final = re.compile(r"^[ \t]*(?:[*_#>-]{1,3}[ \t]*)?([0-9]{1,2})[.)](?=\s|\*)", re.MULTILINE)
_WORDS: Final = {
    word: str(value)
    for word, value in (
        ("zero", 0), ("one", 1), ("two", 2), ("three", 3), ("four", 4), ("five", 5), ("six", 6), ("seven", 7),
        ("eight", 8), ("nine", 9), ("ten", 10), ("eleven", 11), ("twelve", 12), ("thirteen", 13), ("fourteen", 14),
        ("fifteen", 15), ("sixteen", 16), ("seventeen", 17), ("eighteen", 18), ("nineteen", 19), ("twenty", 20),
        ("thirty", 30), ("forty", 40), ("fifty", 50), ("sixty", 60), ("seventy", 70), ("eighty", 80), ("ninety", 90),
        ("hundred", 100),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was admitted, by value: `whole` values, and `joined` runs of neighbouring ones that could be one number."""

    whole: frozenset[str]
    joined: frozenset[str]


def gather(admitted: Sequence[str], scanner: Scanner) -> Evidence:
    """Collect the values of every admitted text (messages, admitted fields, the system prompt).

    Raises:
        ScanFailed: if one of them cannot be scanned.
    """
    whole: set[str] = set()
    joined: set[str] = set()
    for text in admitted:
        values = _united(scanner.scan(text))
        whole.update(_squashed(text[start:end]) for start, end, _ in values)
        view = fold(text)
        taken = [(start, end) for start, end, _ in values] + [match.span() for match in LABEL.finditer(text)]
        tokens = _tokens(view, taken)
        for start, end in tokens:
            whole.update(_said(view.text[start:end]))
        for run in _runs(view.text, tokens):
            groups = [_alnum(view.text[start:end]) for start, end in run]
            for first in range(len(groups)):
                value = ""
                for group in groups[first : first + _JOINED_TOKENS_MAX]:
                    value += group
                    if len(value) > _JOINED_CHARACTERS_MAX:
                        break
                    if len(value) >= _JOINED_CHARACTERS_MIN:
                        joined.add(value)
        whole.update(_WORDS[word] for word in re.findall(r"[a-z]+", view.text.lower()) if word in _WORDS)
    return Evidence(whole=frozenset(whole), joined=frozenset(joined))


def find_unsupported(text: str, findings: Sequence[Finding], evidence: Evidence) -> tuple[Span, ...]:
    """Return the claims of `text` that `evidence` does not hold, in characters of `text`, in order.

    `findings` are the scanner's for `text`.
    """
    unsupported: list[Span] = []
    labels = [match.span() for match in LABEL.finditer(text)]
    values = _united(findings)
    for start, end, _ in values:
        value = _squashed(text[start:end])
        if value not in evidence.whole and value not in evidence.joined:
            unsupported.append((start, end))
    view = fold(text)
    counters = _counters(view.text)
    tokens = [
        token
        for token in _tokens(view, [(start, end) for start, end, _ in values] + labels)
        if _DIGIT.search(view.text, *token) and token[0] not in counters
    ]
    for run in _runs(view.text, tokens):
        if len(run) > 1 and "".join(_alnum(view.text[start:end]) for start, end in run) in evidence.whole:
            continue
        for start, end in run:
            if not _supported(view.text[start:end], evidence.whole):
                unsupported.append(view.original(start, end))
    return tuple(sorted(unsupported))


def _united(findings: Sequence[Finding]) -> list[tuple[int, int, RedactionClass]]:
    united: list[tuple[int, int, RedactionClass]] = []
    for finding in sorted(findings):
        if united and finding.start < united[-1][1]:
            start, end, class_ = united[-1]
            united[-1] = (start, max(end, finding.end), class_)
        else:
            united.append((finding.start, finding.end, finding.class_))
    return united


def _squashed(value: str) -> str:
    """Return the letters and digits of `value` in plain lower case; an e-mail keeps what stands between them."""
    plain = fold(value).text.casefold()
    return plain if "@" in plain else _alnum(plain)


def _alnum(plain: str) -> str:
    return _BETWEEN.sub("", plain).casefold()


def _tokens(view: View, taken: Sequence[Span]) -> list[Span]:
    """Return the words of `view` (its own offsets) that touch none of the `taken` spans of the original."""
    blank = sorted(taken)
    tokens: list[Span] = []
    at = 0
    for match in _TOKEN.finditer(view.text):
        start, end = view.original(*match.span())
        while at < len(blank) and blank[at][1] <= start:
            at += 1
        if at == len(blank) or blank[at][0] >= end:
            tokens.append(match.span())
        else:
            tokens.extend(_outside(match.span(), view, blank, at))
    return tokens


def _outside(token: Span, view: View, taken: Sequence[Span], at: int) -> Iterator[Span]:
    """Yield the words of a token that `taken[at:]` only partly covers: `a@b.com,7` still claims the 7."""
    for match in _WORD.finditer(view.text, *token):
        start, end = view.original(*match.span())
        while at < len(taken) and taken[at][1] <= start:
            at += 1
        if at == len(taken) or taken[at][0] >= end:
            yield match.span()


def _runs(text: str, tokens: Sequence[Span]) -> Iterator[list[Span]]:
    """Yield maximal runs of tokens with digits that only a space or a dash divides."""
    run: list[Span] = []
    for start, end in tokens:
        if not _DIGIT.search(text, start, end):
            continue
        if run and not _GLUE.match(text[run[-1][1] : start]):
            yield run
            run = []
        run.append((start, end))
    if run:
        yield run


def _value(token: str) -> str:
    """Return the one spelling of a number or a time of day; any other token in lower case."""
    if _THOUSANDS.fullmatch(token):
        token = token.replace(",", "")
    elif _PLAIN.fullmatch(token):
        token = token.replace(",", ".")
    elif clock := _CLOCK.fullmatch(token):
        return clock[1]
    else:
        return token.casefold()
    if token.startswith("0") and len(token) > 2 and "." not in token:
        return token  # leading zeros of an identifier mean something
    return format(Decimal(token).normalize(), "f")


def _said(token: str) -> Iterator[str]:
    """Yield every value that an admitted `token` supports."""
    if not _DIGIT.search(token):
        return
    yield _value(token)
    yield token.casefold()
    if unit := _UNIT.fullmatch(token):
        yield _value(unit[1].rstrip(".,"))
    if _DATE_OR_RANGE.fullmatch(token) or _NAMED.fullmatch(token):
        yield from (_value(part) for part in _PARTS.split(token) if _DIGIT.search(part))


def _supported(token: str, whole: frozenset[str]) -> bool:
    if _value(token) in whole or token.casefold() in whole:
        return True
    if (unit := _UNIT.fullmatch(token)) and _value(unit[1].rstrip(".,")) in whole:
        return True
    parts = [part for part in _PARTS.split(token) if _DIGIT.search(part)]
    return parts != [token] and all(_supported(part, whole) for part in parts)


def _counters(text: str) -> frozenset[int]:
    """Return where the counters of lists stand: two or more numbers at line starts, counting from 1 without a hole."""
    counters: set[int] = set()
    sequence: list[int] = []
    for match in [*_COUNTER.finditer(text), None]:
        expected = len(sequence) + 1
        if match is not None and int(match[1]) == expected:
            sequence.append(match.start(1))
            continue
        if len(sequence) > 1:
            counters.update(sequence)
        sequence = [match.start(1)] if match is not None and int(match[1]) == 1 else []
    return frozenset(counters)
