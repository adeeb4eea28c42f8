"""Which nodes hold a series: hashrings as Thanos lays them out, bit for bit.

    config.py      hashrings.json → rings as written, checked; `config_hash`
    placement.py   Ring, HashmodRing, KetamaRing; `series_hashes`
    shuffle.py     a tenant's own sub-ring, cached
    go_rand.py     the random source that shuffle sharding draws from
    tenants.py     a tenant among names, or among Go's glob patterns
    hashrings.py   Hashrings: all rings of one configuration, by tenant

    request body ── series_hashes ──> uint64[n] ── ring_of(tenant).place ──> int32[n, replicas]

Everything is immutable once built: a reload parses a new `Hashrings`. Never here: connections,
watching of files, quorum; those are the router's. Source: Thanos v0.42.4 `pkg/receive`.
"""

from thanostack.lib.hashring.config import Endpoint, config_hash
from thanostack.lib.hashring.hashrings import Hashrings
from thanostack.lib.hashring.placement import HashmodRing, KetamaRing, Ring, series_hashes

__all__ = [
    "Endpoint",
    "HashmodRing",
    "Hashrings",
    "KetamaRing",
    "Ring",
    "config_hash",
    "series_hashes",
]
