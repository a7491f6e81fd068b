"""What the README prints runs as printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.servers.openai import OpenAIStandIn

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_library_example_talks_and_continues(tmp_path: Path) -> None:
    (program,) = (
        block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "load_settings())" in block
    )
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
    assert result.stdout == "[0] You said: Hello 0.0001025\n[2] You said: And in French?\n"
