"""Text of RTF files, by striprtf. Runs in the child alone."""

from typing import Any

from striprtf import striprtf

from textllm_adapters.documents.lines import Lines
from textllm_adapters.documents.outcomes import Found


def read_rtf(content: bytes, *, max_chars: int) -> Found:
    """Its text; cells of tables are separated by tabs."""
    lines = Lines(max_chars)
    reader: Any = striprtf  # which has no types
    text: str = reader.rtf_to_text(content.decode("latin-1"), errors="replace")
    lines.add(text.replace("|", "\t").strip() if _has_tables(content) else text.strip())
    return Found(lines.text(), file_type="rtf")


def _has_tables(content: bytes) -> bool:
    return b"\\cell" in content and b"|" not in content  # striprtf writes `|` behind a cell
