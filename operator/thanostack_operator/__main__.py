"""`thanostack-operator run | plan | release`: where the operator's parts are joined."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import kopf
import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from . import handlers
from .api.reading import SpecInvalid, read_stack
from .api.stack import KIND
from .discovery import NotServed, await_served, unserved
from .http_server import serving
from .kube import STACKS, ApiError, KubeClient
from .lease import Lease, LeaseLost, lead
from .log_lines import LogfmtFormatter
from .loop import Loops, Tools
from .manifests.names import Object
from .metrics import Metrics
from .observe import observe
from .plan.observed import dig
from .plan.preview import REFUSED, preview
from .pods import PodClient
from .release import release
from .settings import Settings, parse

log = logging.getLogger("thanostack_operator")


class BadFile(ValueError):
    """The file that `plan` was given is no resource of ours."""


def main() -> None:
    """Run the command line of this process."""
    settings = parse(sys.argv[1:])
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogfmtFormatter())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.root.level))
    command = {"run": _run, "plan": _plan, "release": _release}[settings.command]
    try:
        sys.exit(asyncio.run(command(settings)))
    except (ApiError, BadFile, LeaseLost, NotServed, OSError, config.ConfigException) as error:
        log.error("%s", error)  # noqa: TRY400 - a message says it all
        sys.exit(1)


@asynccontextmanager
async def _transports() -> AsyncIterator[tuple[ApiClient, PodClient]]:
    await _load_access()
    async with ApiClient() as client, aiohttp.ClientSession() as session:
        yield client, PodClient(session)


async def _load_access() -> None:
    """Learn where the cluster is: by KUBECONFIG or its default file, else as a pod of it.

    The client's own choice between the two takes a KUBECONFIG of several files for one name, and
    warns in every pod.

    Raises:
        ConfigException: if there is neither, or a file is wrong.
    """
    places = os.environ.get("KUBECONFIG") or "~/.kube/config"
    if _is_any_there(places):
        try:
            await config.load_kube_config(config_file=places)  # type: ignore[no-untyped-call]
        except yaml.YAMLError as error:
            text = " ".join(str(error).split())
            raise config.ConfigException(f"{places} is not YAML: {text}") from error
        return
    try:
        config.load_incluster_config()  # type: ignore[no-untyped-call]
    except config.ConfigException as error:
        raise config.ConfigException(
            f"no cluster to talk to: this is no pod ({error}), and there is no file {places}; "
            "set KUBECONFIG"
        ) from error


def _is_any_there(places: str) -> bool:
    found = [Path(place).expanduser() for place in places.split(os.pathsep) if place]
    # A pipe is what a shell gives for `KUBECONFIG=<(command)`.
    return any(place.is_file() or place.is_fifo() for place in found)


async def _run(settings: Settings) -> int:
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    metrics = Metrics(registry)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with _transports() as (client, pods), serving(metrics, settings.http_port):
        kube = KubeClient(client, metrics.writes.inc)
        loops = Loops(
            Tools(kube, pods, metrics, settings.default_version, settings.default_repository)
        )

        async def reconcile() -> None:
            if not await await_served(kube, stop):
                return
            metrics.ready.set(1)
            try:
                await kopf.operator(
                    registry=handlers.register(loops, stop),
                    settings=handlers.settings(),
                    namespaces=settings.namespaces,
                    clusterwide=not settings.namespaces,
                    standalone=True,
                    stop_flag=stop,
                )
            except Exception as error:  # kopf has no public name for how a watch ends
                if problem := await unserved(kube):
                    raise NotServed(problem) from error
                raise
            finally:
                metrics.ready.set(0)
                await loops.stop()

        await lead(
            Lease(
                KubeClient(client), settings.lease_namespace, settings.identity, settings.lease_name
            ),
            reconcile,
            stop,
        )
    return 0


def _read_file(settings: Settings) -> Object:
    """Return the resource of the file that was named.

    Raises:
        OSError: if it cannot be read.
        BadFile: if it is not one ThanosStack.
    """
    text = sys.stdin.read() if settings.file == "-" else Path(settings.file).read_text()
    try:
        body = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadFile(f"{settings.file} is not one document of YAML: {error}") from error
    if not isinstance(body, dict) or body.get("kind") != KIND or not dig(body, "metadata", "name"):
        raise BadFile(f"{settings.file} is no {KIND} with a name")
    return body


async def _plan(settings: Settings) -> int:
    """Print the diff and the order of steps for one resource; nothing is written.

    Returns:
        1 if the spec is wrong and would not be acted on, whether anything changes or not else 0.
    """
    given = _read_file(settings)
    async with _transports() as (client, pods):
        kube = KubeClient(client)
        body = await _as_it_would_be(given, kube, settings)
        try:
            stack = read_stack(body, repository=settings.default_repository)
        except SpecInvalid as error:
            print("\n".join(error.problems), file=sys.stderr)
            return 1
        observed = await observe(stack, kube, pods, now=time.time(), failures={})
        lines = preview(stack, observed, operator_version=settings.default_version)
        print("\n".join(lines))
    return int(lines[0] == REFUSED)


async def _as_it_would_be(body: Object, kube: KubeClient, settings: Settings) -> Object:
    """Return the file's resource with the identity and status of the one in the cluster, if any."""
    metadata = body.setdefault("metadata", {})
    namespace = metadata.setdefault("namespace", (settings.namespaces or ("default",))[0])
    live = await kube.get(STACKS, namespace, metadata["name"])
    if live is None:
        return body | {"metadata": metadata | {"uid": "", "generation": 1}}
    return live | {"spec": body.get("spec") or {}}


async def _release(settings: Settings) -> int:
    async with _transports() as (client, _):
        released = await release(
            KubeClient(client),
            settings.namespaces,
            home=settings.lease_namespace,
            lease_name=settings.lease_name,
            deployment=settings.deployment,
        )
    log.info("finalizer taken off stacks=%d", released)
    return 0


if __name__ == "__main__":
    main()
