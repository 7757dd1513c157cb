"""A source of weights goes in, a folder with graph, tensors, tokenizer and manifest comes out, built once.

The only place that writes built models. A build is named by the content it was made from, written apart and renamed
whole, so that a half-written one is never found.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from sluicegate.model_runner.errors import ModelRefused
from sluicegate.model_runner.graph import write_graph
from sluicegate.model_runner.tokenizer import TOKENIZER_FILE, Tokenizer, write_tokenizer
from sluicegate.model_runner.weights import LlamaConfig, open_source, read_weights, source_digest

BUILDER_VERSION = 1
"""Raised with every change of the graph or of the folder: builds of another version are made anew."""

MANIFEST_FILE = "manifest.json"
GRAPH_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"

Form = Literal["fp32"]
FORMS: tuple[Form, ...] = ("fp32",)


def ensure_built(source: Path, cache_dir: Path, form: str = "fp32") -> Path:
    """Return the folder of the model built from `source`, building it where `cache_dir` has none that matches.

    Two processes that build at once do not meet: the first rename wins and the other's work is dropped.

    Raises:
        ModelRefused: the source, its architecture or `form` is not supported.
        OSError: the folder cannot be written.
    """
    if form not in FORMS:
        raise ModelRefused(f"weight form `{form}` is not supported, use one of `{', '.join(FORMS)}`")
    digest = source_digest(source)
    target = cache_dir / f"{digest[:16]}-{form}-{BUILDER_VERSION}"
    if _is_build_of(target, digest, form):
        return target
    cache_dir.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".building-", dir=cache_dir))
    try:
        _build(source, digest, form, staging)
        if target.exists() and not _is_build_of(target, digest, form):
            shutil.rmtree(target)
        try:
            staging.rename(target)
        except OSError:
            # Somebody else finished first; a target that is still not that build is a real failure.
            if not _is_build_of(target, digest, form):
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def read_manifest(model_dir: Path) -> dict[str, Any]:
    """Return the manifest of a built model after checking every file that it names, byte by byte.

    Raises:
        ModelRefused: something is missing or differs, or the build is of another version.
    """
    again = f"remove `{model_dir}` and build the model again"
    try:
        manifest = json.loads((model_dir / MANIFEST_FILE).read_bytes())
        files = {name: str(entry["sha256"]) for name, entry in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelRefused(f"no readable `{MANIFEST_FILE}`, {again}") from error
    if manifest.get("builder") != BUILDER_VERSION or files.keys() != {GRAPH_FILE, DATA_FILE, TOKENIZER_FILE}:
        raise ModelRefused(f"the build is of another version, {again}")
    for name, wanted in files.items():
        try:
            found = _file_digest(model_dir / name)
        except OSError as error:
            raise ModelRefused(f"`{name}` cannot be read, {again}") from error
        if found != wanted:
            raise ModelRefused(f"`{name}` differs from its manifest, {again}")
    if manifest.get("graph_digest") != _graph_digest(files[GRAPH_FILE], files[DATA_FILE]):
        raise ModelRefused(f"the graph digest differs from its files, {again}")
    if manifest.get("tokenizer_digest") != files[TOKENIZER_FILE]:
        raise ModelRefused(f"the tokenizer digest differs from its file, {again}")
    return dict(manifest)


def read_config(manifest: dict[str, Any]) -> LlamaConfig:
    """Return the sizes of a built model.

    Raises:
        ModelRefused: the manifest does not hold exactly the sizes known here.
    """
    try:
        return LlamaConfig(**manifest["config"])
    except (KeyError, TypeError) as error:
        raise ModelRefused(f"`{MANIFEST_FILE}` holds another set of sizes, build the model again") from error


def _build(source: Path, digest: str, form: str, folder: Path) -> None:
    with open_source(source) as gguf_path:
        weights = read_weights(gguf_path)
    # A model whose tokenizer is refused must not leave a build behind.
    tokenizer = Tokenizer(weights.tokenizer_metadata)
    if tokenizer.size != weights.config.vocabulary:
        raise ModelRefused(f"{tokenizer.size} tokens do not fit `{weights.config.vocabulary}` embeddings")
    write_tokenizer(weights.tokenizer_metadata, folder / TOKENIZER_FILE)
    write_graph(weights, folder / GRAPH_FILE)
    names = (GRAPH_FILE, DATA_FILE, TOKENIZER_FILE)
    files = {name: {"sha256": _file_digest(folder / name), "bytes": (folder / name).stat().st_size} for name in names}
    manifest = {
        "builder": BUILDER_VERSION,
        "source_digest": digest,
        "form": form,
        "config": asdict(weights.config),
        "files": files,
        "graph_digest": _graph_digest(str(files[GRAPH_FILE]["sha256"]), str(files[DATA_FILE]["sha256"])),
        "tokenizer_digest": tokenizer.digest,
    }
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    for name in (*names, MANIFEST_FILE):
        _flush(folder / name)


def _is_build_of(folder: Path, digest: str, form: str) -> bool:
    """Say whether `folder` holds a complete build by name, version and sizes; loading compares the bytes."""
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_bytes())
        sizes = {name: entry["bytes"] for name, entry in manifest["files"].items()}
        wanted = (manifest["builder"], manifest["source_digest"], manifest["form"])
        whole = all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return whole and wanted == (BUILDER_VERSION, digest, form)


def _graph_digest(graph: str, data: str) -> str:
    """Return one name for the graph and its tensors together: the sha256 over both digests."""
    return hashlib.sha256(f"{graph}:{data}".encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
