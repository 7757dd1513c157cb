"""This machine goes in, what is wrong with libraries, runtimes, disk, clock, keys and ports comes out."""

import ctypes
import importlib.metadata
import ipaddress
import platform
import shutil
import socket
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import psutil
from packaging.requirements import Requirement

from sluicegate.doctor.findings import Finding, fail, ok, warn
from sluicegate.keys import load_key
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.settings import Settings

PACKAGE: Final = "sluicegate"
RUNTIMES: Final = ("onnxruntime", "onnxruntime-gpu")
MB: Final = 1024 * 1024
DISK_COMFORT: Final = 4
"""Below this many times the limit it is told, above it is well."""
CLOCK_UNSYNCHRONIZED: Final = 5  # TIME_ERROR of adjtimex(2)
TIMEX_BYTES: Final = 512  # struct timex is smaller on every platform; it is only read


def check_libraries(requirements: Iterable[str], installed: Mapping[str, str]) -> Iterator[Finding]:
    """`requirements` as packaging metadata has them against the versions that are `installed`, by canonical name."""
    wrong = 0
    all_of_them = [Requirement(each) for each in requirements]
    wanted = [each for each in all_of_them if each.marker is None or each.marker.evaluate({"extra": ""})]
    for requirement in wanted:
        found = installed.get(_canonical(requirement.name))
        line = f"run `pip install '{requirement.name}{requirement.specifier}'`"
        if found is None:
            wrong += 1
            yield fail("libraries", f"`{requirement.name}` is not installed", line)
        elif not requirement.specifier.contains(found, prereleases=True):
            wrong += 1
            yield fail("libraries", f"`{requirement.name}` {found} is not {requirement.specifier}", line)
    if not wrong:
        yield ok("libraries", f"Python {platform.python_version()}, {len(wanted)} libraries in their ranges")


def installed_versions() -> dict[str, str]:
    """Canonical name to version of everything that is installed here."""
    return {_canonical(each.name): each.version for each in importlib.metadata.distributions() if each.name}


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def check_runtimes(installed: Mapping[str, str]) -> Iterator[Finding]:
    """Both runtimes install one folder, and whichever came last wins."""
    there = [name for name in RUNTIMES if name in installed]
    if len(there) > 1:
        yield fail(
            "onnxruntime",
            "`onnxruntime` and `onnxruntime-gpu` are both installed, over each other",
            "run `pip uninstall onnxruntime onnxruntime-gpu`, then `pip install onnxruntime-gpu`",
        )
    elif not there:
        yield fail("onnxruntime", "no runtime is installed", "run `pip install onnxruntime-gpu`")
    else:
        yield ok("onnxruntime", f"{there[0]} {installed[there[0]]}, alone")


def check_provider(wanted: str, available: Iterable[str]) -> Iterator[Finding]:
    """Whether the execution provider that the settings ask for can be had."""
    name = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[wanted]
    if name not in available:
        yield fail(
            "provider",
            f"`{wanted}` is asked for and this runtime does not offer it",
            "install the CUDA libraries (`pip install 'onnxruntime-gpu[cuda,cudnn]'`) on a machine with a GPU, or set "
            "`SLUICEGATE_MODEL_PROVIDER=cpu`",
        )
    else:
        yield ok("provider", name)


def check_model(settings: Settings) -> Iterator[Finding]:
    """Whether the weights are where the settings say."""
    source = Path(settings.model_source)
    if source.exists():
        yield ok("model", str(source))
    else:
        yield warn("model", f"nothing at `{source}`", "run `make model`, or set `SLUICEGATE_MODEL_SOURCE`")


def check_disk(folder: Path, mb_min: int) -> Iterator[Finding]:
    """Whether there is room where the data lies."""
    free_mb = shutil.disk_usage(folder).free // MB
    mend = f"free some space where `{folder}` lies, or set `SLUICEGATE_HOME`"
    if free_mb < mb_min:
        yield fail("disk", f"{free_mb} MB left, {mb_min} MB are needed", mend)
    elif free_mb < DISK_COMFORT * mb_min:
        yield warn("disk", f"{free_mb} MB left", mend)
    else:
        yield ok("disk", f"{free_mb} MB left")


def check_keys(folder: Path) -> Iterator[Finding]:
    """Whether anybody else could read or replace a key of this installation."""
    if not folder.is_dir():
        yield warn("keys", f"there is no key folder `{folder}`", "run `sluicegate up`, or `sluicegate keys new`")
        return
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        yield fail("keys", f"others can enter `{folder}`", f"run `chmod 700 {folder}`, and replace keys that leaked")
        return
    bad = 0
    files = sorted(folder.glob("*.pem"))
    for path in files:
        try:
            load_key(path)
        except ConfigurationError as error:
            bad += 1
            yield fail("keys", str(error), f"run `chmod 600 {path}`, or make another with `sluicegate keys new`")
    if not bad:
        yield ok("keys", f"{len(files)} key files, for this user alone")


def check_clock(state: int) -> Iterator[Finding]:
    """`state` as `clock_state` reads it."""
    if state == CLOCK_UNSYNCHRONIZED:
        yield warn(
            "clock",
            "the kernel says that nothing keeps this clock right",
            "run chrony or systemd-timesyncd: proofs live 300 s and deadlines are compared with this clock",
        )
    elif state < 0:
        yield warn("clock", "the kernel does not tell whether the clock is kept right", "run chrony, and look there")
    else:
        yield ok("clock", "kept right by a time service")


def clock_state() -> int:
    """The kernel's view of its clock, as adjtimex(2) returns it; -1 where it does not tell."""
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.adjtimex(ctypes.create_string_buffer(TIMEX_BYTES)))


def check_ports(listening: Iterable[tuple[str, str, int]]) -> Iterator[Finding]:
    """`listening`: name of the process, address and port of each listening socket of this stack."""
    bad, count = 0, 0
    for name, address, port in listening:
        count += 1
        if not _is_loopback(address):
            bad += 1
            yield fail(
                "ports",
                f"{name} listens on {address}:{port}, where other machines reach it",
                "bind it to 127.0.0.1, or put a firewall and TLS before it",
            )
    if not bad:
        yield ok("ports", f"{count} listening, on this machine alone" if count else "this stack listens nowhere")


def _is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None  # as a JVM binds
    return (mapped or found).is_loopback


def listening_of(pids: Mapping[str, int]) -> list[tuple[str, str, int]]:
    """The listening sockets of these processes."""
    found: set[tuple[str, str, int]] = set()
    for name, pid in pids.items():
        try:
            for connection in psutil.Process(pid).net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add((name, connection.laddr.ip, connection.laddr.port))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return sorted(found)


def check_transport(settings: Settings) -> Iterator[Finding]:
    """Whether what goes over a network goes there in the open."""
    hosts = [each.rpartition(":")[0].strip("[]") for each in settings.bootstrap.split(",") if each]
    far = [host for host in hosts if not _is_here(host)]
    if far and settings.security_protocol in {"PLAINTEXT", "SASL_PLAINTEXT"}:
        yield fail(
            "transport",
            f"prompts and answers go to `{far[0]}` unencrypted",
            "set `SLUICEGATE_SECURITY_PROTOCOL=SASL_SSL` (or `SSL`)",
        )
    elif far and settings.security_protocol == "SSL" and settings.ssl_cert_file is None:
        yield fail(
            "transport",
            "the broker does not learn who connects, so it can give no rights",
            "set `SLUICEGATE_SECURITY_PROTOCOL=SASL_SSL`, or `SLUICEGATE_SSL_CERT_FILE`",
        )
    elif settings.clickhouse_host and settings.clickhouse_scheme == "http" and not _is_here(settings.clickhouse_host):
        yield fail(
            "transport",
            f"audit rows go to `{settings.clickhouse_host}` unencrypted",
            "set `SLUICEGATE_CLICKHOUSE_SCHEME=https`",
        )
    else:
        yield ok("transport", "nothing leaves this machine unencrypted")


def _is_here(host: str) -> bool:
    try:
        addresses = {each[4][0] for each in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(_is_loopback(str(address)) for address in addresses)
