"""Header blocks: the examples of RFC 7541, what is refused, and agreement with `hpack`."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thanostack.runtime.header_blocks import (
    TABLE_BYTES_MAX,
    BadHeaderBlock,
    HeaderDecoder,
    OversizedHeaders,
    decode_huffman,
)

# Source: RFC 7541, C.4.1 to C.4.3 and C.6.1: requests one after another, with Huffman codes.
REQUESTS = (
    (
        "828684418cf1e3c2e5f23a6ba0ab90f4ff",
        [
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":path", b"/"),
            (b":authority", b"www.example.com"),
        ],
    ),
    (
        "828684be5886a8eb10649cbf",
        [
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":path", b"/"),
            (b":authority", b"www.example.com"),
            (b"cache-control", b"no-cache"),
        ],
    ),
    (
        "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        [
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":path", b"/index.html"),
            (b":authority", b"www.example.com"),
            (b"custom-key", b"custom-value"),
        ],
    ),
)
FIELDS = st.lists(
    st.tuples(
        st.one_of(st.binary(max_size=9), st.sampled_from([b":path", b"grpc-timeout", b"date"])),
        st.one_of(st.binary(max_size=60), st.sampled_from([b"/", b"x" * 200, b"y" * 900])),
    ),
    max_size=6,
)


def test_the_rfcs_examples():
    """The dynamic table lives from block to block."""
    decoder = HeaderDecoder(1 << 16)
    for block, fields in REQUESTS:
        assert decoder.decode(bytes.fromhex(block)) == fields
        decoder.check()


@settings(deadline=None)
@given(
    st.lists(st.tuples(FIELDS, st.booleans(), st.sampled_from([0, 100, TABLE_BYTES_MAX]))),
    st.data(),
)
def test_what_hpack_encodes_is_decoded(blocks, data):
    """Whatever is in the tables, and whatever size the sender makes its own."""
    encoder, decoder = hpack.Encoder(), HeaderDecoder(1 << 20)
    for fields, huffman, size in blocks:
        if data.draw(st.booleans()):
            encoder.header_table_size = size
        assert decoder.decode(encoder.encode(fields, huffman=huffman)) == fields
        decoder.check()


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=4))
def test_garbage_is_refused_as_hpack_refuses_it(blocks):
    """Or decoded to the same; nothing else is raised. A third size is refused by us alone."""
    ours, theirs = HeaderDecoder(1 << 16), hpack.Decoder(1 << 16)
    for block in blocks:
        try:
            expected = [(bytes(n), bytes(v)) for n, v in theirs.decode(block, raw=True)]
        except hpack.HPACKError:
            with pytest.raises(BadHeaderBlock):
                ours.decode(block)
            return
        try:
            found = ours.decode(block)
        except BadHeaderBlock as error:
            if "again and again" in str(error):
                return
            raise
        assert found == expected
        ours.check()


@pytest.mark.parametrize(
    "block",
    [
        "80",  # field 0
        "be",  # the dynamic table is empty
        "40",  # a literal without anything
        "400a637573746f6d",  # a name that is cut off
        "3fe21f",  # a table of 4,097 bytes
        "8220",  # a size behind a field
        "20202082",  # a third size
        "ffffffffffff0f",  # a number without end
        "008461616161",  # bytes that no code begins with end in no padding
        "0084ffffffff00",  # the code that ends strings
    ],
)
def test_bad_blocks(block):
    """Each breaks one rule."""
    with pytest.raises(BadHeaderBlock):
        HeaderDecoder(1 << 16).decode(bytes.fromhex(block))


def test_a_block_may_begin_with_two_sizes():
    """The smallest that the table had meanwhile, and what it has now."""
    decoder = HeaderDecoder(1 << 16)
    assert decoder.decode(bytes.fromhex("203fe11f82")) == [(b":method", b"GET")]
    decoder.check()


def test_a_block_is_bounded_by_what_it_decodes_to():
    """A field counts 32 bytes besides its own, as often as it is named."""
    block = hpack.Encoder().encode([(b"a", b"b" * 100)])
    assert HeaderDecoder(133).decode(block)
    with pytest.raises(OversizedHeaders):
        HeaderDecoder(132).decode(block)
    with pytest.raises(OversizedHeaders):
        HeaderDecoder(100).decode(b"\x82" * 3)


def test_a_padding_is_less_than_a_byte_of_ones():
    """Source: RFC 7541, 5.2."""
    assert decode_huffman(b"\x1f") == b"a"
    for text in (b"\x1f\xff", b"\x18", b"\xff"):
        with pytest.raises(BadHeaderBlock):
            decode_huffman(text)
