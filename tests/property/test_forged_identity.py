"""1,000 forged proofs and tokens: none is accepted and each gets its code; what they were forged from is all accepted.

The same forgeries are the measure of themselves: every single check of `identity.py` is taken out once, and they must
notice that it is gone.
"""

import ast
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from types import ModuleType

import pytest
from forge import AUDIENCE, Draft, Forgery, Sent, genuine
from forged_proofs import PROOFS
from forged_texts import TEXTS
from forged_tokens import TOKENS
from producers import NOW_S, PARTITIONS

from sluicegate.enforcer import identity
from sluicegate.enforcer.judgement import Refused
from sluicegate.enforcer.seen import SeenProofs
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import DecisionMade, Identity, Source, Verdict

FORGED = 1000
SEED = 20_261_124
FORGERIES = (*TEXTS, *PROOFS, *TOKENS)
Prove = Callable[..., Identity | Refused]


@dataclass(frozen=True, slots=True)
class Pair:
    """A forged request, and the genuine one that it was made from."""

    forgery: Forgery
    genuine: Sent
    forged: Sent


def pairs(count: int, seed: int) -> list[Pair]:
    """Every forgery in turn, each of another genuine request."""
    random = Random(seed)
    made = []
    for number in range(count):
        forgery = FORGERIES[number % len(FORGERIES)]
        draft = drawn(random, forgery)
        made.append(Pair(forgery, draft.sent(), forgery.make(random, draft)))
    return made


def drawn(random: Random, forgery: Forgery) -> Draft:
    while True:
        person = random.random() < 0.5 if forgery.person is None else forgery.person
        draft = genuine(random, person=person)
        binding = "" if draft.issuer is None else draft.issuer.binding
        if forgery.only in {"", draft.proof.header["alg"], binding}:
            return draft


@pytest.fixture(scope="module")
def thousand() -> list[Pair]:
    return pairs(FORGED, SEED)


def answer(sent: Sent, prove: Prove = identity.prove) -> Identity | Code:
    seen = SeenProofs()
    for record in sent.before:
        proved = asked(record, sent, seen, identity.prove)
        assert isinstance(proved, Identity)
        seen.fold(decision(proved))
    found = asked(sent.record, sent, seen, prove)
    return found.code if isinstance(found, Refused) else found


def asked(record: object, sent: Sent, seen: SeenProofs, prove: Prove) -> Identity | Refused:
    return prove(
        record, audience=AUDIENCE, partition_count=PARTITIONS, time_ms=sent.time_ms, credentials=sent.credentials,
        seen=seen,
    )  # fmt: skip


def decision(proved: Identity) -> DecisionMade:
    return DecisionMade(
        decision_id="d", source=Source(offset=0, count=1, digest=b"", timestamp_ms=0), time_ms=NOW_S * 1000,
        verdict=Verdict.DENY, code=Code.DENIED, check=4, identity=proved,
    )  # fmt: skip


def accepted(made: Sequence[Pair], prove: Prove = identity.prove) -> Counter[str]:
    """The forgeries that a checker accepts, by name: what must be empty."""
    return Counter(each.forgery.name for each in made if isinstance(answer(each.forged, prove), Identity))


def test_no_forgery_is_accepted_and_each_gets_its_code(thousand: list[Pair]) -> None:
    assert accepted(thousand) == {}
    wrong = {
        (each.forgery.name, found, each.forgery.code)
        for each in thousand
        if (found := answer(each.forged)) is not each.forgery.code
    }
    assert wrong == set()
    assert len(thousand) == FORGED
    assert {each.forgery.name for each in thousand} == {each.name for each in FORGERIES}


def test_every_request_that_they_were_forged_from_is_accepted(thousand: list[Pair]) -> None:
    refused = [(each.forgery.name, found) for each in thousand if isinstance(found := answer(each.genuine), Code)]
    assert refused == []
    principals = {found.principal for each in thousand if isinstance(found := answer(each.genuine), Identity)}
    assert len(principals) > 5, "the genuine requests are all of one kind"


def test_a_forgery_differs_from_what_it_was_made_of(thousand: list[Pair]) -> None:
    assert [each.forgery.name for each in thousand if each.forged == each.genuine] == []


def damaged(random: Random, data: bytes) -> bytes:
    """The bytes with something cut, doubled, swapped or changed, as no forger with a plan would."""
    at, to = sorted(random.randrange(len(data)) for _ in range(2))
    match random.randrange(5):
        case 0:
            return data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]
        case 1:
            return data[:at] + data[to:]
        case 2:
            return data[:to] + data[at:]
        case 3:
            return data[:at] + random.randbytes(random.randint(1, 40)) + data[at:]
        case _:
            return data[to:] + data[at:to] + data[:at]


def test_damage_without_a_plan_is_refused_and_never_a_bug(thousand: list[Pair]) -> None:
    random = Random(SEED)
    refused = 0
    for each in thousand:
        record = each.genuine.record
        chosen = random.randrange(len(record.headers))
        headers = [
            (name, damaged(random, value) if place == chosen else value)
            for place, (name, value) in enumerate(record.headers)
        ]
        if tuple(headers) != record.headers:
            found = answer(replace(each.genuine, record=replace(record, headers=tuple(headers))))
            assert isinstance(found, Code), headers
            refused += 1
    assert refused > 0.9 * len(thousand)


def test_every_code_of_the_nine_checks_is_met() -> None:
    met = {each.code for each in FORGERIES}
    codes = {code for code in Code if code.name.startswith(("PROOF_", "TOKEN_"))} | {Code.WRONG_PARTITION}
    assert met == codes


# ---- the measure: checkers with one check taken out

SOURCE = Path(identity.__file__).read_text(encoding="utf-8")
# Conditions that another one covers: with or without them, the same is refused by the same code.
COVERED = {
    "not proofs[0]": "no bytes are no JWS, which is malformed as well",
    "record.key is None": "None is no bytes, so it is not equal to the key of the proof either",
    "issuer is None": "without an issuer there is no key of it",
    "not isinstance(principal, str)": "`is_name` says the same; this one tells the type checker",
    "proof.token_hash is None": "both or neither of token and hash are there, as the first line of check 7 says",
}


@dataclass(frozen=True, slots=True)
class Hole:
    """One condition of one check, at its place in the syntax tree; `fill` makes the tree without it."""

    name: str
    line: int
    column: int
    operand: int | None


def is_check(node: ast.AST) -> bool:
    """`if ...: return ...`, as every check of the file is written, or a condition that is returned."""
    if isinstance(node, ast.If):
        return len(node.body) == 1 and isinstance(node.body[0], ast.Return)
    return isinstance(node, ast.Return) and isinstance(node.value, ast.BoolOp)


def condition(node: ast.AST) -> ast.expr:
    found = node.test if isinstance(node, ast.If) else node.value if isinstance(node, ast.Return) else None
    assert found is not None
    return found


def holes() -> Iterator[Hole]:
    """Each check of the file taken out whole, and each operand of its condition taken out alone."""
    for node in ast.walk(ast.parse(SOURCE)):
        if not is_check(node):
            continue
        test = condition(node)
        place = (test.lineno, test.col_offset)
        if isinstance(node, ast.If):
            yield Hole(ast.unparse(test), *place, None)
        if isinstance(test, ast.BoolOp):
            for number, operand in enumerate(test.values):
                yield Hole(ast.unparse(operand), *place, number)


class Without(ast.NodeTransformer):
    """Takes one condition out of the tree."""

    def __init__(self, hole: Hole) -> None:
        self.hole = hole
        self.done = False

    def cut(self, test: ast.expr, *, gone: bool) -> ast.expr:
        if (test.lineno, test.col_offset) != (self.hole.line, self.hole.column) or self.done:
            return test
        if self.hole.operand is None:
            self.done = True
            return ast.copy_location(ast.Constant(value=gone), test)
        if not isinstance(test, ast.BoolOp):
            return test
        self.done = True
        left = [each for number, each in enumerate(test.values) if number != self.hole.operand]
        return left[0] if len(left) == 1 else ast.copy_location(ast.BoolOp(op=test.op, values=left), test)

    def visit_If(self, node: ast.If) -> ast.AST:
        self.generic_visit(node)
        if is_check(node):
            node.test = self.cut(node.test, gone=False)
        return node

    def visit_Return(self, node: ast.Return) -> ast.AST:
        if is_check(node) and node.value is not None:
            node.value = self.cut(node.value, gone=True)
        return node


def prover(hole: Hole | None) -> Prove:
    """`identity.prove`, built from the source with a hole in it; with None, as it stands."""
    tree: ast.AST = ast.parse(SOURCE)
    if hole is not None:
        without = Without(hole)
        tree = ast.fix_missing_locations(without.visit(tree))
        assert without.done, hole.name
    module = ModuleType("identity_with_a_hole")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(tree, "identity_with_a_hole.py", "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    found: Prove = module.__dict__["prove"]
    return found


def noticed(made: Sequence[Pair], prove: Prove) -> str:
    """What the forgeries see of a hole first: one accepted, a bug where a check was the guard, another code; or ''."""
    other = ""
    for each in made:
        try:
            found = answer(each.forged, prove)
        except (AttributeError, TypeError, LookupError, ValueError):
            return "bug"
        if isinstance(found, Identity):
            return "accepted"
        if found is not each.forgery.code:
            other = "code"
    return other


HOLES = sorted(holes(), key=lambda hole: (hole.line, hole.column, -1 if hole.operand is None else hole.operand))


def test_a_checker_rebuilt_whole_is_the_checker(thousand: list[Pair]) -> None:
    assert noticed(thousand[: 3 * len(FORGERIES)], prover(None)) == ""


def test_a_planted_hole_is_counted(thousand: list[Pair]) -> None:
    signature = [each for each in HOLES if each.name.startswith("not key.public.verifies")]
    assert len(signature) == 1
    counted = accepted(thousand, prover(signature[0]))
    assert counted["another_key"] > 0
    assert counted["one_claim_changed"] > 0


@pytest.mark.parametrize("hole", HOLES, ids=lambda hole: f"{hole.line}:{hole.name[:60]}")
def test_each_check_that_is_taken_out_is_noticed(thousand: list[Pair], hole: Hole) -> None:
    found = noticed(thousand, prover(hole))
    if hole.name in COVERED:
        assert found == "", "this condition does count: take it out of COVERED"
    else:
        assert found != ""
