"""`sluicegate keys rotate` on a running stack: every stage goes on, the old key is refused, a restart holds."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures_stack import StackPlace, broker_of, with_tiny_model

from sluicegate.bundle_folder import read_bundle
from sluicegate.enforcer.policy_kinds import Fault, Kind
from sluicegate.envelopes import Refusal, Term, event_of, make_envelope, publish_envelopes
from sluicegate.home import Home
from sluicegate.installation import EXPIRES_MS, Installation
from sluicegate.keys import REVOKED, KeyKind, load_key, signer_of
from sluicegate.policy_versions import read_policy
from sluicegate.schemas import codec
from sluicegate.schemas.records import Unsent
from sluicegate.streams.policy_tail import PARTITION
from sluicegate.streams.topology import Topology

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[StackPlace]:
    made = with_tiny_model(tmp_path)
    (made.folder / "demo").symlink_to(REPOSITORY / "demo")
    try:
        made.up()
        yield made
    finally:
        made.end()


def asked(place: StackPlace) -> None:
    code, out, err = place.type("ask", "--as", "eva", "Say hello.")
    assert code == 0, f"{out}{err}"


async def attack(place: StackPlace, key: Path) -> tuple[Refusal | object, Fault]:
    """What becomes of a bundle signed by this key: as it is typed, and as it is written straight to the log."""
    settings = place.attached()
    view = await read_policy(settings)
    installation = Installation(settings, Home(root=settings.home))
    made = make_envelope(
        Kind.BUNDLE,
        read_bundle(place.folder / "policies"),
        domain=installation.domain,
        term=Term(version=99, effective_at_ms=view.now_ms, expires_ms=EXPIRES_MS),
        signers=[signer_of(load_key(key))],  # type: ignore[arg-type]
    )
    typed = await publish_envelopes(settings, [made])
    topic = Topology(tenant=settings.tenant, partitions=settings.partitions).policy
    async with broker_of(settings) as broker:
        value = codec.encode(event_of(made))
        await broker.append(topic, PARTITION, [Unsent(key=None, value=value)], timestamp_ms=view.now_ms)
    refused = (await read_policy(settings)).refused
    return typed, refused[-1].rejected.code


@pytest.mark.timeout(600)
def test_keys_are_rotated_under_a_running_stack(place: StackPlace) -> None:
    keys, before = place.home.keys, set(place.pids().values())
    stolen = place.folder / "stolen"
    stolen.mkdir(mode=0o700)
    shutil.copy(keys / "publisher.pem", stolen / "publisher.pem")
    for kind in (KeyKind.PUBLISHER, KeyKind.ROOT, KeyKind.FRESHNESS):
        code, out, err = place.type("keys", "rotate", kind)
        assert code == 0, f"{kind}: {out}{err}"
        assert "published root v" in out
        assert (keys / f"{kind}{REVOKED}").is_file()
    typed, written = asyncio.run(attack(place, stolen / "publisher.pem"))
    assert isinstance(typed, Refusal)
    assert (typed.code, written) == (Fault.UNSIGNED, Fault.UNSIGNED)
    # The new key publishes, and every stage is the process that it was.
    shape = place.folder / "policies" / "shape.cedar"
    shape.write_text(shape.read_text() + "\n// edited\n")
    code, out, err = place.type("policy", "publish")
    assert code == 0, err
    assert "published bundle v2" in out
    asked(place)
    assert set(place.pids().values()) == before
    code, out, err = place.type("policy", "status")
    assert code == 0, f"{out}{err}"
    assert "bundle v2 sha256:" in out.partition("worker")[2], "what decided last"
    # A broker that forgets everything is told all roots again.
    assert place.type("down")[0] == 0
    place.up()
    asked(place)
    roots = asyncio.run(read_policy(place.attached())).of(Kind.ROOT)
    assert [each.version for each in roots] == [1, 2, 3, 4]
