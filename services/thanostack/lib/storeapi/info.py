"""What an endpoint says about itself, and whether a selection concerns it.

    label sets     one a TSDB behind the endpoint; none at all means "may hold anything"
    time range     of the samples it may hold, inclusive ms
    capabilities   sharding, sorting without replica labels; which APIs it serves

Source: Thanos `pkg/info/infopb/rpc.proto`, `pkg/store/proxy.go` (`storeMatches`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from thanostack.lib.foundation.errors import EndpointUnavailable
from thanostack.lib.model.label_runs import Labels
from thanostack.lib.model.matchers import Matcher
from thanostack.lib.pb import info_pb2, labels_pb2
from thanostack.lib.storeapi.external_labels import label_sets_match

TIME_MIN, TIME_MAX = -(1 << 63), (1 << 63) - 1
_MARKERS = (
    ("rules", "rules"),
    ("metric_metadata", "metric_metadata"),
    ("targets", "targets"),
    ("exemplars", "exemplars"),
    ("query", "query"),
    ("status", "status"),
)


@dataclass(frozen=True, slots=True)
class TSDBInfo:
    """One TSDB behind an endpoint: its external labels and time range, inclusive ms."""

    labels: Labels
    mint: int
    maxt: int


@dataclass(frozen=True, slots=True)
class EndpointInfo:
    """An endpoint's own description.

    Args:
        component: sidecar, store, receive, rule or query.
        label_sets: external labels, one set a TSDB; empty means that it may hold anything.
        has_store: whether it serves the StoreAPI.
        mint: ms, inclusive.
        maxt: ms, inclusive.
        supports_sharding: whether it filters by shard itself.
        supports_without_replica_labels: whether it removes replica labels and sorts.
        tsdbs: its TSDBs.
        apis: other APIs it serves, such as `rules`.
    """

    component: str
    label_sets: tuple[Labels, ...] = ()
    has_store: bool = True
    mint: int = TIME_MIN
    maxt: int = TIME_MAX
    supports_sharding: bool = True
    supports_without_replica_labels: bool = True
    tsdbs: tuple[TSDBInfo, ...] = ()
    apis: frozenset[str] = frozenset()

    def may_hold(self, matchers: Sequence[Matcher], mint: int, maxt: int) -> bool:
        """Return whether the endpoint can have series for a selection over [mint, maxt]."""
        return (
            self.has_store
            and self.mint <= maxt
            and mint <= self.maxt
            and label_sets_match(matchers, self.label_sets)
        )


def _labels_of(message: labels_pb2.ZLabelSet) -> Labels:
    return tuple(sorted((label.name.encode(), label.value.encode()) for label in message.labels))


def _label_set(labels: Labels) -> labels_pb2.ZLabelSet:
    return labels_pb2.ZLabelSet(
        labels=[
            labels_pb2.Label(name=n.decode(errors="replace"), value=v.decode(errors="replace"))
            for n, v in labels
        ]
    )


def parse_info(data: bytes) -> EndpointInfo:
    """Return an endpoint's description from an InfoResponse.

    Raises:
        EndpointUnavailable: for bytes that are none.
    """
    try:
        message = info_pb2.InfoResponse.FromString(data)
    except DecodeError as error:
        raise EndpointUnavailable(f"malformed InfoResponse: {error}") from error
    store = message.store
    return EndpointInfo(
        component=message.ComponentType,
        label_sets=tuple(_labels_of(labels) for labels in message.label_sets),
        has_store=message.HasField("store"),
        mint=store.min_time,
        maxt=store.max_time,
        supports_sharding=store.supports_sharding,
        supports_without_replica_labels=store.supports_without_replica_labels,
        tsdbs=tuple(
            TSDBInfo(_labels_of(t.labels), t.min_time, t.max_time) for t in store.tsdb_infos
        ),
        apis=frozenset(api for api, field in _MARKERS if message.HasField(field)),  # type: ignore[arg-type]
    )


def encode_info(info: EndpointInfo) -> bytes:
    """Return an InfoResponse."""
    message = info_pb2.InfoResponse(
        ComponentType=info.component, label_sets=[_label_set(labels) for labels in info.label_sets]
    )
    if info.has_store:
        store = message.store
        store.min_time, store.max_time = info.mint, info.maxt
        store.supports_sharding = info.supports_sharding
        store.supports_without_replica_labels = info.supports_without_replica_labels
        for tsdb in info.tsdbs:
            store.tsdb_infos.add(
                labels=_label_set(tsdb.labels), min_time=tsdb.mint, max_time=tsdb.maxt
            )
        # An empty store message is present all the same: it says that the API is there.
        store.SetInParent()
    for api, field in _MARKERS:
        if api in info.apis:
            getattr(message, field).SetInParent()
    return message.SerializeToString()
