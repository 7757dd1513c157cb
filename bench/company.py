"""Counts of policies and entities go in, a company of that size and the questions it asks come out: for Cedar as bundle
and directory, for other engines as the plain facts behind them.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sluicegate.bundle_folder import read_bundle
from sluicegate.enforcer.bundle import bundle_content
from sluicegate.enforcer.decide import context_json, entity_json
from sluicegate.schemas.ids import entity_uid

POLICIES: Final = Path(__file__).parent.parent / "policies"
PURPOSES, CLASSES, DATASETS, FIELDS, SERVICES = 7, 5, 20, 8, 10
FORBIDS: Final = """
@id("purpose-must-be-assigned") forbid (principal, action == Action::"generate", resource)
unless { principal.purposes.contains(context.purpose) };
@id("on-leave") forbid (principal is User, action, resource) when { principal.onLeave };
"""
ACTIVE_USERS, SEED = 100, 20261124
Question = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One permit as every engine must read it: `target` is a field class, the tier, or empty for any."""

    role: str
    action: str
    target: str
    purpose: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question: as Cedar takes it, and its parts for the others."""

    cedar: Question
    user: str
    action: str
    resource: str
    purpose: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """A company with as many policies and entities as asked for."""

    bundle: bytes
    directory: bytes
    grants: tuple[Grant, ...]
    roles: dict[str, list[str]]
    purposes: dict[str, list[str]]
    on_leave: frozenset[str]
    classes: dict[str, str]
    users: tuple[str, ...]


def company(policies: int, entities: int) -> Company:
    """Teams with three permits each (generate, read, shape), two forbids for all; mostly people, some of two teams."""
    teams = (policies - 2 + 2) // 3
    grants: list[Grant] = []
    for team in range(teams):
        for action, target in (("generate", "internal"), ("read", f"c{team % CLASSES}"), ("shape", "")):
            purpose = "" if action == "shape" else f"p{team % PURPOSES}"
            grants.append(Grant(role=f"r{team}", action=action, target=target, purpose=purpose))
    grants = grants[: policies - 2]
    users = [f"u{number}" for number in range(entities - DATASETS * (FIELDS + 1) - SERVICES - 1)]
    roles = {name: sorted({f"r{n % teams}", f"r{n * 7 % teams}"}) for n, name in enumerate(users)}
    purposes = {name: sorted({f"p{int(role[1:]) % PURPOSES}" for role in roles[name]}) for name in users}
    on_leave = frozenset(name for n, name in enumerate(users) if n % 17 == 3)
    classes = {f"d{d}.f{f}": f"c{(d + f) % CLASSES}" for d in range(DATASETS) for f in range(FIELDS)}
    return Company(
        bundle=_bundle(grants, teams),
        directory=_directory(users, roles, purposes, on_leave, classes),
        grants=tuple(grants),
        roles=roles,
        purposes=purposes,
        on_leave=on_leave,
        classes=classes,
        users=tuple(users),
    )


def questions(of: Company, count: int, *, distinct: bool) -> list[Asked]:
    """`count` questions in the shape of requests: generate, shape, then eight reads of one dataset.

    The people of an hour (`ACTIVE_USERS`, one partition's share) ask unequally often (weights 1/rank), each about two
    datasets, now and then for another purpose. With `distinct` hardly a question comes twice.
    """
    draw = random.Random(SEED)
    active = draw.sample(of.users, min(ACTIVE_USERS, len(of.users)))
    weights = [1 / (rank + 1) for rank in range(len(active))]
    found: list[Asked] = []
    turn = 0
    while len(found) < count:
        user = of.users[turn * 37 % len(of.users)] if distinct else draw.choices(active, weights)[0]
        dataset = turn % DATASETS if distinct else (int(user[1:]) + draw.randrange(2)) % DATASETS
        found += _request(of, user, dataset, draw.randrange(PURPOSES))
        turn += 1
    return found[:count]


def _request(of: Company, user: str, dataset: int, other: int) -> Iterator[Asked]:
    purpose = of.purposes[user][0] if other else f"p{other}"
    via = entity_json("Service", f"s{dataset % SERVICES}")
    asking = context_json(
        {
            "purpose": entity_json("Purpose", purpose),
            "via": via,
            "clock": {"hour": 11, "weekday": 2},
            "asked": {"outputTokens": 64, "stream": False},
        }
    )
    reading = context_json({"purpose": entity_json("Purpose", purpose), "via": via, "model": entity_json("Model", "m")})
    principal = entity_uid("User", user)
    for action in ("generate", "shape"):
        cedar = (action, principal, entity_uid("Model", "m"), asking)
        yield Asked(cedar=cedar, user=user, action=action, resource="m", purpose=purpose)
    for number in range(FIELDS):
        name = f"d{dataset}.f{number}"
        cedar = ("read", principal, entity_uid("Field", name), reading)
        yield Asked(cedar=cedar, user=user, action="read", resource=name, purpose=purpose)


def _bundle(grants: list[Grant], teams: int) -> bytes:
    files: dict[str, str] = {
        path: text
        for path, text in json.loads(read_bundle(POLICIES)).items()
        if not path.endswith(".cedar") and not path.startswith("tests/")
    }
    lists = {"Role": ("r", teams), "Purpose": ("p", PURPOSES), "FieldClass": ("c", CLASSES)}
    schema = files["schema.cedarschema"]
    for kind, (letter, count) in lists.items():
        start = schema.index(f"entity {kind} enum [")
        names = ", ".join(f'"{letter}{number}"' for number in range(count))
        schema = f"{schema[:start]}entity {kind} enum [{names}]{schema[schema.index('];', start) + 1 :]}"
    scopes = {"internal": 'resource in ModelTier::"internal"', "": "resource"}
    texts = [FORBIDS]
    for number, grant in enumerate(grants):
        scope = scopes.get(grant.target, f'resource in FieldClass::"{grant.target}"')
        when = f' when {{ context.purpose == Purpose::"{grant.purpose}" }}' if grant.purpose else ""
        texts.append(
            f'@id("g{number}") permit (principal in Role::"{grant.role}", '
            f'action == Action::"{grant.action}", {scope}){when};'
        )
    return bundle_content({**files, "schema.cedarschema": schema, "all.cedar": "\n".join(texts)})


def _directory(
    users: list[str],
    roles: dict[str, list[str]],
    purposes: dict[str, list[str]],
    on_leave: frozenset[str],
    classes: dict[str, str],
) -> bytes:
    entities = [_entity("Model", "m", {}, [("ModelTier", "internal")])]
    entities += [_entity("Service", f"s{n}", {"purposes": [], "speaksFor": []}, []) for n in range(SERVICES)]
    vouchers = [entity_json("Service", f"s{n}") for n in range(SERVICES)]
    entities += [_entity("Dataset", f"d{n}", {"labelledBy": vouchers}, []) for n in range(DATASETS)]
    for name, kind in classes.items():
        dataset = name.partition(".")[0]
        parents = [("Dataset", dataset), ("FieldClass", kind)]
        entities.append(_entity("Field", name, {"dataset": entity_json("Dataset", dataset)}, parents))
    for name in users:
        attrs = {
            "onLeave": name in on_leave,
            "purposes": [entity_json("Purpose", each) for each in purposes[name]],
        }
        entities.append(_entity("User", name, attrs, [("Role", role) for role in roles[name]]))
    return json.dumps({"entities": entities, "service_keys": [], "issuers": []}, separators=(",", ":")).encode()


def _entity(kind: str, name: str, attrs: object, parents: list[tuple[str, str]]) -> dict[str, object]:
    return {
        "uid": {"type": kind, "id": name},
        "attrs": attrs,
        "parents": [{"type": parent, "id": each} for parent, each in parents],
    }
