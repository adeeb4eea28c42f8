"""Receive's flags: what holds between them."""

from __future__ import annotations

import pytest

from thanostack.lib.foundation.errors import SettingsInvalid
from thanostack.receive.ingestor import tsdb_options
from thanostack.receive.settings import ReceiveSettings
from thanostack.runtime.command_line import split
from thanostack.runtime.settings import load

LABEL = '--label=replica="0"'


def parse(*arguments):
    return load(ReceiveSettings, split(arguments, ReceiveSettings).flags, {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no external labels configured"),
        ([LABEL, '--label=tenant_id="x"'], "also the label that announces tenants"),
        (["--label=x"], "unrecognized label"),
        ([LABEL, "--receive-forward-timeout=0s"], "receive-forward-timeout: must be above 0"),
        ([LABEL, "--receive.replication-protocol=capnproto"], "only protobuf is offered"),
        ([LABEL, "--receive.default-tenant-id=.."], "tenant name not valid"),
        ([LABEL, "--tsdb.min-block-duration=4h"], "not above --tsdb.max-block-duration"),
        ([LABEL, "--tsdb.out-of-order.time-window=1h"], "out-of-order ingestion is not offered"),
        ([LABEL, "--enable-feature=other"], "unknown feature other"),
        ([LABEL, "--receive.tenant-certificate-field=commonName"], "needs certificates of senders"),
        ([LABEL, "--objstore.config=type: S3"], "object storage is not offered yet"),
    ],
)
def test_what_would_lose_data_or_mean_nothing_is_refused(arguments, message):
    """Each with what to do instead."""
    with pytest.raises(SettingsInvalid, match=message):
        parse(*arguments)


def test_an_ingestors_flags_are_accepted():
    """A manifest written for Thanos in its ingestor role starts, and reasons are logged."""
    settings = parse(
        LABEL,
        "--receive.local-endpoint=127.0.0.1:10901",
        "--receive.replication-factor=3",
        "--receive.hashrings-algorithm=ketama",
        "--receive.capnproto-address=0.0.0.0:19391",
        "--tsdb.enable-native-histograms",
        "--hash-func=SHA256",
        "--tsdb.out-of-order.time-window=0d",
    )
    assert settings.external_labels == {"replica": "0"}
    assert set(settings.without_effect()) == {"hash-func"}


@pytest.mark.parametrize(
    ("arguments", "role"),
    [
        ([], "IngestorOnly"),
        (["--receive.local-endpoint=a:1"], "IngestorOnly"),
        (["--receive.hashrings=[]"], "RouterOnly"),
        (["--receive.hashrings-file=/x"], "RouterOnly"),
        (["--receive.hashrings-file=/x", "--receive.local-endpoint=a:1"], "RouterIngestor"),
    ],
)
def test_the_role_follows_from_two_flags(arguments, role):
    """As upstream: a hashring makes a router, and a local endpoint one that stores as well."""
    assert role == parse(LABEL, *arguments).role


def test_the_future_is_bounded_unless_both_flags_say_otherwise():
    """Upstream's flag goes before ours; ours is a day by default, and can be switched off."""
    window, bound = "--tsdb.too-far-in-future.time-window", "--receive.future-bound"
    assert parse(LABEL).too_far_in_future_ms == 86_400_000
    assert parse(LABEL, f"{window}=5m").too_far_in_future_ms == 300_000
    assert parse(LABEL, f"{bound}=0s").too_far_in_future_ms == 0


def test_storage_options_follow_the_flags():
    """Every storage flag reaches storage."""
    options = tsdb_options(
        parse(
            LABEL,
            "--tsdb.retention=2d",
            "--tsdb.max-retention-bytes=1GB",
            "--no-tsdb.wal-compression",
            "--tsdb.wal-fsync=always",
            "--tsdb.no-lockfile",
            "--tsdb.max-block-duration=4h",
        )
    )
    assert (options.retention_ms, options.retention_bytes) == (172_800_000, 1 << 30)
    assert (options.wal_compression, options.wal_fsync) == ("none", "always")
    assert options.no_lockfile
    assert (options.min_block_ms, options.max_block_ms) == (7_200_000, 14_400_000)
