"""`sluicegate schemas`: the published schemas, where a registry knows them, and the documents made from them."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from sluicegate.enforcer.identity import PROOF_BYTES_MAX, PROOF_HEADER, TOKEN_BYTES_MAX, TOKEN_HEADER
from sluicegate.enforcer.seal import SEAL_HEADER
from sluicegate.registry import Registry, RegistryConfig, registry_config, subjects, versions_of
from sluicegate.schemas import codec, request_reply
from sluicegate.schemas.documents import schema_documents
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.settings import Settings, load_settings
from sluicegate.streams.topology import REPLIES, ROWS, Topology

CONTRACT: Final = request_reply.Contract(
    requests=f"{{tenant}}.{ROWS['requests'].name}",
    replies=f"{{tenant}}.{REPLIES.name}.{{application}}",
    refusals=f"{{tenant}}.{ROWS['refusals'].name}",
    proof_header=PROOF_HEADER,
    proof_bytes_max=PROOF_BYTES_MAX,
    token_header=TOKEN_HEADER,
    token_bytes_max=TOKEN_BYTES_MAX,
    seal_header=SEAL_HEADER,
)


@click.group()
def schemas() -> None:
    """Show the published schemas, register them, or write them and the documents made from them into a folder."""


@schemas.command("list")
def list_() -> int:
    """List every published schema: name, fingerprint and, where a registry is configured, subject and id."""
    settings = load_settings()
    config = registry_config(settings)
    known = {} if config is None else asyncio.run(_looked_up(config, _wanted(settings)))
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("schema", "fingerprint", *(() if config is None else ("subject", "id"))):
        table.add_column(column, overflow="fold")
    for name in codec.names():
        row = (name, codec.fingerprint_of(name).hex())
        if config is None:
            table.add_row(*row)
            continue
        subject, found = known.get(name, ("-", None))
        table.add_row(*row, subject, "-" if found is None else str(found))
    Console(soft_wrap=True).print(table)
    return 0


@schemas.command()
def register() -> int:
    """Register the schemas of requests and releases in the registry; what stands there already keeps its id."""
    settings = load_settings()
    config = registry_config(settings)
    if config is None:
        raise ConfigurationError("no schema registry is configured; set `SLUICEGATE_REGISTRY_URL`")
    for name, (subject, found) in asyncio.run(_registered(config, _wanted(settings))).items():
        click.echo(f"  {name}  {subject}  id {found}")
    return 0


@schemas.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def write(folder: Path) -> int:
    """Write Avro schemas, JSON Schemas and the AsyncAPI document into FOLDER."""
    for name, text in documents().items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"`{path}` cannot be written: {error.strerror}; name another folder") from None
        click.echo(f"  {path}")
    return 0


def documents() -> Mapping[str, str]:
    """Every document by its path under `schemas/`."""
    return {**schema_documents(), request_reply.PATH: request_reply.asyncapi_text(CONTRACT)}


def _wanted(settings: Settings) -> Mapping[str, str]:
    """Subjects by the names of the schemas that stand under them, oldest version first."""
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    return {name: subject for subject, kind in subjects(topology).items() for name in versions_of(kind)}


async def _looked_up(config: RegistryConfig, wanted: Mapping[str, str]) -> Mapping[str, tuple[str, int | None]]:
    async with Registry(config) as registry:
        return {name: (subject, await registry.lookup(subject, name)) for name, subject in wanted.items()}


async def _registered(config: RegistryConfig, wanted: Mapping[str, str]) -> Mapping[str, tuple[str, int]]:
    async with Registry(config) as registry:
        return {name: (subject, await registry.register(subject, name)) for name, subject in wanted.items()}
