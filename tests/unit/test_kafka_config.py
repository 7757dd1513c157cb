"""What one node is told: loopback alone, nothing created by accident, and with users nothing allowed by default."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.kafka_config import NodeAccess, Tls, _escaped, server_properties
from sluicegate.schemas.errors import ConfigurationError

USERS = {"admin": "a.secret", "main.enforcer": "b-secret", "helpdesk-app": "c_secret"}


def read(text: str) -> dict[str, str]:
    """As `java.util.Properties.load` does, for lines that do not go on and keys that need no escape."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        found[name] = unescaped(value.lstrip(" "))
    return found


def unescaped(value: str) -> str:
    plain = {"n": "\n", "r": "\r", "t": "\t"}
    units = re.sub(
        r"\\(u[0-9a-f]{4}|.)",
        lambda found: (
            chr(int(found[1][1:], 16)) if found[1][0] == "u" and len(found[1]) == 5 else plain.get(found[1], found[1])
        ),
        value,
        flags=re.DOTALL,
    )
    return units.encode("utf-16-be", "surrogatepass").decode("utf-16-be")


def properties(access: NodeAccess | None = None, logs: Path = Path("/data/log")) -> dict[str, str]:
    return read(server_properties(port=1234, controller_port=1235, logs=logs, access=access))


def test_it_listens_on_loopback_alone_and_makes_no_topic() -> None:
    found = properties()
    hosts = re.findall(r"://([^:]*):(\d+)", found["listeners"] + found["advertised.listeners"])
    assert hosts == [("127.0.0.1", "1234"), ("127.0.0.1", "1235"), ("127.0.0.1", "1234")]
    assert found["auto.create.topics.enable"] == "false"
    assert found["group.min.session.timeout.ms"] == "1000"
    assert not [name for name in found if "sasl" in name or "authorizer" in name or "flush" in name]
    durable = read(server_properties(port=1, controller_port=2, logs=Path("/x"), access=None, durable=True))
    assert durable["log.flush.interval.messages"] == "1"


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_with_users_nothing_is_allowed_that_no_acl_says(mechanism: str) -> None:
    access = NodeAccess(users=USERS, super_user="admin", mechanism=mechanism)  # type: ignore[arg-type]
    found = properties(access)
    assert found["listener.security.protocol.map"] == "CLIENT:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT"
    assert found["allow.everyone.if.no.acl.found"] == "false"
    assert found["authorizer.class.name"].endswith("StandardAuthorizer")
    assert found["super.users"] == "User:admin"
    clients = found[f"listener.name.client.{mechanism.lower()}.sasl.jaas.config"]
    assert ("c_secret" in clients) == (mechanism == "PLAIN"), "users of SCRAM stand in the log, not in a file"
    assert "c_secret" not in repr(access)


@pytest.mark.parametrize(
    ("users", "why"),
    [
        ({"admin": 'x" user_mallory="y'}, "user `admin`"),
        ({"admin": "a", "eve,password": "b"}, "user `eve,password`"),
        ({"admin": "a", "": "b"}, "user ``"),
        ({"eve": "a"}, "the super user `admin` is none of the users"),
    ],
)
def test_what_could_break_out_of_a_quote_is_refused(users: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as error:
        NodeAccess(users=users, super_user="admin")
    assert "mallory" not in str(error.value)


def test_certificates_are_told_whole_and_a_missing_one_by_its_name(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("c.pem", "k.pem", "a.pem")]
    for path in files:
        path.write_text(f"-----BEGIN {path.name}-----\nabc=\n-----END-----\n")
    tls = Tls(certificate=files[0], key=files[1], authority=files[2])
    access = NodeAccess(users=USERS, super_user="admin", tls=tls)
    found = properties(access)
    assert found["listener.name.client.ssl.keystore.key"] == files[1].read_text()
    assert found["listener.security.protocol.map"].startswith("CLIENT:SASL_SSL,")
    files[1].unlink()
    with pytest.raises(ConfigurationError, match=r"k\.pem` cannot be read"):
        properties(access)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_folder_is_written_as_java_reads_it(value: str) -> None:
    line = _escaped(value)
    assert line.isascii()
    assert line.isprintable()
    assert unescaped(line) == value
    if value.startswith(" "):
        assert line.startswith("\\"), "a leading space would be skipped"
