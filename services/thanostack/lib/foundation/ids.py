"""Distinct types for the numbers and names that must not be mixed up."""

from __future__ import annotations

from typing import NewType

SeriesRef = NewType("SeriesRef", int)
"""A head's rising, never reused series number: the WAL's identity of a series."""

ChunkRef = NewType("ChunkRef", int)
"""File number and offset of a chunk, packed as the format's page says."""

Tenant = NewType("Tenant", str)
BlockId = NewType("BlockId", str)
"""A block's ULID in its text form."""
