"""TLS flags: what they come to, which contradict each other, and what starts are refused for."""

import pytest

from thanostack.lib.foundation.errors import SettingsInvalid
from thanostack.query.settings import QuerySettings
from thanostack.receive.settings import ReceiveSettings
from thanostack.runtime.settings import load
from thanostack.runtime.tls_options import ClientAuth
from thanostack.standalone.settings import StandaloneSettings
from thanostack.testing.certificates import Authority

PREFIXES = ("grpc-server-tls", "remote-write.server-tls")


def settings(container, *flags):
    given = {"label": ['a="b"']} if container is not QuerySettings else {}
    for flag in flags:
        name, _, value = flag.removeprefix("--").partition("=")
        given.setdefault(name, []).append(value)
    return load(container, given, {})


def options(made, prefix):
    return made.grpc_tls if prefix.startswith("grpc") else made.write_tls


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_port(prefix):
    """Six flags, one port's TLS; nothing is plain text; a CA asks for certificates."""
    assert options(settings(ReceiveSettings), prefix) is None
    flags = [f"--{prefix}-cert=c", f"--{prefix}-key=k"]
    found = options(settings(ReceiveSettings, *flags), prefix)
    assert (found.cert.path, found.key.path, found.min_version) == ("c", "k", "1.3")
    assert found.client_auth is ClientAuth.NONE
    assert found.cert.setting == f"--{prefix}-cert"
    more = [
        f"--{prefix}-client-ca=ca", f"--{prefix}-min-version=1.2", f"--{prefix}-curves=X25519",
        f"--{prefix}-ciphers=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    ]  # fmt: skip
    found = options(settings(ReceiveSettings, *flags, *more), prefix)
    assert found.client_auth is ClientAuth.REQUIRED
    assert (found.client_ca.path, found.min_version) == ("ca", "1.2")
    assert (found.curves, len(found.ciphers)) == (("X25519",), 1)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["cert=c"], "both --{}-cert and --{}-key must be given"),
        (["key=k"], "both --{}-cert and --{}-key must be given"),
        (["client-ca=c"], "when a client CA is used --{}-cert and --{}-key must be given too"),
        (["ciphers=RC4"], "--{}-ciphers: invalid cipher suite: RC4, valid values are "),
        (["curves=P1"], "--{}-curves: invalid curve: P1, valid values are CurveP256, "),
        (["min-version=1.4"], "--{}-min-version: must be one of 1.0, 1.1, 1.2, 1.3"),
    ],
)
def test_a_port_that_cannot_be(prefix, flags, words):
    """Before any file is looked at."""
    with pytest.raises(SettingsInvalid) as caught:
        settings(ReceiveSettings, *(f"--{prefix}-{flag}" for flag in flags))
    assert words.replace("{}", prefix) in str(caught.value)


GRPC = ("--grpc-server-tls-cert=c", "--grpc-server-tls-key=k")
WRITE = ("--remote-write.server-tls-cert=c", "--remote-write.server-tls-key=k")
FORWARD = ("--remote-write.client-tls-secure=true",)
ENDPOINTS = ("--grpc-client-tls-secure=true",)
SUITE = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"


@pytest.mark.parametrize(
    ("container", "flags", "port", "field", "value"),
    [
        (
            ReceiveSettings,
            (*GRPC, "--grpc-server-tls-min-version=1.2"),
            "grpc_tls",
            "min_version",
            "1.2",
        ),
        (
            ReceiveSettings,
            (*GRPC, f"--grpc-server-tls-ciphers={SUITE}"),
            "grpc_tls",
            "ciphers",
            (SUITE,),
        ),
        (
            ReceiveSettings,
            (*GRPC, "--grpc-server-tls-curves=X25519"),
            "grpc_tls",
            "curves",
            ("X25519",),
        ),
        (
            ReceiveSettings,
            (*WRITE, "--remote-write.server-tls-min-version=1.2"),
            "write_tls",
            "min_version",
            "1.2",
        ),
        (
            ReceiveSettings,
            (*WRITE, f"--remote-write.server-tls-ciphers={SUITE}"),
            "write_tls",
            "ciphers",
            (SUITE,),
        ),
        (
            ReceiveSettings,
            (*WRITE, "--remote-write.server-tls-curves=X25519"),
            "write_tls",
            "curves",
            ("X25519",),
        ),
        (
            ReceiveSettings,
            (*FORWARD, "--remote-write.client-tls-min-version=1.2"),
            "forward_tls",
            "min_version",
            "1.2",
        ),
        (
            ReceiveSettings,
            (*FORWARD, "--remote-write.client-tls-skip-verify=true"),
            "forward_tls",
            "skip_verify",
            True,
        ),
        (
            ReceiveSettings,
            (*FORWARD, "--remote-write.client-server-name=n"),
            "forward_tls",
            "server_name",
            "n",
        ),
        (
            QuerySettings,
            (*ENDPOINTS, "--grpc-client-tls-min-version=1.2"),
            "endpoint_tls",
            "min_version",
            "1.2",
        ),
        (
            QuerySettings,
            (*ENDPOINTS, "--grpc-client-tls-skip-verify=true"),
            "endpoint_tls",
            "skip_verify",
            True,
        ),
    ],
)
def test_a_flag_is_one_option(container, flags, port, field, value):
    """What it sets is not the default, and is set by it alone."""
    assert value == getattr(getattr(settings(container, *flags), port), field)
    assert value != getattr(getattr(settings(container, *flags[:-1]), port), field)


def test_towards_receivers():
    """Off unless it is said so; the certificate that is shown, and what theirs must come from."""
    flags = (
        "--remote-write.client-tls-cert=c", "--remote-write.client-tls-key=k",
        "--remote-write.client-tls-ca=ca",
    )  # fmt: skip
    assert settings(ReceiveSettings, *flags).forward_tls is None
    found = settings(ReceiveSettings, *flags, *FORWARD).forward_tls
    assert (found.cert.path, found.key.path, found.ca.path) == ("c", "k", "ca")


def test_towards_endpoints():
    """Off unless it is said so, whatever else is given, as upstream."""
    flags = ("--grpc-client-tls-ca=ca", "--grpc-client-server-name=n")
    assert settings(QuerySettings, *flags).endpoint_tls is None
    found = settings(QuerySettings, *flags, "--grpc-client-tls-secure=true").endpoint_tls
    assert (found.ca.path, found.server_name, found.skip_verify) == ("ca", "n", False)
    with pytest.raises(SettingsInvalid, match="both --grpc-client-tls-cert and"):
        settings(QuerySettings, "--grpc-client-tls-cert=c")


def test_tenants_by_certificate_need_certificates(tmp_path):
    """Else every request would be refused, one by one."""
    with pytest.raises(SettingsInvalid, match="needs certificates of senders"):
        settings(ReceiveSettings, "--receive.tenant-certificate-field=commonName")
    web = tmp_path / "web.yml"
    web.write_text("basic_auth_users: {}")
    field = "--query.tenant-certificate-field=commonName"
    for flags in ([field], [field, f"--http.config={web}"]):
        with pytest.raises(SettingsInvalid, match="no certificates of clients are asked for"):
            settings(QuerySettings, *flags).check()


@pytest.mark.parametrize(
    ("container", "flags", "words"),
    [
        (ReceiveSettings, ["--grpc-server-tls-cert=/no", "--grpc-server-tls-key=/no"], "-cert"),
        (QuerySettings, ["--grpc-server-tls-cert=/no", "--grpc-server-tls-key=/no"], "-cert"),
        (QuerySettings, ["--grpc-client-tls-secure=true", "--grpc-client-tls-ca=/no"], "-ca"),
        (StandaloneSettings, ["--http.config=/no"], "--http.config"),
        (ReceiveSettings, ["--remote-write.http-config=/no"], "--remote-write.http-config"),
    ],
)
def test_files_are_looked_at_before_anything_slow(container, flags, words):
    """One line with the flag and the file."""
    made = settings(container, *flags)
    with pytest.raises(SettingsInvalid, match=r"^--.*: cannot read /no: ") as caught:
        made.check()
    assert words in str(caught.value)


def test_good_files_pass(tmp_path):
    """All of them, in one process too."""
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    flags = [f"--{prefix}-{part}={path}" for prefix in PREFIXES
             for part, path in (("cert", pair.cert), ("key", pair.key))]  # fmt: skip
    settings(StandaloneSettings, *flags).check()


def test_the_demo_writes_plainly():
    """It is refused where that could not work."""
    with pytest.raises(SettingsInvalid, match="--demo writes in plain text"):
        settings(StandaloneSettings, "--demo=true", "--remote-write.http-config=x")
