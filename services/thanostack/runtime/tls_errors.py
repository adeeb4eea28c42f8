"""What went wrong in a TLS handshake, in words: OpenSSL's reasons are for who knows OpenSSL."""

from __future__ import annotations

import ssl
from typing import Final


def explain(error: Exception) -> str:
    """Return what went wrong in a handshake, in words.

    Example:
        >>> explain(ConnectionResetError())
        'the connection was closed in the handshake'
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return _REASONS.get(error.reason, error.reason.lower().replace("_", " "))
    if isinstance(error, TimeoutError):
        return "nothing was said in time"
    if isinstance(error, ConnectionResetError | BrokenPipeError) or not str(error):
        return "the connection was closed in the handshake"
    return str(error)


_REASONS: Final = {
    "HTTP_REQUEST": "plain HTTP was sent to a TLS port",
    "WRONG_VERSION_NUMBER": "the other side does not speak TLS",
    "UNSUPPORTED_PROTOCOL": "the other side offers only TLS versions that are not allowed",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client showed no certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the server asks for a certificate, none is given",
    "TLSV1_ALERT_UNKNOWN_CA": "the other side does not trust the certificate's CA",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the other side refuses the certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the other side says that the certificate has expired",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the other side does not allow our TLS version",
    "NO_SHARED_CIPHER": "no cipher suite is allowed on both sides",
}
