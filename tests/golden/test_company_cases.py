"""The test cases of the company's bundle pass, and notice nearly every change that could be made to its policies."""

from functools import cache

from company import POLICIES

from sluicegate.bundle_folder import read_bundle
from sluicegate.enforcer.access import Rules
from sluicegate.enforcer.bundle import load_bundle
from sluicegate.enforcer.decide import Decider
from sluicegate.enforcer.directory import load_directory
from sluicegate.policy.cases import read_cases
from sluicegate.policy.mutants import mutate
from sluicegate.policy.trial import Outcome, run_case

MUTATION_SCORE_MIN = 0.9


@cache
def company() -> tuple[Rules, tuple[Outcome, ...]]:
    bundle = load_bundle(read_bundle(POLICIES))
    directory = load_directory((POLICIES / "directory.json").read_bytes(), bundle)
    rules = Rules(bundle=bundle, directory=directory, decider=Decider(bundle, directory))
    return rules, tuple(run_case(case, rules) for case in read_cases(bundle.cases))


def test_every_case_passes() -> None:
    _, outcomes = company()
    assert len(outcomes) >= 50
    assert [outcome.case.name for outcome in outcomes if not outcome.passed] == []


def test_the_cases_notice_what_would_be_changed() -> None:
    found = mutate(*company())
    assert found.made > 70
    assert found.score >= MUTATION_SCORE_MIN, [each.line() for each in found.survivors]


def test_fewer_cases_notice_less() -> None:
    rules, outcomes = company()
    assert mutate(rules, outcomes[:5]).score < MUTATION_SCORE_MIN
