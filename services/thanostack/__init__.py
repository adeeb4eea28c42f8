"""Thanostack: long-term, highly available Prometheus metrics behind Thanos's contracts.

The package has three floors, and imports only ever point down:

    receive  query  standalone      one folder a container; standalone composes them
    runtime                         settings, supervision, HTTP, gRPC, logs, metrics
    lib                             what we know: no web framework, no process life

`docs/architecture.md` draws the data path through them.
"""
