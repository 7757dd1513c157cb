"""An answer, its obligations and what was admitted to its prompt go in, a `Redacted` text comes out.

The only way to make a `Redacted`, which is the only thing that leaves the house or enters an audit record.

Order. What the scanner finds and what the support check finds are both computed on the raw answer: after redaction a
`[PHONE]` could no longer be looked up in what was admitted, and after the support check an `[unsupported]` would have
torn values apart. Overlapping spans are then united and replaced once: the class of highest priority names the label,
the strictest operator of all that overlap applies, and a value that is not supported is never shown in part.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from enum import StrEnum
from typing import Final, Literal, NoReturn

from sluicegate.enforcer.detect import Finding, RedactionClass, ScanFailed, Scanner
from sluicegate.enforcer.support import find_unsupported, gather
from sluicegate.enforcer.validators import Span


class Operator(StrEnum):
    """What happens to a value, from loose to strict (`STRICTNESS`)."""

    KEEP = "keep"
    LAST4 = "last4"
    TOKEN = "token"  # noqa: S105  an operator, not a value
    HASH = "hash"
    LABEL = "label"
    DROP = "drop"


STRICTNESS: Final[tuple[Operator, ...]] = tuple(Operator)
SUPPORTED_OPERATORS: Final = frozenset({Operator.KEEP, Operator.LAST4, Operator.LABEL})
UNCHECKED_TEXT: Final = "[redacted: could not be checked]"
UNSUPPORTED_TEXT: Final = "[unsupported]"
# Fewer significant characters are labelled whole: four of them would be most of the value.
LAST4_SIGNIFICANT_MIN: Final = 10
Numbers = Literal["free", "from_context"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Redaction:
    """One span of the answer that was replaced; offsets are characters of the answer, the value is not kept."""

    class_: RedactionClass
    start: int
    end: int
    rule_id: str
    operator: Operator


class _Mint:
    """Held by `redact` alone."""


_MINT: Final = _Mint()


@dataclass(frozen=True, slots=True, kw_only=True)
class Redacted:
    """A text that has been through `redact`. `checked` is false where it could not be: then nothing of it is left.

    A guard against mistakes, not against code execution: it cannot be made, copied with changes, subclassed or
    unpickled without reaching for a private name.
    """

    text: str = field(repr=False)
    findings: tuple[Redaction, ...]
    unsupported: int
    rules_digest: str
    checked: bool
    mint: InitVar[_Mint]

    def __post_init__(self, mint: _Mint) -> None:
        if mint is not _MINT:
            raise TypeError("a `Redacted` is made by `redact` only")

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("`Redacted` has no subclasses")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a `Redacted` is not copied or pickled; pass it on or release it")

    def __setstate__(self, state: object) -> NoReturn:
        raise TypeError("a `Redacted` is made by `redact` only")


def redact(
    *,
    text: str,
    scanner: Scanner,
    operators: Mapping[RedactionClass, Operator],
    numbers: Numbers,
    admitted: Sequence[str],
) -> Redacted:
    """Return `text` with every value of a class in `operators` replaced and, on request, what has no support.

    A class that `operators` does not name is kept. `admitted` are the texts that entered the prompt; they matter for
    `numbers="from_context"` alone. If the scanner cannot read the answer, or then what was admitted, all is replaced.

    Raises:
        ValueError: on an operator or a value of `numbers` that is not carried out: a bundle is refused for it at load.
    """
    chosen = {RedactionClass(class_): Operator(operator) for class_, operator in operators.items()}
    if refused := sorted(set(chosen.values()) - SUPPORTED_OPERATORS):
        carried_out = ", ".join(sorted(SUPPORTED_OPERATORS))
        raise ValueError(f"operator `{refused[0]}` is not carried out; use one of {carried_out}")
    if numbers not in ("free", "from_context"):
        raise ValueError(f"`numbers` is `{numbers}`; use `free` or `from_context`")
    try:
        findings = scanner.scan(text)
        unsupported = find_unsupported(text, findings, gather(admitted, scanner)) if numbers == "from_context" else ()
    except ScanFailed:
        return Redacted(
            text=UNCHECKED_TEXT, findings=(), unsupported=0, rules_digest=scanner.rules_digest, checked=False,
            mint=_MINT,
        )  # fmt: skip
    hidden = [finding for finding in findings if chosen.get(finding.class_, Operator.KEEP) is not Operator.KEEP]
    pieces: list[str] = []
    made: list[Redaction] = []
    at = 0
    for start, end, members, claimed in _clusters(hidden, unsupported):
        replacement, redaction = _replaced(text, (start, end), members, chosen, claimed)
        pieces += (text[at:start], replacement)
        at = end
        if redaction is not None:
            made.append(redaction)
    return Redacted(
        text="".join((*pieces, text[at:])), findings=tuple(made), unsupported=len(unsupported),
        rules_digest=scanner.rules_digest, checked=True, mint=_MINT,
    )  # fmt: skip


def cut(
    text: str, scanner: Scanner, operators: Mapping[RedactionClass, Operator]
) -> list[tuple[str, Redaction | None]] | None:
    """Return `text` in parts, none empty: what stays (None), and what stands in the place of each value of a class in
    `operators`, which holds no `keep`. None where the scanner cannot read the text.
    """
    try:
        findings = [finding for finding in scanner.scan(text) if finding.class_ in operators]
    except ScanFailed:
        return None
    parts: list[tuple[str, Redaction | None]] = []
    at = 0
    for start, end, members, _ in _clusters(findings, ()):
        replacement, redaction = _replaced(text, (start, end), members, operators, claimed=False)
        parts += ((text[at:start], None), (replacement, redaction))
        at = end
    parts.append((text[at:], None))
    return [part for part in parts if part[0]]


def _clusters(findings: Sequence[Finding], unsupported: Sequence[Span]) -> list[tuple[int, int, list[Finding], bool]]:
    """Unite overlapping spans: (start, end, the findings in it, whether a claim without support is in it)."""
    spans: list[tuple[int, int, Finding | None]] = [(finding.start, finding.end, finding) for finding in findings]
    spans += [(start, end, None) for start, end in unsupported]
    clusters: list[tuple[int, int, list[Finding], bool]] = []
    for start, end, finding in sorted(spans, key=lambda span: span[:2]):
        members = [] if finding is None else [finding]
        if clusters and start < clusters[-1][1]:
            low, high, earlier, claimed = clusters[-1]
            earlier.extend(members)
            clusters[-1] = (low, max(high, end), earlier, claimed or finding is None)
        else:
            clusters.append((start, end, members, finding is None))
    return clusters


def _replaced(
    text: str, span: Span, members: Sequence[Finding], operators: Mapping[RedactionClass, Operator], claimed: bool
) -> tuple[str, Redaction | None]:
    if not members:
        return UNSUPPORTED_TEXT, None
    named = max(members, key=lambda finding: (finding.priority, finding.end - finding.start, finding.rule_id))
    operator = max((operators[finding.class_] for finding in members), key=STRICTNESS.index)
    if claimed:
        operator = max(operator, Operator.LABEL, key=STRICTNESS.index)
    label = f"[{named.class_}]"
    if operator is Operator.LAST4:
        shown = _last4(text, *span)
        # What any member hides by itself stays hidden: uniting two values must not uncover the tail of a short one.
        bare = shown and all(
            {at for at in shown if member.start <= at < member.end} <= set(_last4(text, member.start, member.end))
            for member in members
        )
        if bare:
            label = f"[{named.class_} ...{''.join(text[at] for at in shown)}]"
        else:
            operator = Operator.LABEL
    return label, Redaction(class_=named.class_, start=span[0], end=span[1], rule_id=named.rule_id, operator=operator)


_SIGNIFICANT: Final = re.compile(r"[^\W_]")


def _last4(text: str, start: int, end: int) -> tuple[int, ...]:
    """Return where the last four letters or digits of a value stand; nothing where they would be most of it."""
    places = [match.start() for match in _SIGNIFICANT.finditer(text, start, end)]
    return tuple(places[-4:]) if len(places) >= LAST4_SIGNIFICANT_MIN else ()
