"""Text of PPTX files, by python-pptx. Runs in the child alone."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from pptx import Presentation
from pptx.enum.shapes import PP_PLACEHOLDER
from pptx.shapes.group import GroupShape

from textllm_adapters.documents.lines import Lines
from textllm_adapters.documents.outcomes import Found
from textllm_adapters.documents.packages import mended

_REPEATED: Final = {PP_PLACEHOLDER.SLIDE_NUMBER, PP_PLACEHOLDER.DATE, PP_PLACEHOLDER.FOOTER}  # on every slide


def read_pptx(content: bytes, *, max_chars: int) -> Found:
    """What its slides say, with the line `[slide 3]` before the third, and its speaker's notes behind it."""
    lines = Lines(max_chars)
    has_text = False
    for number, slide in enumerate(Presentation(mended(content)).slides, 1):
        said = [line for line in _lines(slide.shapes) if line.strip()]
        if slide.has_notes_slide and (frame := slide.notes_slide.notes_text_frame) is not None:
            notes = frame.text.strip()
            said += [f"[notes: {notes}]"] if notes else []
        lines.add(f"[slide {number}]")
        for line in said:
            lines.add(line)
        has_text = has_text or bool(said)
    return Found(lines.text() if has_text else Lines(0).text(), file_type="pptx")


def _lines(shapes: Iterable[Any]) -> Iterator[str]:
    """Lines of shapes, in the order in which they are drawn; cells of tables are separated by tabs."""
    for shape in shapes:
        if shape.is_placeholder and shape.placeholder_format.type in _REPEATED:
            continue
        if isinstance(shape, GroupShape):
            yield from _lines(shape.shapes)
        elif shape.has_text_frame:
            for paragraph in shape.text_frame.paragraphs:
                yield "  " * paragraph.level + paragraph.text
        elif getattr(shape, "has_table", False):
            for row in shape.table.rows:
                yield "\t".join(" ".join(cell.text.split()) for cell in row.cells)
        elif getattr(shape, "has_chart", False):
            try:
                yield from _chart(shape.chart)
            except (ValueError, NotImplementedError):  # a kind of chart that python-pptx does not know
                yield "[a chart that could not be read]"
        else:
            words = " ".join(shape._element._nvXxPr.cNvPr.get("descr", "").split())
            if words:
                yield f"[image: {words}]"


def _chart(chart: Any) -> Iterator[str]:
    """Its title, and its values as tables."""
    if chart.has_title and chart.chart_title.has_text_frame:
        yield chart.chart_title.text_frame.text
    for plot in chart.plots:
        series = list(plot.series)
        yield "\t".join(["", *(str(one.name) for one in series)])
        for place, category in enumerate(plot.categories):
            values = [one.values[place] if place < len(one.values) else None for one in series]
            yield "\t".join([str(category), *("" if value is None else f"{value:g}" for value in values)])
