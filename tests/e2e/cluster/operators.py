"""The operator as a process beside a cluster, and a stack as a test sees it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cluster.kubectl import Kubectl
from cluster.processes import ending_with_us
from thanostack.testing.ports import free_port
from thanostack.testing.processes import metric, until
from thanostack_operator.plan.observed import dig

VERSION = "1.0"
OBJECTS = "deployments,statefulsets,services,configmaps,poddisruptionbudgets,pods"
"""Kinds of what a stack is made of."""
_REPORTED = ("resourceVersion", "managedFields")


@dataclass
class OperatorProcess:
    """One operator process after another, on one command line; it may be killed and started again.

    Args:
        kubeconfig: as whom it runs.
        log: where it logs.
        arguments: further ones of `run`.
    """

    kubeconfig: Path
    log: Path
    arguments: tuple[str, ...] = ()
    http_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it reconciles once it has the Lease, and ends with us."""
        command = [sys.executable, "-P", "-m", "thanostack_operator", "run"]
        command += [f"--http-port={self.http_port}", f"--default-version={VERSION}"]
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ending_with_us([*command, *self.arguments]),
                env=environment,
                stdout=log,
                stderr=log,
            )

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal and return its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def metric(self, name: str) -> float:
        """Return the sum of a metric of its own over the labels."""
        return sum(metric(f"http://127.0.0.1:{self.http_port}", name))


@contextlib.contextmanager
def operator(kubeconfig: Path, folder: Path, *arguments: str) -> Iterator[OperatorProcess]:
    """Run an operator for the time of the block."""
    process = OperatorProcess(kubeconfig, folder / "operator.log", arguments)
    process.start()
    try:
        yield process
    finally:
        if process.process is not None and process.process.poll() is None:
            process.stop()


@dataclass(frozen=True)
class Stack:
    """A stack in a cluster, through kubectl."""

    kubectl: Kubectl
    namespace: str
    name: str = "x"

    def apply(self, **spec: Any) -> None:
        """Apply the resource with this spec."""
        self.kubectl.apply(json.dumps(self.manifest(**spec)))

    def manifest(self, **spec: Any) -> dict[str, Any]:
        """Return the resource with this spec."""
        return {
            "apiVersion": "thanostack.io/v1alpha1",
            "kind": "ThanosStack",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": spec,
        }

    def patch(self, spec: dict[str, Any]) -> None:
        """Merge something into the spec."""
        self._run(
            "patch", "thanosstack", self.name, "--type=merge", "-p", json.dumps({"spec": spec})
        )

    def annotate(self, kind: str, name: str, **annotations: str) -> None:
        """Annotate an object of the stack, as somebody else might."""
        pairs = [f"{key}={value}" for key, value in annotations.items()]
        self._run("annotate", kind, name, "--overwrite", *pairs)

    def get(self, kind: str, name: str) -> Any:
        """Return an object, or None."""
        return json.loads(
            self._run("get", kind, name, "-o", "json", "--ignore-not-found") or "null"
        )

    def items(self, kind: str) -> list[Any]:
        """Return all objects of a kind that are the stack's."""
        selector = f"--selector=thanostack.io/stack={self.name}"
        return list(json.loads(self._run("get", kind, selector, "-o", "json"))["items"])

    def objects(self) -> dict[str, Any]:
        """Return all that the stack is made of, pods too, by kind and name.

        Without what Kubernetes reports of it: equal as long as nobody writes or replaces anything.
        """
        found = {}
        for item in self.items(OBJECTS):
            metadata = {k: v for k, v in item["metadata"].items() if k not in _REPORTED}
            rest = {k: v for k, v in item.items() if k != "status"}
            found[f"{item['kind']} {metadata['name']}"] = rest | {"metadata": metadata}
        return found

    def status(self) -> Any:
        """Return the status."""
        return dig(self.get("thanosstack", self.name), "status", default={})

    def condition(self, kind: str) -> Any:
        """Return a condition, or an empty one."""
        return next((c for c in self.status().get("conditions", []) if c["type"] == kind), {})

    def members(self, ring: str = "default") -> list[int]:
        """Return the ordinals in a ring of the published hashrings, in their order."""
        config_map = self.get("configmap", f"{self.name}-hashrings")
        rings = json.loads(dig(config_map, "data", "hashrings.json", default="[]"))
        entries = [r["endpoints"] for r in rings if r["hashring"] == ring]
        pods = [e["address"].split(".")[0] for entry in entries for e in entry]
        return [int(pod.rsplit("-", 1)[1]) for pod in pods]

    def await_condition(self, kind: str, status: str, timeout_s: float = 120) -> Any:
        """Wait for a condition of the spec's present generation, and return it."""

        def holds() -> Any:
            live = self.get("thanosstack", self.name)
            found = self.condition(kind)
            generation = live["metadata"]["generation"]
            at_last = found.get("observedGeneration") == generation
            return found if at_last and found.get("status") == status else None

        try:
            return until(f"{kind}={status} of {self.name}", holds, timeout_s)
        except TimeoutError as error:
            raise TimeoutError(f"{error}:\n{yaml.safe_dump(self.status())}") from error

    def await_ready(self, timeout_s: float = 120) -> None:
        """Wait until the stack is as the spec asks."""
        self.await_condition("Ready", "True", timeout_s)

    def await_settled(self, timeout_s: float = 240) -> None:
        """Wait until it is as the spec asks and no pod ends any more."""
        self.await_ready(timeout_s)
        self.await_ended(timeout_s)

    def await_ended(self, timeout_s: float = 240) -> None:
        """Wait until all pods are gone that are to go; what counts pods may change until then."""

        def ending() -> list[Any]:
            return [p for p in self.items("pods") if "deletionTimestamp" in p["metadata"]]

        self.until("no pod that ends", lambda: not ending(), timeout_s)

    def await_rest(self, *objects: str) -> str:
        """Settle, wait until nothing writes to some objects any more, and return their versions.

        Ready does not mean that nothing more is told: of an old router that is gone, say.
        """
        self.await_settled()

        def at_rest() -> str:
            before = self.versions(*objects)
            time.sleep(1.5)
            return before if self.versions(*objects) == before else ""

        return until("rest", at_rest)

    def versions(self, *objects: str) -> str:
        """Return the resource versions of some objects, each `kind/name`."""
        output = "--output=jsonpath={.items[*].metadata.resourceVersion}"
        return self.kubectl("get", *objects, f"--namespace={self.namespace}", output)

    def pods(self, component: str) -> list[Any]:
        """Return the pods of a component, in order of their names."""
        found = [
            pod
            for pod in self.items("pods")
            if pod["metadata"]["labels"]["app.kubernetes.io/component"] == component
        ]
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def until(self, what: str, claim: Callable[[], Any], timeout_s: float = 60) -> Any:
        """Wait for a claim, with the status in the error."""
        try:
            return until(what, claim, timeout_s)
        except TimeoutError as error:
            raise TimeoutError(f"{error}:\n{yaml.safe_dump(self.status())}") from error

    def delete(self) -> None:
        """Delete the resource and wait until it is gone."""
        self._run("delete", "thanosstack", self.name, "--timeout=60s")

    def _run(self, *arguments: str) -> str:
        return self.kubectl(f"--namespace={self.namespace}", *arguments)
