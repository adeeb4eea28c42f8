"""Decoding of compressed header blocks (HPACK).

    block = fields, one after another, by their first bits
        1        a number of the tables
        01       a literal that joins the dynamic table
        001      a new size of the dynamic table, at the block's beginning only
        0000, 0001   a literal that does not

    numbers    1 to 61 the static table, from 62 on the dynamic one, the youngest first
    literals   plain, or in a Huffman code that is canonical: the lengths of its codes say all

The `hpack` package does the same; its table for Huffman codes takes 12 MiB to import. Blocks that
come often are remembered by whoever reads them (`http2_machine`), so this need not be the fastest.

Bounds: the dynamic table, as we announce it (RFC 9113's default); the decoded size of a block.
Source: RFC 7541.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import Final

Header = tuple[bytes, bytes]

TABLE_BYTES_MAX: Final = 4096
"""Of the dynamic table: what SETTINGS say unless they say something else."""
FIELD_OVERHEAD: Final = 32
"""Counted for each field besides its bytes, in the table and in a block's size."""
_INTEGER_BYTES_MAX: Final = 5
# The smallest size meanwhile and the last one say all (RFC 7541, 4.2).
_RESIZES_MAX: Final = 2
_PADDING_BITS_MAX: Final = 7
_END_OF_STRING: Final = 256


class BadHeaderBlock(ValueError):
    """Raised for a block that cannot be decoded; the connection has lost its tables with it."""


class OversizedHeaders(BadHeaderBlock):
    """Raised for a block that decodes to more than is taken."""


class HeaderDecoder:
    """The reading side of one connection's header compression.

    Args:
        block_bytes_max: decoded size of one block, with FIELD_OVERHEAD a field.
    """

    def __init__(self, block_bytes_max: int) -> None:
        self._block_bytes_max = block_bytes_max
        self._table: deque[Header] = deque()
        self._table_bytes, self._table_bytes_max = 0, TABLE_BYTES_MAX

    def decode(self, block: bytes) -> list[Header]:
        """Return the fields of a block, in order.

        Raises:
            BadHeaderBlock: if it is malformed or oversized; the decoder is of no use then.
        """
        try:
            return self._decode(block)
        except IndexError as error:
            raise BadHeaderBlock("a header block ends in the middle of a field") from error

    def check(self) -> None:
        """Assert the invariants."""
        assert self._table_bytes == sum(map(_size, self._table)) <= self._table_bytes_max

    def _decode(self, block: bytes) -> list[Header]:
        fields: list[Header] = []
        n_bytes = n_resizes = i = 0
        while i < len(block):
            first = block[i]
            if first & 0xE0 == 0x20:
                if fields:
                    raise BadHeaderBlock("the table's size changes in the middle of a block")
                n_resizes += 1
                if n_resizes > _RESIZES_MAX:
                    raise BadHeaderBlock("the table's size changes again and again")
                i = self._resize(block, i)
                continue
            field, i = self._field(block, i)
            n_bytes += _size(field)
            if n_bytes > self._block_bytes_max:
                raise OversizedHeaders(f"header fields of more than {self._block_bytes_max} bytes")
            fields.append(field)
        return fields

    def _field(self, block: bytes, i: int) -> tuple[Header, int]:
        first = block[i]
        if first & 0x80:
            number, i = _integer(block, i, 0x7F)
            return self._known(number), i
        number, i = _integer(block, i, 0x3F if first & 0x40 else 0x0F)
        if number:
            name = self._known(number)[0]
        else:
            name, i = _string(block, i)
        value, i = _string(block, i)
        if first & 0x40:
            self._add((name, value))
        return (name, value), i

    def _known(self, number: int) -> Header:
        if 0 < number <= len(_STATIC):
            return _STATIC[number - 1]
        position = number - len(_STATIC) - 1
        if not 0 <= position < len(self._table):
            raise BadHeaderBlock(f"no table has a field {number}")
        return self._table[position]

    def _add(self, field: Header) -> None:
        self._table.appendleft(field)
        self._table_bytes += _size(field)
        self._evict()

    def _resize(self, block: bytes, i: int) -> int:
        size, i = _integer(block, i, 0x1F)
        if size > TABLE_BYTES_MAX:
            raise BadHeaderBlock(f"a dynamic table of {size} bytes, above {TABLE_BYTES_MAX}")
        self._table_bytes_max = size
        self._evict()
        return i

    def _evict(self) -> None:
        while self._table_bytes > self._table_bytes_max:
            self._table_bytes -= _size(self._table.pop())


def _size(field: Header) -> int:
    return len(field[0]) + len(field[1]) + FIELD_OVERHEAD


def _integer(block: bytes, i: int, mask: int) -> tuple[int, int]:
    value = block[i] & mask
    i += 1
    if value < mask:
        return value, i
    for n in range(_INTEGER_BYTES_MAX):
        byte = block[i + n]
        value += (byte & 0x7F) << 7 * n
        if byte < 0x80:
            return value, i + n + 1
    raise BadHeaderBlock("a number of a header block is too large")


def _string(block: bytes, i: int) -> tuple[bytes, int]:
    is_huffman = block[i] & 0x80
    length, i = _integer(block, i, 0x7F)
    text = block[i : i + length]
    if len(text) < length:
        raise BadHeaderBlock("a header block ends in the middle of a string")
    return decode_huffman(text) if is_huffman else text, i + length


def decode_huffman(text: bytes) -> bytes:
    """Return what a Huffman-coded string stands for.

    Raises:
        BadHeaderBlock: if it has the code that ends strings, or a padding that is none.
    """
    out = bytearray()
    bits, n_bits = 0, 0
    for byte in text:
        bits, n_bits = bits << 8 | byte, n_bits + 8
        while n_bits >= 8:
            found = _SHORT[bits >> n_bits - 8 & 0xFF] or _first_code(bits, n_bits)
            if found is None:
                break
            out.append(found[0])
            n_bits -= found[1]
            bits &= (1 << n_bits) - 1
    while (found := _first_code(bits, n_bits)) is not None:
        out.append(found[0])
        n_bits -= found[1]
        bits &= (1 << n_bits) - 1
    if n_bits > _PADDING_BITS_MAX or bits != (1 << n_bits) - 1:
        raise BadHeaderBlock("a string's padding is not made of ones")
    return bytes(out)


def _first_code(bits: int, n_bits: int) -> tuple[int, int] | None:
    """Return the symbol that the highest of some bits begin with, and its length in bits."""
    missing = _CODE_BITS_MAX - n_bits
    window = bits >> -missing if missing <= 0 else (bits + 1 << missing) - 1
    # Canonical: a larger number begins a code that is longer, or as long and of a later symbol.
    length, first, symbols = _CODES[bisect_right(_BEGINNINGS, window) - 1]
    if length > n_bits:
        return None
    symbol = symbols[(bits >> n_bits - length) - first]
    if symbol == _END_OF_STRING:
        raise BadHeaderBlock("a string has the code that ends strings")
    return symbol, length


def _codes(lengths: bytes) -> list[tuple[int, int, list[int]]]:
    """Return (bits, first code, symbols in the order of their codes) by rising length."""
    codes, first = [], 0
    for length in range(1, max(lengths) + 1):
        first <<= 1
        symbols = [symbol for symbol, bits in enumerate(lengths) if bits == length]
        if symbols:
            codes.append((length, first, symbols))
        first += len(symbols)
    return codes


# Source: RFC 7541, appendix B: the length in bits of the code of each byte, and of the end.
_CODES: Final = _codes(
    bytes.fromhex(
        "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a"
        "080b080606060505050606060606060607080f060c0a0d06070707070707070707070707070707070707"
        "070707070807080d130d0e060f05060506050606060507070606060506070605050607070707070f0b0e"
        "0d1c14161414161616171617171717171817181816171817171717151617161717181615141616171715"
        "1716161815161717151516151716171714161616171616171a1a1413161716191a1a1a1b1b1a18191315"
        "1a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b"
        "1b1b1b1a1e"
    )
)

_CODE_BITS_MAX: Final = _CODES[-1][0]
# Of each length, the first code, filled up with zeros.
_BEGINNINGS: Final = [first << _CODE_BITS_MAX - length for length, first, _ in _CODES]
# By the next eight bits, whatever they are: the symbol if its code is no longer, else None.
_SHORT: Final = [_first_code(bits, 8) for bits in range(256)]

# Source: RFC 7541, appendix A, in order; a field without a value has no `=`.
_STATIC_TEXT: Final = (
    ":authority|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|"
    ":scheme=https|:status=200|:status=204|:status=206|:status=304|:status=400|"
    ":status=404|:status=500|accept-charset|accept-encoding=gzip, deflate|"
    "accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|"
    "authorization|cache-control|content-disposition|content-encoding|"
    "content-language|content-length|content-location|content-range|content-type|"
    "cookie|date|etag|expect|expires|from|host|if-match|if-modified-since|"
    "if-none-match|if-range|if-unmodified-since|last-modified|link|location|"
    "max-forwards|proxy-authenticate|proxy-authorization|range|referer|refresh|"
    "retry-after|server|set-cookie|strict-transport-security|transfer-encoding|"
    "user-agent|vary|via|www-authenticate"
)
_STATIC: Final[tuple[Header, ...]] = tuple(
    (name.encode(), value.encode())
    for name, _, value in (field.partition("=") for field in _STATIC_TEXT.split("|"))
)
