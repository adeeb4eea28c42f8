"""Remote write on the wire: which version it is, its snappy body, and taking a body apart.

negotiation  version 1.0 or 2.0, by headers
snappy_body  decompression into reused buffers, within a ceiling
split        runs of series in a message, and one body a tenant
"""
