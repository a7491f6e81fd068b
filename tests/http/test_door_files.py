"""`/v1/files`: the files of `/files`, as OpenAI's clients upload, list, read and delete them."""

from typing import Any

import pytest
from tests.http.conftest import Answer, Server

from textllm_core.file_names import key_of

FORM = {"content-type": "multipart/form-data; boundary=bnd"}
CONTENT = b"0123456789"


def form(content: bytes = CONTENT, name: str = "a b.txt", **fields: str) -> bytes:
    texts = "".join(
        f'--bnd\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{text}\r\n' for field, text in fields.items()
    )
    head = f'--bnd\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return texts.encode() + head.encode() + content + b"\r\n--bnd--\r\n"


async def upload(server: Server, **fields: str) -> Answer:
    return await server.call("POST", "/v1/files", [form(**({"purpose": "user_data"} | fields))], headers=FORM)  # type: ignore[arg-type]


async def listed(server: Server, query: str = "") -> dict[str, Any]:
    answer = await server.call("GET", f"/v1/files{query}")
    assert answer.status == 200, answer.body
    listed: dict[str, Any] = answer.json()
    return listed


async def test_an_upload_is_a_file_of_both_doors(server: Server) -> None:
    answer = await upload(server, user="ada", purpose="vision")
    assert answer.status == 200, answer.body
    file = answer.json()
    file_id = file["id"]
    assert file == {
        "id": file_id,
        "object": "file",
        "bytes": 10,
        "created_at": 1795348800,
        "filename": "a b.txt",
        "purpose": "vision",
        "status": "processed",
    }
    assert answer.headers["x-ratelimit-limit-requests"] == "1000"
    assert (await server.call("GET", f"/v1/files/{file_id}")).json() == file
    content = await server.call("GET", f"/v1/files/{file_id}/content")
    assert (content.body, content.headers["content-type"]) == (CONTENT, "text/plain; charset=utf-8")
    [elsewhere] = (await server.call("GET", "/files?user_id=ada")).json()["data"]
    assert elsewhere["key"] == key_of(file_id)
    assert (await server.call("DELETE", f"/v1/files/{file_id}")).json() == {
        "id": file_id,
        "object": "file",
        "deleted": True,
    }
    assert (await server.call("GET", f"/v1/files/{file_id}")).status == 404
    assert await listed(server) == {"object": "list", "data": [], "first_id": "", "last_id": "", "has_more": False}


async def test_a_file_of_nobody_is_the_keys_own(server: Server) -> None:
    file_id = (await upload(server)).json()["id"]
    assert file_id.split("~")[1].startswith("address_")
    named = (await upload(server, safety_identifier="ann@example.org", user="bob")).json()["id"]
    assert named.split("~")[1].startswith("ann_example.org")


async def test_lists_go_in_either_order_page_by_page_and_by_purpose(server: Server) -> None:
    purposes = ("user_data", "vision", "user_data", "assistants")
    ids = [(await upload(server, purpose=purpose)).json()["id"] for purpose in purposes]
    ids.sort(key=lambda file_id: str(key_of(file_id)))  # of one second, by their keys

    def told(page: dict[str, Any]) -> tuple[list[str], bool]:
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        return [file["id"] for file in page["data"]], page["has_more"]

    assert told(await listed(server, "?order=asc")) == (ids, False)
    assert told(await listed(server, "?limit=10000&what=ever")) == (ids[::-1], False)
    assert told(await listed(server, "?limit=3&order=asc")) == (ids[:3], True)
    assert told(await listed(server, f"?limit=3&order=asc&after={ids[2]}")) == (ids[3:], False)
    page = await listed(server, "?purpose=user_data")
    assert [file["purpose"] for file in page["data"]] == ["user_data", "user_data"]


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"purpose": "fine-tune"}, "purpose", "user_data, vision, assistants"),
        ({"purpose": ""}, "purpose", "must be one of"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}, "expires_after[anchor]", "stays"),
    ],
)
async def test_what_is_not_served_is_refused_by_its_name(
    server: Server, fields: dict[str, str], param: str, says: str
) -> None:
    error = (await upload(server, **fields)).json()["error"]
    assert (error["code"], error["type"], error["param"]) == ("invalid_request", "invalid_request_error", param)
    assert says in error["message"]
    assert not server.bench.store.files


async def test_fields_that_nobody_knows_are_ignored(server: Server) -> None:
    assert (await upload(server, whatever="x", more="")).status == 200


async def test_an_id_of_nothing_is_not_found(server: Server) -> None:
    for file_id in ("file-abc", "x", "file-uploads~ann~x", "file-..~..~x"):
        answer = await server.call("GET", f"/v1/files/{file_id}")
        assert (answer.status, answer.json()["error"]["code"]) == (404, "file_not_found")
    answer = await server.call("GET", "/v1/files?after=file-uploads~ann~x")
    assert (answer.status, answer.json()["error"]["param"]) == (400, "after")


async def test_a_file_of_one_user_is_read_for_no_other_that_is_named(server: Server) -> None:
    hers, nobodys = [(await upload(server, **whose)).json()["id"] for whose in ({"user": "ada"}, {})]
    for file_id, user, status in ((hers, "bob", 400), (hers, "ada", 200), (hers, None, 200), (nobodys, "bob", 200)):
        part = {"type": "input_file", "file_id": file_id}
        said = {"role": "user", "content": [part, {"type": "input_text", "text": "What is it?"}]}
        for store in (True, False):
            answer = await server.post(
                "/v1/responses", {"model": "gpt-4o", "input": [said], "user": user, "store": store}
            )
            assert answer.status == status, answer.body
    error = (
        await server.post("/v1/responses", {"input": [said | {"content": [{**part, "file_id": "file-x"}]}]})
    ).json()
    assert error["error"]["message"].startswith("input[0].content[0].file_id: names a file")


async def test_a_file_that_cannot_be_read_is_told_by_its_place(server: Server) -> None:
    part = {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0xLjcK"}
    answer = await server.post("/v1/responses", {"input": [{"role": "user", "content": [part]}]})
    assert answer.json()["error"]["message"].startswith("input[0].content[0].file_data: "), answer.body
