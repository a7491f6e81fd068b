"""Keys over several workers, made and revoked from outside them."""

import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
from tests.e2e.conftest import API_KEY, TEXTLLM, Service, serving
from tests.servers.openai import OpenAIStandIn


def keys(service: Service, database: str, *arguments: str) -> Mapping[str, str]:
    """`textllm keys …` on the database of a server."""
    result = subprocess.run(
        [TEXTLLM, "keys", *arguments, "--json"],
        capture_output=True,
        check=True,
        timeout=60,
        cwd=service.folder,
        env={"PATH": os.environ["PATH"], "HOME": str(service.folder), "DATABASE_URL": database},
    )
    shown: Mapping[str, str] = json.loads(result.stdout)
    return shown


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_a_revoked_key_is_refused_by_every_worker_within_a_second(
    provider: OpenAIStandIn, database: str, tmp_path: Path
) -> None:
    with serving(tmp_path, provider, database, "--workers", "2", TEXTLLM_AUTH="required") as service:
        admin, issued = (keys(service, database, "create", "--role", role) for role in ("admin", "service"))

        def statuses(secret: str) -> set[int]:
            """What connections of their own are told, so many that each worker has some."""
            url = f"{service.url}/files"
            return {httpx.get(url, headers=bearer(secret), timeout=30).status_code for _ in range(30)}

        assert statuses(issued["secret"]) == {200}
        revoked = httpx.delete(f"{service.url}/keys/{issued['id']}", headers=bearer(admin["secret"]), timeout=30)
        assert revoked.json() == {"id": issued["id"], "deleted": True}
        time.sleep(1)
        # With the second key there are more refusals than an address may have at once.
        assert statuses(issued["secret"]) <= {401, 429}
        assert statuses(admin["secret"]) == {200}
        keys(service, database, "revoke", admin["id"])
        time.sleep(1)
        assert statuses(admin["secret"]) <= {401, 429}


def test_off_loopback_keys_are_required_and_appear_nowhere(
    provider: OpenAIStandIn, database: str, tmp_path: Path
) -> None:
    with serving(tmp_path, provider, database, "--host", "0.0.0.0", "--workers", "2") as service:
        user = f"user-{tmp_path.name}"
        refused = [service.chat("hi"), httpx.get(f"{service.url}/config", timeout=30)]
        assert [answer.status_code for answer in refused] == [401, 401]
        issued = keys(service, database, "create", "--role", "user", "--user", user, "--tenant", "acme")
        with httpx.Client(base_url=service.url, headers=bearer(issued["secret"]), timeout=30) as client:
            answers = [
                client.post("/chat", json={"message": "hi"}),
                client.post("/chat/stream", json={"message": "hi", "stream_format": "events"}),
                client.get(f"/users/{user}/stats"),
                client.get("/users/another/stats"),
                client.get("/config"),
                client.post("/chat", content=b"{"),
            ]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 404, 403, 415]
        assert answers[0].json()["user_id"] == user
        service.stop()
        told = "".join(answer.text + str(answer.headers) for answer in answers)
        logged = service.log.read_text() + (service.folder / "logs" / "textllm.log").read_text()
        assert issued["secret"] not in told + logged
        assert API_KEY not in told + logged


def test_a_server_without_any_key_says_how_to_make_one(
    provider: OpenAIStandIn, sqlite_url: str, tmp_path: Path
) -> None:
    with serving(tmp_path, provider, sqlite_url, TEXTLLM_AUTH="required") as service:
        assert "textllm keys create --role admin" in service.log.read_text()


def test_off_loopback_no_keys_are_required_only_where_that_is_said_aloud(
    provider: OpenAIStandIn, sqlite_url: str, tmp_path: Path
) -> None:
    with serving(tmp_path, provider, sqlite_url, "--host", "0.0.0.0", TEXTLLM_AUTH="disabled") as service:
        assert service.chat("hi").status_code == 200
        assert "no authentication" in service.log.read_text()
        assert httpx.get(f"{service.url}/config", timeout=30).json()["config"]["auth"] == "disabled"
