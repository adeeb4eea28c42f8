"""`thanostack receive`: takes remote write and stores it, a TSDB a tenant.

Reads remote write 1.0 and 2.0 over HTTP (19291) and `WriteableStore` over gRPC (10901), writes the
data folder of `--tsdb.path`, serves what it stored as StoreAPI (10901), metrics and probes (10902).

    settings   every flag of upstream's receive, in its state
    wiring     builds everything; read it to see everything
    service    one write: tenants, storage, the sum of what happened
    http_api   the write path and the status page
    grpc_api   WriteableStore
    metrics    upstream's metrics

It is an ingestor: it never forwards. Routing by hashring is not offered yet and says so.
"""
