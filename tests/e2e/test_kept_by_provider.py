"""`store_messages: false`, as a process: what a provider breaks off, or a shutdown cuts short, is not lost."""

import threading
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Books, Service, serving
from tests.e2e.test_shutdown import Listener
from tests.servers.openai import OpenAIStandIn, Reply


def shown(service: Service, conversation_id: str) -> list[tuple[str, str]]:
    messages = service.get(f"/conversations/{conversation_id}/messages").json()["data"]
    return [(message["role"], message["text"]) for message in messages]


async def test_turns_whose_replies_break_off_stay_in_the_conversation_that_the_provider_keeps(
    own_provider: OpenAIStandIn, own_database: str, own_books: Books, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"TEXTLLM_STORE_MESSAGES": "false"}
    gate = threading.Event()
    with serving(tmp_path, own_provider, own_database, **settings) as service:
        own_provider.script(Reply(deltas=("Once", " upon"), end="cut", end_after=1))
        assert service.chat("Tell me.", user_id="ada").status_code == 502
        [listed] = service.get("/conversations?user_id=ada").json()["data"]
        first = [("user", "Tell me."), ("assistant", "Once")]
        assert (listed["message_count"], shown(service, listed["id"])) == (1, first)
        own_provider.script(Reply(deltas=("early", " late"), gate=gate))
        listener = Listener(service, "bob")
        listener.hear("early")
        service.stop()
        last = listener.events()[-1]
        assert last.name == "reply.failed"
        service.start()
        [cut] = service.get("/conversations?user_id=bob").json()["data"]
        assert cut["message_count"] == 1
        assert [text for _, text in shown(service, cut["id"])][1:] == ["early"]
        for user, conversation_id in (("ada", listed["id"]), ("bob", cut["id"])):
            again = service.chat("And then?", conversation_id=conversation_id, user_id=user).json()
            assert (again["text"], again["message_number"]) == ("[2] You said: And then?", 2)
    for user, status in (("ada", "incomplete"), ("bob", "cancelled")):
        assert [entry.status for entry in await own_books.entries(user)] == [status, "completed"]
    assert await own_books.drifts() == []
    assert len(own_provider.conversations) == 2
