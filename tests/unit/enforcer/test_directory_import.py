"""What other systems say becomes a change of the directory, or is refused with its line, its column and what to do."""

import json

import pytest

from sluicegate.enforcer import directory as directories
from sluicegate.enforcer.directory import conform
from sluicegate.enforcer.directory_change import read_change, read_whole
from sluicegate.enforcer.directory_import import FILE_BYTES_MAX, Listing, Row, read_csv, read_scim
from sluicegate.enforcer.directory_merge import import_change
from sluicegate.schemas.errors import InvalidDirectory

ANA = 'User::"ana.support"'


@pytest.fixture
def before(heron_directory):
    return read_whole(heron_directory)


def imported(text, heron, before, kind="User", *, prune=False):
    data = text if isinstance(text, bytes) else text.encode()
    return import_change(read_csv(data, kind=kind, file="f.csv"), kind, before, heron.bundle, file="f.csv", prune=prune)


def after(found, before):
    return before.changed(read_change(found.content))


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_rows_become_a_change_however_the_file_was_saved(heron, before, start, end):
    lines = (b"purposes,id,roles", b"ticket,ana.support,support;support-lead", b'invoice,"new, person",finance', b"")
    found = imported(start + end.join(lines), heron, before)
    assert [(each.mark, each.uid) for each in found.differences] == [("~", ANA), ("+", 'User::"new, person"')]
    assert found.differences[0].detail == 'parents +Role::"support-lead", purposes -Purpose::"writing"'
    new = json.loads(after(found, before).entities['User::"new, person"'])
    assert new["attrs"]["onLeave"] is False
    assert new["parents"] == [{"type": "Role", "id": "finance"}]


def test_a_file_that_says_what_is_so_changes_nothing_and_a_missing_column_keeps(heron, before):
    assert imported("id,purposes\nana.support,writing;ticket\n", heron, before).content == b""
    found = imported("id,onLeave\nana.support,TRUE\n", heron, before)
    assert found.differences[0].detail == "onLeave +true -false"


@pytest.mark.parametrize(
    ("kind", "text", "uid"),
    [
        ("Service", "id,purposes,speaksFor,roles\nnew-app,ticket,support,\n", 'Service::"new-app"'),
        ("Model", "id,tiers\nbig,internal\n", 'Model::"big"'),
        ("Dataset", "id,labelledBy\nleads,helpdesk-app\n", 'Dataset::"leads"'),
        ("Field", "id,class\ntickets.subject,open\n", 'Field::"tickets.subject"'),
    ],
)
def test_every_type_has_its_header(heron, before, kind, text, uid):
    assert uid in after(imported(text, heron, before, kind), before).entities


def test_nothing_is_removed_without_prune(heron, before):
    text = "id,roles\nana.support,support\n"
    assert imported(text, heron, before).content == b""
    found = imported(text, heron, before, prune=True)
    users = {uid for uid in before.entities if uid.startswith("User::")}
    assert {each.uid for each in found.differences} == users - {ANA}
    assert {each.mark for each in found.differences} == {"-"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "f.csv:1: the header of `User`"),
        ("id,role\na,support\n", "f.csv:1: the header of `User`"),
        ("id,id\na,b\n", "f.csv:1: the header"),
        ("id,roles\na,suport\n", "f.csv:2: column 2 `roles`: `suport` is no `Role`; did you mean `support`"),
        ("roles,id\nsuport,a\n", "f.csv:2: column 1 `roles`"),
        ("id,roles\na,support\n\na,finance\n", "f.csv:4: the id stands on line 2 too"),
        ("id\n=1+1\n", "f.csv:2: column 1 `id`: starts as a formula"),
        ("id\n @x\n", "f.csv:2: column 1 `id`: starts as a formula"),
        ("id\na\x00b\n", "f.csv:2: column 1 `id`: holds a control character"),
        ("id\nab\u202e\n", "f.csv:2: column 1 `id`: holds a control character"),
        ('id\n"a\nb"\nc\n', "f.csv:2: column 1 `id`: holds a control character"),
        ("id,roles\n,support\n", "f.csv:2: column 1 `id`: is empty"),
        ("id,roles\na\n", "f.csv:2: has 1 cells and the header 2"),
        ("id,roles\na,support;support\n", "f.csv:2: column 2 `roles`: names something twice"),
        ("id,onLeave\na,maybe\n", "f.csv:2: column 2 `onLeave`: must be `true`"),
        ('id\n"a\n', "f.csv:2: is no CSV from here on"),
        (b"id\nok\n\xff\n", "f.csv:3: is not UTF-8"),
        (b"x" * (FILE_BYTES_MAX + 1), "f.csv: holds over"),
        ("id\n" + "a" * 5000 + "\n", "f.csv:2: column 1 `id`: has over 4000 characters"),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_stands(heron, before, text, said):
    with pytest.raises(InvalidDirectory) as caught:
        imported(text, heron, before)
    assert said in caught.value.problems[0]


def test_what_the_schema_refuses_is_said_with_its_line(heron, before):
    with pytest.raises(InvalidDirectory) as caught:
        imported("id,class\ntickets.subject,open\nleads.name,open\n", heron, before, "Field")
    assert caught.value.problems[0].startswith('f.csv:3: Field::"leads.name": refers to Dataset::"leads"')


# ---- SCIM


def scim(*resources, **members):
    return json.dumps({"totalResults": len(resources), **members, "Resources": list(resources)}, indent=1).encode()


def person(name, *groups, **more):
    return {"id": f"id-{name}", "userName": name, "groups": [{"display": group} for group in groups], **more}


def people(data, **roles_of):
    return read_scim(data, file="f.json", roles_of=roles_of)


def test_scim_users_and_groups_become_rows():
    group = {"displayName": "support-lead", "members": [{"value": "id-bo"}]}
    found = people(scim(person("bo", "support"), person("cy", active=False), group))
    assert found == Listing(
        rows=(
            Row(line=4, id="bo", cells={"roles": ("support", "support-lead"), "onLeave": False}),
            Row(line=13, id="cy", cells={"roles": (), "purposes": (), "onLeave": True}),
        )
    )


def test_whoever_is_inactive_loses_every_role_and_purpose(heron, before):
    listing = people(scim(person("ana.support", "support", active=False)))
    found = import_change(listing, "User", before, heron.bundle, file="f.json", prune=False)
    ana = json.loads(after(found, before).entities[ANA])
    assert (ana["parents"], ana["attrs"]) == ([], {"onLeave": True, "purposes": []})


def test_only_groups_that_were_named_grant(heron, before):
    listing = people(scim(person("bo", "staff", "desk")), desk="support")
    assert listing.rows[0].cells["roles"] == ("support",)
    with pytest.raises(InvalidDirectory, match=r"f.json:4: `groups`: `staff` is no `Role`"):
        import_change(people(scim(person("bo", "staff"))), "User", before, heron.bundle, file="f.json", prune=False)


def test_one_page_of_a_longer_list_prunes_nobody(heron, before):
    listing = people(scim(person("bo", "support"), totalResults=7))
    assert import_change(listing, "User", before, heron.bundle, file="f.json", prune=False).content
    with pytest.raises(InvalidDirectory, match="one page of a longer list"):
        import_change(listing, "User", before, heron.bundle, file="f.json", prune=True)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{", "f.json: is no JSON"),
        (b'{"Resources":[],"Resources":[]}', "f.json: is no JSON"),
        (b"{}", "f.json: needs `Resources`"),
        (scim({"x": 1}), "f.json:4: is neither"),
        (scim(person("bo"), person("BO")), "f.json:9: the id stands on line 4"),
        (scim(person("bo", active="no")), "f.json:4: `active`"),
        (scim({**person("bo"), "groups": ["support"]}), "f.json:4: `groups`"),
        (scim(person("b\u202eo")), "f.json:4: `userName` holds a control"),
        (scim({"displayName": "g", "members": [{"value": "h", "type": "Group"}]}), "f.json:4: `members`"),
    ],
)
def test_what_scim_cannot_mean_is_refused(data, said):
    with pytest.raises(InvalidDirectory) as caught:
        people(data)
    assert said in caught.value.problems[0]


# ---- one entity changed


def test_one_changed_entity_costs_no_full_parse(heron, before, monkeypatch):
    """Counted: the engine reads one entity for a change of one, and all of them for a whole directory."""
    read = []
    genuine = directories._read_chunk

    def counting(chunk, bundle):
        read.extend(uid for uid, _ in chunk)
        return genuine(chunk, bundle)

    monkeypatch.setattr(directories, "_read_chunk", counting)
    whole = conform(before, heron.bundle)
    assert len(read) == len(before.entities) > 30
    read.clear()
    change = imported("id,onLeave\nana.support,true\n", heron, before)
    read.clear()
    conform(after(change, before), heron.bundle, before=whole)
    assert read == [ANA]
