"""Cells of XLSX files, by calamine. Runs in the child alone."""

from io import BytesIO

from python_calamine import CalamineWorkbook

from textllm_adapters.documents.lines import Lines
from textllm_adapters.documents.outcomes import Found


def read_xlsx(content: bytes, *, max_chars: int) -> Found:
    """The values in its cells, separated by tabs, each row a line, with the line `[sheet Name]` before each sheet."""
    lines = Lines(max_chars)
    workbook, has_text = CalamineWorkbook.from_filelike(BytesIO(content)), False
    for name in workbook.sheet_names:
        lines.add(f"[sheet {name}]")
        for row in workbook.get_sheet_by_name(name).iter_rows():
            line = "\t".join(map(_cell, row)).rstrip("\t")
            if line.strip():
                has_text = True
                lines.add(line)
    return Found(lines.text() if has_text else Lines(0).text(), file_type="xlsx")


def _cell(value: object) -> str:
    """A value as people write it: a number without needless zeros."""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer() and abs(value) < 10**15:
        return str(int(value))
    return " ".join(str(value).split())
