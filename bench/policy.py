"""How many decisions a CPU-second does policy take, by policies and entities, beside plain cedarpy, regorus
(`opa-eval`) and pycasbin on the same questions: `python -m bench.policy`.

Each contender has a process of its own, so its memory is its own too; all answer the same questions, and a contender
whose answers are not those of plain cedarpy gets no figure. `pauses` says how long another thread has to wait while a
bundle and its directory are loaded, and how long one directory change takes to be in force.
"""

import argparse
import importlib.util
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Final

import cedarpy
from rich.console import Console
from rich.table import Table

from bench.company import Asked, Company, company, questions
from bench.report import machine
from sluicegate.enforcer.bundle import load_bundle
from sluicegate.enforcer.decide import REMEMBERED_MAX, Decider
from sluicegate.enforcer.directory import conform, load_directory, split_uid
from sluicegate.enforcer.directory_change import DirectoryContent, change_content, read_change, read_content

RESULTS: Final = Path(__file__).parent / "results"
SIZES: Final = ((62, 1_000), (62, 10_000), (310, 10_000), (1_240, 10_000), (62, 100_000), (1_240, 100_000))
REPEATS: Final = 3
LIMIT_S: Final = 600
TITLES: Final = {
    "plain": "plain cedarpy, parsed handles",
    "memo": "plain cedarpy, memo",
    "index": "Decider, no memo",
    "decider": "Decider",
    "regorus": "regorus (opa-eval)",
    "casbin": "pycasbin",
}
NEEDS: Final = {"regorus": "opa_eval", "casbin": "casbin"}
COUNTS: Final = {"repeat": 24_000, "distinct": 2_000}
SLOW_COUNT: Final = 300  # questions put to engines that take milliseconds each
Answers = Callable[[Asked], bool]


def _plain(of: Company) -> Answers:
    bundle = load_bundle(of.bundle)
    entities = json.dumps(json.loads(of.directory)["entities"])
    handle = cedarpy.Entities.from_json_str(entities, bundle.schema)

    def answer(asked: Asked) -> bool:
        action, principal, resource_, context = asked.cedar
        (kind, name), (target, target_name) = split_uid(principal), split_uid(resource_)
        question = {
            "principal": {"type": kind, "id": name},
            "action": {"type": "Action", "id": action},
            "resource": {"type": target, "id": target_name},
            "context": context,
        }
        found = cedarpy.is_authorized(question, bundle.policy_set, handle, bundle.schema)
        return found.allowed and not found.diagnostics.errors

    return answer


def _memo(of: Company) -> Answers:
    return lru_cache(maxsize=8_192)(_plain(of))


def _decider(of: Company, remembered_max: int = REMEMBERED_MAX) -> Answers:
    bundle = load_bundle(of.bundle)
    decider = Decider(bundle, load_directory(of.directory, bundle), remembered_max=remembered_max)
    return lambda asked: decider.rule(*asked.cedar).allowed


REGO: Final = """package sluicegate
import rego.v1
default allow := false
allow if { permitted; not forbidden }
permitted if {
  some role in data.roles[input.user]
  some grant in data.grants[input.action][role]
  grant.purpose in {"", input.purpose}
  grant.target in {"", data.classes[input.resource]}
}
forbidden if data.on_leave[input.user]
forbidden if { input.action == "generate"; not input.purpose in data.purposes[input.user] }
"""


def _regorus(of: Company) -> Answers:
    from opa_eval import OpaEval

    grants: dict[str, dict[str, list[dict[str, str]]]] = {}
    for each in of.grants:
        listed = grants.setdefault(each.action, {}).setdefault(each.role, [])
        listed.append({"purpose": each.purpose, "target": each.target})
    data = {
        "roles": of.roles,
        "purposes": of.purposes,
        "grants": grants,
        "classes": {**of.classes, "m": "internal"},
        "on_leave": dict.fromkeys(of.on_leave, True),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.rego"
        path.write_text(REGO, encoding="utf-8")
        engine = OpaEval(str(path), data_json=json.dumps(data), query="data.sluicegate.allow")

    def answer(asked: Asked) -> bool:
        asking = {"user": asked.user, "action": asked.action, "resource": asked.resource, "purpose": asked.purpose}
        return engine.evaluate_parsed(json.dumps(asking)) is True

    return answer


CASBIN: Final = """[request_definition]
r = sub, act, target, purpose
[policy_definition]
p = sub, act, target, purpose
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.act == p.act && (p.target == "-" || r.target == p.target) && (p.purpose == "-" || r.purpose == p.purpose) \
&& g(r.sub, p.sub)
"""


def _casbin(of: Company) -> Answers:
    import casbin

    model = casbin.Model()
    model.load_model_from_text(CASBIN)
    enforcer = casbin.Enforcer(model)
    enforcer.add_policies([(each.role, each.action, each.target or "-", each.purpose or "-") for each in of.grants])
    enforcer.add_grouping_policies([(user, role) for user, roles in of.roles.items() for role in roles])
    classes = {**of.classes, "m": "internal"}

    def answer(asked: Asked) -> bool:
        # The two forbids are no roles: its model has no deny on attributes, so they are asked beside it, for nothing.
        if asked.user in of.on_leave or (asked.action == "generate" and asked.purpose not in of.purposes[asked.user]):
            return False
        return bool(enforcer.enforce(asked.user, asked.action, classes[asked.resource], asked.purpose))

    return answer


MAKERS: Final[Mapping[str, Callable[[Company], Answers]]] = {
    "plain": _plain,
    "memo": _memo,
    "index": lambda of: _decider(of, remembered_max=0),
    "decider": _decider,
    "regorus": _regorus,
    "casbin": _casbin,
}


def child(contender: str, policies: int, entities: int) -> dict[str, object]:
    """One contender in this process: microseconds of CPU a decision on each mix, its answers, and its memory."""
    of = company(policies, entities)
    base_mb = _memory_mb()
    answer = MAKERS[contender](of)
    found: dict[str, object] = {}
    for mix, count in COUNTS.items():
        asked = questions(of, count, distinct=mix == "distinct")
        if contender == "casbin":
            asked = asked[:SLOW_COUNT]
        start = time.process_time()
        answers = [answer(each) for each in asked]
        found[mix] = (time.process_time() - start) / len(asked) * 1e6
        found[f"{mix}-answers"] = [_digest(answers[:SLOW_COUNT]), _digest(answers)]
        found[f"{mix}-repeated"] = 1 - len({each.cedar for each in asked}) / len(asked)
        found[f"{mix}-allowed"] = sum(answers) / len(answers)
    found["memory_mb"] = _memory_mb()
    found["company_mb"] = base_mb
    return found


def _digest(answers: Sequence[bool]) -> str:
    return sha256(bytes(answers)).hexdigest()[:16]


def _memory_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def pauses(policies: int, entities: int) -> dict[str, float]:
    """Milliseconds: the longest wait of a thread that ticks while all is loaded, and the time of one change."""
    of = company(policies, entities)
    ticks: list[float] = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    def longest(work: Callable[[], object]) -> float:
        ticks.clear()
        start = time.perf_counter()
        work()
        seen = [start, *ticks, time.perf_counter()]
        return max(after - before for before, after in itertools.pairwise(seen)) * 1e3

    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        found: dict[str, float] = {}
        found["load_bundle"] = longest(lambda: load_bundle(of.bundle))
        bundle = load_bundle(of.bundle)
        found["read_content"] = longest(lambda: read_content(of.directory))
        content = read_content(of.directory)
        assert isinstance(content, DirectoryContent)
        found["conform"] = longest(lambda: conform(content, bundle))
        directory = conform(content, bundle)
        found["decider"] = longest(lambda: Decider(bundle, directory))
        decider = Decider(bundle, directory)
    finally:
        stop.set()
        ticker.join()
    for each in questions(of, COUNTS["repeat"], distinct=False):
        decider.rule(*each.cedar)
    entity = next(each for each in json.loads(of.directory)["entities"] if each["uid"]["id"] == of.users[0])
    entity["attrs"]["onLeave"] = True
    raw = change_content({"put": [entity]})
    start = time.perf_counter()
    changed = content.changed(read_change(raw))
    after = conform(changed, bundle, before=directory)
    Decider(bundle, after, before=decider)
    found["change"] = (time.perf_counter() - start) * 1e3
    return found


def _spawned(arguments: Sequence[str]) -> dict[str, object]:
    command = [sys.executable, "-m", "bench.policy", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=LIMIT_S, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def measure(sizes: Sequence[tuple[int, int]], repeats: int, console: Console) -> Iterator[dict[str, object]]:
    """Every contender at every size, one after the other, each repeat begun with another one."""
    able = [name for name in TITLES if name not in NEEDS or importlib.util.find_spec(NEEDS[name]) is not None]
    for name in TITLES.keys() - set(able):
        console.print(f"{TITLES[name]} is not installed here, so it is left out")
    for policies, entities in sizes:
        for repeat in range(repeats):
            for name in [*able[repeat % len(able) :], *able[: repeat % len(able)]]:
                run = _spawned(["--child", name, str(policies), str(entities)])
                yield {"policies": policies, "entities": entities, "contender": name, "repeat": repeat, **run}
        console.print(f"{policies} policies, {entities} entities: done")


def table(runs: Sequence[Mapping[str, object]], size: tuple[int, int]) -> tuple[Table, list[str]]:
    """Medians and ratios to plain cedarpy at one size, and what disagrees."""
    shown = Table(title=f"{size[0]:,} policies, {size[1]:,} entities", title_justify="left")
    for name in ("", "repeat: decisions/CPU-s", "x plain", "distinct: decisions/CPU-s", "x plain", "memory MB"):
        shown.add_column(name, justify="left" if not name else "right")
    here = [run for run in runs if (run["policies"], run["entities"]) == size]
    reference = [run for run in here if run["contender"] == "plain"]
    faults: list[str] = []
    for name, title in TITLES.items():
        own = [run for run in here if run["contender"] == name]
        if not own:
            continue
        cells = [title]
        for mix in COUNTS:
            part = 0 if name == "casbin" else 1
            wanted = {run[f"{mix}-answers"][part] for run in reference}  # type: ignore[index]
            if {run[f"{mix}-answers"][part] for run in own} != wanted:  # type: ignore[index]
                faults.append(f"{title} disagrees with plain cedarpy on {mix} at {size}")
                cells += ["-", "-"]
                continue
            cost, base = (statistics.median(float(str(run[mix])) for run in some) for some in (own, reference))
            cells += [f"{1e6 / cost:,.0f}", f"{base / cost:.2f}"]
        shown.add_row(*cells, f"{statistics.median(int(str(run['memory_mb'])) for run in own):.0f}")
    return shown, faults


def main(arguments: Sequence[str]) -> int:
    """Measures, shows and saves; 1 where engines disagree."""
    parser = argparse.ArgumentParser(prog="python -m bench.policy", description="CPU cost of a decision")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--pauses", nargs=2, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--quick", action="store_true", help="the smallest and the middle size, one repeat")
    parser.add_argument("--no-save", action="store_true")
    options = parser.parse_args(arguments)
    if options.child:
        print(json.dumps(child(options.child[0], int(options.child[1]), int(options.child[2]))))
        return 0
    if options.pauses:
        print(json.dumps(pauses(*options.pauses)))
        return 0
    console = Console()
    sizes = SIZES[:2] if options.quick else SIZES
    runs = list(measure(sizes, 1 if options.quick else options.repeats, console))
    faults: list[str] = []
    for size in sizes:
        shown, found = table(runs, size)
        console.print(shown)
        faults += found
    waits = {str(n): [_spawned(["--pauses", str(n), "10000"]) for _ in range(options.repeats)] for n in (62, 1_240)}
    console.print("longest wait of a ticking thread, and one change to in force, ms:", waits)
    for fault in faults:
        console.print(fault, style="red")
    if not options.no_save:
        path = RESULTS / f"policy-{datetime.now(UTC):%Y-%m-%d}.json"
        path.write_text(
            json.dumps({"machine": machine(), "runs": runs, "pauses_ms": waits}, indent=1), encoding="utf-8"
        )
        console.print(f"raw numbers: {path.name}")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
