"""The AsyncAPI document against the official JSON Schema of AsyncAPI 3.0.0, which its makers publish through npm."""

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from sluicegate.commands.schemas import documents
from sluicegate.schemas.request_reply import PATH

PACKAGE = "@asyncapi/specs@6.11.1"
MEMBER = "package/schemas/3.0.0.json"
DIGEST = "d4571a420e6ffb7fcc7066c95a6db1202f299a3c51daa103d0706bf30f95e626"
KEPT = Path(__file__).resolve().parent.parent.parent / ".cache" / "asyncapi" / "3.0.0.json"


def fetched(folder: Path) -> bytes:
    """The official schema out of its package; the cache folder keeps it."""
    if KEPT.is_file() and sha256(KEPT.read_bytes()).hexdigest() == DIGEST:
        return KEPT.read_bytes()
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm, to fetch the official schema")
    command = [npm, "pack", "--silent", "--pack-destination", str(folder), PACKAGE]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0 and not os.environ.get("CI"):
        pytest.skip("npm fetches nothing here")
    assert done.returncode == 0, done.stderr[-500:]
    with tarfile.open(next(folder.glob("*.tgz"))) as package:
        member = package.extractfile(MEMBER)
        assert member is not None
        data = member.read()
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    KEPT.write_bytes(data)
    return data


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> jsonschema.Draft7Validator:
    data = fetched(tmp_path_factory.mktemp("npm"))
    assert sha256(data).hexdigest() == DIGEST, "not the schema that this test was written against"
    return jsonschema.Draft7Validator(json.loads(data))


def document() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(documents()[PATH])
    return found


def test_the_document_is_asyncapi_3(official: jsonschema.Draft7Validator) -> None:
    assert [f"{list(each.absolute_path)}: {each.message}" for each in official.iter_errors(document())] == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda found: found["operations"]["submitRequest"].update(action="publish"),
        lambda found: found["operations"]["submitRequest"]["reply"].update(topic="x"),
        lambda found: found["channels"]["requests"].update(publish={}),
        lambda found: found["components"]["messages"]["requestJson"].update(payload={"type": "texts"}),
        lambda found: found["components"]["securitySchemes"]["scram"].update(type="scram"),
        lambda found: found["components"]["messages"]["requestAvro"]["bindings"]["kafka"].update(
            schemaIdLocation="body", bindingVersion="0.5.0"
        ),
        lambda found: found["components"]["messages"]["requestAvro"].update(correlationId={"location": "request_id"}),
        lambda found: found["servers"]["kafka"].pop("host"),
    ],
)
def test_the_official_schema_sees_damage(
    official: jsonschema.Draft7Validator, damage: Callable[[dict[str, Any]], object]
) -> None:
    found = document()
    damage(found)
    assert not official.is_valid(found)
