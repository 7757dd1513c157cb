"""A text goes in, its plain readings come out, each with the way back to the characters of the original.

The only place that undoes disguises of single characters: compatibility forms (NFKD, so fullwidth, mathematical and
circled ones), combining marks, zero-width and control characters, homoglyphs, digits of other scripts, dashes and
spaces. The original is read too, for folding can also hide: a footnote mark folds to a digit and lengthens a number.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

# Characters that look like ASCII ones and that NFKD leaves alone (Unicode UTS 39, confusables): Cyrillic, Greek and
# Armenian letters, then the punctuation that stands inside numbers and addresses.
_LOOKALIKES: Final[Mapping[str, str]] = MappingProxyType(
    {
        lookalike: plain
        for plain, lookalikes in {
            "a": "\u0430\u03b1\u0251", "b": "\u0432", "c": "\u0441", "d": "\u0501", "e": "\u0435", "g": "\u0261",
            "h": "\u043d\u04bb", "i": "\u0456\u03b9\u0131", "j": "\u0458", "k": "\u043a\u03ba", "l": "\u04cf",
            "m": "\u043c", "n": "\u0578", "o": "\u043e\u03bf\u0585", "p": "\u0440\u03c1", "q": "\u051b", "s": "\u0455",
            "t": "\u0442", "u": "\u03c5\u057d", "v": "\u03bd", "w": "\u051d", "x": "\u0445\u03c7", "y": "\u0443",
            "A": "\u0410\u0391", "B": "\u0412\u0392", "C": "\u0421", "E": "\u0415\u0395", "H": "\u041d\u0397",
            "I": "\u0406\u0399\u01c0", "J": "\u0408", "K": "\u041a\u039a", "M": "\u041c\u039c", "N": "\u039d",
            "O": "\u041e\u039f", "P": "\u0420\u03a1", "S": "\u0405", "T": "\u0422\u03a4", "X": "\u0425\u03a7",
            "Y": "\u04ae\u03a5", "Z": "\u0396",
            "-": "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2043", ".": "\u3002\uff61\u00b7\u066b",
            ",": "\u066c\u201a\u3001", "/": "\u2044\u2215", ":": "\u2236\ua789\u02d0",
        }.items()
        for lookalike in lookalikes
    }
)  # fmt: skip
_FILLERS: Final = frozenset("\u115f\u1160\u3164\uffa0\u2800")  # letters and symbols that draw nothing
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # no token of the model shows these


class _Folding(dict[str, str]):
    """What each character folds to, worked out once; an ignorable one to nothing. Bounded by Unicode itself."""

    def __missing__(self, character: str) -> str:
        self[character] = value = "".join(map(_fold, unicodedata.normalize("NFKD", character)))
        return value


def _fold(character: str) -> str:
    if character in _LOOKALIKES:
        return _LOOKALIKES[character]
    if character in "\t\n\r":
        return character
    category = unicodedata.category(character)
    if category in {"Cc", "Cf", "Mn", "Me"} or character in _FILLERS:
        return ""
    if category in {"Zs", "Zl", "Zp"}:
        return " "
    digit = unicodedata.digit(character, None)
    return character if digit is None else str(digit)


_FOLDED: Final = _Folding()


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A reading of a text: `text`, and for each of its characters the index it had in the original (None: the same)."""

    text: str
    origin: tuple[int, ...] | None

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Return the span of the original that the non-empty span `start:end` of this view was read from."""
        return (start, end) if self.origin is None else (self.origin[start], self.origin[end - 1] + 1)


def fold(text: str, *, ignorable: str = "") -> View:
    """Return `text` with every character in its plain form; `ignorable` stands for the ones that draw nothing."""
    if text.isascii() and _CONTROLS.search(text) is None:
        return View(text=text, origin=None)
    pieces = [_FOLDED[character] or ignorable for character in text]
    origin = tuple(index for index, piece in enumerate(pieces) for _ in piece)
    return View(text="".join(pieces), origin=origin)


def views_of(text: str) -> list[View]:
    """Return the readings of `text` to search: as it is, folded, folded with a space for each ignorable character."""
    raw, folded, spaced = View(text=text, origin=None), fold(text), fold(text, ignorable=" ")
    return [raw, *({view.text: view for view in (folded, spaced) if view.text != text}.values())]
