"""The programs that talk to an API server, each call as one user: `kubectl` and `helm`."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from thanostack.testing.processes import until


class KubectlError(RuntimeError):
    """Raised when kubectl fails; says what it said."""


class HelmError(RuntimeError):
    """Raised when helm fails; says what it said."""


@dataclass(frozen=True)
class _Client:
    """Commands to one API server, as one user.

    Args:
        program: its path.
        kubeconfig: of the user.
    """

    program: Path
    kubeconfig: Path

    error: ClassVar[type[RuntimeError]]

    def __call__(self, *arguments: str, stdin: str = "", timeout_s: float = 120) -> str:
        """Run a command and return what it prints.

        Raises:
            KubectlError, HelmError: if it fails.
        """
        caches = self.kubeconfig.parent / "client-caches"
        folders = {"KUBECACHEDIR": "kubectl", "HELM_CACHE_HOME": "helm", "HELM_DATA_HOME": "helm"}
        done = subprocess.run(
            [str(self.program), f"--kubeconfig={self.kubeconfig}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env={**os.environ, **{name: str(caches / folder) for name, folder in folders.items()}},
        )
        if done.returncode:
            said = f"{self.program.name} {' '.join(arguments)}: {done.stderr.strip()}"
            raise self.error(said)
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """Return the answer of a command that takes `-o json`."""
        return json.loads(self(*arguments, "-o", "json"))


class Kubectl(_Client):
    """The kubectl of one user."""

    error = KubectlError

    def apply(self, manifest: str, *arguments: str) -> str:
        """Apply a YAML or JSON text, server-side."""
        return self("apply", "--server-side", "-f", "-", *arguments, stdin=manifest)

    def await_crds(self) -> None:
        """Return when all custom resources that are defined are served, and discovery knows.

        `kubectl wait` fails on one whose conditions are still null.
        """

        def are_served() -> bool:
            crds = self.json("get", "crd")["items"]
            known = self("api-resources", "--output=name").split()
            return all(_is_established(crd) and crd["metadata"]["name"] in known for crd in crds)

        until("custom resources", are_served)

    def can(self, verb: str, resource: str, *arguments: str) -> bool:
        """Return whether the user may do that: what a role grants is known a moment later."""
        try:
            self("auth", "can-i", verb, resource, *arguments)
        except KubectlError:
            return False
        return True


class Helm(_Client):
    """The helm of one user."""

    error = HelmError


def _is_established(crd: dict[str, Any]) -> bool:
    conditions = crd.get("status", {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
