"""What is wrong with a certificate, key or CA is said in words, with the file and the remedy."""

import ssl

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from thanostack.lib.foundation.errors import SettingsInvalid
from thanostack.runtime.tls_context import client_context, not_after, server_context
from thanostack.runtime.tls_options import (
    PEM,
    ClientAuth,
    ClientTLSOptions,
    ServerTLSOptions,
    openssl_curve,
    openssl_suites,
)
from thanostack.testing.certificates import Authority

SUITE = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def options(pair, **given):
    return ServerTLSOptions(*pair.pems, **given)


def complaint(made):
    with pytest.raises(SettingsInvalid) as caught:
        server_context(made, alpn="h2")
    return str(caught.value)


def test_a_missing_file(authority, tmp_path):
    """The setting, the path and the system's reason."""
    pair = authority.issue("server")
    pair.key.unlink()
    assert complaint(options(pair)) == f"--key: cannot read {pair.key}: No such file or directory"


def test_cert_and_key_swapped(authority):
    """Each says what it holds and what is needed."""
    pair = authority.issue("server")
    cert, key = pair.pems
    swapped = ServerTLSOptions(PEM("--cert", key.path), PEM("--key", cert.path))
    assert "holds a private key; a PEM file with -----BEGIN CERTIFICATE" in complaint(swapped)
    no_key = ServerTLSOptions(cert, PEM("--key", cert.path))
    assert "holds no private key" in complaint(no_key)


def test_no_pem_at_all(authority):
    """Empty, binary and torn files."""
    pair = authority.issue("server")
    whole = pair.cert.read_bytes()
    for data, words in (
        (b"", "holds no certificate"),
        (b"\x30\x82\xff", "holds no certificate"),
        (whole[:200] + b"\n-----END CERTIFICATE-----\n", "cannot be read"),
    ):
        pair.cert.write_bytes(data)
        assert f"--cert: {pair.cert}: " in complaint(options(pair))
        assert words in complaint(options(pair))


def test_a_key_of_another_certificate(authority):
    """Both files are named."""
    one, other = authority.issue("one"), authority.issue("other")
    mixed = ServerTLSOptions(one.pems[0], other.pems[1])
    expected = f"--key: {other.key}: the key does not belong to the certificate of --cert: "
    assert complaint(mixed).startswith(expected + str(one.cert))


@pytest.mark.parametrize(
    ("days", "words"), [((-9, -1), "expired on 2"), ((1, 9), "is not valid before 2")]
)
def test_a_certificate_out_of_its_time(authority, days, words):
    """Before it begins and after it ends."""
    assert words in complaint(options(authority.issue("server", days=days)))


def test_an_encrypted_key(authority):
    """Nobody can type a passphrase; OpenSSL would ask the terminal."""
    pair = authority.issue("server")
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    assert "is encrypted with a passphrase" in complaint(options(pair))


def test_client_cas(authority, tmp_path):
    """A CA file without certificates, and one where all have expired."""
    pair = authority.issue("server")
    old = authority.issue("old", days=(-9, -1))
    for path, words in ((pair.key, "holds a private key"), (old.cert, "have expired")):
        made = options(
            pair, client_ca=PEM("--client-ca", str(path)), client_auth=ClientAuth.REQUIRED
        )
        if path is old.cert:  # trustme's chain is the one certificate
            path.write_bytes(
                path.read_bytes().split(b"-----END CERTIFICATE-----")[0]
                + b"-----END CERTIFICATE-----\n"
            )
        assert complaint(made).startswith(f"--client-ca: {path}: ")
        assert words in complaint(made)


def test_text_instead_of_files(authority):
    """Web configuration files may hold certificates themselves."""
    pair = authority.issue("server")
    made = ServerTLSOptions(
        PEM("cert", text=pair.cert.read_text()), PEM("key", text=pair.key.read_text())
    )
    assert isinstance(server_context(made, alpn="h2"), ssl.SSLContext)
    assert not_after(made.cert) > 0
    assert "PRIVATE" not in repr(made)


def test_an_ec_key_behind_its_parameters(authority):
    """As `openssl ecparam -genkey` writes it."""
    pair = authority.issue("server")
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    body = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    head = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    pair.key.write_bytes(head + body)
    server_context(options(pair), alpn="h2")


def test_versions(authority):
    """Least and most are what was asked for, old ones too."""
    pair = authority.issue("server")
    context = server_context(options(pair, min_version="1.0", max_version="1.2"), alpn="h2")
    assert context.minimum_version == ssl.TLSVersion.TLSv1
    assert context.maximum_version == ssl.TLSVersion.TLSv1_2


def test_suites(authority):
    """Go's names are OpenSSL's; naming only suites of 1.3 leaves no older version."""
    pair = authority.issue("server")
    context = server_context(options(pair, min_version="1.2", ciphers=(SUITE,)), alpn="h2")
    names = {c["name"] for c in context.get_ciphers() if not c["name"].startswith("TLS_")}
    assert names == {"ECDHE-ECDSA-AES128-GCM-SHA256"}
    only_13 = options(pair, min_version="1.2", ciphers=("TLS_AES_128_GCM_SHA256",))
    assert server_context(only_13, alpn="h2").minimum_version == ssl.TLSVersion.TLSv1_3
    with pytest.raises(ValueError, match=r"invalid cipher suite: RC4, valid values are TLS_AES"):
        openssl_suites(["RC4"])


def test_curves(authority):
    """One, or all that both libraries know; between would allow more than was asked for."""
    pair = authority.issue("server")
    for name in ("CurveP256", "CurveP384", "CurveP521", "X25519"):
        server_context(options(pair, curves=(name,)), alpn="h2")
    assert openssl_curve(["X25519", "CurveP521", "CurveP384", "CurveP256"]) is None
    with pytest.raises(ValueError, match="one curve can be named, or all of"):
        openssl_curve(["X25519", "CurveP256"])
    with pytest.raises(ValueError, match="invalid curve: X25519MLKEM768, valid values are"):
        openssl_curve(["X25519MLKEM768"])


def test_client_contexts(authority):
    """Verification is on unless it is told off; the common name is no host name."""
    context = client_context(ClientTLSOptions(ca=authority.pem), alpn="h2")
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.hostname_checks_common_name is False
    context = client_context(ClientTLSOptions(skip_verify=True), alpn="h2")
    assert context.verify_mode == ssl.CERT_NONE
