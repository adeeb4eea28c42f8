"""A request that comes again is a success, however its samples are stored by then."""

from contextlib import closing

from thanostack.testing.tsdb_directory import BLOCK_MS, opened
from thanostack.testing.write_storage import write_request

NAMES = [f"s{i}" for i in range(30)]
STEP = BLOCK_MS // 400


def body(times, value):
    return write_request(
        *(({"__name__": name}, [(t, value(name, t)) for t in times]) for name in NAMES)
    )


def value_of(name, t):
    return float(t % 977) + len(name)


def test_a_repeated_request_is_all_duplicates(tmp_path):
    """Older samples of a series, not only its newest, are recognised in the open chunk."""
    with closing(opened(tmp_path)) as tsdb:
        first = body(range(0, 40 * STEP, STEP), value_of)
        assert tsdb.append_and_wait(first).stored == 1200
        again = tsdb.append_and_wait(first)
    assert (again.stored, again.duplicates, again.rejected) == (0, 1200, {})


def test_closed_chunks_are_looked_up_too(tmp_path):
    """The same for chunks that are in `chunks_head` by now."""
    with closing(opened(tmp_path)) as tsdb:
        times = range(0, 180 * STEP, STEP)
        tsdb.append_and_wait(body(times, value_of))
        tsdb.jobs.run(tsdb.head.flush_closed)
        assert tsdb.head.chunks > 0
        again = tsdb.append_and_wait(body(times, value_of))
    assert (again.duplicates, again.rejected) == (180 * 30, {})


def test_another_value_stays_out_of_order(tmp_path):
    """A late sample with other bits, or at a time nothing was stored for, is refused."""
    with closing(opened(tmp_path)) as tsdb:
        tsdb.append_and_wait(body(range(0, 40 * STEP, STEP), value_of))
        other = tsdb.append_and_wait(body([STEP], lambda name, t: value_of(name, t) + 1))
        between = tsdb.append_and_wait(body([STEP + 1], value_of))
    assert other.rejected == {"out_of_order": 30}
    assert between.rejected == {"out_of_order": 30}


def test_the_example_is_no_series_that_was_stored(tmp_path):
    """It named the first late one, which is a duplicate and a success."""
    with closing(opened(tmp_path)) as tsdb:
        tsdb.append_and_wait(body([0, STEP], value_of))
        late = write_request(
            ({"__name__": "s0"}, [(0, value_of("s0", 0))]),
            ({"__name__": "s1"}, [(0, value_of("s1", 0) + 1)]),
        )
        result = tsdb.append_and_wait(late)
    assert ({"out_of_order": 1}, 1) == (result.rejected, result.duplicates)
    assert "s0" not in result.example
