"""What the querier tells about itself: endpoints, flags, build and runtime.

Source: Thanos `pkg/api/api.go`, `pkg/api/query/v1.go` (`stores`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from thanostack.lib.foundation.errors import NotFound
from thanostack.lib.model.label_runs import Labels
from thanostack.query.endpoint_set import EndpointStatus
from thanostack.runtime.version import version


def _rfc3339(time_ms: int) -> str:
    if time_ms == 0:
        return "0001-01-01T00:00:00Z"
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _mapping(labels: Labels) -> dict[str, str]:
    return {n.decode(errors="replace"): v.decode(errors="replace") for n, v in labels}


def stores_page(
    statuses: Iterable[EndpointStatus], tenant: tuple[str, str] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Return the listed endpoints, by type.

    Args:
        statuses: of the endpoints.
        tenant: label and value where tenancy is enforced: label sets of other tenants are left
            out, and endpoints that have nothing else. None shows all, as upstream always does.
    """
    page: dict[str, list[dict[str, Any]]] = {}
    for status in statuses:
        info = status.endpoint.info
        shown = [labels for labels in info.label_sets if _may_see(labels, tenant)]
        if info.label_sets and not shown:
            continue
        page.setdefault(info.component or "store", []).append(
            {
                "name": status.endpoint.name,
                "lastCheck": _rfc3339(status.checked_ms),
                "lastError": status.error or None,
                "labelSets": [_mapping(labels) for labels in shown],
                "minTime": info.mint,
                "maxTime": info.maxt,
            }
        )
    return page


def _may_see(labels: Labels, tenant: tuple[str, str] | None) -> bool:
    if tenant is None:
        return True
    label, value = tenant[0].encode(), tenant[1].encode()
    return dict(labels).get(label, value) == value


@dataclass(frozen=True, slots=True)
class StatusPages:
    """The pages under `status/`.

    Args:
        flags: name to value, secrets masked.
        started_ms: when the process started.
        threads: queries evaluated at once.
    """

    flags: Mapping[str, str]
    started_ms: int
    threads: int

    def page(self, name: str) -> dict[str, Any]:
        """Return one page's data.

        Raises:
            NotFound: if there is no such page.
        """
        if name == "flags":
            return dict(self.flags)
        if name == "buildinfo":
            return self._build()
        if name == "runtimeinfo":
            return self._runtime()
        raise NotFound(f"no such API: status/{name}")

    @staticmethod
    def _build() -> dict[str, Any]:
        return {
            "version": version(),
            "revision": "",
            "branch": "",
            "buildUser": "",
            "buildDate": "",
            "goVersion": "",
        }

    def _runtime(self) -> dict[str, Any]:
        return {
            "startTime": _rfc3339(self.started_ms),
            "CWD": str(Path.cwd()),
            "goroutineCount": self.threads,
            "GOMAXPROCS": os.cpu_count() or 1,
            "GOGC": "",
            "GODEBUG": "",
            "GOMEMLIMIT": 0,
        }
