"""Thousands of requests made from the OpenAPI document: nothing fails on our side, and nothing comes that it hides.

`TEXTLLM_SCHEMATHESIS_EXAMPLES` says how many an operation and a phase get at most; 100 unless set.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import Service, serving
from tests.e2e.test_keys import bearer, keys
from tests.servers.openai import OpenAIStandIn

pytestmark = pytest.mark.slow
SCHEMATHESIS = str(Path(sys.executable).with_name("schemathesis"))
EXAMPLES = os.environ.get("TEXTLLM_SCHEMATHESIS_EXAMPLES", "100")
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance"
)


@pytest.fixture
def guarded(provider: OpenAIStandIn, postgres_url: str, tmp_path: Path) -> Iterator[Service]:
    """A server which asks for keys."""
    with serving(tmp_path, provider, postgres_url, "--workers", "2", TEXTLLM_AUTH="required") as service:
        yield service


@pytest.mark.parametrize("role", ["service", "admin"])
def test_every_answer_to_generated_requests_is_documented(
    guarded: Service, postgres_url: str, tmp_path: Path, role: str
) -> None:
    secret = keys(guarded, postgres_url, "create", "--role", role)["secret"]
    result = subprocess.run(
        [
            *(SCHEMATHESIS, "run", f"{guarded.url}/openapi.json", "--header", f"Authorization: Bearer {secret}"),
            *("--checks", CHECKS, "--max-examples", EXAMPLES),
            *("--workers", "1", "--seed", "1", "--continue-on-failure", "--warnings", "off", "--no-color"),
            *("--suppress-health-check", "all", "--request-timeout", "60", "--generation-database", "none"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    print(result.stdout)  # noqa: T201 - it is the report
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"\d+ generated", result.stdout)
    assert guarded.get("/keys", bearer(secret)).status_code == (200 if role == "admin" else 403)  # or all were 401
    assert "request " not in "".join(line for line in guarded.log.read_text().splitlines() if " unexpectedly" in line)
