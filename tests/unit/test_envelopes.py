"""Envelopes as files and what the stages would make of them: each attack has its code, and the honest one lands."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from policy_events import (
    ANA,
    ANA_AGAIN,
    BEN,
    CLEO,
    DOMAIN,
    FAR_MS,
    NOW_MS,
    PUBLISHER,
    STRANGER,
    event,
    policy_log,
    roles_event,
    root_event,
    speakers,
)
from securesystemslib.signer import CryptoSigner

from sluicegate.enforcer.policy_kinds import FIXES, Fault, Kind
from sluicegate.enforcer.trust import Domain
from sluicegate.enforcer.trust_make import Envelope, Speakers
from sluicegate.envelopes import (
    Refusal,
    Term,
    contents_of,
    judge,
    make_envelope,
    open_envelope,
    save_envelope,
    signed_by,
)
from sluicegate.policy_versions import PolicyView
from sluicegate.schemas.errors import ConfigurationError

TWO = {"bundle": speakers("ana", "ben", threshold=2)}


def view(roles: Mapping[str, Speakers] | None = None, *later: Mapping[str, Speakers]) -> PolicyView:
    """A log with a root, these roles one after another, and bundle v1."""
    state = policy_log()
    state.fold(0, root_event(), NOW_MS)
    for version, each in enumerate((roles or TWO, *later), 1):
        state.fold(version, roles_event(version, each, effective_at_ms=NOW_MS + version), NOW_MS)
    first = event(Kind.BUNDLE, 1, b"first", signers=[ANA, BEN])
    if roles is None:
        state.fold(state.position + 1, first, NOW_MS)
    return PolicyView(state=state, versions=(), refused=(), now_ms=NOW_MS)


def envelope(
    *signers: CryptoSigner,
    version: int = 2,
    domain: Domain = DOMAIN,
    expires_ms: int = FAR_MS,
    effective_at_ms: int = NOW_MS + 1,
) -> Envelope:
    term = Term(version=version, effective_at_ms=effective_at_ms, expires_ms=expires_ms)
    return make_envelope(Kind.BUNDLE, b"second", domain=domain, term=term, signers=signers)


def code(found: Refusal | None) -> Fault | None:
    return None if found is None else found.code


HONEST = (ANA, BEN)
ATTACKS: dict[str, tuple[Callable[[], Envelope], Fault | None]] = {
    "the honest one": (lambda: envelope(*HONEST), None),
    "unsigned": (lambda: envelope(), Fault.UNSIGNED),
    "the author alone": (lambda: envelope(ANA), Fault.UNSIGNED),
    "one person with two keys": (lambda: envelope(ANA, ANA_AGAIN), Fault.UNSIGNED),
    "the publisher, who speaks for bundles no more": (lambda: envelope(PUBLISHER), Fault.UNSIGNED),
    "a stranger beside one of them": (lambda: envelope(ANA, STRANGER), Fault.UNSIGNED),
    "tampered after signing": (lambda: replace(envelope(*HONEST), content=b"other"), Fault.TAMPERED),
    "expired": (lambda: envelope(*HONEST, expires_ms=NOW_MS), Fault.EXPIRED),
    "older": (lambda: envelope(*HONEST, version=1), Fault.OLDER),
    "another environment": (lambda: envelope(*HONEST, domain=Domain(env="prod", tenant="heron")), Fault.FOREIGN),
    "another tenant": (lambda: envelope(*HONEST, domain=Domain(env="dev", tenant="acme")), Fault.FOREIGN),
    "backdated": (lambda: envelope(*HONEST, effective_at_ms=NOW_MS), Fault.BACKDATED),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_stages_would_refuse_it_by_a_code_that_says_what_to_do(attack: str) -> None:
    make, expected = ATTACKS[attack]
    found = judge(view(), [make()])
    assert code(found) is expected
    if found is not None:
        assert found.fix == FIXES[found.code]


def test_an_envelope_counts_once_and_by_the_roles_at_its_place() -> None:
    made = envelope(*HONEST)
    assert judge(view(), [made]) is None
    assert code(judge(view(), [made, made])) is Fault.OLDER, "replayed"
    changed = view(TWO, {"bundle": speakers("ben", "cleo", threshold=2)})
    assert code(judge(changed, [made])) is Fault.UNSIGNED, "ana speaks for bundles no more"
    assert judge(view(TWO, {"bundle": speakers("ben", "ana", "cleo", threshold=2)}), [made]) is None


def test_nothing_after_the_first_refusal_is_judged_and_all_fixes_are_there() -> None:
    assert code(judge(view(), [envelope(ANA), envelope(*HONEST)])) is Fault.UNSIGNED
    assert set(FIXES) == set(Fault)


def test_people_sign_one_after_another_and_see_who_is_missing() -> None:
    at = view()
    one = signed_by(envelope(), [ANA], at)
    (way,) = contents_of(one, at).ways
    assert (way[0].signed, way[0].missing, contents_of(one, at).complete) == (("ana",), ("ben",), False)
    for again, why in ((ANA, "has signed this already"), (ANA_AGAIN, "counts once"), (CLEO, "speaks for nothing")):
        with pytest.raises(ConfigurationError, match=why):
            signed_by(one, [again], at)
    both = signed_by(one, [BEN], at)
    assert contents_of(both, at).complete
    assert judge(at, [both]) is None
    # Without the log nobody can be told apart, but nobody signs twice.
    assert contents_of(both, None).ways == ()
    with pytest.raises(ConfigurationError, match="has signed this already"):
        signed_by(both, [BEN], None)


def test_a_file_is_written_whole_and_read_back(tmp_path: Path) -> None:
    file, made = tmp_path / "e.json", envelope(ANA)
    save_envelope(file, made, new=True)
    assert open_envelope(file) == made
    with pytest.raises(ConfigurationError, match="there is a file"):
        save_envelope(file, made, new=True)
    save_envelope(file, signed_by(made, [BEN], None), new=False)
    assert len(contents_of(open_envelope(file), None).signatures) == 2
    assert [each.name for each in tmp_path.iterdir()] == ["e.json"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("not JSON", b"policy"),
        ("not UTF-8", b"\xff\xfe"),
        ("empty", b""),
        ("a list", b"[]"),
        ("other members", b'{"metadata": "", "content": "", "more": ""}'),
        ("deep", b"[" * 200_000),
        ("no metadata", json.dumps({"metadata": "x", "content": ""}).encode()),
    ],
)
def test_a_bad_file_gets_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    file = tmp_path / "e.json"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        contents_of(open_envelope(file), None)
    assert "\n" not in str(caught.value), name


def test_a_folder_a_missing_file_and_a_huge_one_get_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluicegate.envelopes.ENVELOPE_BYTES_MAX", 1000)
    (tmp_path / "huge").write_bytes(b" " * 1001)
    for path, why in ((tmp_path, "directory"), (tmp_path / "none", "No such file"), (tmp_path / "huge", "over 1000")):
        with pytest.raises(ConfigurationError, match=why):
            open_envelope(path)
