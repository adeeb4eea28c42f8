"""Limits, what differs from tenant to tenant, relabel rules: the files of receive, as fields.

Their names are those of the files, `--receive.limits-config-file` and `-relabel-config-file` as
Thanos has them and `--receive.overrides-file` of ours, so that a file can be pasted below `limits`,
`relabelConfigs` or `overrides`. A limit of 0 is none; what is left out is the default.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from .fields import Duration, Model, Passthrough, ShortText, Tenant, text_like

Limit = Annotated[int, Field(ge=0, le=(1 << 53))]


class FileModel(Model):
    """A part of a file: names are as in the file."""

    model_config = ConfigDict(alias_generator=None)


class RequestLimits(FileModel):
    """Bounds of one write request."""

    size_bytes_limit: Limit | None = None
    """Most bytes once decompressed."""
    series_limit: Limit | None = None
    """Most series."""
    samples_limit: Limit | None = None
    """Most samples."""


class TenantLimits(FileModel):
    """Limits of a tenant."""

    request: RequestLimits | None = None
    """Bounds of each of its requests."""
    head_series_limit: Limit | None = None
    """Most active series; in a limits file, of all receivers together, by the meta-monitoring."""


class GlobalLimits(FileModel):
    """Limits of all tenants together, and where series are counted."""

    max_concurrency: Limit | None = None
    """Most writes that a router works on at once; others wait for their turn."""
    meta_monitoring_url: (
        Annotated[str, text_like(r"^https?://[^ ]+$", "a URL is http://host or https://host", 1024)]
        | None
    ) = None
    """A Prometheus that scrapes the ingestors, asked for the series of each tenant."""
    meta_monitoring_limit_query: ShortText | None = None
    """Query that gives the series by the label `tenant`."""
    meta_monitoring_http_client: Passthrough | None = None
    """How it is talked to, as in Prometheus's HTTP client configuration."""


class WriteLimits(FileModel):
    """The file's one section."""

    global_: Annotated[GlobalLimits | None, Field(alias="global")] = None
    """Limits of all tenants together."""
    default: TenantLimits | None = None
    """Limits of tenants that are not named."""
    tenants: Annotated[dict[Tenant, TenantLimits], Field(max_length=1000)] = {}
    """Limits by tenant."""


class Limits(FileModel):
    """What a limits file says."""

    write: WriteLimits | None = None
    """Limits of writes."""


class TenantOverrides(TenantLimits):
    """What is different for a tenant."""

    head_series_limit: Limit | None = None
    """Most active series in each ingestor."""
    label_names_limit: Limit | None = None
    """Most labels of a series."""
    label_name_length_limit: Limit | None = None
    """Longest label name, in bytes."""
    label_value_length_limit: Limit | None = None
    """Longest label value, in bytes."""
    retention: Duration | None = None
    """How long samples are kept; 0d is for ever."""


class Overrides(FileModel):
    """What an overrides file says."""

    default: TenantOverrides | None = None
    """Of tenants that are not named, or do not say."""
    tenants: Annotated[dict[Tenant, TenantOverrides], Field(max_length=1000)] = {}
    """By tenant."""


class RelabelConfig(FileModel):
    """A relabel rule, as Prometheus has it."""

    source_labels: Annotated[list[ShortText], Field(max_length=32)] | None = None
    """Labels whose values are joined and matched."""
    separator: ShortText | None = None
    """What they are joined by; a semicolon by default."""
    target_label: ShortText | None = None
    """Label that is written."""
    regex: Annotated[str, Field(max_length=4096)] | None = None
    """Matched against the whole text; (.*) by default."""
    modulus: Annotated[int, Field(ge=1)] | None = None
    """Of the hash that `hashmod` writes."""
    replacement: ShortText | None = None
    """What is written; $1 by default."""
    action: (
        Literal[
            "replace",
            "keep",
            "drop",
            "keepequal",
            "dropequal",
            "hashmod",
            "labelmap",
            "labeldrop",
            "labelkeep",
            "lowercase",
            "uppercase",
        ]
        | None
    ) = None
    """What is done; replace by default."""
