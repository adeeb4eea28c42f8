"""`thanostack standalone`: receiver, storage and querier in one process on a data folder.

Reads and writes what `receive` and `query` do, on their ports: remote write (19291), StoreAPI,
WriteableStore and Info (10901), query API, query page, metrics and probes (10902). It scrapes its
own metrics, so that there is something to look at within seconds.

    settings      the flags of both containers, with defaults that fit one process
    wiring        puts the containers' parts together; the wires between them are in this process
    start_gate    keeps queries out until there is something to ask
    self_scrape   its own metrics, as a Prometheus would scrape them
    banner        what to paste into Prometheus, Grafana and a shell
    demo          two replicas with gaps, to see deduplication at work

It has no code of its own on the data path.
"""
