"""A rule table and a text go in, the spans of personal and secret data in that text come out.

The only place that compiles and runs detection rules. `hyperscan` finds anchors in one pass over the UTF-8 bytes of
every view of the text (`views.py`), the rule's validator cuts the value out, and a context word must stand in the same
sentence where the rule asks for one. Spans always come back in the characters of the text that was given.
"""

import hashlib
import json
import re
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate, islice
from typing import Final

import hyperscan

from sluicegate.enforcer.validators import PROVEN, SHAPES, VALIDATORS, Span
from sluicegate.enforcer.views import View, views_of


class RedactionClass(StrEnum):
    """What can be found: the closed list that the Cedar schema's `RedactionClass` must be a part of."""

    EMAIL = "EMAIL"
    PHONE = "PHONE"
    CARD = "CARD"
    IBAN = "IBAN"
    SECRET = "SECRET"  # noqa: S105  a class of values, not a value
    IP = "IP"


CLASSES: Final = frozenset(RedactionClass)

TABLE_VERSION: Final = 1
RULES_MAX: Final = 200
PATTERN_CHARACTERS_MAX: Final = 500
REPEAT_MAX: Final = 128  # of one bounded repeat; hyperscan refuses much less where repeats are nested
TEXT_BYTES_MAX: Final = 1_048_576
MATCHES_MAX: Final = 30_000  # raw matches in one view: 16 ms of callbacks, and far above any text with values in it
FINDINGS_MAX: Final = 2_000

# What a redactor leaves behind. Nothing in these is a value, and the class names in them are no context words.
LABEL: Final = re.compile(
    r"\[(?:" + "|".join(sorted(CLASSES)) + r")(?: \.\.\.[^\W_]{4})?\]"
    r"|\[withheld\]|\[unsupported\]|\[redacted: could not be checked\]"
)


class RuleTableRefused(ValueError):
    """A rule table that cannot be used; the text says which rule and what to change."""


class ScanFailed(Exception):
    """A text that could not be read to its end: over a budget, not valid Unicode, or the engine gave up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: where `pattern` (hyperscan syntax) matches, `validator` cuts out values of `class_`.

    `context` holds lower-case words of which one must stand in the sentence; none: the pattern is enough.
    """

    id: str
    class_: RedactionClass
    pattern: str
    validator: str
    context: tuple[str, ...]
    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTable:
    """The detection rules of a bundle, and the SHA-256 of the document they were read from."""

    rules: tuple[Rule, ...]
    digest: str

    @staticmethod
    def parse(document: Mapping[str, object]) -> "RuleTable":
        """Read a rule table from decoded YAML or JSON: `{version: 1, rules: [{id, class, pattern, ...}]}`.

        Raises:
            RuleTableRefused: on an unknown or missing key, class or validator, a duplicate id, an unbounded or
                uncompilable pattern, or a class without any rule (its obligation would do nothing, silently).
        """
        _only_keys(document, {"version", "rules"}, set(), "the rule table")
        if document["version"] != TABLE_VERSION:
            raise RuleTableRefused(f"rule table version `{document['version']}` is unknown; write {TABLE_VERSION}")
        entries = document["rules"]
        if not isinstance(entries, Sequence) or isinstance(entries, str) or not 0 < len(entries) <= RULES_MAX:
            raise RuleTableRefused(f"`rules` must be a list of 1 to {RULES_MAX} rules")
        rules = tuple(_rule(entry) for entry in entries)
        ids = [rule.id for rule in rules]
        if repeated := sorted({name for name in ids if ids.count(name) > 1}):
            raise RuleTableRefused(f"rule id `{repeated[0]}` is used twice; give every rule its own")
        if missing := sorted(CLASSES - {rule.class_ for rule in rules}):
            raise RuleTableRefused(f"class `{missing[0]}` has no rule; redacting it would do nothing")
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return RuleTable(rules=rules, digest="sha256:" + hashlib.sha256(canonical.encode()).hexdigest())


def _only_keys(entry: Mapping[str, object], needed: set[str], optional: set[str], where: str) -> None:
    if unknown := sorted(str(key) for key in entry.keys() - needed - optional):
        raise RuleTableRefused(f"unknown key `{unknown[0]}` in {where}; remove it")
    if missing := sorted(needed - entry.keys()):
        raise RuleTableRefused(f"key `{missing[0]}` is missing in {where}")


def _rule(entry: object) -> Rule:
    if not isinstance(entry, Mapping):
        raise RuleTableRefused("every rule must be a mapping with id, class, pattern, validator and priority")
    name = entry.get("id")
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
        raise RuleTableRefused(f"rule id `{name}` must be lower-case letters, digits and dashes")
    where = f"rule `{name}`"
    _only_keys(entry, {"id", "class", "pattern", "validator", "priority"}, {"context"}, where)
    if entry["class"] not in CLASSES:
        raise RuleTableRefused(f"{where}: class `{entry['class']}` is unknown; use one of {', '.join(sorted(CLASSES))}")
    validator, priority, context = entry["validator"], entry["priority"], entry.get("context", [])
    if not isinstance(validator, str) or validator not in VALIDATORS:
        raise RuleTableRefused(f"{where}: validator `{validator}` is unknown; use one of {', '.join(VALIDATORS)}")
    if not isinstance(priority, int) or isinstance(priority, bool) or not 0 <= priority <= 100:
        raise RuleTableRefused(f"{where}: priority `{priority}` must be a whole number from 0 to 100")
    words = [word for word in context if isinstance(word, str)] if isinstance(context, list) else []
    if not isinstance(context, list) or words != context or not all(_CONTEXT.fullmatch(word) for word in words):
        raise RuleTableRefused(f"{where}: context must be a list of lower-case words")
    pattern = entry["pattern"]
    if not isinstance(pattern, str) or not 0 < len(pattern) <= PATTERN_CHARACTERS_MAX:
        raise RuleTableRefused(f"{where}: pattern must be text of 1 to {PATTERN_CHARACTERS_MAX} characters")
    if fault := unbounded(pattern):
        raise RuleTableRefused(f"{where}: {fault}; bound every repeat, as in `{{1,40}}`")
    try:
        _database([pattern])
    except hyperscan.error as error:
        raise RuleTableRefused(f"{where}: the pattern does not compile ({error}); shorten or correct it") from error
    return Rule(
        id=name, class_=RedactionClass(entry["class"]), pattern=pattern, validator=validator,
        context=tuple(words), priority=priority,
    )  # fmt: skip


_CONTEXT: Final = re.compile(r"[a-z]{2,30}")
_PIECE: Final = re.compile(
    r"\\x\{[0-9A-Fa-f]+\}|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]"  # an escape, a class: a `+` in these is a plain character
    r"|\{([0-9]+)(,([0-9]*))?\}|\(\?[a-zA-Z-]+[:)]|.",
    re.DOTALL,
)


def unbounded(pattern: str) -> str | None:
    """Say what in `pattern` repeats without a bound, or above `REPEAT_MAX`; None where nothing does.

    Stricter than wide classes alone: a match without a bound on its length cannot be held back in a stream.
    """
    for piece in _PIECE.finditer(pattern):
        if piece[0] in {"*", "+"}:
            return f"`{piece[0]}` repeats without a bound"
        if piece[1] is not None:
            most = piece[1] if piece[2] is None else piece[3]
            if most == "":
                return f"`{piece[0]}` repeats without a bound"
            if int(most) > REPEAT_MAX:
                return f"`{piece[0]}` repeats more than {REPEAT_MAX} times"
    return None


def _database(patterns: list[str]) -> hyperscan.Database:
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    flags = hyperscan.HS_FLAG_SOM_LEFTMOST | hyperscan.HS_FLAG_UTF8
    database.compile(
        expressions=[pattern.encode() for pattern in patterns],
        ids=list(range(len(patterns))),
        elements=len(patterns),
        flags=[flags] * len(patterns),
    )
    return database


# ---- scanning ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Finding:
    """One value found: `start:end` in characters of the text. Findings may overlap; none holds the value itself."""

    start: int
    end: int
    class_: RedactionClass
    rule_id: str
    priority: int


class _Sentences:
    """Where sentences end and context words stand in one view; labels are no context, so redacting twice is safe."""

    def __init__(self, text: str, words: frozenset[str]) -> None:
        self._breaks = [match.start() for match in re.finditer(r"\n|[.!?](?=\s)", text)]
        self._words: dict[str, list[int]] = {word: [] for word in words}
        plain = LABEL.sub(lambda match: " " * len(match[0]), text).lower()
        if len(plain) == len(text):  # lower() lengthens a few letters; then no offset holds and every word counts
            for match in re.finditer(r"[a-z]{2,30}", plain):
                if match[0] in self._words:
                    self._words[match[0]].append(match.start())
        else:
            self._words = {word: list(range(len(text) + 1)) for word in words if word in plain}

    def hold(self, words: tuple[str, ...], start: int, end: int) -> bool:
        """Say whether one of `words` stands in the sentence (or sentences) of `start:end`."""
        first = self._breaks[at - 1] if (at := bisect_left(self._breaks, start)) else 0
        last = self._breaks[at] if (at := bisect_right(self._breaks, end - 1)) < len(self._breaks) else 1 << 62
        return any(bisect_left(self._words[word], first) < bisect_right(self._words[word], last) for word in words)


class Scanner:
    """A compiled rule table. Safe to share between threads: each has its own hyperscan scratch."""

    __slots__ = ("_context", "_database", "_proven", "_rules", "_shapes", "_threads", "rules_digest")

    def __init__(self, table: RuleTable) -> None:
        self._rules = table.rules
        self.rules_digest: Final = table.digest
        self._context = frozenset(word for rule in table.rules for word in rule.context)
        self._proven = frozenset(rule.id for rule in table.rules if rule.validator in PROVEN)
        self._shapes = frozenset(rule.id for rule in table.rules if rule.validator in SHAPES)
        self._database = _database([rule.pattern for rule in table.rules])
        self._threads = threading.local()

    def scan(self, text: str) -> tuple[Finding, ...]:
        """Return everything the rules find in `text`, sorted by place, whatever its obligations are.

        Raises:
            ScanFailed: if `text` is longer than `TEXT_BYTES_MAX`, is not valid Unicode, matches more often than
                `MATCHES_MAX` or holds more than `FINDINGS_MAX` findings. Nothing may then be said to be clean.
        """
        try:
            found = {finding for view in views_of(text) for finding in self._scan(view)}
        except (hyperscan.error, UnicodeError) as error:
            raise ScanFailed(f"the text could not be scanned ({type(error).__name__})") from None
        if len(found) > FINDINGS_MAX:
            raise ScanFailed(f"more than {FINDINGS_MAX} findings in one text")
        return tuple(_settled(sorted(found), self._proven, self._shapes))

    def _scan(self, view: View) -> list[Finding]:
        text = view.text
        sentences: _Sentences | None = None
        found: list[Finding] = []
        for index, regions in self._regions(text).items():
            rule = self._rules[index]
            validate = VALIDATORS[rule.validator]
            if rule.context and sentences is None:
                sentences = _Sentences(text, self._context)
            for low, high in regions:
                if rule.context and sentences is not None and not sentences.hold(rule.context, low, high):
                    continue
                spans = list(islice(validate(text, low, high), FINDINGS_MAX + 1))
                if len(spans) + len(found) > FINDINGS_MAX:
                    raise ScanFailed(f"more than {FINDINGS_MAX} findings in one text")
                for start, end in _united(spans):
                    first, last = view.original(start, end)
                    found.append(
                        Finding(start=first, end=last, class_=rule.class_, rule_id=rule.id, priority=rule.priority)
                    )
        return found

    def _regions(self, text: str) -> dict[int, list[Span]]:
        """Return for each rule that matched the united spans of its matches, in characters of `text`."""
        data = text.encode()
        if len(data) > TEXT_BYTES_MAX:
            raise ScanFailed(f"the text is longer than {TEXT_BYTES_MAX} bytes")
        hits: dict[int, list[Span]] = {}
        left = MATCHES_MAX

        def matched(index: int, start: int, end: int, _flags: int, _context: object) -> bool | None:
            nonlocal left
            left -= 1
            hits.setdefault(index, []).append((start, end))
            return left < 0 or None

        scratch = getattr(self._threads, "scratch", None)
        if scratch is None:
            self._threads.scratch = scratch = hyperscan.Scratch(self._database)
        self._database.scan(data, match_event_handler=matched, scratch=scratch)
        if left < 0:
            raise ScanFailed(f"more than {MATCHES_MAX} matches in one text")
        regions = {index: _united(spans) for index, spans in sorted(hits.items())}
        if len(data) == len(text):
            return regions
        ends = list(accumulate((len(character.encode()) for character in text), initial=0))
        return {
            index: [(bisect_left(ends, start), bisect_left(ends, end)) for start, end in spans]
            for index, spans in regions.items()
        }


def _united(spans: set[Span] | list[Span]) -> list[Span]:
    """Return the unions of overlapping spans, in order."""
    united: list[Span] = []
    for start, end in sorted(spans):
        if united and start < united[-1][1]:
            united[-1] = (united[-1][0], max(united[-1][1], end))
        else:
            united.append((start, end))
    return united


def _settled(findings: Sequence[Finding], proven: frozenset[str], shapes: frozenset[str]) -> list[Finding]:
    """Drop shapes inside a value that proves itself: an IBAN's `0044 0532 0130` is nobody's telephone.

    Done here, before any obligation is known, so that what is found never depends on what is to be hidden.
    """
    holders = _united([(finding.start, finding.end) for finding in findings if finding.rule_id in proven])
    starts = [start for start, _ in holders]

    def inside(finding: Finding) -> bool:
        at = bisect_right(starts, finding.start)
        return at > 0 and finding.end <= holders[at - 1][1]

    return [finding for finding in findings if finding.rule_id not in shapes or not inside(finding)]


def compile_table(table: RuleTable) -> Scanner:
    """Compile `table` (about 0.1 s for the example's rules).

    Raises:
        RuleTableRefused: if the patterns do not compile together.
    """
    try:
        return Scanner(table)
    except hyperscan.error as error:
        raise RuleTableRefused(f"the patterns do not compile together ({error}); shorten the longest") from error
