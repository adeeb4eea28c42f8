"""`thanostack receive`: takes remote write and stores it, routes it to others that do, or both.

Reads remote write 1.0 and 2.0 over HTTP (19291) and `WriteableStore` over gRPC (10901); writes the
data folder of `--tsdb.path`, unless it only routes, and to the `WriteableStore` of other receivers;
serves what it stored as StoreAPI (10901), metrics and probes (10902).

    settings      every flag of upstream's receive, in its state
    wiring        builds everything, for all three roles; read it to see everything
    http_api      the write path                    grpc_api   WriteableStore
    metrics       upstream's metrics                routing_metrics   those of routing

    ingestor      the tenants' storage, kept open   service    one write to it

    routing       hashrings, peers and router, put together
    hashring_file the hashrings in force            peers      connections, queues, back-off
    router        one write to the nodes of its series
    fan_out       its forwards until they settle    quorum     when that is
"""
