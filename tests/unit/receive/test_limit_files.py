"""The limits file and the overrides file: what they say, together, and when they change."""

from __future__ import annotations

import asyncio

import pytest

from thanostack.lib.foundation.errors import InvalidInput, SettingsInvalid
from thanostack.lib.tsdb.options import SeriesLimits, TSDBOptions
from thanostack.receive.config_file import ConfigFile, PathOrContent, expand_environment
from thanostack.receive.limits import Limits, TenantLimits
from thanostack.receive.limits_file import (
    DEFAULT_QUERY,
    HTTPClient,
    LimitsFile,
    MetaMonitoring,
    parse_limits,
)
from thanostack.receive.overrides import Overrides, parse_overrides

# The structure of upstream's own example.
GOOD = b"""
write:
  global:
    max_concurrency: 30
    meta_monitoring_url: "http://localhost:9090"
  default:
    request:
      size_bytes_limit: 1024
      series_limit: 1000
      samples_limit: 10
    head_series_limit: 1000
  tenants:
    acme:
      request:
        size_bytes_limit: 0
        series_limit: 0
        samples_limit: 0
      head_series_limit: 2000
    ajax:
      request:
        series_limit: 50000
"""


def test_the_limits_file():
    """Tenants inherit what they do not say; 0 is said."""
    file = parse_limits(GOOD)
    assert file.max_concurrency == 30
    assert file.meta_monitoring == MetaMonitoring("http://localhost:9090", DEFAULT_QUERY)
    limits = Limits(file, Overrides())
    assert limits.of("acme") == TenantLimits(head_series_limit=2000)
    assert limits.of("ajax") == TenantLimits(1024, 50000, 10, 1000)
    assert limits.of("other") == limits.default == TenantLimits(1024, 1000, 10, 1000)


@pytest.mark.parametrize("text", [b"", b"write:\n", b"write: {tenants: {a: }}", b"{}"])
def test_nothing_is_unlimited(text):
    """A file that says nothing limits nothing; neither does a negative number."""
    assert Limits(parse_limits(text), Overrides()).of("a") == TenantLimits()
    negative = b"write: {default: {request: {series_limit: -5}}}"
    assert Limits(parse_limits(negative), Overrides()).of("a") == TenantLimits()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"writes: {}", "line 1: field writes not found in type receive.RootLimitsConfig"),
        (b"write: {default: {head_series: 1}}", "not found in type receive.DefaultLimitsConfig"),
        (b"write: {default: {request: {series_limit: many}}}", "!!str `many` into int64"),
        (b"write: {default: {head_series_limit: -1}}", "!!int `-1` into uint64"),
        (b"write: {tenants: {a: {}, a: {}}}", 'key "a" already set in map'),
        (b"write: {tenants: [a]}", "cannot unmarshal !!seq into receive.TenantsWriteLimitsConfig"),
        (
            b"write: {global: {meta_monitoring_url: /x}}",
            "not a valid meta-monitoring URL (scheme: ",
        ),
        (b"write: {global: {meta_monitoring_url: 'ftp://x'}}", "must be http or https"),
        (b"write: {global: {meta_monitoring_http_client: {tls: {}}}}", "field tls not found"),
        (b"write: [", "yaml: line"),
    ],
)
def test_what_is_no_limits_file_is_refused(text, message):
    """In the words of upstream's library, with the line."""
    with pytest.raises(InvalidInput) as caught:
        parse_limits(text)
    assert message in str(caught.value)


def test_the_meta_monitorings_client():
    """What it takes to reach it; secrets are not shown."""
    text = b"""
write:
  global:
    meta_monitoring_url: https://m:9090/prefix
    meta_monitoring_limit_query: sum(x) by (tenant)
    meta_monitoring_http_client:
      basic_auth: {username: u, password: p}
      tls_config: {ca_file: ca.pem, insecure_skip_verify: true}
      transport_config: {max_idle_conns: 5}
      proxy_url: http://proxy
"""
    found = parse_limits(text).meta_monitoring
    assert found.query == "sum(x) by (tenant)"
    assert found.client == HTTPClient(
        "u", "p", proxy_url="http://proxy", ca_file="ca.pem", insecure_skip_verify=True
    )
    assert "'p'" not in repr(found)


def test_overrides():
    """A tenant here goes before a tenant there, that before the defaults here, and so on."""
    overrides = parse_overrides(b"""
default: {label_names_limit: 40, retention: 2d, request: {samples_limit: 7}}
tenants:
  acme: {retention: 0d, head_series_limit: 3, out_of_order_time_window: 0s}
  new: &shared {label_value_length_limit: 9, label_name_length_limit: 8}
  other: {<<: *shared, request: {series_limit: 1}}
""")
    limits = Limits(parse_limits(GOOD), overrides)
    assert limits.of("nobody").samples_limit == 7
    assert limits.of("acme") == TenantLimits(0, 0, 0, 3, 40, 0, 0, 0)
    assert limits.of("new") == TenantLimits(1024, 1000, 7, 1000, 40, 8, 9, 172_800_000)
    assert limits.of("other") == TenantLimits(1024, 1, 7, 1000, 40, 8, 9, 172_800_000)
    options = limits.of("new").tsdb_options(TSDBOptions(retention_bytes=5))
    assert (options.retention_ms, options.retention_bytes) == (172_800_000, 5)
    assert options.limits == SeriesLimits(1000, 40, 8, 9)
    assert TenantLimits().tsdb_options(TSDBOptions()) == TSDBOptions()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"tenants: {a: {out_of_order_time_window: 1h}}", "out-of-order ingestion is not offered"),
        (b"tenants: {a: {retention: 5}}", 'line 1: not a valid duration string: "5"'),
        (b"tenants: {a: {dedup: x}}", "field dedup not found in type overrides"),
        (b"defaults: {}", "field defaults not found"),
    ],
)
def test_what_is_no_override_is_refused(text, message):
    """Nothing is ignored."""
    with pytest.raises(InvalidInput) as caught:
        parse_overrides(text)
    assert message in str(caught.value)


def test_a_configuration_is_a_file_or_a_text(tmp_path):
    """Not both, and variables are expanded in either."""
    with pytest.raises(SettingsInvalid, match="both x-file and x flags set"):
        PathOrContent("x", "a", "b")
    assert expand_environment(b"a: $(B)$(B) $C ${D}", {"B": "1"}) == b"a: 11 $C ${D}"
    with pytest.raises(InvalidInput, match='reference to unset environment variable "NOT_SET"'):
        expand_environment(b"$(NOT_SET)", {})
    with pytest.raises(SettingsInvalid, match=r"--x-file: loading file .*: No such file"):
        ConfigFile(PathOrContent("x", str(tmp_path / "none")), parse_limits)
    with pytest.raises(SettingsInvalid, match="--x: yaml: unmarshal errors"):
        ConfigFile(PathOrContent("x", "", "a: b"), parse_limits)
    assert ConfigFile(PathOrContent("x"), parse_limits).value == LimitsFile()


def test_a_change_is_taken_whole_or_not_at_all(tmp_path):
    """What is not valid, or not there, is reported once and changes nothing."""
    path = tmp_path / "limits.yaml"
    path.write_bytes(GOOD)
    file = ConfigFile(PathOrContent("x", str(path)), parse_limits)
    assert not file.read_again()
    path.write_text("write: {default: {head_series_limit: 5}, nonsense: 1}")
    with pytest.raises(InvalidInput):
        file.read_again()
    assert not file.read_again()
    assert file.value == parse_limits(GOOD)
    path.unlink()
    with pytest.raises(InvalidInput):
        file.read_again()
    assert not file.read_again()
    path.write_text("write: {default: {head_series_limit: 5}}")
    assert file.read_again()
    assert file.value.default == {"head_series_limit": 5}


async def test_a_watched_file(tmp_path):
    """Changes are handed over, refusals too, and the watch goes on after them."""
    path = tmp_path / "limits.yaml"
    path.write_text("")
    file = ConfigFile(PathOrContent("x", str(path)), parse_limits)
    changes, failures = asyncio.Queue(), asyncio.Queue()
    watch = asyncio.create_task(file.watch(0.1, changes.put_nowait, failures.put_nowait))
    path.write_text("nonsense: 1")
    assert "nonsense" in str(await asyncio.wait_for(failures.get(), 10))
    path.write_text("write: {global: {max_concurrency: 3}}")
    assert (await asyncio.wait_for(changes.get(), 10)).max_concurrency == 3
    watch.cancel()
