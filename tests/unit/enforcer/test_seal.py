"""Seals: a genuine slice is effective where it was sealed for; every alteration, place and key but that one is void."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sluicegate.enforcer.log import SealedLog
from sluicegate.enforcer.seal import (
    SEAL_BYTES_MAX,
    SEAL_HEADER,
    Effective,
    Place,
    Signer,
    StageKey,
    Verifier,
    Void,
    as_landed,
    pre_authentication_encoding,
    seal_slice,
)
from sluicegate.schemas import codec
from sluicegate.schemas.errors import ContinuityError
from sluicegate.schemas.events import SliceSeal
from sluicegate.schemas.ids import KeyId
from sluicegate.schemas.records import Record, Unsent

PRIVATE = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
PLACE = Place(
    env="dev", tenant="acme", epoch=3, topic="acme.decisions", partition=1, event="decision", stage="enforcer"
)
KEY = StageKey(key_id=KeyId("e1"), stage="enforcer", public=PRIVATE.public_key(), not_before_ms=100, revoked_at_ms=None)


def sealed(
    at: int = 40, count: int = 5, *, place: Place = PLACE, time_ms: int = 500, first: int = 40
) -> tuple[Unsent, ...]:
    records = [Unsent(key=b"k", value=b"value %d" % index, headers=(("w", b"1"),)) for index in range(count)]
    return seal_slice(
        records,
        place=place,
        at=at,
        source_first=first,
        source_last=first + count - 1,
        time_ms=time_ms,
        policy_position=9,
        signer=Signer(key_id=KeyId("e1"), private=PRIVATE),
    )


def landed(batch: tuple[Unsent, ...], base: int = 40, place: Place = PLACE) -> tuple[Record, ...]:
    return as_landed(batch, place=place, base=base)


def verifier(key: StageKey = KEY, place: Place = PLACE) -> Verifier:
    return Verifier(place, lambda: {key.key_id: key})


def test_a_genuine_slice_is_effective_where_it_was_sealed_for() -> None:
    for count in (1, 2, 3, 5, 512):
        assert all(isinstance(verifier().verify(record), Effective) for record in landed(sealed(count=count)))


def reason(verdict: Effective | Void) -> str:
    return verdict.reason if isinstance(verdict, Void) else "effective"


@pytest.mark.parametrize("base", [0, 39, 41, 1_000_000])
def test_the_same_bytes_anywhere_else_are_void(base: int) -> None:
    assert {reason(verifier().verify(record)) for record in landed(sealed(), base)} == {"sealed for another offset"}


@pytest.mark.parametrize(
    "change",
    [
        {"env": "prod"},
        {"tenant": "other"},
        {"epoch": 4},
        {"topic": "acme.generations"},
        {"partition": 0},
    ],
)
def test_a_seal_for_another_place_is_void(change: dict[str, object]) -> None:
    elsewhere = replace(PLACE, **change)  # type: ignore[arg-type]
    record = landed(sealed(place=elsewhere))[0]
    assert reason(verifier().verify(record)) == "sealed for another place"


def test_a_record_read_from_another_topic_is_void() -> None:
    record = replace(landed(sealed())[0], topic="acme.releases")
    assert reason(verifier().verify(record)) == "read from another place"


def test_a_seal_made_for_another_event_type_is_void() -> None:
    record = landed(sealed(place=replace(PLACE, event="release")))[0]
    assert reason(verifier().verify(record)) == "signature does not verify"


def test_altered_bytes_are_void_and_their_neighbours_are_not() -> None:
    records = landed(sealed())
    check = verifier()
    assert reason(check.verify(replace(records[2], value=b"value 9"))) == "bytes are not those sealed"
    assert reason(check.verify(replace(records[2], key=b"K"))) == "bytes are not those sealed"
    assert reason(check.verify(replace(records[2], key=None))) == "bytes are not those sealed"
    assert reason(check.verify(records[3])) == "effective"


def test_a_neighbours_seal_is_void() -> None:
    records = landed(sealed())
    swapped = replace(records[1], headers=records[0].headers)
    assert reason(verifier().verify(swapped)) == "sealed for another offset"


def test_header_trouble_is_void() -> None:
    record = landed(sealed())[0]
    seal = (SEAL_HEADER, record.header(SEAL_HEADER) or b"")
    assert reason(verifier().verify(replace(record, headers=()))) == "no seal"
    assert reason(verifier().verify(replace(record, headers=(seal, seal)))) == "no seal"
    assert reason(verifier().verify(replace(record, headers=((SEAL_HEADER, seal[1][:-1]),)))) == "unreadable seal"


def test_every_flipped_bit_of_the_seal_voids_it() -> None:
    record = landed(sealed(count=3))[1]
    header = record.header(SEAL_HEADER) or b""
    check = verifier()
    assert reason(check.verify(record)) == "effective"
    for position in range(len(header)):
        broken = bytearray(header)
        broken[position] ^= 1
        verdict = check.verify(replace(record, headers=((SEAL_HEADER, bytes(broken)),)))
        assert isinstance(verdict, Void), position


def test_keys_must_be_the_stages_and_in_force() -> None:
    record = landed(sealed())[0]
    assert reason(verifier(replace(KEY, stage="runner")).verify(record)) == "key is not the writing stage's"
    assert reason(Verifier(PLACE, dict).verify(record)) == "key is not the writing stage's"
    assert reason(verifier(replace(KEY, not_before_ms=501)).verify(record)) == "key is not in force"
    assert reason(verifier(replace(KEY, revoked_at_ms=500)).verify(record)) == "key is not in force"
    assert reason(verifier(replace(KEY, revoked_at_ms=501)).verify(record)) == "effective"
    other = Ed25519PrivateKey.from_private_bytes(b"\x08" * 32).public_key()
    assert reason(verifier(replace(KEY, public=other)).verify(record)) == "signature does not verify"


def test_a_verified_slice_is_not_remembered_under_another_key() -> None:
    record = landed(sealed())[0]
    key = KEY
    check = Verifier(PLACE, lambda: {key.key_id: key})
    assert reason(check.verify(record)) == "effective"
    key = replace(KEY, public=Ed25519PrivateKey.from_private_bytes(b"\x08" * 32).public_key())
    assert reason(check.verify(record)) == "signature does not verify"


def test_pae_is_dsse_s() -> None:
    """The worked example of DSSE's protocol.md, with our payload type."""
    assert pre_authentication_encoding("decision", b"hello world") == (
        b"DSSEv1 38 application/vnd.sluicegate.decision.v1 11 hello world"
    )


def test_a_seal_is_made_once_and_never_empty() -> None:
    signer = Signer(key_id=KeyId("e1"), private=PRIVATE)
    arguments = {"at": 0, "source_first": 0, "source_last": 0, "time_ms": 1, "policy_position": 0}
    with pytest.raises(ValueError, match="1 to 512"):
        seal_slice((), place=PLACE, signer=signer, **arguments)
    with pytest.raises(ValueError, match="sealed once"):
        seal_slice(sealed(), place=PLACE, signer=signer, **arguments)


def test_the_log_refuses_a_torn_slice() -> None:
    records = landed(sealed(at=0, first=0), base=0)
    whole = SealedLog(verifier())
    assert [isinstance(whole.observe(record), Effective) for record in records] == [True] * 5
    torn = SealedLog(verifier())
    torn.observe(records[0])
    with pytest.raises(ContinuityError, match="torn"):
        torn.observe(records[2])


def test_the_log_refuses_a_slice_that_skips_sources() -> None:
    log = SealedLog(verifier())
    for record in landed(sealed(at=0, first=0), base=0):
        log.observe(record)
    assert (log.end, log.source_next) == (5, 5)
    skipped = landed(sealed(at=5, first=6), base=5)
    with pytest.raises(ContinuityError, match="frontier is 5"):
        log.observe(skipped[0])


def test_event_time_never_runs_backwards() -> None:
    log = SealedLog(verifier())
    for record in landed(sealed(at=0, first=0, time_ms=500), base=0):
        log.observe(record)
    earlier = landed(sealed(at=5, first=5, time_ms=499), base=5)
    assert reason(log.observe(earlier[0])) == "sealed before the event time of the log"
    assert log.time_ms == 500


def test_a_seal_is_no_larger_than_it_is_reckoned() -> None:
    long = replace(PLACE, env="e" * 32, tenant="t" * 32, topic="t" * 32 + ".generations", epoch=2**31, partition=1023)
    batch = sealed(at=2**62, first=2**62, count=512, place=long, time_ms=2**50)
    sizes = [each.size_bytes() - Unsent(key=each.key, value=each.value).size_bytes() for each in batch]
    assert SEAL_BYTES_MAX / 2 < max(sizes) <= SEAL_BYTES_MAX


def test_index_and_path_stand_in_the_seal() -> None:
    record = landed(sealed(count=4))[2]
    seal = codec.decode(record.header(SEAL_HEADER), SliceSeal)
    assert (seal.index, len(seal.path)) == (2, 2)
