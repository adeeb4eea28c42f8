"""The StoreAPI without its transport: what is asked, answered, merged and deduplicated.

    requests        what a call asks for: bytes to values and back
    codec           SeriesBatch to frames, frames to SeriesBatch
    external_labels labels of a whole store: matchers resolved, labels merged in
    server          StoreServer: answers calls from local stores
    info            what an endpoint says about itself, and whether a query concerns it
    batches         stacking, stripping, sharding and merging of answers
    dedup           replicas to one series: penalty, chain, or none
    series_source   the merged answer as PromQL reads it

Nothing here knows gRPC, sockets or settings: the containers bring them.
"""
