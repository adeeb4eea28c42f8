"""Bodies that are not what their headers announce."""

from __future__ import annotations

import numpy as np
import pytest

from thanostack.lib.foundation.errors import InvalidInput
from thanostack.lib.remotewrite.body_shape import check_shape
from thanostack.testing.write_storage import write_request, write_request_v2

SERIES = ({"__name__": "up"}, [(1, 1.0)])
BODIES = {1: write_request(SERIES), 2: write_request_v2(SERIES)}
METADATA = b"\x1a\x02\x08\x01"
UNKNOWN = b"\x7a\x01a"


def array(body):
    return np.frombuffer(body, np.uint8)


@pytest.mark.parametrize("version", [1, 2])
def test_a_body_of_the_other_version_is_refused(version):
    """Read as announced it would be empty: 200, and nothing stored."""
    other = 3 - version
    check_shape(array(BODIES[version]), version)
    with pytest.raises(InvalidInput, match=rf"is a remote write {other}\.0 message; send the head"):
        check_shape(array(BODIES[other]), version)


def test_metadata_alone_is_a_version_1_body():
    """It has no series, and is a message all the same."""
    check_shape(array(METADATA), 1)
    with pytest.raises(InvalidInput, match=r"remote write 1\.0 message"):
        check_shape(array(METADATA), 2)


@pytest.mark.parametrize("version", [1, 2])
def test_unknown_fields_may_stand_before_series_but_not_alone(version):
    """A later version of a message may have more fields; a body of those only is something else."""
    check_shape(array(b""), version)
    check_shape(array(UNKNOWN + BODIES[version]), version)
    for body in (UNKNOWN, UNKNOWN + BODIES[3 - version]):
        with pytest.raises(InvalidInput, match=r"has no series"):
            check_shape(array(body), version)
    with pytest.raises(InvalidInput):
        check_shape(array(b"\xff\xff"), version)
