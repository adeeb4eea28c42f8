"""Answers that are known again end calls as if they were not, in whatever pieces they come."""

from __future__ import annotations

import hpack
from hypothesis import given, settings
from hypothesis import strategies as st

from thanostack.runtime import http2_frames as h2
from thanostack.runtime.error_mapping import GrpcCode
from thanostack.runtime.http2_answer import known_answer
from thanostack.runtime.http2_client import Http2Client

HEAD = h2.encode_headers([(b":status", b"200"), (b"content-type", b"application/grpc")])
GOOD = h2.encode_headers([(b"grpc-status", b"0"), (b"thanostack-role", b"IngestorOnly")])
PLAIN = h2.encode_headers([(b"grpc-status", b"0")])
BAD = h2.encode_headers([(b"grpc-status", b"6"), (b"grpc-message", b"refused")])
EMPTY = bytes(5)


def answer(stream, last=GOOD, head=HEAD, body=EMPTY):
    return (
        h2.pack_frame(h2.HEADERS, h2.END_HEADERS, stream, head)
        + h2.pack_frame(h2.DATA, 0, stream, body)
        + h2.pack_frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, last)
    )


def made(kind, stream, encoder):
    if kind == "indexed":  # this one puts fields into the compression table
        return answer(stream, last=encoder.encode([(b"grpc-status", b"0"), (b"x", b"%d" % stream)]))
    if kind == "trailers only":
        flags = h2.END_HEADERS | h2.END_STREAM
        return h2.pack_frame(h2.HEADERS, flags, stream, BAD)
    if kind == "ping":
        return h2.pack_frame(h2.PING, 0, 0, bytes(8)) + answer(stream)
    return answer(stream, last={"good": GOOD, "plain": PLAIN, "bad": BAD}[kind])


def ends_of(client, chunks):
    ends = []
    for n in range(40):
        client.call(b"", [memoryview(b"x")], lambda end, n=n: ends.append((n, end)))
    for chunk in chunks:
        client.receive(chunk, 0.0)
        client.check()
    return ends, client.take_pieces()


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["good", "good", "good", "plain", "bad", "indexed", "trailers only", "ping"]
        ),
        max_size=40,
    ),
    st.randoms(use_true_random=False),
    st.lists(st.integers(1, 400), min_size=1, max_size=60),
)
def test_calls_end_as_they_would_without_recognition(kinds, source, cuts):
    """In any order of streams, and wherever a read ends."""
    streams = list(range(1, 80, 2))
    source.shuffle(streams)
    encoder = hpack.Encoder()
    pairs = zip(kinds, streams, strict=False)
    data = b"".join(made(kind, stream, encoder) for kind, stream in pairs)
    chunks, at = [], 0
    for cut in cuts:
        chunks.append(data[at : at + cut])
        at += cut
    chunks = [chunk for chunk in (*chunks, data[at:]) if chunk]
    learning, plain = Http2Client(), Http2Client()
    plain._lessons = 0
    assert ends_of(learning, chunks) == ends_of(plain, chunks)
    assert plain._usual is None


def test_the_second_good_answer_is_known():
    """And the others after it, several in one read too."""
    client, ends = Http2Client(), []
    for _ in range(4):
        client.call(b"", [memoryview(b"x")], ends.append)
    client.receive(answer(1), 0.0)
    known = client._usual
    assert known is not None
    two = answer(5) + answer(3)
    assert client._take_usual(two, *known) == len(two)
    assert [end.code for end in ends] == [GrpcCode.OK] * 3
    assert {end.role for end in ends} == {"IngestorOnly"}
    assert client.n_streams == 1


def test_what_cannot_be_known_again():
    """Errors of form, other forms, and blocks that change the table."""
    known = {HEAD: [], GOOD: []}
    usual = answer(1)
    assert known_answer(usual, known) is not None
    assert known_answer(usual + b"x", known) is None
    assert known_answer(usual[:-1], known) is None
    assert known_answer(answer(1, last=BAD), known) is None
    assert known_answer(h2.pack_frame(h2.HEADERS, h2.END_HEADERS, 1, HEAD), known) is None
    assert known_answer(answer(1, body=bytes(2000)), known) is None
    found = known_answer(usual, known)
    flags = h2.END_HEADERS | h2.END_STREAM
    other = h2.pack_frame(h2.HEADERS, flags, 3, GOOD)
    assert found.stream_of(usual[: -len(other)] + other, 0) == 0
    assert found.stream_of(answer(7), 0) == 7
    assert found.stream_of(answer(7)[:-1], 0) == 0
