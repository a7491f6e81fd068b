"""Bad requests get a clear 4xx that names the field and never repeats what was sent."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.http.conftest import JSON, Server, serving
from tests.unit.conftest import Bench

from textllm_core.errors import InvalidRequestError
from textllm_http.requests import JsonBody
from textllm_http.turns import TurnRequest

MAX_BODY = 256 * 1024 + 4 * 10_000
SECRET = "canary"

# name: body, field (None: the body as a whole), what is said of it
BAD_BODIES: dict[str, tuple[bytes, str | None, str]] = {
    "nothing at all": (b"", None, "not valid JSON"),
    "blanks": (b"  \n ", None, "not valid JSON"),
    "plain text": (b"canary", None, "not valid JSON"),
    "cut off": (b'{"message": "canary', None, "not valid JSON"),
    "something after the end": (b'{"message": "Hi"} canary', None, "not valid JSON"),
    "two documents": (b'{"message": "Hi"}{"message": "canary"}', None, "not valid JSON"),
    "a comma too many": (b'{"message": "canary",}', None, "not valid JSON"),
    "single quotes": (b"{'message': 'canary'}", None, "not valid JSON"),
    "a comment": (b'{"message": "Hi" /* canary */}', None, "not valid JSON"),
    "a byte order mark": (b'\xef\xbb\xbf{"message": "canary"}', None, "not valid JSON"),
    "UTF-16": ('{"message": "canary"}'.encode("utf-16"), None, "not valid JSON"),
    "a byte that is not UTF-8": (b'{"message": "canary\xff"}', None, "not valid JSON"),
    "a byte that is not UTF-8 in a name": (b'{"message": "Hi", "canary\xff": 1}', None, "not valid JSON"),
    "an overlong encoding": (b'{"message": "canary\xc0\xaf"}', None, "not valid JSON"),
    "a surrogate as bytes": (b'{"message": "canary\xed\xa0\x80"}', None, "not valid JSON"),
    "a high surrogate alone": (rb'{"message": "canary\ud800"}', None, "not valid JSON"),
    "a low surrogate alone": (rb'{"message": "canary\udc00"}', None, "not valid JSON"),
    "surrogates in the wrong order": (rb'{"message": "canary\udc00\ud800"}', None, "not valid JSON"),
    "a surrogate in a metadata key": (rb'{"message": "Hi", "metadata": {"\ud800": "canary"}}', None, "not valid JSON"),
    "a line break in a string": (b'{"message": "canary\n"}', None, "not valid JSON"),
    "a raw NUL": (b'{"message": "canary\0"}', None, "not valid JSON"),
    "NaN": (b'{"message": "Hi", "temperature": NaN}', None, "not valid JSON"),
    "Infinity": (b'{"message": "Hi", "temperature": -Infinity}', None, "not valid JSON"),
    "a hexadecimal number": (b'{"message": "Hi", "temperature": 0x20}', None, "not valid JSON"),
    "an array": (b'["canary"]', None, "must be a JSON object"),
    "a string": (b'"canary"', None, "must be a JSON object"),
    "null": (b"null", None, "must be a JSON object"),
    "a deep array": (b"[" * 200_000, None, "must be a JSON object"),
    "an empty object": (b"{}", "message", "is required"),
    "message is null": (b'{"message": null}', "message", "must be a string"),
    "message is a number": (b'{"message": 17}', "message", "must be a string"),
    "message is deep": (b'{"message": ' + b"[" * 200_000, "message", "must be a string"),
    "message is deep objects": (b'{"message": ' + b'{"a":' * 50_000, "message", "must be a string"),
    "message is blank": (b'{"message": " \\n\\t"}', "message", "must not be blank"),
    "message is empty": (b'{"message": ""}', "message", "must not be blank"),
    "message has a NUL": (rb'{"message": "canary\u0000"}', "message", "NUL"),
    "message comes twice": (b'{"message": "Hi", "message": "canary"}', "message", "more than once"),
    "message comes twice, once escaped": (rb'{"message": "Hi", "\u006dessage": "canary"}', "message", "more than once"),
    "an unknown field": (
        b'{"message": "Hi", "mesage": "canary"}',
        "mesage",
        "no field of this request; it has message, ",
    ),
    "an unknown deep field": (b'{"message": "Hi", "x": ' + b"[" * 200_000, "x", "no field"),
    "an unknown field with a strange name": (b'{"message": "Hi", "<canary>": 1}', "?", "no field"),
    "an unknown field with a long name": (b'{"message": "Hi", "' + b"canary" * 99 + b'": 1}', "?", "no field"),
    "a name with NUL": (rb'{"message": "Hi", "metadata": {"a\u0000": "canary"}}', "?", "NUL"),
    "conversation_id is a number": (b'{"message": "Hi", "conversation_id": 17}', "conversation_id", "must be a string"),
    "user_id is an object": (b'{"message": "Hi", "user_id": {"id": "canary"}}', "user_id", "must be a string"),
    "user_id has a blank": (b'{"message": "Hi", "user_id": "a canary"}', "user_id", "1 to 255 characters"),
    "user_id is empty": (b'{"message": "Hi", "user_id": ""}', "user_id", "1 to 255 characters"),
    "user_id is too long": (b'{"message": "Hi", "user_id": "' + b"a" * 256 + b'"}', "user_id", "1 to 255 characters"),
    "user_id has a line break": (b'{"message": "Hi", "user_id": "canary\\n"}', "user_id", "1 to 255 characters"),
    "stream is a string": (b'{"message": "Hi", "stream": "true"}', "stream", "must be true or false"),
    "stream is a number": (b'{"message": "Hi", "stream": 1}', "stream", "must be true or false"),
    "an unknown stream_format": (
        b'{"message": "Hi", "stream_format": "canary"}',
        "stream_format",
        'must be "events" or "text"',
    ),
    "a stream_format that looks like the decoder's words": (
        b'{"message": "Hi", "stream_format": "canary` - at `$.nothing`"}',
        "stream_format",
        'must be "events" or "text"',
    ),
    "max_output_tokens is too small": (
        b'{"message": "Hi", "max_output_tokens": 15}',
        "max_output_tokens",
        "from 16 to",
    ),
    "max_output_tokens is 0": (b'{"message": "Hi", "max_output_tokens": 0}', "max_output_tokens", "whole number"),
    "max_output_tokens is negative": (b'{"message": "Hi", "max_output_tokens": -1}', "max_output_tokens", "from 1"),
    "max_output_tokens is huge": (
        b'{"message": "Hi", "max_output_tokens": ' + b"9" * 200_000 + b"}",
        "max_output_tokens",
        "from 16 to 2147483647",
    ),
    "max_output_tokens has a fraction": (b'{"message": "Hi", "max_output_tokens": 32.5}', "max_output_tokens", "whole"),
    "max_output_tokens is a string": (b'{"message": "Hi", "max_output_tokens": "32"}', "max_output_tokens", "whole"),
    "max_output_tokens is true": (b'{"message": "Hi", "max_output_tokens": true}', "max_output_tokens", "whole"),
    "temperature is too high": (b'{"message": "Hi", "temperature": 2.1}', "temperature", "from 0 to 2"),
    "temperature is negative": (b'{"message": "Hi", "temperature": -0.1}', "temperature", "from 0 to 2"),
    "temperature is past every float": (b'{"message": "Hi", "temperature": 1e999}', "temperature", "must be a number"),
    "temperature has 200,000 digits": (
        b'{"message": "Hi", "temperature": ' + b"9" * 200_000 + b"}",
        "temperature",
        "must be a number",
    ),
    "temperature is a string": (b'{"message": "Hi", "temperature": "canary"}', "temperature", "must be a number"),
    "model is a list": (b'{"message": "Hi", "model": ["canary"]}', "model", "must be a string"),
    "model without a price": (b'{"message": "Hi", "model": "no-such-model"}', "model", "no price"),
    "an unknown prompt": (b'{"message": "Hi", "prompt": "canary"}', "prompt", "no prompt has this name"),
    "prompt and instructions": (
        b'{"message": "Hi", "prompt": "default", "instructions": "canary"}',
        "instructions",
        "not both",
    ),
    "metadata is a list": (b'{"message": "Hi", "metadata": ["canary"]}', "metadata", "must be an object"),
    "a metadata value is a number": (
        b'{"message": "Hi", "metadata": {"tier": "canary", "topic": 17}}',
        "metadata.topic",
        "must be a string",
    ),
    "a metadata value is deep": (b'{"message": "Hi", "metadata": {"topic": ' + b"[" * 99_000, "metadata", "an object"),
    "a metadata key comes twice": (
        b'{"message": "Hi", "metadata": {"topic": "canary", "topic": "b"}}',
        "metadata.topic",
        "more than once",
    ),
    "a metadata value has a NUL": (rb'{"message": "Hi", "metadata": {"topic": "\u0000"}}', "metadata.topic", "NUL"),
    "17 metadata pairs": (
        json.dumps({"message": "Hi", "metadata": {f"key{n}": SECRET for n in range(17)}}).encode(),
        "metadata",
        "16 pairs",
    ),
    "a metadata key of 65 characters": (
        json.dumps({"message": "Hi", "metadata": {"k" * 65: SECRET}}).encode(),
        "metadata",
        "64",
    ),
    "a metadata value of 513 characters": (
        json.dumps({"message": "Hi", "metadata": {"key": "v" * 513}}).encode(),
        "metadata",
        "512",
    ),
}


@pytest.mark.parametrize("path", ["/chat", "/chat/stream"])
@pytest.mark.parametrize("name", BAD_BODIES)
async def test_a_bad_body_is_refused_with_its_field(server: Server, name: str, path: str) -> None:
    body, field, words = BAD_BODIES[name]
    answer = await server.post(path, body)
    assert answer.status == 400, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "invalid_request"
    assert [error["field"] for error in problem["errors"]] == ([] if field is None else [field])
    assert words in (problem["detail"] if field is None else problem["errors"][0]["message"])
    assert SECRET.encode() not in answer.body
    assert server.bench.llm.requests == []


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
        'application/json; charset=""',
    ],
)
async def test_what_is_not_declared_as_json_in_utf8_is_refused(server: Server, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    answer = await server.post("/chat", {"message": "Hi"}, headers)
    assert (answer.status, answer.json()["code"]) == (415, "unsupported_media_type")
    if content_type is not None:
        assert answer.json()["detail"].endswith("Content-Type: application/json")


async def test_two_content_types_are_refused(server: Server) -> None:
    headers = [("content-type", "application/json"), ("content-type", "text/plain")]
    answer = await server.call("POST", "/chat", [b'{"message": "Hi"}'], headers=headers)
    assert answer.status == 415


async def test_a_compressed_body_is_refused(server: Server) -> None:
    answer = await server.post("/chat", b"\x1f\x8b", {**JSON, "content-encoding": "gzip"})
    assert (answer.status, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"', "application/json ; charset=utf8"],
)
async def test_json_in_utf8_is_taken_however_it_is_declared(server: Server, content_type: str) -> None:
    answer = await server.post("/chat", {"message": "Hi"}, {"content-type": content_type})
    assert answer.status == 200


@pytest.mark.parametrize("length", [str(MAX_BODY + 1), "9" * 400])
async def test_a_body_declared_too_large_is_refused_unread(server: Server, length: str) -> None:
    answer = await server.call("POST", "/chat", headers={**JSON, "content-length": length}, is_whole=False)
    assert (answer.status, answer.json()["code"]) == (413, "input_too_long")


async def test_a_body_that_grows_too_large_is_refused_as_it_comes(server: Server) -> None:
    answer = await server.call("POST", "/chat", [b" " * 65536] * 5, headers=JSON, is_whole=False)
    assert (answer.status, answer.json()["code"]) == (413, "input_too_long")


@pytest.mark.parametrize("length", ["-1", "1e3", "canary", "", "٣".encode().decode("latin-1")])
async def test_a_content_length_that_is_no_number_is_refused(server: Server, length: str) -> None:
    answer = await server.post("/chat", {"message": "Hi"}, {**JSON, "content-length": length})
    assert (answer.status, answer.json()["code"]) == (400, "invalid_request")
    assert b"canary" not in answer.body


async def test_a_message_of_one_character_too_many_is_too_long(server: Server) -> None:
    answer = await server.post("/chat", {"message": "😀" * 10_001})
    problem = answer.json()
    assert (answer.status, problem["code"], problem["limit"]) == (413, "input_too_long", 10_000)


async def test_the_longest_message_fits_however_it_is_escaped(server: Server) -> None:
    escaped = rb"\ud83d\ude00" * 10_000
    answer = await server.post("/chat", b'{"message": "%s"}' % escaped)
    assert answer.status == 200
    assert server.bench.llm.requests[0].messages[-1].text == "😀" * 10_000


async def test_a_body_that_stalls_is_cut(bench: Bench) -> None:
    async with serving(bench, body_timeout_s=0.01) as server:
        answer = await server.call("POST", "/chat", [b'{"mess'], headers=JSON, is_whole=False)
    assert (answer.status, answer.json()["code"]) == (400, "invalid_request")


async def test_a_body_whose_sender_leaves_starts_nothing(server: Server) -> None:
    await server.call("POST", "/chat", [b'{"message": "Hi"}'], headers=JSON, is_whole=False, sender_stays=False)
    assert server.bench.llm.requests == []


async def test_a_body_in_pieces_is_read_whole(server: Server) -> None:
    pieces = [bytes([byte]) for byte in '{"message": "Grüße 😀"}'.encode()]
    answer = await server.call("POST", "/chat", pieces, headers=JSON)
    assert answer.json()["text"] == "[0] You said: Grüße 😀"


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (rb"what is \\u0000?", r"what is \u0000?"),
        (rb"\ud83d\ude00", "😀"),
        (rb"tab\tquote\"slash\/", 'tab\tquote"slash/'),
        ("e\u0301 \u202e \ufeff".encode(), "e\u0301 \u202e \ufeff"),
    ],
)
async def test_text_is_taken_as_it_is_meant(server: Server, said: bytes, heard: str) -> None:
    answer = await server.post("/chat", b'{"message": "%s"}' % said)
    assert answer.json()["text"] == f"[0] You said: {heard}"


async def test_null_is_the_same_as_left_out(server: Server) -> None:
    optional = ["conversation_id", "user_id", "stream", "stream_format", "model", "prompt", "instructions"]
    optional += ["max_output_tokens", "temperature", "metadata"]
    body: dict[str, Any] = {"message": "Hi", **dict.fromkeys(optional)}
    answer = await server.post("/chat", body)
    assert answer.status == 200


@pytest.mark.parametrize("path", ["/chat", "/chat/stream", "/config", "/health/live", "/health/ready"])
@pytest.mark.parametrize("query", ["user_id=canary", "user_id", "=canary", "%00=%ff", "a=1&a=2", "<canary>=1"])
async def test_query_parameters_are_refused_everywhere(server: Server, path: str, query: str) -> None:
    method = "POST" if path.startswith("/chat") else "GET"
    answer = await server.call(method, f"{path}?{query}", [b'{"message": "Hi"}'], headers=JSON)
    assert (answer.status, answer.json()["code"]) == (400, "invalid_request")
    assert b"canary" not in answer.body


@pytest.mark.parametrize(
    "path", ["/sessions/sess_1", "/users/ada/sessions", "/users/ada/stats", "/sessions/sess_1/end"]
)
@pytest.mark.parametrize("query", ["user_id=canary", "day=1", "days=1&canary=2", "=canary", "Days=3", "%00=%ff"])
async def test_no_other_query_parameter_than_its_own_is_taken(server: Server, path: str, query: str) -> None:
    answer = await server.call("POST" if path.endswith("/end") else "GET", f"{path}?{query}")
    assert (answer.status, answer.json()["code"]) == (400, "invalid_request")
    assert b"canary=" not in answer.body
    assert b"=canary" not in answer.body


@pytest.mark.parametrize("path", ["/users/ada/sessions", "/users/ada/stats"])
@pytest.mark.parametrize(
    "value", ["0", "-1", "+1", "3661", "1.5", "x", "null", "true", "%20", "%D9%A3", "9" * 400, "canary"]
)
async def test_a_bad_query_parameter_is_named_with_what_it_must_be(server: Server, path: str, value: str) -> None:
    answer = await server.get(f"{path}?days={value}")
    assert (answer.status, answer.json()["code"]) == (400, "invalid_request")
    (error,) = answer.json()["errors"]
    assert error["field"] == "days"
    assert error["message"].startswith("must be a whole number from 1 to 366")
    assert b"canary" not in answer.body


async def test_a_query_parameter_comes_once(server: Server) -> None:
    answer = await server.get("/users/ada/stats?days=1&days=1")
    assert answer.status == 400
    assert answer.json()["errors"] == [{"field": "days", "message": "is there more than once"}]


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(alphabet=st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [field.encode_name for field in structs.fields(TurnRequest)]
ALMOST_A_TURN = st.dictionaries(st.sampled_from(FIELDS) | st.text(), ANY_JSON, max_size=6)


@given(st.binary() | ANY_JSON.map(json.dumps).map(str.encode) | ALMOST_A_TURN.map(json.dumps).map(str.encode))
def test_no_body_at_all_makes_the_reader_fail_in_any_other_way(body: bytes) -> None:
    with suppress(InvalidRequestError):
        assert isinstance(JsonBody(TurnRequest).decode(body), TurnRequest)


@given(
    st.fixed_dictionaries(
        {"message": st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]))},
        optional={
            "stream": st.booleans(),
            "temperature": st.floats(allow_nan=False, allow_infinity=False),
            "max_output_tokens": st.integers(16, 2**31 - 1),
            "metadata": st.dictionaries(
                st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])), st.just("x")
            ),
        },
    ),
    st.booleans(),
)
def test_every_well_formed_turn_is_read_as_it_was_written(body: dict[str, Any], is_ascii: bool) -> None:
    read = JsonBody(TurnRequest).decode(json.dumps(body, ensure_ascii=is_ascii).encode())
    assert {name: getattr(read, name) for name in body} == body
