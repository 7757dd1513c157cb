"""The producers' guide: its lines of Python do what it says, and it leaves out no field, setting or outcome."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import company
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from stages import KEYS, PRIVATE, place, sealed

from sluicegate.client import ClientConfig
from sluicegate.enforcer.credentials import parse_credentials
from sluicegate.enforcer.identity import prove
from sluicegate.enforcer.judgement import Refused
from sluicegate.enforcer.partition import partition_of
from sluicegate.enforcer.seal import SEAL_HEADER
from sluicegate.enforcer.seen import SeenProofs
from sluicegate.keys import key_id_of
from sluicegate.schemas import codec
from sluicegate.schemas.codes import ReleaseOutcome
from sluicegate.schemas.ids import KeyId
from sluicegate.schemas.records import Record, Unsent
from sluicegate.schemas.strict_json import loads_object

PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SETTING = re.compile(r"\bSG_[A-Z_]+\b")
SUFFIXES = {".py", ".mjs", ".go", ".java"}


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "producing.md").read_text(encoding="utf-8")


def run(page: str, name: str) -> dict[str, Any]:
    """The names that the one block of Python with this function in it makes."""
    (shown,) = [block for block in PYTHON.findall(page) if f"def {name}(" in block]
    names: dict[str, Any] = {}
    exec(compile(shown, "producing.md", "exec"), names)
    return names


def test_every_block_of_python_is_tried_here(page: str) -> None:
    tried = ("prove", "verify", "configured")
    assert len(PYTHON.findall(page)) == len(tried)
    assert [name for name in tried if not callable(run(page, name)[name])] == []


def test_the_lines_for_the_proof_prove_a_request(page: str) -> None:
    prove_record: Callable[..., str] = run(page, "prove")["prove"]
    private = company.private_key("nightly-triage")
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key, value = b'Service::"nightly-triage"', codec.encode(company.request())
    proof = prove_record(pem, key_id_of(private, "service"), "nightly-triage", company.AUDIENCE, key, value)
    credentials = parse_credentials(loads_object(company.directory_content()))
    for body, name in ((value, key), (value + b"\0", key), (value, b'Service::"rogue-app"')):
        record = Record(
            topic=company.TOPIC,
            partition=partition_of(name, company.PARTITIONS),
            offset=0,
            timestamp_ms=0,
            key=name,
            value=body,
            headers=(("sg-proof", proof.encode()),),
        )
        found = prove(
            record,
            audience=company.AUDIENCE,
            partition_count=company.PARTITIONS,
            time_ms=time.time_ns() // 1_000_000,
            credentials=credentials,
            seen=SeenProofs(),
        )
        assert isinstance(found, Refused) is ((body, name) != (value, key))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
def test_the_lines_for_the_seal_take_every_record_of_a_slice_and_nothing_else(
    page: str, repository: Path, count: int
) -> None:
    verify: Callable[..., None] = run(page, "verify")["verify"]
    records = [Unsent(key=None if n % 2 else b"k%d" % n, value=b"release %d" % n) for n in range(count)]
    slices = sealed("redactor", records, at=7, source_first=0, source_last=count - 1)
    there: dict[str, Any] = {
        "env": "test",
        "tenant": "t",
        "epoch": 1,
        "partition": place("redactor").partition,
        "keys": {"redactor": KEYS[KeyId("redactor")].public.public_bytes_raw()},
    }
    folder = repository / "schemas" / "avro"
    for record in slices:
        header = dict(record.headers)[SEAL_HEADER]
        verify(folder, header, record.key, record.value, **there)
        for key, value in ((record.key, record.value + b"!"), (b"other", record.value)):
            with pytest.raises(ValueError, match="not the bytes"):
                verify(folder, header, key, value, **there)
        for name, other in (("env", "prod"), ("tenant", "u"), ("epoch", 2), ("partition", 1)):
            with pytest.raises(ValueError, match="another place"):
                verify(folder, header, record.key, record.value, **{**there, name: other})
        rogue = {"redactor": PRIVATE["runner"].public_key().public_bytes_raw()}
        with pytest.raises(InvalidSignature):
            verify(folder, header, record.key, record.value, **{**there, "keys": rogue})


def test_the_lines_for_the_client_configure_it(page: str) -> None:
    config = run(page, "configured")["configured"]("a password", None, "keys")
    assert isinstance(config, ClientConfig)
    assert config.service == "helpdesk-app"


def test_every_field_outcome_and_setting_is_explained(page: str, repository: Path) -> None:
    told = set(re.findall(r"`([A-Za-z_]+)`", page))
    request, release = (
        {field["name"] for field in json.loads((repository / f"schemas/avro/{name}.v1.avsc").read_text())["fields"]}
        for name in ("RequestSubmitted", "ReleaseMade")
    )
    assert len(request) > 5
    assert request - told == set()
    # Where in the house's own log it comes from, and what the audit reads of it.
    assert release - told == {"source", "principal", "actor", "finish", "rules_digest"}
    assert {str(outcome) for outcome in ReleaseOutcome} - told == set()
    sources = [path for path in (repository / "examples").rglob("*") if path.suffix in SUFFIXES]
    used = {name for path in sources for name in SETTING.findall(path.read_text("utf-8"))}
    assert len(used) > 8
    assert used == set(SETTING.findall(page))
