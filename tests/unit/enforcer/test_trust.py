"""Policy metadata: what the root's keys signed for this environment counts; no forgery, rollback or swap does."""

import json
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata

from sluicegate.enforcer.policy_kinds import Fault, Kind, role_of
from sluicegate.enforcer.trust import (
    METADATA_BYTES_MAX,
    Domain,
    TrustedContent,
    TrustedRoot,
    Untrusted,
    digest_of,
    verify_content,
    verify_root,
)
from sluicegate.enforcer.trust_make import make_root, sign_targets

NOW_MS = 1_800_000_000_000
YEAR_MS = 365 * 24 * 3600 * 1000
DOMAIN = Domain(env="dev", tenant="heron")
CONTENT = b'{"files":{}}'


def signer(seed: int) -> CryptoSigner:
    return CryptoSigner(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


ROOTS = [signer(seed) for seed in (1, 2, 3)]
PUBLISHERS = [signer(seed) for seed in (11, 12, 13)]
STRANGER = signer(99)


def root_bytes(
    *,
    version: int = 1,
    roots: list[CryptoSigner] = ROOTS[:1],
    threshold: int = 1,
    publishers: list[CryptoSigner] = PUBLISHERS[:1],
    publisher_threshold: int = 1,
    signers: list[CryptoSigner] | None = None,
    domain: Domain = DOMAIN,
    expires_ms: int = NOW_MS + YEAR_MS,
) -> bytes:
    return make_root(
        domain=domain,
        version=version,
        expires_ms=expires_ms,
        root_keys=[each.public_key for each in roots],
        root_threshold=threshold,
        publisher_keys=[each.public_key for each in publishers],
        publisher_threshold=publisher_threshold,
        signers=roots if signers is None else signers,
    )


def taken(
    metadata: bytes,
    *,
    version: int = 1,
    previous: TrustedRoot | None = None,
    pinned: bytes | None = None,
    time_ms: int = NOW_MS,
    domain: Domain = DOMAIN,
) -> TrustedRoot | Untrusted:
    return verify_root(
        metadata,
        version=version,
        domain=domain,
        previous=previous,
        pinned=digest_of(metadata if pinned is None else pinned),
        time_ms=time_ms,
    )


def trusted_root(**changes: object) -> TrustedRoot:
    found = taken(root_bytes(**changes))  # type: ignore[arg-type]
    assert isinstance(found, TrustedRoot), found
    return found


def signed(
    kind: Kind = Kind.BUNDLE,
    *,
    version: int = 1,
    content: bytes = CONTENT,
    signers: list[CryptoSigner] = PUBLISHERS[:1],
    domain: Domain = DOMAIN,
    effective_at_ms: int = NOW_MS,
    expires_ms: int = NOW_MS + YEAR_MS,
) -> bytes:
    return sign_targets(
        kind,
        content,
        domain=domain,
        version=version,
        effective_at_ms=effective_at_ms,
        expires_ms=expires_ms,
        signers=signers,
    )


def checked(
    metadata: bytes,
    kind: Kind = Kind.BUNDLE,
    *,
    version: int = 1,
    content: bytes = CONTENT,
    root: TrustedRoot | None = None,
    time_ms: int = NOW_MS,
) -> TrustedContent | Untrusted:
    return verify_content(
        kind,
        metadata,
        content,
        version=version,
        domain=DOMAIN,
        root=root or trusted_root(),
        time_ms=time_ms,
    )


@pytest.mark.parametrize("kind", [Kind.KEYS, Kind.BUNDLE, Kind.DIRECTORY])
def test_what_the_publisher_signed_counts(kind: Kind) -> None:
    found = checked(signed(kind, version=3), kind, version=3)
    assert found == TrustedContent(
        kind=kind,
        signed_as=frozenset({kind.lower()}),
        version=3,
        effective_at_ms=NOW_MS,
        expires_ms=NOW_MS + YEAR_MS,
        digest=digest_of(CONTENT),
        content=CONTENT,
    )


def test_metadata_is_a_function_of_its_arguments() -> None:
    assert signed() == signed()
    assert root_bytes() == root_bytes()


@pytest.mark.parametrize(("signers", "good"), [([0], False), ([0, 1], True), ([0, 0], False), ([1, 2], True)])
def test_a_threshold_of_two_publishers(signers: list[int], good: bool) -> None:
    root = trusted_root(publishers=PUBLISHERS, publisher_threshold=2)
    answer = checked(signed(signers=[PUBLISHERS[index] for index in signers]), root=root)
    assert isinstance(answer, TrustedContent) is good


def test_a_bundle_signed_by_a_stranger_or_by_nobody_or_by_the_root() -> None:
    for signers in ([STRANGER], [], ROOTS[:1]):
        answer = checked(signed(signers=signers))
        assert answer == Untrusted(
            fault=Fault.UNSIGNED, reason="BUNDLE version 1 lacks signatures of those who may publish it"
        )


def test_a_strangers_signature_under_the_publishers_key_id() -> None:
    document = json.loads(signed(signers=[STRANGER]))
    document["signatures"][0]["keyid"] = PUBLISHERS[0].public_key.keyid
    assert isinstance(checked(json.dumps(document).encode()), Untrusted)


def test_content_swapped_under_valid_metadata() -> None:
    for content in (CONTENT + b" ", b"", CONTENT.replace(b"f", b"F", 1)):
        assert checked(signed(), content=content) == Untrusted(
            fault=Fault.TAMPERED, reason="the content is not the one that was signed"
        )


@pytest.mark.parametrize("domain", [Domain(env="prod", tenant="heron"), Domain(env="dev", tenant="other")])
def test_metadata_of_another_environment_or_tenant(domain: Domain) -> None:
    assert isinstance(checked(signed(domain=domain)), Untrusted)
    metadata = root_bytes(domain=domain)
    assert isinstance(taken(metadata), Untrusted)


def test_metadata_of_another_kind() -> None:
    assert isinstance(checked(signed(Kind.DIRECTORY), Kind.BUNDLE), Untrusted)
    assert isinstance(checked(root_bytes(), Kind.BUNDLE), Untrusted)
    assert isinstance(taken(signed()), Untrusted)


def test_an_event_that_says_another_version_than_its_metadata() -> None:
    assert isinstance(checked(signed(version=2), version=3), Untrusted)
    assert isinstance(taken(root_bytes(version=2), version=1), Untrusted)


def edited(metadata: bytes, edit: Callable[[dict[str, object]], object]) -> bytes:
    """Metadata with its signed part edited and truly signed again by the publisher."""
    document = json.loads(metadata)
    edit(document["signed"])
    again = Metadata.from_dict(document)
    again.sign(PUBLISHERS[0])
    return again.to_bytes()


@pytest.mark.parametrize(
    "edit",
    [
        lambda signed: signed["x-sluicegate"].update(effective_at_ms="now"),
        lambda signed: signed["x-sluicegate"].update(effective_at_ms=True),
        lambda signed: signed["x-sluicegate"].update(effective_at_ms=-1),
        lambda signed: signed["x-sluicegate"].update(more=1),
        lambda signed: signed.pop("x-sluicegate"),
        lambda signed: signed.update({"x-sluicegate": []}),
        lambda signed: signed.update(more=1),
        lambda signed: signed["targets"].update({"other.json": signed["targets"]["bundle.json"].copy()}),
        lambda signed: signed["targets"].clear(),
        lambda signed: signed["targets"]["bundle.json"]["hashes"].update(md5="00"),
        lambda signed: signed.update(delegations={"keys": {}, "roles": []}),
        lambda signed: signed.update(version=True),
    ],
)
def test_signed_metadata_of_another_shape(edit: Callable[[dict[str, object]], object]) -> None:
    assert isinstance(checked(edited(signed(), lambda _: None)), TrustedContent)
    assert isinstance(checked(edited(signed(), edit)), Untrusted)


@pytest.mark.parametrize(
    "metadata",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 50_000,
        b" " * (METADATA_BYTES_MAX + 1),
        signed()[:-1] + b',"signed":{}}',
        signed()[:-1] + b',"more":1}',
        signed().replace(b'"sig":"', b'"sig":["').replace(b'"}],"signed"', b'"]}],"signed"'),
        signed().replace(b'"version":1', b'"version":1.5'),
        signed().replace(b'"version":1', b'"version":"1"'),
        signed().replace(b'"_type":"targets"', b'"_type":"snapshot"'),
        signed().replace(b'"keyid":"', b'"keyid":"\\ud800'),
    ],
)
def test_metadata_that_is_none(metadata: bytes) -> None:
    assert isinstance(checked(metadata), Untrusted)
    assert isinstance(taken(metadata), Untrusted)


@pytest.mark.parametrize(("late_ms", "good"), [(-1000, True), (0, False), (1, False)])
def test_expiry_counts_against_the_time_given(late_ms: int, good: bool) -> None:
    at = NOW_MS + YEAR_MS + late_ms
    later = trusted_root(expires_ms=NOW_MS + 9 * YEAR_MS)
    assert isinstance(checked(signed(), root=later, time_ms=at), TrustedContent) is good
    assert isinstance(taken(root_bytes(), time_ms=at), TrustedRoot) is good
    # Under an expired root nothing counts, however fresh.
    fresh = signed(expires_ms=NOW_MS + 9 * YEAR_MS)
    assert isinstance(checked(fresh, root=trusted_root(), time_ms=at), TrustedContent) is good


def test_the_first_root_is_the_pinned_one() -> None:
    own = root_bytes(roots=[STRANGER], publishers=[STRANGER])
    assert isinstance(taken(own), TrustedRoot), "sound by itself"
    assert taken(own, pinned=root_bytes()) == Untrusted(
        fault=Fault.NO_ROOT, reason="the first root is not the pinned one"
    )


def test_a_root_signs_itself_up_to_its_threshold() -> None:
    for signers, good in (([0], False), ([0, 1], True), ([], False), ([0, 0], False), ([2, 1], True)):
        metadata = root_bytes(roots=ROOTS, threshold=2, signers=[ROOTS[index] for index in signers])
        assert isinstance(taken(metadata), TrustedRoot) is good


@pytest.mark.parametrize(
    ("signers", "good"),
    [
        ([STRANGER], False),  # the new root signed only by itself
        ([ROOTS[0]], False),  # the old root alone
        ([ROOTS[0], STRANGER], True),
        ([PUBLISHERS[0], STRANGER], False),
    ],
)
def test_a_new_root_is_signed_by_the_old_and_by_itself(signers: list[CryptoSigner], good: bool) -> None:
    metadata = root_bytes(version=2, roots=[STRANGER], signers=signers)
    assert isinstance(taken(metadata, version=2, previous=trusted_root()), TrustedRoot) is good


@pytest.mark.parametrize(("version", "good"), [(1, False), (2, True), (3, False)])
def test_root_versions_rise_by_one(version: int, good: bool) -> None:
    metadata = root_bytes(version=version)
    assert isinstance(taken(metadata, version=version, previous=trusted_root()), TrustedRoot) is good


def test_an_expired_root_still_hands_over() -> None:
    old = trusted_root(expires_ms=NOW_MS + 1000)
    new = taken(root_bytes(version=2), version=2, previous=old, time_ms=NOW_MS + 5000)
    assert isinstance(new, TrustedRoot)


def test_one_key_under_two_ids_does_not_meet_a_threshold_of_two() -> None:
    material = ROOTS[0].public_key.keyval
    twice = [SSlibKey(name, "ed25519", "ed25519", dict(material)) for name in ("a", "b")]
    private = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
    metadata = make_root(
        domain=DOMAIN,
        version=1,
        expires_ms=NOW_MS + YEAR_MS,
        root_keys=twice,
        root_threshold=2,
        publisher_keys=[PUBLISHERS[0].public_key],
        publisher_threshold=1,
        signers=[CryptoSigner(private, key) for key in twice],
    )
    assert isinstance(taken(metadata), Untrusted)


@pytest.mark.parametrize(("count", "threshold"), [(1, 2), (1, 0), (0, 1)])
def test_a_threshold_that_no_keys_can_meet_is_not_made(count: int, threshold: int) -> None:
    with pytest.raises(ValueError, match="cannot be met"):
        root_bytes(roots=ROOTS[:count], threshold=threshold)


def test_a_root_vouches_for_no_content() -> None:
    with pytest.raises(ValueError, match="keys"):
        signed(Kind.ROOT)
    assert {role_of(kind) for kind in Kind} == {"root", "targets"}
