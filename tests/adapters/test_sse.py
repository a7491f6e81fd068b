import pytest
from hypothesis import given
from hypothesis import strategies as st

from textllm_adapters.openai.sse import EventSplitter
from textllm_core.errors import ProviderError


def events_of(*chunks: bytes) -> list[tuple[bytes, bytes]]:
    splitter = EventSplitter()
    return [(event.name, event.data) for chunk in chunks for event in splitter.feed(chunk)]


one_line = st.text().map(lambda text: text.encode(errors="replace")).filter(lambda b: b"\n" not in b and b"\r" not in b)
line_break = st.sampled_from([b"\n", b"\r\n", b"\r"])
noise = st.sampled_from([b"", b": comment", b"id: 7", b"retry: 100", b"nonsense", b":"]).filter(bool)


@given(
    events=st.lists(st.tuples(one_line, st.lists(one_line, min_size=1), st.lists(noise)), max_size=6),
    newline=line_break,
    data=st.data(),
)
def test_events_survive_any_line_break_and_any_cut(
    events: list[tuple[bytes, list[bytes], list[bytes]]], newline: bytes, data: st.DataObject
) -> None:
    stream = b""
    for name, lines, extras in events:
        given_lines = [b"event: " + name, *extras, *(b"data: " + line for line in lines)]
        stream += b"".join(line + newline for line in given_lines) + newline
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)))))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    expected = [(name, b"\n".join(lines)) for name, lines, _ in events]
    assert events_of(*chunks) == expected
    assert events_of(*(stream[n : n + 1] for n in range(len(stream)))) == expected


def test_an_event_may_come_without_a_name_and_without_spaces() -> None:
    assert events_of(b"data:1\n\n", b"event:x\ndata: 2\n\n", b"data: 3\n\n") == [(b"", b"1"), (b"x", b"2"), (b"", b"3")]


def test_only_one_space_is_taken_from_the_value() -> None:
    assert events_of(b"data:  two\n\n") == [(b"", b" two")]


def test_a_stream_may_begin_with_a_byte_order_mark() -> None:
    assert events_of(b"\xef\xbb\xbfdata: 1\n\n", b"data: 2\n\n") == [(b"", b"1"), (b"", b"2")]
    assert events_of(b"\xef\xbb", b"\xbfevent: x\ndata: 1\n\n") == [(b"x", b"1")]


def test_a_field_without_a_colon_is_an_empty_line_of_data() -> None:
    assert events_of(b"data\ndata\n\n") == [(b"", b"\n")]


def test_an_event_without_data_is_none_and_its_name_is_forgotten() -> None:
    assert events_of(b"event: ping\n\n\n\ndata: 1\n\n") == [(b"", b"1")]


def test_what_the_end_cuts_short_is_left_out() -> None:
    assert events_of(b"data: 1\n\ndata: 2\n") == [(b"", b"1")]


def test_a_page_that_is_no_event_stream_has_no_events() -> None:
    assert events_of(b"<html>\n<body>\n\n</html>\n\n") == []


@pytest.mark.parametrize("separator", [b"", b"\n"])
def test_an_event_without_an_end_is_refused_before_it_fills_the_memory(separator: bytes) -> None:
    splitter = EventSplitter(max_event_bytes=100)
    for _ in range(5):
        assert list(splitter.feed(b"data: " + b"x" * 10 + separator)) == []
    with pytest.raises(ProviderError):
        list(splitter.feed(b"x" * 60))


def test_events_below_the_bound_may_follow_each_other_for_ever() -> None:
    splitter = EventSplitter(max_event_bytes=100)
    chunk = b"data: " + b"x" * 90 + b"\n\n"
    assert sum(len(list(splitter.feed(chunk[:40]))) + len(list(splitter.feed(chunk[40:]))) for _ in range(50)) == 50


@pytest.mark.parametrize(
    ("sent", "last"),
    [
        (b'data: {"a": 1}', b'{"a": 1}'),
        (b'data: {"a": 1}\r\n', b'{"a": 1}'),
        (b"data: [1]\n\ndata: [2]", b"[2]"),
        (b'data: {"a": 1}\n\n', None),
        (b'data: {"a": {"b"', None),
        (b"data: [DONE", None),
        (b": a comment", None),
        (b"", None),
    ],
)
def test_the_last_event_may_lack_its_blank_line_and_no_event_is_half_a_one(sent: bytes, last: bytes | None) -> None:
    splitter = EventSplitter()
    for place in range(len(sent)):
        list(splitter.feed(sent[place : place + 1]))
    rest = splitter.rest()
    assert (None if rest is None else rest.data) == last
    assert splitter.rest() is None
