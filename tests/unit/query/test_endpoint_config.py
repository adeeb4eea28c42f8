"""The endpoint file: whose TLS an endpoint gets, what is refused, and that it is followed."""

import time

import pytest

from thanostack.lib.foundation.errors import SettingsInvalid
from thanostack.query.configured import configured_endpoints
from thanostack.query.discovery import EndpointSpec
from thanostack.query.endpoint_config import parse_endpoints
from thanostack.query.endpoints import EndpointTLS
from thanostack.query.settings import QuerySettings
from thanostack.runtime.logs import configure
from thanostack.runtime.process import new_process
from thanostack.runtime.settings import load
from thanostack.runtime.tls_options import PEM, ClientTLSOptions
from thanostack.testing.certificates import Authority

FLAGS = ClientTLSOptions(ca=PEM("--ca", "flag.pem"), cert=PEM("--c", "c"), key=PEM("--k", "k"))


def tls_of(client_config, default="{}", flags=None):
    """Return what one endpoint's TLS comes to, as plain values; None for plain text."""
    text = f"""
default_client_config: {default}
endpoints:
- address: a:1
  client_config: {client_config}
"""
    _, (spec,) = parse_endpoints(text, "f", flags)
    if spec.tls is None:
        return None
    tls = spec.tls
    return tls.ca.path, tls.cert.path, tls.server_name, tls.skip_verify, tls.min_version


@pytest.mark.parametrize(
    ("client_config", "expected"),
    [
        ("{}", ("flag.pem", "c", "", False, "1.3")),
        ("{tls_config: {}}", ("flag.pem", "c", "", False, "1.3")),
        ("{tls_config: {ca_file: own}}", ("own", "c", "", False, "1.3")),
        ("{tls_config: {min_version: '1.2'}}", ("flag.pem", "c", "", False, "1.2")),
        ("{server_name: n}", ("flag.pem", "c", "n", False, "1.3")),
        ("{tls_config: {enabled: true}}", ("", "", "", False, "1.3")),
        ("{tls_config: {enabled: true, insecure_skip_verify: true}}", ("", "", "", True, "1.3")),
        ("{tls_config: {enabled: false, ca_file: own}}", None),
    ],
)
def test_whose_tls_an_endpoint_gets(client_config, expected):
    """The flags' for what it does not say, unless it says whether there is TLS."""
    assert tls_of(client_config, flags=FLAGS) == expected


@pytest.mark.parametrize(
    ("client_config", "expected"),
    [
        ("{}", None),
        ("{tls_config: {ca_file: own}}", ("own", "", "", False, "1.3")),
        ("{tls_config: {insecure_skip_verify: false}}", ("", "", "", False, "1.3")),
        ("{tls_config: {min_version: '1.2'}}", None),
        ("{server_name: n}", None),
    ],
)
def test_without_tls_by_default(client_config, expected):
    """Naming what only TLS needs asks for it."""
    assert tls_of(client_config) == expected


def test_the_files_default_goes_before_the_flags():
    """Wholly: none of the flags' fields are left, and endpoints of flags have it too."""
    default = "{tls_config: {ca_file: d}, server_name: n}"
    assert tls_of("{}", default, FLAGS) == ("d", "", "n", False, "1.3")
    assert tls_of("{tls_config: {min_version: '1.2'}}", default) == ("d", "", "", False, "1.2")
    assert tls_of("{}", "{tls_config: {enabled: false}}", FLAGS) is None
    tls, _ = parse_endpoints(f"default_client_config: {default}", "f", FLAGS)
    assert tls.ca.path == "d"


def test_addresses():
    """Strictness, groups and their configuration."""
    text = """
endpoints:
- address: a:1
  strict: true
- address: dns+b:2
  group: true
  service_config: '{"loadBalancingConfig":[]}'
"""
    config = '{"loadBalancingConfig":[]}'
    expected = (
        EndpointSpec("a:1", strict=True),
        EndpointSpec("dns+b:2", group=True, service_config=config),
    )
    assert (None, expected) == parse_endpoints(text, "f")
    assert parse_endpoints("", "f") == (None, ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not YAML"),
        ("- a", "the document"),
        ("endpoints: 5", "endpoints"),
        ("endpoints: [{strict: true}]", "endpoints.0.address"),
        ("endpoints: [{address: a, colour: red}]", "unknown key 'endpoints.0.colour'"),
        ("endpoints: [{address: dns+a:1, strict: true}]", "a strict endpoint has no DNS prefix"),
        ("endpoints: [{address: a, service_config: '{}'}]", "only valid for endpoint groups"),
        ("endpoints: [{address: a, group: true, service_config: '{'}]", "service_config"),
        (
            "endpoints: [{address: a, client_config: {tls_config: {cert_file: a}}}]",
            "both cert_file and key_file must be given",
        ),
        ("default_client_config: {compression: snappy}", "only uncompressed calls"),
        ("default_client_config: {compression: lz4}", "must be 'none' or 'snappy'"),
        ("default_client_config: {tls_config: {min_version: '1.9'}}", "min_version"),
    ],
)
def test_mistakes(text, words):
    """Each names the place and the key."""
    with pytest.raises(SettingsInvalid, match=r"^f: ") as caught:
        parse_endpoints(text, "f")
    assert words in str(caught.value)


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def monotonic_s(self):
        return self.now_s

    def now_ms(self):
        return int(time.time() * 1000)


@pytest.fixture
def world(tmp_path):
    """Return (the endpoint file, a function that gives the endpoints after some seconds)."""
    file, process = tmp_path / "e.yml", new_process("q", configure("q", level="error", form="json"))
    clock = Clock()
    object.__setattr__(process, "clock", clock)

    def open_(*flags):
        given = {"endpoint.sd-config-file": [str(file)], "endpoint": ["flag:1"]}
        settings = load(QuerySettings, given, {})
        configured = configured_endpoints(settings, process, EndpointTLS(process.tls))

        def after(seconds):
            clock.now_s += seconds
            return [(spec.address, spec.tls is not None) for spec in configured()]

        return after

    return file, open_


def test_the_file_is_followed(world, tmp_path):
    """When it is time; what is bad then, be it YAML or a certificate, changes nothing."""
    file, open_ = world
    ca = Authority(tmp_path).file
    file.write_text(f"default_client_config: {{tls_config: {{ca_file: {ca}}}}}")
    after = open_()
    assert after(0) == [("flag:1", True)]
    file.write_text("endpoints: [{address: 'b:2'}]")
    assert after(1) == [("flag:1", True)]
    assert after(300) == [("flag:1", False), ("b:2", False)]
    for bad in ("endpoints: 5", "default_client_config: {tls_config: {ca_file: /nowhere}}"):
        file.write_text(bad)
        assert after(300) == [("flag:1", False), ("b:2", False)]


def test_a_bad_certificate_at_the_start(world):
    """It is one clear error."""
    file, open_ = world
    file.write_text("default_client_config: {tls_config: {ca_file: /nowhere}}")
    with pytest.raises(
        SettingsInvalid, match=r"e.yml: default_client_config: ca_file: cannot read"
    ):
        open_()
