"""The querier: one PromQL API over many StoreAPI endpoints.

Reads:   StoreAPI and Info of endpoints, over gRPC or in the same process.
Serves:  Prometheus's query API on HTTP 10902; Store and Info on gRPC 10901, so that queriers stack.
Never:   keeps data, writes to disk, or decides silently that a missing answer does not matter.
"""
