"""Settings to a broker's user and certificates: contradictions refused, and the password in no text of ours."""

import datetime
import pickle
import ssl
from pathlib import Path

import pytest
from certificates import Authority

from sluicegate.broker_access import broker_config, broker_security
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.settings import Settings
from sluicegate.streams.enforce import _credentials

PASSWORD = "correct-horse.battery"


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.touch(mode=0o600)
    path.write_text(PASSWORD + "\n")
    return path


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "ca", "Heron CA")


def settings(**changes: object) -> Settings:
    return Settings(bootstrap="kafka-1:9093", **changes)  # type: ignore[arg-type]


def test_nothing_set_is_plaintext_without_a_user() -> None:
    found = broker_security(settings())
    assert (found.protocol, found.username, found.password, found.context) == ("PLAINTEXT", None, None, None)
    assert _credentials(found) is None


def test_a_user_and_tls_reach_every_kind_of_client(password_file: Path, authority: Authority) -> None:
    changes = {
        "security_protocol": "SASL_SSL",
        "sasl_username": "main.enforcer",
        "sasl_password_file": password_file,
        "ssl_ca_file": authority.certificate_file,
        "instance_id": "gate-1",
        "replication": 3,
    }
    found = broker_config(settings(**changes), "enforcer")
    arguments = found.connection()
    assert arguments["bootstrap_servers"] == "kafka-1:9093"
    assert arguments["client_id"] == "sluicegate-enforcer"
    assert arguments["security_protocol"] == "SASL_SSL"
    assert arguments["sasl_mechanism"] == "SCRAM-SHA-512"
    assert arguments["sasl_plain_username"] == "main.enforcer"
    assert arguments["sasl_plain_password"] == PASSWORD
    context = arguments["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert [dict(each[0] for each in ca["subject"]) for ca in context.get_ca_certs()] == [{"commonName": "Heron CA"}]
    assert (found.instance_id, found.replication) == ("gate-1", 3)
    faust = _credentials(found.security)
    assert faust is not None
    assert (faust.protocol.value, faust.mechanism.value, faust.username) == (
        "SASL_SSL",
        "SCRAM-SHA-512",
        "main.enforcer",
    )
    assert (faust.password, faust.ssl_context) == (PASSWORD, context)
    assert PASSWORD not in repr(faust)


def test_tls_alone_shows_our_certificate(authority: Authority) -> None:
    certificate, key = authority.issue("enforcer", client=True)
    changes = {
        "security_protocol": "SSL",
        "ssl_ca_file": authority.certificate_file,
        "ssl_cert_file": certificate,
        "ssl_key_file": key,
    }
    found = broker_security(settings(**changes))
    faust = _credentials(found)
    assert faust is not None
    assert (faust.protocol.value, faust.context) == ("SSL", found.context)


def test_the_systems_authorities_count_where_none_is_named() -> None:
    context = broker_security(settings(security_protocol="SSL")).context
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_the_password_stands_in_no_text_and_in_no_childs_environment(password_file: Path) -> None:
    chosen = settings(
        security_protocol="SASL_PLAINTEXT", sasl_username="main.enforcer", sasl_password_file=password_file
    )
    found = broker_config(chosen, "enforcer")
    assert found.security.password == PASSWORD
    assert PASSWORD not in f"{found!r} {found} {chosen!r} {chosen.environment()} {chosen.model_dump_json()}"
    assert chosen.environment()["SLUICEGATE_SASL_PASSWORD_FILE"] == str(password_file)
    with pytest.raises(TypeError):
        pickle.dumps(found.security.__class__(context=ssl.create_default_context()))


def test_contradictions_are_refused(password_file: Path, authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("enforcer", client=True)
    other, other_key = Authority.make(tmp_path / "other", "Other").issue("enforcer", client=True)
    loose = tmp_path / "loose.pem"
    loose.write_bytes(key.read_bytes())
    loose.chmod(0o640)
    garbage = tmp_path / "garbage"
    garbage.write_text("no certificate")
    sasl = {"security_protocol": "SASL_PLAINTEXT", "sasl_username": "u", "sasl_password_file": password_file}
    tls = {"security_protocol": "SSL", "ssl_ca_file": authority.certificate_file}
    cases: list[tuple[dict[str, object], str]] = [
        ({"sasl_username": "u"}, "PLAINTEXT knows none"),
        ({"sasl_password_file": password_file}, "PLAINTEXT knows none"),
        ({**tls, "sasl_username": "u"}, "SSL knows none"),
        ({**sasl, "sasl_username": ""}, "needs a user"),
        ({**sasl, "sasl_password_file": None}, "needs a password"),
        ({**sasl, "sasl_password_file": tmp_path / "absent"}, "no secret at"),
        ({"ssl_ca_file": authority.certificate_file}, "PLAINTEXT uses none"),
        ({**sasl, "ssl_key_file": key}, "SASL_PLAINTEXT uses none"),
        ({**tls, "ssl_cert_file": certificate}, "half a client certificate is set: set `SLUICEGATE_SSL_KEY_FILE`"),
        ({**tls, "ssl_key_file": key}, "half a client certificate is set: set `SLUICEGATE_SSL_CERT_FILE`"),
        ({**tls, "ssl_ca_file": tmp_path / "absent"}, "no certificate file"),
        ({**tls, "ssl_ca_file": garbage}, "holds no certificates in PEM"),
        ({**tls, "ssl_cert_file": certificate, "ssl_key_file": other_key}, "no certificate with its key"),
        ({**tls, "ssl_cert_file": garbage, "ssl_key_file": key}, "no certificate with its key"),
        ({**tls, "ssl_cert_file": certificate, "ssl_key_file": loose}, "others can read the key"),
        ({**tls, "ssl_cert_file": certificate, "ssl_key_file": tmp_path / "absent"}, "cannot be read"),
    ]
    for changes, problem in cases:
        with pytest.raises(ConfigurationError, match=problem) as caught:
            broker_security(settings(**changes))
        assert PASSWORD not in str(caught.value)
    assert broker_security(settings(**sasl)).username == "u"
    assert broker_security(settings(**tls, ssl_cert_file=other, ssl_key_file=other_key)).context is not None


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o620])
def test_a_password_that_others_can_read_is_refused(password_file: Path, mode: int) -> None:
    changes = {"security_protocol": "SASL_SSL", "sasl_username": "u", "sasl_password_file": password_file}
    assert broker_security(settings(**changes)).password == PASSWORD
    password_file.chmod(mode)
    with pytest.raises(ConfigurationError, match="others can read") as caught:
        broker_security(settings(**changes))
    assert PASSWORD not in str(caught.value)


def test_an_encrypted_key_never_asks_on_the_terminal(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("enforcer", client=True, password=b"locked")
    with pytest.raises(ConfigurationError, match="the key has a password"):
        broker_security(settings(security_protocol="SSL", ssl_cert_file=certificate, ssl_key_file=key))
    assert datetime.datetime.now(datetime.UTC) < authority.not_after
