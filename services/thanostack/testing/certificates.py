"""Certificates for tests: one CA, and whatever it signs, as PEM files in a folder.

folder/ca.pem   folder/<name>.pem   folder/<name>.key
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import trustme

from thanostack.runtime.tls_options import PEM


@dataclass(frozen=True)
class Pair:
    """A certificate and its key.

    Args:
        cert: file with the certificate and its chain.
        key: file with the key.
    """

    cert: Path
    key: Path

    @property
    def pems(self) -> tuple[PEM, PEM]:
        """Return both as options take them."""
        return PEM("--cert", str(self.cert)), PEM("--key", str(self.key))


class Authority:
    """A CA with a folder.

    Args:
        folder: made if it is not there.
        name: of the CA's file.
        is_kept: its key is left in the folder too, and a CA that was left there goes on.
    """

    def __init__(self, folder: Path, name: str = "ca", *, is_kept: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        key = folder / f"{name}.key"
        self._folder, self._ca = folder, trustme.CA()
        if is_kept and key.exists():
            self._ca = trustme.CA.from_pem((folder / f"{name}.pem").read_bytes(), key.read_bytes())
        elif is_kept:
            key.touch(mode=0o600)
            key.write_bytes(self._ca.private_key_pem.bytes())
        self.file = folder / f"{name}.pem"
        self.replace_file(self)

    def replace_file(self, other: Authority) -> None:
        """Put another CA's certificate where this one's is."""
        replace(self.file, other._ca.cert_pem.bytes())

    @property
    def pem(self) -> PEM:
        """Return the CA as options take it."""
        return PEM("--ca", str(self.file))

    def issue(
        self,
        name: str,
        *identities: str,
        common_name: str | None = None,
        organization: str | None = None,
        unit: str | None = None,
        days: tuple[float, float] = (-1, 30),
    ) -> Pair:
        """Return a certificate; one that was there under the name is replaced.

        Args:
            name: of the files.
            identities: host names, IP or mail addresses; localhost and 127.0.0.1 by default.
            common_name, organization, unit: of the subject.
            days: from now, when it begins and ends.
        """
        now = dt.datetime.now(dt.UTC)
        issued = self._ca.issue_cert(
            *(identities or ("localhost", "127.0.0.1")),
            common_name=common_name,
            organization_name=organization,
            organization_unit_name=unit,
            not_before=now + dt.timedelta(days=days[0]),
            not_after=now + dt.timedelta(days=days[1]),
        )
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        replace(pair.key, issued.private_key_pem.bytes())
        replace(pair.cert, b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return pair


def replace(path: Path, data: bytes) -> None:
    """Write a file as deployments do: the whole new one takes the old one's place."""
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(data)
    beside.replace(path)
