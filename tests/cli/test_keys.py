"""`textllm keys`: keys made, listed and revoked on the database itself."""

import asyncio
import json
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.cli.app_over_memory import MemoryWiring
from tests.cli.conftest import Run

from textllm_adapters.memory.application import memory_administration
from textllm_core import Caller
from textllm_core.api_keys import is_secret
from textllm_core.errors import UnauthenticatedError


def caller(wiring: MemoryWiring, secret: str) -> Caller:
    """Who the secret stands for, but for the key's id."""
    return replace(asyncio.run(memory_administration(wiring.store, wiring.clock).authenticate(secret)), id=Caller().id)


def test_the_first_admin_key_is_made_and_its_secret_alone_goes_to_stdout(run: Run, wiring: MemoryWiring) -> None:
    result = run("keys", "create", "--role", "admin")
    assert result.exit_code == 0
    assert is_secret(result.stdout.removesuffix("\n"))
    assert caller(wiring, result.stdout.strip()) == Caller("default", "admin")
    assert "not shown again" in result.stderr
    assert result.stdout.strip() not in result.stderr


def test_a_key_of_a_further_tenant_is_made(run: Run, wiring: MemoryWiring) -> None:
    arguments = ["--role", "user", "--tenant", "acme", "--user", "ada", "--name", "Ada's laptop"]
    result = run("keys", "create", *arguments, "--json")
    issued = json.loads(result.stdout)
    assert (result.stderr, caller(wiring, issued["secret"])) == ("", Caller("acme", "user", "ada"))
    listed = json.loads(run("keys", "list", "--tenant", "acme", "--json").stdout)
    del issued["secret"]
    assert listed == {"data": [issued], "has_more": False}
    assert json.loads(run("keys", "list", "--json").stdout)["data"] == []


def test_a_key_is_limited_to_models(run: Run, wiring: MemoryWiring) -> None:
    result = run("keys", "create", "--role", "service", "--models", "fast,openai/gpt-4o")
    assert caller(wiring, result.stdout.strip()).models == ("fast", "openai/gpt-4o")
    assert run("keys", "create", "--role", "service", "--models", "a,,b").exit_code == 4
    run("keys", "create", "--role", "admin")
    lines = run("keys", "list").stdout.splitlines()
    assert [line.split()[-1] for line in lines] == ["models", "all", "fast,openai/gpt-4o"]


def test_a_key_for_a_model_that_there_is_not_is_refused_by_name(run: Run, tmp_path: Path) -> None:
    models = {name: {"provider": "own"} for name in ("fast", "careful")}
    config = {"model": "fast", "providers": {"own": {"kind": "embedded"}}, "models": models}
    (tmp_path / "some.yaml").write_text(json.dumps(config))  # which is YAML, too
    create = ("--config", "some.yaml", "keys", "create", "--role", "service", "--models")
    refused = run(*create, "fast,nope")
    assert (refused.exit_code, refused.stdout) == (4, "")
    assert "no model has the name 'nope'; there are: fast, careful" in refused.stderr
    assert run(*create, "careful,fast").exit_code == 0


def test_keys_are_listed_without_their_secrets(run: Run) -> None:
    secret = run("keys", "create", "--role", "service", "--name", "billing").stdout.strip()
    text = run("keys", "list").stdout
    assert "service" in text
    assert "billing" in text
    assert secret[:9] in text
    assert secret not in text


def test_a_longer_list_says_how_to_go_on(run: Run) -> None:
    made = [json.loads(run("keys", "create", "--role", "service", "--json").stdout)["id"] for _ in range(3)]
    first = run("keys", "list", "--limit", "2")
    assert f"--after {made[1]}" in first.stderr
    assert made[0] in run("keys", "list", "--after", made[1]).stdout


def test_a_revoked_key_is_refused_and_marked(run: Run, wiring: MemoryWiring) -> None:
    issued = json.loads(run("keys", "create", "--role", "admin", "--json").stdout)
    assert json.loads(run("keys", "revoke", issued["id"], "--json").stdout) == {"id": issued["id"], "deleted": True}
    assert run("keys", "revoke", issued["id"]).stdout == f"{issued['id']} is revoked.\n"
    with pytest.raises(UnauthenticatedError):
        caller(wiring, issued["secret"])
    assert json.loads(run("keys", "list", "--json").stdout)["data"][0]["revoked_at"] is not None


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["create"], 2),
        (["create", "--role", "root"], 2),
        (["create", "--role", "user"], 4),
        (["create", "--role", "admin", "--user", "ada"], 4),
        (["create", "--role", "admin", "--tenant", "a b"], 4),
        (["list", "--limit", "0"], 2),
        (["list", "--after", "key_1"], 4),
        (["revoke", "key_1"], 3),
        (["revoke"], 2),
    ],
)
def test_what_cannot_be_done_has_its_exit_code(run: Run, arguments: list[str], code: int) -> None:
    result = run("keys", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")


def test_a_key_of_another_tenant_is_revoked_only_by_its_name(run: Run) -> None:
    issued = json.loads(run("keys", "create", "--role", "admin", "--tenant", "acme", "--json").stdout)
    assert run("keys", "revoke", issued["id"]).exit_code == 3
    assert run("keys", "revoke", issued["id"], "--tenant", "acme").exit_code == 0
