"""A bundle goes on as it is, or not at all: to a directory that conforms to it, under the next version, never twice."""

import pytest
from company import POLICIES
from policy_events import ANA, BEN, DOMAIN, FAR_MS, NOW_MS, event, policy_log, root_event, whole

from sluicegate.bundle_folder import read_bundle
from sluicegate.enforcer.directory_change import DirectoryContent
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.state import Accepted
from sluicegate.enforcer.trust import digest_of
from sluicegate.envelopes import Term, contents_of
from sluicegate.policy_versions import PolicyView, Version
from sluicegate.promotion import earlier_bundle, promoted, running_bundle
from sluicegate.schemas.errors import ConfigurationError, InvalidDirectory

CONTENT = read_bundle(POLICIES)
TERM = Term(version=2, effective_at_ms=NOW_MS, expires_ms=FAR_MS)


def bundle(version: int, content: bytes = CONTENT) -> Version:
    return Version(
        kind=Kind.BUNDLE,
        version=version,
        digest=digest_of(content),
        content=content,
        position=version,
        stamp_ms=NOW_MS,
        expires_ms=FAR_MS,
    )


def view(directory: bytes, *versions: Version) -> PolicyView:
    state = policy_log()
    for offset, each in enumerate((root_event(), event(Kind.DIRECTORY, 1, directory))):
        assert isinstance(state.fold(offset, each, NOW_MS), Accepted)
    return PolicyView(state=state, versions=versions, refused=(), now_ms=NOW_MS)


def test_the_same_content_goes_on_in_an_envelope_of_its_own() -> None:
    there = view((POLICIES / "directory.json").read_bytes())
    found = promoted(bundle(7), there, domain=DOMAIN, term=TERM, signers=())
    assert found is not None
    said = contents_of(found, there)
    assert (found.content, said.version, said.domain, said.signatures) == (CONTENT, 2, DOMAIN, ())
    assert promoted(bundle(7), view(whole(), bundle(1)), domain=DOMAIN, term=TERM, signers=()) is None, "it runs there"


def test_a_directory_that_does_not_conform_is_refused_before_anything_is_signed() -> None:
    odd = whole("ana")  # a user without purposes
    assert isinstance(view(odd).state.directory, DirectoryContent)
    with pytest.raises(InvalidDirectory, match="directory of `dev` does not conform"):
        promoted(bundle(7), view(odd), domain=DOMAIN, term=TERM, signers=[ANA, BEN])


def test_an_earlier_bundle_is_one_of_other_content_unless_its_version_is_named() -> None:
    there = view(whole(), bundle(1, b"a"), bundle(2, b"b"), bundle(3, b"b"))
    assert earlier_bundle(there, "dev", None).version == 1
    assert earlier_bundle(there, "dev", 2).version == 2
    with pytest.raises(ConfigurationError, match="it holds v1, v2, v3"):
        earlier_bundle(there, "dev", 4)
    with pytest.raises(ConfigurationError, match="an earlier bundle"):
        earlier_bundle(view(whole(), bundle(1)), "dev", None)
    with pytest.raises(ConfigurationError, match="no bundle is in force"):
        running_bundle(view(whole()), "dev")
