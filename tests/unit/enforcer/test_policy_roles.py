"""Who may publish what: people, not keys, meet thresholds; a directory is delegated by type; refusals say why."""

from dataclasses import replace

import pytest
from policy_events import (
    ANA,
    ANA_AGAIN,
    BEN,
    CLEO,
    NOW_MS,
    PUBLISHER,
    STRANGER,
    event,
    policy_log,
    put,
    roles_event,
    root_event,
    signer,
    speakers,
    stops,
    whole,
)

from sluicegate.enforcer.policy_kinds import Fault, Kind
from sluicegate.enforcer.schedule import DELAY_MS
from sluicegate.enforcer.state import Accepted, Event, PolicyLog, Rejected, Rules
from sluicegate.enforcer.stops import Scope, Stop
from sluicegate.enforcer.trust import Domain
from sluicegate.enforcer.trust_make import (
    Envelope,
    InvalidEnvelope,
    Signatory,
    Speakers,
    add_signature,
    read_envelope,
    sign_roles,
)

OTHER = Domain(env="prod", tenant="heron")
ALL = Stop(scope=Scope.ALL)
LATER_MS = NOW_MS + 10
ROLES = {
    "bundle": speakers("ana", "ben", threshold=2),
    "directory/User": speakers("cleo"),
    "directory/ServiceKey": speakers("ben"),
    "directory": speakers("ana"),
    "stop": speakers("cleo"),
    "resume": speakers("ana", "ben", "cleo", threshold=2),
}


def folded(*events: Event) -> PolicyLog:
    log = policy_log()
    for offset, each in enumerate(events):
        found = log.fold(offset, each, NOW_MS)
        assert isinstance(found, Accepted), found
    return log


def house(roles: dict[str, Speakers] | None = None) -> PolicyLog:
    """Root, roles, a bundle and a directory, each signed by whoever may."""
    return folded(
        root_event(),
        roles_event(1, ROLES if roles is None else roles),
        event(Kind.BUNDLE, 1, b"b", signers=(ANA, BEN) if roles is None else (PUBLISHER,)),
        event(Kind.DIRECTORY, 1, whole("ana"), signers=(ANA,) if roles is None else (PUBLISHER,)),
    )


def code_of(log: PolicyLog, each: Event, time_ms: int = LATER_MS) -> Fault | None:
    found = log.fold(log.position + 1, each, time_ms)
    return found.code if isinstance(found, Rejected) else None


def state_of(log: PolicyLog) -> list[object]:
    """Everything that can be asked of a log but how far it has read."""
    moments = (NOW_MS, LATER_MS, NOW_MS + DELAY_MS, LATER_MS + DELAY_MS, NOW_MS + 100_000)
    rules = [log.at(moment) for moment in moments]
    seen = [(each.judging, each.version, each.stops) if isinstance(each, Rules) else each for each in rules]
    return [*seen, log.stops, log.log_ms, [(log.version_of(kind), log.expires_ms(kind)) for kind in Kind]]


@pytest.mark.parametrize(
    ("signers", "good"),
    [
        ([ANA, BEN], True),
        ([ANA_AGAIN, BEN], True),
        ([ANA, ANA_AGAIN], False),  # two keys of one person: author and approver are the same
        ([ANA], False),
        ([ANA, CLEO], False),
        ([PUBLISHER], False),  # who delegated speaks for it no more
        ([], False),
    ],
)
def test_a_threshold_counts_people_and_not_keys(signers: list[object], good: bool) -> None:
    each = event(Kind.BUNDLE, 2, b"b2", signers=signers, effective_at_ms=LATER_MS)  # type: ignore[arg-type]
    assert code_of(house(), each) is (None if good else Fault.UNSIGNED)


def test_kinds_that_nobody_was_given_stay_with_the_publishers() -> None:
    log = house({"stop": speakers("cleo")})
    assert code_of(log, event(Kind.BUNDLE, 2, b"b2", effective_at_ms=LATER_MS)) is None
    assert code_of(log, stops(Kind.STOP, 1, ALL)) is Fault.UNSIGNED
    assert code_of(log, stops(Kind.STOP, 1, ALL, signers=[CLEO])) is None


@pytest.mark.parametrize(
    ("content", "signers", "code"),
    [
        (put("dora"), [CLEO], None),
        (put("dora"), [ANA], None),  # who speaks for all of it
        (put("dora"), [BEN], Fault.NOT_DELEGATED),
        (put("large", kind="Model"), [CLEO], Fault.NOT_DELEGATED),
        (put("large", kind="Model"), [ANA], None),
        (put("x", kind="Unheard"), [ANA], Fault.UNKNOWN_TYPE),
        (put("x", kind="Unheard"), [CLEO], Fault.NOT_DELEGATED),
        (put("dora"), [STRANGER], Fault.UNSIGNED),
        (put("odd"), [CLEO], Fault.INVALID),  # would conform to no bundle: what was in force stays so
        (whole("dora"), [CLEO], Fault.NOT_DELEGATED),
        (whole("dora"), [ANA], None),
        (whole("dora"), [PUBLISHER], Fault.UNSIGNED),
    ],
)
def test_a_directory_is_delegated_by_entity_type(content: bytes, signers: list[object], code: Fault | None) -> None:
    log = house()
    before = state_of(log)
    each = event(Kind.DIRECTORY, 2, content, signers=signers, effective_at_ms=LATER_MS)  # type: ignore[arg-type]
    assert code_of(log, each) is code
    assert (state_of(log) == before) is (code is not None)


def test_a_change_follows_the_very_version_before_it() -> None:
    log = house()
    later = event(Kind.DIRECTORY, 3, put("eve"), signers=[CLEO], effective_at_ms=LATER_MS + 1)
    assert code_of(log, later) is Fault.OUT_OF_ORDER
    assert code_of(log, event(Kind.DIRECTORY, 2, put("dora"), signers=[CLEO], effective_at_ms=LATER_MS)) is None
    assert code_of(log, later) is None
    rules = log.at(LATER_MS + DELAY_MS)
    assert isinstance(rules, Rules)
    assert rules.judging == ("b", "ana dora eve")
    alone = folded(root_event(), event(Kind.BUNDLE, 1, b"b"))
    assert code_of(alone, event(Kind.DIRECTORY, 1, put("dora"))) is Fault.OUT_OF_ORDER


BUNDLE_2 = event(Kind.BUNDLE, 2, b"b2", signers=(ANA, BEN), effective_at_ms=LATER_MS)
EXPIRES_MS = NOW_MS + 5_000


@pytest.mark.parametrize(
    ("each", "code"),
    [
        (replace(BUNDLE_2, metadata=b'{"signatures":[],"signed":{}}'), Fault.MALFORMED),
        (event(Kind.BUNDLE, 2, b"b2", signers=(), effective_at_ms=LATER_MS), Fault.UNSIGNED),
        (event(Kind.BUNDLE, 2, b"b2", signers=(STRANGER, PUBLISHER), effective_at_ms=LATER_MS), Fault.UNSIGNED),
        (replace(BUNDLE_2, content=b"b3"), Fault.TAMPERED),
        (replace(BUNDLE_2, metadata=BUNDLE_2.metadata.replace(b'"version":2', b'"version":3')), Fault.FOREIGN),
        (replace(BUNDLE_2, version=3), Fault.FOREIGN),
        (
            event(Kind.BUNDLE, 2, b"b2", signers=(ANA, BEN), effective_at_ms=LATER_MS, expires_ms=LATER_MS - 10),
            Fault.EXPIRED,
        ),
        (event(Kind.BUNDLE, 1, b"older", signers=(ANA, BEN), effective_at_ms=LATER_MS), Fault.OLDER),
        (event(Kind.BUNDLE, 1, b"b", signers=(ANA, BEN)), Fault.OLDER),  # the very same once more
        (event(Kind.BUNDLE, 2, b"b2", signers=(ANA, BEN), effective_at_ms=NOW_MS), Fault.BACKDATED),
        (event(Kind.BUNDLE, 2, b"b2", signers=(ANA, BEN), effective_at_ms=LATER_MS, domain=OTHER), Fault.FOREIGN),
        (event(Kind.DIRECTORY, 3, put("eve"), signers=(CLEO,), effective_at_ms=LATER_MS), Fault.OUT_OF_ORDER),
        (event(Kind.DIRECTORY, 2, put("x", kind="Odd"), signers=(ANA,), effective_at_ms=LATER_MS), Fault.UNKNOWN_TYPE),
        (event(Kind.DIRECTORY, 2, put("x"), signers=(BEN,), effective_at_ms=LATER_MS), Fault.NOT_DELEGATED),
        (event(Kind.DIRECTORY, 2, b"{}", signers=(ANA,), effective_at_ms=LATER_MS), Fault.INVALID),
        (event(Kind.KEYS, 1, b"{}"), Fault.INVALID),
        (event(Kind.STOP, 1, b'{"stops":[]}', signers=(CLEO,)), Fault.INVALID),
        (stops(Kind.STOP, 1, ALL), Fault.UNSIGNED),
        (stops(Kind.RESUME, 1, ALL, signers=(CLEO,)), Fault.UNSIGNED),
        (stops(Kind.RESUME, 1, ALL, signers=(CLEO, BEN)), Fault.INVALID),  # it does not stand
        (roles_event(1, ROLES, effective_at_ms=LATER_MS), Fault.OLDER),
        (roles_event(2, ROLES), Fault.BACKDATED),
        (roles_event(2, ROLES, signers=(ANA, BEN), effective_at_ms=LATER_MS), Fault.UNSIGNED),
        (roles_event(2, ROLES, domain=OTHER, effective_at_ms=LATER_MS), Fault.FOREIGN),
        (roles_event(2, ROLES, expires_ms=LATER_MS - 10, effective_at_ms=LATER_MS), Fault.EXPIRED),
        (replace(roles_event(2, ROLES, effective_at_ms=LATER_MS), content=b"x"), Fault.MALFORMED),
        (root_event(1), Fault.OLDER),
        (root_event(3), Fault.OUT_OF_ORDER),
        (root_event(2, domain=OTHER), Fault.FOREIGN),
        (root_event(2, expires_ms=LATER_MS - 10), Fault.EXPIRED),
    ],
)
def test_bad_events_are_refused_with_a_code_and_change_nothing(each: Event, code: Fault) -> None:
    log = house()
    before = state_of(log)
    assert code_of(log, each) is code
    assert state_of(log) == before
    # The positive control: the genuine successor is taken after it, and then the state is another.
    assert code_of(log, BUNDLE_2) is None
    assert state_of(log) != before


def test_roles_can_be_taken_away_from_the_place_in_the_log_on() -> None:
    log = house()
    without_cleo = {**ROLES, "directory/User": speakers("ben")}
    assert code_of(log, roles_event(2, without_cleo, effective_at_ms=LATER_MS)) is None
    assert code_of(log, event(Kind.DIRECTORY, 2, put("x"), signers=[CLEO], effective_at_ms=LATER_MS)) is not None
    assert code_of(log, event(Kind.DIRECTORY, 2, put("x"), signers=[BEN], effective_at_ms=LATER_MS)) is None


def test_expired_roles_vouch_for_nothing() -> None:
    log = folded(
        root_event(),
        roles_event(1, {"stop": speakers("cleo")}, expires_ms=EXPIRES_MS),
        event(Kind.BUNDLE, 1, b"b"),
        event(Kind.DIRECTORY, 1, whole("ana")),
    )
    assert isinstance(log.at(EXPIRES_MS - 1), Rules)
    assert "roles" in str(log.at(EXPIRES_MS))
    assert code_of(log, stops(Kind.STOP, 1, ALL, signers=[CLEO]), EXPIRES_MS) is Fault.EXPIRED
    assert code_of(log, roles_event(2, {"stop": speakers("cleo")}, effective_at_ms=LATER_MS), EXPIRES_MS) is None
    assert code_of(log, stops(Kind.STOP, 1, ALL, signers=[CLEO]), EXPIRES_MS) is None


def test_the_logs_own_time_never_steps_back() -> None:
    """By its own stamp the second event would be in force earlier, and the third would not have expired."""
    log = house()
    assert code_of(log, BUNDLE_2, NOW_MS + 4_000) is None
    change = event(Kind.DIRECTORY, 2, put("dora"), signers=[CLEO], effective_at_ms=LATER_MS)
    assert code_of(log, change, NOW_MS) is None
    answers = [log.at(NOW_MS + 4_000 + later_ms) for later_ms in (DELAY_MS - 1, DELAY_MS)]
    assert [each.judging for each in answers if isinstance(each, Rules)] == [("b", "ana"), ("b2", "ana dora")]
    expired = event(
        Kind.DIRECTORY, 3, put("eve"), signers=[CLEO], effective_at_ms=LATER_MS + 1, expires_ms=NOW_MS + 3_000
    )
    assert code_of(log, expired, NOW_MS) is Fault.EXPIRED


def test_one_person_after_another_signs_an_envelope() -> None:
    first = event(Kind.BUNDLE, 2, b"b2", signers=[ANA], effective_at_ms=LATER_MS)
    envelope = Envelope(metadata=first.metadata, content=first.content)
    assert code_of(house(), first) is Fault.UNSIGNED
    carried = add_signature(read_envelope(envelope.to_bytes()), BEN)
    assert code_of(house(), replace(first, metadata=carried.metadata, content=carried.content)) is None
    again = add_signature(read_envelope(envelope.to_bytes()), ANA)
    assert code_of(house(), replace(first, metadata=again.metadata)) is Fault.UNSIGNED


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"metadata":1,"content":""}', b'{"metadata":"","metadata":""}'])
def test_what_is_no_envelope(data: bytes) -> None:
    with pytest.raises(InvalidEnvelope):
        read_envelope(data)


def test_nobody_signs_content_that_the_metadata_does_not_name() -> None:
    first = event(Kind.BUNDLE, 2, b"b2", signers=[ANA], effective_at_ms=LATER_MS)
    for envelope in (
        Envelope(metadata=first.metadata, content=b"other"),
        Envelope(metadata=b"{}", content=b"b2"),
        Envelope(metadata=roles_event(2, ROLES).metadata, content=b"b2"),
    ):
        with pytest.raises(InvalidEnvelope):
            add_signature(envelope, BEN)


@pytest.mark.parametrize(
    "roles",
    [
        {"bundle": Speakers(signatories=(Signatory(holder="ana", key=ANA.public_key),), threshold=2)},
        {"bundle": speakers("ana", threshold=2)},  # two keys, one person
        {"bundle": speakers("ana", threshold=0)},
        {"bundle": speakers("ana"), "stop": Speakers(signatories=(Signatory(holder="ben", key=ANA.public_key),))},
        {"root": speakers("ana")},
        {"directory/": speakers("ana")},
        {"directory/User/x": speakers("ana")},
    ],
)
def test_roles_that_cannot_be_met_or_do_not_exist_are_not_made(roles: dict[str, Speakers]) -> None:
    with pytest.raises(ValueError, match=r"cannot be met|two holders|no such role|top-level"):
        roles_event(1, roles)


def test_one_key_under_two_people_meets_no_threshold_of_two() -> None:
    """As someone would write it who signs roles without `sign_roles`."""
    twin = signer(11).public_key
    twin.keyid = "twin"
    pair = Speakers(
        signatories=(Signatory(holder="ana", key=ANA.public_key), Signatory(holder="ben", key=twin)), threshold=2
    )
    metadata = sign_roles(
        {"bundle": pair},
        domain=Domain(env="dev", tenant="heron"),
        version=1,
        effective_at_ms=NOW_MS,
        expires_ms=NOW_MS + 10_000,
        signers=[PUBLISHER],
    )
    log = folded(root_event())
    assert code_of(log, replace(roles_event(1, ROLES), metadata=metadata)) is Fault.MALFORMED
