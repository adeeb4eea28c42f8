"""Prometheus's HTTP API without a web framework: parameters in, JSON bodies out.

    parameters   times, durations, switches and limits, with upstream's error texts
    envelope     {"status": …} for answers and errors, warnings cut to a sane number
    results      query results streamed as JSON
    compression  gzip of streamed bodies

Source: Prometheus `web/api/v1`; Thanos `pkg/api`, `pkg/api/query`.
"""
