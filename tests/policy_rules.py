"""The company's bundle and directory as tools read them, and questions to ask of them."""

from functools import cache
from pathlib import Path

from sluicegate.bundle_folder import read_bundle
from sluicegate.enforcer.access import Rules
from sluicegate.enforcer.bundle import load_bundle
from sluicegate.enforcer.decide import Decider
from sluicegate.enforcer.directory import load_directory
from sluicegate.policy.cases import Asked, Case, read_cases

POLICIES = Path(__file__).parent.parent / "policies"


@cache
def company_rules() -> Rules:
    """What the company decides by."""
    bundle = load_bundle(read_bundle(POLICIES))
    directory = load_directory((POLICIES / "directory.json").read_bytes(), bundle)
    return Rules(bundle=bundle, directory=directory, decider=Decider(bundle, directory))


@cache
def company_cases() -> tuple[Case, ...]:
    """Its test cases."""
    return read_cases(company_rules().bundle.cases)


def asked(start: str) -> Asked:
    """What the one case asks whose name starts so."""
    (found,) = [case.asked for case in company_cases() if case.name.startswith(start)]
    return found


def asked_of(text: str) -> Asked:
    """What a file of one case asks, at nine in the morning."""
    head = "defaults: {via: helpdesk-app, at: 2026-11-20T09:00:00Z, model: smollm2}\ncases:\n"
    (case,) = read_cases({"tests/x.yaml": head + text})
    return case.asked
