"""OpenAI's own SDK for Python uploads, lists, reads and deletes files over a socket, and names them in messages."""

import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from tests.e2e.conftest import Service
from tests.image_files import png

from textllm_core.ids import new_id

PNG = png(64, 48)


def test_files_are_uploaded_listed_read_named_and_deleted(service: Service) -> None:
    user = new_id("user")
    with OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as client:
        file = client.files.create(file=("one.png", PNG), purpose="vision", extra_body={"user": user})
        assert (file.filename, file.bytes, file.purpose, file.status) == ("one.png", len(PNG), "vision", "processed")
        assert client.files.content(file.id).read() == PNG
        assert client.files.wait_for_processing(file.id) == client.files.retrieve(file.id) == file
        listed = list(client.files.list(purpose="vision", order="asc", limit=1))
        assert file in listed
        said = client.responses.create(
            model="gpt-4o",
            user=user,
            input=[
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "Look"},
                        {"type": "input_image", "file_id": file.id, "detail": "low"},
                    ],
                }
            ],
        )
        assert "Look Seen: " in said.output_text
        client.responses.delete(said.id)
        assert client.files.retrieve(file.id) == file  # what was uploaded by itself outlives what named it
        assert client.files.delete(file.id).deleted
        with pytest.raises(NotFoundError):
            client.files.content(file.id)
        with pytest.raises(BadRequestError, match="user_data"):
            client.files.create(file=("a.jsonl", b"{}"), purpose="batch")
