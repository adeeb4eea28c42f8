"""Chunk encodings: compressed runs of samples, byte for byte as Prometheus's."""
