"""The example company's bundle and directory, read once from `policies/`, and the same with one file changed."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from sluicegate.enforcer.access import Rules
from sluicegate.enforcer.bundle import belongs_to_bundle, bundle_content, load_bundle
from sluicegate.enforcer.decide import Decider
from sluicegate.enforcer.directory import load_directory

POLICIES = Path(__file__).resolve().parents[3] / "policies"

Files = Mapping[str, str]


@pytest.fixture(scope="session")
def heron_files() -> Files:
    paths = (path for path in POLICIES.rglob("*") if path.is_file())
    texts = {path.relative_to(POLICIES).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    return {path: text for path, text in texts.items() if belongs_to_bundle(path)}


@pytest.fixture(scope="session")
def heron_directory() -> bytes:
    return (POLICIES / "directory.json").read_bytes()


@pytest.fixture(scope="session")
def rules_of(heron_directory: bytes) -> Callable[[Files], Rules]:
    def load(files: Files) -> Rules:
        bundle = load_bundle(bundle_content(files))
        directory = load_directory(heron_directory, bundle)
        return Rules(bundle=bundle, directory=directory, decider=Decider(bundle, directory))

    return load


@pytest.fixture(scope="session")
def heron(heron_files: Files, rules_of: Callable[[Files], Rules]) -> Rules:
    return rules_of(heron_files)


@pytest.fixture(scope="session")
def edited(heron_files: Files) -> Callable[[str, str, str], Files]:
    """The example's files with `old` replaced by `new` in one of them; `old` must be there."""

    def edit(path: str, old: str, new: str) -> Files:
        assert old in heron_files[path], f"{path} no longer holds {old!r}"
        return {**heron_files, path: heron_files[path].replace(old, new)}

    return edit
