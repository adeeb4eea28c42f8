"""Standalone's flags: those of both containers, each checked as there."""

from __future__ import annotations

import pytest

from thanostack.lib.foundation.errors import SettingsInvalid
from thanostack.query.settings import QuerySettings
from thanostack.receive.settings import ReceiveSettings
from thanostack.runtime.settings import load
from thanostack.standalone.settings import StandaloneSettings


def test_it_starts_without_flags():
    """Defaults that upstream leaves to the user are given, and named in the help."""
    settings = load(StandaloneSettings, {}, {})
    assert settings.external_labels == {"receive_replica": "standalone"}
    assert settings.query_replica_label == ("replica", "prometheus_replica", "receive_replica")
    flags = StandaloneSettings.flags()
    assert 'receive_replica="standalone"' in flags["label"].help
    assert "prometheus_replica" in flags["query_replica_label"].help


def test_it_has_every_flag_of_both():
    """Nothing that works with the containers is unknown here."""
    names = {flag.name for flag in StandaloneSettings.flags().values()}
    for other in (ReceiveSettings, QuerySettings):
        assert {flag.name for flag in other.flags().values()} <= names


@pytest.mark.parametrize(
    "flag, value",
    [
        ("label", "replica=standalone"),
        ("selector-label", "a=b"),
        ("receive.default-tenant-id", "../x"),
        ("query.default-tenant-id", "../x"),
        ("query.max-concurrent", "0"),
        ("tsdb.min-block-duration", "0s"),
        ("endpoint-strict", "dns+x:1"),
        ("enable-feature", "no-such-thing"),
    ],
)
def test_checks_of_both_are_made(flag, value):
    """No validator was lost by joining the two."""
    with pytest.raises(SettingsInvalid):
        load(StandaloneSettings, {flag: [value]}, {})


def test_replica_labels_are_divided_by_commas():
    """As with the querier."""
    settings = load(StandaloneSettings, {"query.replica-label": ["a,b", "c"]}, {})
    assert settings.query_replica_label == ("a", "b", "c")
