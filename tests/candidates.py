"""The example company with a candidate beside its bundle, and requests that both can be asked."""

import json
from functools import cache

from company import DOMAIN, NOON_MS, POLICIES, document, gate, policy_events, private_key, record, request

from sluicegate.bundle_folder import read_bundle
from sluicegate.enforcer.bundle import bundle_content
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.schedule import DELAY_MS
from sluicegate.enforcer.state import Accepted, PolicyLog
from sluicegate.enforcer.trust import digest_of
from sluicegate.enforcer.trust_make import sign_targets
from sluicegate.keys import signer_of
from sluicegate.schemas import codec
from sluicegate.schemas.events import DecisionMade, PolicyKind, PolicyPublished
from sluicegate.schemas.records import Record

BUNDLE = read_bundle(POLICIES)
START_MS = NOON_MS - DELAY_MS - 1_000
SECRET = "Mara Lind's number is 020 7946 0958"


def edited(file: str, old: str, new: str) -> bytes:
    """The company's bundle with one change."""
    files = json.loads(BUNDLE)
    assert files[file].count(old) == 1
    return bundle_content(files | {file: files[file].replace(old, new)})


def candidate_event(content: bytes, *, version: int = 1, effective_at_ms: int = START_MS) -> PolicyPublished:
    """A candidate, or with no content its end, as the publisher signs it."""
    metadata = sign_targets(
        Kind.SHADOW,
        content,
        domain=DOMAIN,
        version=version,
        effective_at_ms=effective_at_ms,
        expires_ms=NOON_MS * 2,
        signers=(signer_of(private_key("publisher")),),
    )
    return PolicyPublished(kind=PolicyKind.SHADOW, version=version, metadata=metadata, content=content)


@cache
def log_with(candidate: bytes | None) -> PolicyLog:
    """The company's policy with a candidate that stands at noon, or with none."""
    return fresh_log(*(() if candidate is None else (candidate_event(candidate),)))


def fresh_log(*more: PolicyPublished) -> PolicyLog:
    """The company's policy and these events, folded."""
    events = [*policy_events(), *more]
    log = PolicyLog(domain=DOMAIN, root_digest=digest_of(events[0].metadata))
    for offset, event in enumerate(events):
        # Through the bytes of its newest schema, as it would come from the log.
        found = log.fold(offset, codec.decode(codec.encode(event), type(event)), START_MS)
        assert isinstance(found, Accepted), found
    return log


@cache
def traffic() -> tuple[Record, ...]:
    """60 requests that all bundles here can be asked, some denied; each on the partition of its key."""
    made: list[Record] = []
    for number in range(60):
        person = ("ana.support", "ben.support", "unknown.person")[number % 3]
        body = request(f"r-{number}", documents=(document("tickets", ("text", SECRET), ("phone", "020 7946 0958")),))
        made.append(record(body, person=person, offset=number))
    return tuple(made)


def decided(each: Record, log: PolicyLog) -> tuple[bytes | None, DecisionMade]:
    """The decision of one request, in bytes and read."""
    proposal = gate(each.partition, log=log).decide([each], frontier=each.offset, time_ms=0, clock_ms=None)
    (output,) = proposal.outputs
    return output.value, codec.decode(output.value, DecisionMade)
