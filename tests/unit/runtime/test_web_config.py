"""Prometheus's web configuration file: what is taken, and what is said of the rest."""

import pytest

from thanostack.lib.foundation.errors import SettingsInvalid
from thanostack.runtime.tls_options import ClientAuth
from thanostack.runtime.web_config import read_web_config

HASH = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"
FULL = f"""
tls_server_config:
  cert_file: certs/a.pem
  key_file: /certs/a.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.pem
  client_allowed_sans: [x]
  min_version: TLS12
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: false
  curve_preferences: [CurveP256]
http_server_config:
  http2: false
  headers:
    X-Frame-Options: deny
    Strict-Transport-Security: max-age=1
rate_limit: {{burst: 3, interval: 500ms}}
basic_auth_users:
  alice: {HASH}
"""


@pytest.fixture
def read(tmp_path):
    def reading(text):
        path = tmp_path / "web.yml"
        path.write_text(text)
        return read_web_config(str(path), "http.config")

    return reading


def test_everything(read, tmp_path):
    """Paths are relative to the file's folder; nothing shows a password."""
    config = read(FULL)
    assert config.tls.cert.path == str(tmp_path / "certs/a.pem")
    assert config.tls.key.path == "/certs/a.key"
    assert config.tls.client_auth is ClientAuth.REQUIRED
    assert (config.tls.min_version, config.tls.max_version) == ("1.2", "1.3")
    assert config.tls.allowed_sans == ("x",)
    assert config.headers == (
        (b"x-frame-options", b"deny"),
        (b"strict-transport-security", b"max-age=1"),
    )
    assert config.users == {"alice": HASH.encode()}
    assert (config.burst, config.interval_s) == (3, 0.5)
    assert HASH not in repr(config)


@pytest.mark.parametrize(
    "text", ["", "{}", "tls_server_config:", "basic_auth_users: {}", "http_server_config: null"]
)
def test_nothing(read, text):
    """An empty file, or empty sections, is plain text for everybody."""
    config = read(text)
    assert (config.tls, config.headers, config.users) == (None, (), {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not YAML"),
        ("- a", "the document"),
        ("tls: {}", "unknown key 'tls'"),
        ("rate_limit: {}\nrate_limit: {}", "the key 'rate_limit' stands twice"),
        ("tls_server_config: {cert: a, colour: b}", "unknown key 'tls_server_config.colour'"),
        ("tls_server_config: {cert_file: a}", "missing one of key or key_file"),
        ("tls_server_config: {key_file: a}", "missing one of cert or cert_file"),
        (
            "tls_server_config: {cert_file: a, key_file: b, client_ca_file: c}",
            "client CA's have been configured without a Client Auth Policy",
        ),
        ("tls_server_config: {client_auth_type: Maybe}", "invalid ClientAuth: Maybe"),
        (
            "tls_server_config: {client_auth_type: RequireAnyClientCert}",
            "write RequireAndVerifyClientCert",
        ),
        ("tls_server_config: {min_version: SSL3}", "min_version"),
        (
            "tls_server_config: {cert: a, key: b, min_version: TLS13, max_version: TLS12}",
            "min_version is above max_version",
        ),
        ("tls_server_config: {cipher_suites: [RC4]}", "invalid cipher suite: RC4"),
        ("tls_server_config: {curve_preferences: [P1]}", "invalid curve: P1"),
        ("http_server_config: {headers: {X-Mine: a}}", 'HTTP header "X-Mine" can not be'),
        ("http_server_config: {headers: {X-Frame-Options: 0}}", "invalid value for X-Frame"),
        ('http_server_config: {headers: {Content-Security-Policy: "a\\r\\nb"}}', "invalid value"),
        ("basic_auth_users: {alice: secret}", "the password of 'alice' is no bcrypt hash"),
    ],
)
def test_mistakes(read, text, words):
    """Each names flag, file and key."""
    with pytest.raises(SettingsInvalid, match=r"^--http.config: .*web.yml: ") as caught:
        read(text)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_missing_file(tmp_path):
    """Said with its path."""
    with pytest.raises(SettingsInvalid, match=r"^--http.config: cannot read .*nowhere"):
        read_web_config(str(tmp_path / "nowhere"), "http.config")
