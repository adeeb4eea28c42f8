"""What a control plane's programs and users prove themselves with.

folder/ca.pem            signs everybody
folder/<name>.pem, .key  a server or a user
folder/<user>.kubeconfig address, CA and certificate of a user in one file
folder/service-accounts.key, .pub
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from thanostack.testing.certificates import Authority, Pair

ADMIN = ("admin", "system:masters")
"""User and group that may do anything."""


class Credentials:
    """A certificate authority and its users.

    Args:
        folder: for the files; made if it is not there. The authority that it has goes on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._authority = Authority(folder, is_kept=True)
        self.folder.chmod(0o700)
        self.ca = self._authority.file

    def server(self, name: str, *identities: str) -> Pair:
        """Return a certificate for a server with these host names and addresses."""
        return self._authority.issue(name, *identities, common_name=name)

    def node(self, node: str, address: str) -> Pair:
        """Return the certificate that a kubelet serves and asks with."""
        return self._authority.issue(
            "kubelet",
            node,
            address,
            "127.0.0.1",
            common_name=f"system:node:{node}",
            organization="system:nodes",
        )

    def user(self, name: str, group: str | None = None) -> Pair:
        """Return a certificate for a user."""
        file = name.replace(":", "-")
        return self._authority.issue(file, common_name=name, organization=group)

    def kubeconfig(self, pair: Pair, server: str) -> Path:
        """Write the file with which clients come to a server as a user."""
        user = {
            "client-certificate-data": _base64(pair.cert),
            "client-key-data": _base64(pair.key),
        }
        cluster = {"server": server, "certificate-authority-data": _base64(self.ca)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "cluster", "cluster": cluster}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "it", "context": {"cluster": "cluster", "user": "user"}}],
            "current-context": "it",
        }
        path = pair.cert.with_suffix(".kubeconfig")
        path.touch(mode=0o600)
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")
        return path

    @property
    def service_accounts(self) -> Pair:
        """The pair of keys that service accounts' tokens are signed and checked with."""
        private = self.folder / "service-accounts.key"
        public = self.folder / "service-accounts.pub"
        if not public.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            private.touch(mode=0o600)
            private.write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, plain))
            spki = serialization.PublicFormat.SubjectPublicKeyInfo
            public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, spki))
        return Pair(public, private)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
