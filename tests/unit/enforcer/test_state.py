"""The policy state: complete or nothing, whole versions from their time on, and a refused event changes nothing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner

from sluicegate.enforcer.directory_change import DirectoryContent
from sluicegate.enforcer.pairs import PAIRS_KEPT, Loaders
from sluicegate.enforcer.policy_kinds import Fault, Kind
from sluicegate.enforcer.schedule import DELAY_MS
from sluicegate.enforcer.seal import StageKey
from sluicegate.enforcer.stage_keys import InvalidKeys, read_stage_keys, stage_keys_content
from sluicegate.enforcer.state import Accepted, NotReady, PolicyLog, Rejected, Rules
from sluicegate.enforcer.trust import Domain, digest_of
from sluicegate.enforcer.trust_make import make_root, sign_targets
from sluicegate.schemas.errors import InvalidBundle, InvalidDirectory
from sluicegate.schemas.events import DirectoryChanged, PolicyKind, PolicyPublished
from sluicegate.schemas.ids import KeyId

NOW_MS = 1_800_000_000_000
YEAR_MS = 365 * 24 * 3600 * 1000
DOMAIN = Domain(env="dev", tenant="heron")


def private(seed: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)


ROOT, PUBLISHER, STRANGER = (CryptoSigner(private(seed)) for seed in (1, 2, 3))
Event = PolicyPublished | DirectoryChanged


def root(version: int = 1, *, signers: tuple[CryptoSigner, ...] = (ROOT,), **changes: object) -> PolicyPublished:
    metadata = make_root(
        domain=DOMAIN,
        version=version,
        expires_ms=int(str(changes.get("expires_ms", NOW_MS + YEAR_MS))),
        root_keys=[changes.get("key", ROOT).public_key],  # type: ignore[union-attr]
        root_threshold=1,
        publisher_keys=[PUBLISHER.public_key],
        publisher_threshold=1,
        signers=signers,
    )
    return PolicyPublished(kind=PolicyKind.ROOT, version=version, metadata=metadata, content=b"")


def published(
    kind: Kind,
    version: int,
    content: bytes,
    *,
    effective_at_ms: int = NOW_MS,
    expires_ms: int = NOW_MS + YEAR_MS,
    signer: CryptoSigner = PUBLISHER,
) -> Event:
    metadata = sign_targets(
        kind,
        content,
        domain=DOMAIN,
        version=version,
        effective_at_ms=effective_at_ms,
        expires_ms=expires_ms,
        signers=[signer],
    )
    if kind is Kind.DIRECTORY:
        return DirectoryChanged(version=version, metadata=metadata, content=content)
    return PolicyPublished(kind=PolicyKind(kind.value), version=version, metadata=metadata, content=content)


def bundle(version: int, name: str = "b", **changes: int) -> Event:
    return published(Kind.BUNDLE, version, name.encode(), **changes)


def directory(version: int, name: str = "d", **changes: int) -> Event:
    entities = [{"uid": {"type": "User", "id": name}, "attrs": {}, "parents": []}]
    content = json.dumps({"entities": entities, "service_keys": [], "issuers": []}).encode()
    return published(Kind.DIRECTORY, version, content, **changes)


class Loading:
    """Loaders that remember what they were asked; the bundle `bad` is invalid, the directory `odd` fits no bundle."""

    def __init__(self) -> None:
        self.bundles: list[str] = []
        self.pairs: list[tuple[str, str]] = []

    def bundle(self, content: bytes) -> str:
        self.bundles.append(content.decode())
        if content == b"bad":
            raise InvalidBundle(("policies.cedar:3: unknown attribute",))
        return content.decode()

    def directory(self, content: DirectoryContent, bundle: str, before: object) -> str:
        name = "+".join(uid.split('"')[1] for uid in sorted(content.entities))
        self.pairs.append((bundle, name))
        if "odd" in name:
            raise InvalidDirectory(('User::"x" has no `purposes`',))
        return name

    def loaders(self) -> Loaders:
        return Loaders(
            bundle=self.bundle,  # type: ignore[arg-type]
            types=lambda _: frozenset({"User"}),
            directory=self.directory,  # type: ignore[arg-type]
            judging=lambda bundle, directory, before: (bundle, directory),  # type: ignore[arg-type,return-value]
        )


def log_of(*events: Event, loading: Loading | None = None, pinned: PolicyPublished | None = None) -> PolicyLog:
    log = PolicyLog(
        domain=DOMAIN,
        root_digest=digest_of((pinned or root()).metadata),
        loaders=(loading or Loading()).loaders(),
    )
    for offset, event in enumerate(events):
        folded = log.fold(offset, event, NOW_MS)
        assert isinstance(folded, Accepted), folded
    return log


def ready(log: PolicyLog, time_ms: int = NOW_MS) -> tuple[str, str]:
    rules = log.at(time_ms)
    assert isinstance(rules, Rules), rules
    return rules.judging  # type: ignore[return-value]


def test_nothing_is_decided_on_half_a_state() -> None:
    events = [root(), bundle(1), directory(1)]
    for count in range(3):
        assert isinstance(log_of(*events[:count]).at(NOW_MS), NotReady)
    assert isinstance(log_of(root(), directory(1)).at(NOW_MS), NotReady)
    assert ready(log_of(*events)) == ("b", "d")


def test_the_exact_version_is_known() -> None:
    log = log_of(root(), bundle(4), directory(7))
    rules = log.at(NOW_MS)
    assert isinstance(rules, Rules)
    assert rules.version.position == 2
    assert (rules.version.root_version, rules.version.bundle_version, rules.version.directory_version) == (1, 4, 7)
    assert rules.version.bundle_digest == digest_of(b"b")
    assert rules.version.directory_digest == digest_of(directory(7).content)
    assert log.at(NOW_MS + 5) is rules
    assert [log.version_of(kind) for kind in Kind] == [1, 0, 4, 7, 0, 0, 0, 0]


def test_nothing_counts_before_the_pinned_root() -> None:
    log = log_of()
    own = root(key=STRANGER, signers=(STRANGER,))
    assert isinstance(log.fold(0, own, NOW_MS), Rejected)
    assert log.fold(1, bundle(1), NOW_MS) == Rejected(code=Fault.NO_ROOT, reason="no root is trusted yet")
    assert isinstance(log.fold(2, root(), NOW_MS), Accepted)
    assert isinstance(log.fold(3, root(), NOW_MS), Rejected), "a root comes once"


def test_a_version_is_in_force_from_its_time_on_and_replaces_whole() -> None:
    log = log_of(root(), bundle(1), directory(1), bundle(2, "b2", effective_at_ms=NOW_MS + 700))
    log.fold(4, directory(2, "d2", effective_at_ms=NOW_MS + 650), NOW_MS)
    moments = {-1: None, 0: ("b", "d"), 649: ("b", "d"), 650: ("b", "d2"), 699: ("b", "d2"), 700: ("b2", "d2")}
    for later_ms, expected in moments.items():
        if expected is None:
            assert isinstance(log.at(NOW_MS + later_ms), NotReady)
        else:
            assert ready(log, NOW_MS + later_ms) == expected
    # And back again: the answer hangs on T alone, not on what was asked before.
    assert ready(log, NOW_MS) == ("b", "d")


@pytest.mark.parametrize(
    "event",
    [
        bundle(1, "old again"),
        bundle(2, "the very same"),
        bundle(3, "backdated", effective_at_ms=NOW_MS + 10),
        bundle(3, "bad", effective_at_ms=NOW_MS + 99),
        bundle(3, "expired", effective_at_ms=NOW_MS + 99, expires_ms=NOW_MS - 5000),
        published(Kind.BUNDLE, 3, b"forged", effective_at_ms=NOW_MS + 99, signer=STRANGER),
        replace(bundle(3, "swapped", effective_at_ms=NOW_MS + 99), content=b"b"),
        replace(bundle(2, "replayed as new"), version=3),
        directory(1, "old again", effective_at_ms=NOW_MS + 99),
        directory(2, "backdated", effective_at_ms=NOW_MS),
        published(Kind.DIRECTORY, 2, b"[]", effective_at_ms=NOW_MS + 99),
        published(Kind.DIRECTORY, 2, b'{"service_keys":[],"issuers":[{}]}', effective_at_ms=NOW_MS + 99),
        published(Kind.KEYS, 1, b"{}"),
        root(2, key=STRANGER, signers=(STRANGER,)),
        root(3, signers=(ROOT,)),
        replace(root(2), content=b"x"),
        replace(root(2), kind=PolicyKind.BUNDLE),
    ],
)
def test_a_refused_event_leaves_the_state_as_it_was(event: Event) -> None:
    log = log_of(root(), bundle(1), directory(1), bundle(2, "b2", effective_at_ms=NOW_MS + 10))
    moments_ms = (0, 10, 99, DELAY_MS, 1000)
    before = [ready(log, NOW_MS + later_ms) for later_ms in moments_ms]
    versions = [log.version_of(kind) for kind in Kind]
    refused = log.fold(4, event, NOW_MS)
    assert isinstance(refused, Rejected)
    assert [ready(log, NOW_MS + later_ms) for later_ms in moments_ms] == before
    assert [log.version_of(kind) for kind in Kind] == versions
    # The positive control: the genuine successor is taken after it.
    assert isinstance(log.fold(5, bundle(3, "b3", effective_at_ms=NOW_MS + 20), NOW_MS), Accepted)
    assert ready(log, NOW_MS + DELAY_MS) == ("b3", "d")


def test_the_position_of_a_decision_is_that_of_what_is_in_force() -> None:
    """Not how far a worker happened to have read: two workers say the same of one T."""
    log = log_of(root(), bundle(1), directory(1))
    log.fold(3, bundle(1), NOW_MS)
    log.fold(4, bundle(2, "b2", effective_at_ms=NOW_MS + 1), NOW_MS)
    log.skip(9)
    positions = []
    for later_ms in (0, DELAY_MS - 1, DELAY_MS):
        rules = log.at(NOW_MS + later_ms)
        assert isinstance(rules, Rules)
        positions.append(rules.version.position)
    assert (positions, log.position) == ([2, 2, 4], 9)
    with pytest.raises(ValueError, match="was folded"):
        log.fold(9, bundle(2), NOW_MS)


def test_a_directory_that_does_not_conform_is_no_state() -> None:
    loading = Loading()
    log = log_of(root(), bundle(1), directory(1), loading=loading)
    folded = log.fold(3, directory(2, "odd", effective_at_ms=NOW_MS + 10), NOW_MS)
    assert isinstance(folded, Accepted), "it may fit a bundle that is yet to come"
    for _ in range(3):
        answer = log.at(NOW_MS + DELAY_MS)
        assert isinstance(answer, NotReady)
        assert "does not conform" in answer.reason
    assert ready(log, NOW_MS + DELAY_MS - 1) == ("b", "d")
    assert loading.pairs.count(("b", "odd")) == 1, "a failed pair is not built for every request"


def test_pairs_are_built_when_folded_and_not_by_requests() -> None:
    loading = Loading()
    log = log_of(root(), bundle(1), directory(1), loading=loading)
    log.fold(3, bundle(2, "b2", effective_at_ms=NOW_MS + 50), NOW_MS)
    built = list(loading.pairs)
    assert built == [("b", "d"), ("b2", "d")]
    for later_ms in range(0, 1000, 7):
        log.at(NOW_MS + later_ms)
    assert loading.pairs == built


def test_an_older_pair_is_built_again_where_event_time_lags() -> None:
    log = log_of(root(), bundle(1), directory(1))
    for version in range(2, PAIRS_KEPT + 5):
        log.fold(version + 1, bundle(version, f"b{version}", effective_at_ms=NOW_MS + version), NOW_MS + version)
    assert ready(log, NOW_MS) == ("b", "d")
    assert ready(log, NOW_MS + DELAY_MS + 3) == ("b3", "d")


@pytest.mark.parametrize("late", ["root", "bundle", "directory"])
def test_an_expired_part_denies(late: str) -> None:
    early_ms = NOW_MS + 10_000
    expires = {name: early_ms if name == late else NOW_MS + YEAR_MS for name in ("root", "bundle", "directory")}
    first = root(expires_ms=expires["root"])
    log = log_of(
        first,
        bundle(1, expires_ms=expires["bundle"]),
        directory(1, expires_ms=expires["directory"]),
        pinned=first,
    )
    assert ready(log, early_ms - 1) == ("b", "d")
    assert log.at(early_ms) == NotReady(reason=f"the {late} has expired; publish the next version")


def test_a_new_root_changes_who_may_publish_and_not_what_is_in_force() -> None:
    log = log_of(root(), bundle(1), directory(1))
    assert isinstance(log.fold(3, root(2, key=STRANGER, signers=(ROOT, STRANGER)), NOW_MS), Accepted)
    for later_ms, version in ((0, 1), (DELAY_MS, 2)):
        rules = log.at(NOW_MS + later_ms)
        assert isinstance(rules, Rules)
        assert (rules.version.root_version, rules.judging) == (version, ("b", "d"))
    assert isinstance(log.fold(4, root(3, signers=(ROOT,)), NOW_MS), Rejected), "the old root's key is out"


def stage_key(name: str, stage: str = "enforcer", seed: int = 50, revoked_at_ms: int | None = None) -> StageKey:
    return StageKey(
        key_id=KeyId(name), stage=stage, public=private(seed).public_key(), not_before_ms=5, revoked_at_ms=revoked_at_ms
    )


def keys(version: int, *listed: StageKey) -> Event:
    return published(Kind.KEYS, version, stage_keys_content(listed), effective_at_ms=NOW_MS + version)


def test_stage_keys_by_stage() -> None:
    enforcer, runner = stage_key("e"), stage_key("r", "runner", 51, 77)
    log = log_of(root(), keys(1, enforcer, runner))
    assert list(log.stage_keys("enforcer")) == ["e"]
    found = log.stage_keys("runner")[KeyId("r")]
    assert (found.stage, found.not_before_ms, found.revoked_at_ms) == ("runner", 5, 77)
    assert found.public.public_bytes_raw() == runner.public.public_bytes_raw()
    assert log.stage_keys("redactor") == {}
    assert log_of(root()).stage_keys("enforcer") == {}


@pytest.mark.parametrize(
    ("successor", "good"),
    [
        ((stage_key("e"), stage_key("x", seed=60)), False),  # a key vanished
        ((stage_key("e"), stage_key("r", "runner", 51, 99)), True),  # revoked
        ((stage_key("e"), stage_key("r", "runner", 52)), False),  # another key under the name
        ((stage_key("e"), stage_key("r", "redactor", 51)), False),  # another stage
        ((stage_key("e"), stage_key("r", "runner", 51), stage_key("n", seed=70)), True),  # a new key
        ((stage_key("e", revoked_at_ms=9), stage_key("r", "runner", 51)), True),
    ],
)
def test_a_key_leaves_by_revocation_alone(successor: tuple[StageKey, ...], good: bool) -> None:
    log = log_of(root(), keys(1, stage_key("e"), stage_key("r", "runner", 51)))
    assert isinstance(log.fold(2, keys(2, *successor), NOW_MS), Accepted) is good
    assert set(log.stage_keys("runner")) == {"r"}


def test_a_revocation_is_not_taken_back() -> None:
    log = log_of(root(), keys(1, stage_key("e", revoked_at_ms=50)))
    for offset, revoked_at_ms in enumerate((None, 51), start=2):
        assert isinstance(log.fold(offset, keys(2, stage_key("e", revoked_at_ms=revoked_at_ms)), NOW_MS), Rejected)
    assert isinstance(log.fold(9, keys(2, stage_key("e", revoked_at_ms=40)), NOW_MS), Accepted)


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "sink"},
        {"stage": ["enforcer"]},
        {"public": "AAAA"},
        {"public": None},
        {"not_before_ms": 1.5},
        {"not_before_ms": True},
        {"revoked_at_ms": -1},
        {"key_id": ""},
        {"private": "x"},
    ],
)
def test_stage_keys_of_another_shape(change: dict[str, object]) -> None:
    document = json.loads(stage_keys_content([stage_key("e")]))
    assert set(read_stage_keys(json.dumps(document).encode())) == {"e"}
    document["stages"][0].update(change)
    with pytest.raises(InvalidKeys):
        read_stage_keys(json.dumps(document).encode())


def test_one_key_serves_one_stage() -> None:
    for listed in ([stage_key("e"), stage_key("r", "runner")], [stage_key("e"), stage_key("e", seed=51)]):
        with pytest.raises(InvalidKeys, match="twice"):
            read_stage_keys(stage_keys_content(listed))


def test_the_policies_of_the_repository_become_rules() -> None:
    """The real loaders, over the real bundle and directory."""
    from sluicegate.enforcer.bundle import belongs_to_bundle, bundle_content

    policies = Path(__file__).resolve().parents[3] / "policies"
    files = {
        str(path.relative_to(policies)): path.read_text(encoding="utf-8")
        for path in policies.rglob("*")
        if path.is_file() and belongs_to_bundle(str(path.relative_to(policies)))
    }
    content = json.loads((policies / "directory.json").read_text(encoding="utf-8"))
    document = {"entities": content["entities"], "service_keys": [], "issuers": []}
    log = PolicyLog(domain=DOMAIN, root_digest=digest_of(root().metadata))
    for offset, event in enumerate(
        [
            root(),
            published(Kind.BUNDLE, 1, bundle_content(files)),
            published(Kind.DIRECTORY, 1, json.dumps(document).encode()),
        ]
    ):
        folded = log.fold(offset, event, NOW_MS)
        assert isinstance(folded, Accepted), folded
    rules = log.at(NOW_MS)
    assert isinstance(rules, Rules), rules
    assert rules.judging.bundle.digest == rules.version.bundle_digest
    assert rules.judging.directory.digest == rules.version.directory_digest
