"""The limits that hold for a tenant, put together from the limits file and the overrides file.

    overrides.tenants > limits.tenants > overrides.default > limits.default > none

Source: Thanos `pkg/receive/limiter_config.go` (OverlayWith).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from thanostack.lib.foundation.ids import Tenant
from thanostack.lib.tsdb.options import SeriesLimits, TSDBOptions
from thanostack.receive.limits_file import Layer, LimitsFile
from thanostack.receive.overrides import Overrides


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """What one tenant may; 0 is unlimited. Names are those of the files.

    Args:
        size_bytes_limit: of a request, compressed and decoded.
        series_limit: of a request.
        samples_limit: of a request, native histograms included.
        head_series_limit: active series, new ones beyond are refused.
        label_names_limit: labels of a new series.
        label_name_length_limit: bytes.
        label_value_length_limit: bytes.
        retention: ms, 0 for ever; None is what the flag says.
    """

    size_bytes_limit: int = 0
    series_limit: int = 0
    samples_limit: int = 0
    head_series_limit: int = 0
    label_names_limit: int = 0
    label_name_length_limit: int = 0
    label_value_length_limit: int = 0
    retention: int | None = None

    def tsdb_options(self, options: TSDBOptions) -> TSDBOptions:
        """Return storage's options with what the tenant has of its own."""
        return dataclasses.replace(
            options,
            limits=SeriesLimits(
                self.head_series_limit,
                self.label_names_limit,
                self.label_name_length_limit,
                self.label_value_length_limit,
            ),
            retention_ms=options.retention_ms if self.retention is None else self.retention,
        )


UNLIMITED: Final = TenantLimits()


class Limits:
    """The limits of every tenant, from two files; never changes.

    Args:
        file: the limits file.
        overrides: the overrides file.
    """

    def __init__(self, file: LimitsFile, overrides: Overrides) -> None:
        self.file, self.overrides = file, overrides
        self.default = _together(file.default, overrides.default)
        self.tenants = {
            Tenant(name): _together(
                file.default,
                overrides.default,
                file.tenants.get(name, {}),
                overrides.tenants.get(name, {}),
            )
            for name in {*file.tenants, *overrides.tenants}
        }

    def of(self, tenant: str) -> TenantLimits:
        """Return what a tenant may."""
        return self.tenants.get(Tenant(tenant), self.default)


def _together(*layers: Layer) -> TenantLimits:
    return TenantLimits(**{name: value for layer in layers for name, value in layer.items()})
