"""Built models: made once, named by content, never half, never silently another's."""

import json
from pathlib import Path

import pytest
from fixtures_model import Settings, Tensors, write_tiny_gguf

from sluicegate.model_runner import build
from sluicegate.model_runner.build import DATA_FILE, GRAPH_FILE, MANIFEST_FILE, ensure_built, read_manifest
from sluicegate.model_runner.errors import ModelRefused
from sluicegate.model_runner.tokenizer import TOKENIZER_FILE
from sluicegate.model_runner.weights import Weights, source_digest


def _stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_build_is_made_once_and_names_what_it_was_made_from(tiny_gguf: Path, tmp_path: Path) -> None:
    first = ensure_built(tiny_gguf, tmp_path)
    stamps = _stamps(first)
    assert stamps.keys() == {GRAPH_FILE, DATA_FILE, TOKENIZER_FILE, MANIFEST_FILE}
    assert ensure_built(tiny_gguf, tmp_path) == first
    assert _stamps(first) == stamps
    assert read_manifest(first)["source_digest"] == source_digest(tiny_gguf)
    assert [path.name for path in tmp_path.iterdir()] == [first.name]


def test_the_same_source_gives_the_same_digests(tiny_gguf: Path, tmp_path: Path) -> None:
    manifests = [read_manifest(ensure_built(tiny_gguf, tmp_path / name)) for name in ("one", "two")]
    assert manifests[0] == manifests[1]


def test_another_source_gives_another_build(tiny_gguf: Path, tmp_path: Path) -> None:
    def change(tensors: Tensors, settings: Settings) -> None:
        tensors["output_norm.weight"][0] += 1

    other = write_tiny_gguf(tmp_path / "other.gguf", change=change)
    one, two = ensure_built(tiny_gguf, tmp_path / "b"), ensure_built(other, tmp_path / "b")
    assert one != two
    assert read_manifest(one)["graph_digest"] != read_manifest(two)["graph_digest"]
    assert read_manifest(one)["tokenizer_digest"] == read_manifest(two)["tokenizer_digest"]


@pytest.mark.parametrize("name", [GRAPH_FILE, DATA_FILE, TOKENIZER_FILE, MANIFEST_FILE])
@pytest.mark.parametrize("harm", ["missing", "short"])
def test_a_build_that_is_not_whole_is_made_again(name: str, harm: str, tiny_gguf: Path, tmp_path: Path) -> None:
    folder = ensure_built(tiny_gguf, tmp_path)
    whole = read_manifest(folder)
    victim = folder / name
    if harm == "missing":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:-7])
    with pytest.raises(ModelRefused):
        read_manifest(folder)
    assert ensure_built(tiny_gguf, tmp_path) == folder
    assert read_manifest(folder) == whole


@pytest.mark.parametrize(
    ("key", "value"), [("builder", build.BUILDER_VERSION - 1), ("source_digest", "0" * 64), ("form", "int4")]
)
def test_a_manifest_that_does_not_match_is_made_again(key: str, value: object, tiny_gguf: Path, tmp_path: Path) -> None:
    folder = ensure_built(tiny_gguf, tmp_path)
    whole = read_manifest(folder)
    (folder / MANIFEST_FILE).write_text(json.dumps(whole | {key: value}))
    assert read_manifest(ensure_built(tiny_gguf, tmp_path)) == whole


@pytest.mark.parametrize("name", [GRAPH_FILE, DATA_FILE, TOKENIZER_FILE])
def test_one_flipped_bit_is_refused_at_load(name: str, tiny_gguf: Path, tmp_path: Path) -> None:
    folder = ensure_built(tiny_gguf, tmp_path)
    read_manifest(folder)
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ModelRefused, match=f"`{name}` differs from its manifest, remove"):
        read_manifest(folder)


@pytest.mark.parametrize("key", ["graph_digest", "tokenizer_digest"])
def test_a_wrong_digest_in_the_manifest_is_refused_at_load(key: str, tiny_gguf: Path, tmp_path: Path) -> None:
    folder = ensure_built(tiny_gguf, tmp_path)
    (folder / MANIFEST_FILE).write_text(json.dumps(read_manifest(folder) | {key: "0" * 64}))
    with pytest.raises(ModelRefused, match="digest differs"):
        read_manifest(folder)


def test_a_build_that_dies_leaves_nothing_to_be_used(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(weights: object, graph_path: Path) -> None:
        graph_path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "write_graph", die)
        with pytest.raises(KeyboardInterrupt):
            ensure_built(tiny_gguf, tmp_path)
    assert list(tmp_path.iterdir()) == []
    # A kill leaves the staging folder behind; it has another name and is never taken for the model.
    (tmp_path / ".building-left").mkdir()
    (tmp_path / ".building-left" / GRAPH_FILE).write_bytes(b"half")
    assert read_manifest(ensure_built(tiny_gguf, tmp_path))["form"] == "fp32"


def test_a_build_finished_by_somebody_else_meanwhile_is_taken(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = ensure_built(tiny_gguf, tmp_path / "elsewhere")
    write = build.write_graph

    def overtaken(weights: Weights, graph_path: Path) -> None:
        write(weights, graph_path)
        ready.rename(tmp_path / "cache" / ready.name)

    monkeypatch.setattr(build, "write_graph", overtaken)
    folder = ensure_built(tiny_gguf, tmp_path / "cache")
    read_manifest(folder)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]


def test_a_refused_source_or_form_leaves_nothing(tiny_gguf: Path, tmp_path: Path) -> None:
    def change(tensors: Tensors, settings: Settings) -> None:
        settings["tokenizer.ggml.pre"] = "other"

    bad = write_tiny_gguf(tmp_path / "bad.gguf", change=change)
    with pytest.raises(ModelRefused, match="pre-tokenizer `other`"):
        ensure_built(bad, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    with pytest.raises(ModelRefused, match="weight form `int8` is not supported"):
        ensure_built(tiny_gguf, tmp_path / "cache", form="int8")


def test_a_vocabulary_that_does_not_fit_the_embedding_is_refused(tmp_path: Path) -> None:
    def change(tensors: Tensors, settings: Settings) -> None:
        tensors["token_embd.weight"] = tensors["token_embd.weight"][:-1]

    bad = write_tiny_gguf(tmp_path / "bad.gguf", change=change)
    with pytest.raises(ModelRefused, match="tokens do not fit"):
        ensure_built(bad, tmp_path / "cache")
