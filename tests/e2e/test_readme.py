"""What the README prints runs as printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.servers.openai import OpenAIStandIn

from textllm_core.policy import SUMMARY_PROMPT

README = (Path(__file__).parents[2] / "README.md").read_text()


TALKED = "[0] You said: Hello 0.0001025\n[2] You said: And in French?\n"
RESUMED = f"[0] You said: Hello\nstop\n[2] You said: {SUMMARY_PROMPT}\n"
WAITED = "[2] You said: And in French? 2 turns 0.0002675\n"
FILED = "notes.txt 12 text/plain\nTea at five.\nfile_not_found No such file.\n"


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("await textllm.send_message(caller", TALKED),
        ("open_textllm_sync", WAITED),
        ("files.upload", FILED),
        ("resume_reply", RESUMED),
    ],
)
def test_the_library_examples_print_what_they_should(tmp_path: Path, shown: str, printed: str) -> None:
    (program,) = (block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if shown in block)
    with OpenAIStandIn(api_key="sk-test") as provider:
        result = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "TEXTLLM_DATA_DIR": str(tmp_path),
                "OPENAI_API_KEY": "sk-test",
                "OPENAI_BASE_URL": provider.base_url,
            },
        )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == printed
