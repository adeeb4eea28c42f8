"""The operator's command line: what it watches, as whom it leads, and the versions it hands out."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal
from uuid import uuid4

from .api.stack import DEFAULT_REPOSITORY

LEASE_NAME = "thanostack-operator"
SERVICE_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class Settings:
    """One run of the program.

    Args:
        command: run, plan, or release.
        namespaces: those that are watched; empty is the whole cluster.
        lease_namespace, lease_name: of the Lease; operators that share one take turns.
        identity: who holds it; no two processes may share one.
        default_version: image tag of stacks that name no version.
        default_repository: image, without its tag, of stacks that name none.
        http_port: of /metrics and /healthz; 0 takes a free one.
        deployment: of `release`: the operator's Deployment, which is stopped first.
        file: of `plan`: the resource to plan for, `-` for standard input.
    """

    command: Literal["run", "plan", "release"]
    namespaces: tuple[str, ...] = ()
    lease_namespace: str = "default"
    lease_name: str = LEASE_NAME
    identity: str = ""
    default_version: str = ""
    default_repository: str = DEFAULT_REPOSITORY
    http_port: int = 8080
    log_level: str = "info"
    deployment: str = ""
    file: str = ""


def parse(arguments: Sequence[str]) -> Settings:
    """Return the settings of a command line; prints help or what is wrong, and exits."""
    parser = argparse.ArgumentParser(prog="thanostack-operator", description=__doc__)
    parser.add_argument("--version", action="version", version=version("thanostack"))
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="reconcile stacks")
    run.add_argument("--http-port", type=int, default=8080, help="of /metrics and /healthz")
    run.add_argument("--identity", default=_identity(), help="who holds the Lease")
    plan = commands.add_parser("plan", help="print what would change, and in which order")
    plan.add_argument("-f", dest="file", required=True, help="resource to plan for; - for stdin")
    release = commands.add_parser(
        "release", help="take our finalizer off all stacks: before the operator is uninstalled"
    )
    release.add_argument("--deployment", default="", help="the operator's, stopped first")
    for command in (run, release):
        command.add_argument("--lease-namespace", default=_own_namespace(), help="of the Lease")
        command.add_argument("--lease-name", default=LEASE_NAME, help="one an installation")
    for command in (run, plan, release):
        command.add_argument(
            "--namespace",
            dest="namespaces",
            action="append",
            default=[],
            help="watched namespace (repeated); none is the whole cluster",
        )
        command.add_argument(
            "--default-version", default=version("thanostack"), help="of stacks that name none"
        )
        command.add_argument(
            "--default-repository",
            default=DEFAULT_REPOSITORY,
            help="image without its tag, of stacks that name none",
        )
        command.add_argument(
            "--log-level", default="info", choices=["debug", "info", "warning", "error"]
        )
    given = vars(parser.parse_args(arguments))
    given["namespaces"] = tuple(given["namespaces"])
    return Settings(**given)


def _own_namespace() -> str:
    try:
        return SERVICE_ACCOUNT_NAMESPACE.read_text().strip()
    except OSError:
        return "default"


def _identity() -> str:
    """Return the pod's name; outside of pods a host may run several, one after another too."""
    return os.environ.get("POD_NAME") or f"{socket.gethostname()}_{uuid4().hex[:8]}"
