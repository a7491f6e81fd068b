"""Documents made by hand: good ones, and all the kinds of bad ones. Whole files as bytes."""

import io
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence

import docx
from pypdf import PdfReader, PdfWriter

PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89"
    + b"\0" * 40
)
EXE = (
    b"MZ\x90\x00\x03\x00\x00\x00\x04\x00\x00\x00\xff\xff\x00\x00\xb8"
    + b"\0" * 200
    + b"This program cannot be run in DOS mode."
)

_MIB = 1024 * 1024


# PDF


def pdf(*objects: bytes, root: int = 1) -> bytes:
    """A PDF of numbered objects, the first of them its catalog."""
    file, offsets = bytearray(b"%PDF-1.7\n"), []
    for number, body in enumerate(objects, 1):
        offsets.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(file)
    file += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    file += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    file += b"trailer\n<< /Size %d /Root %d 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, root, start)
    return bytes(file)


def stream(content: bytes, entries: bytes = b"") -> bytes:
    """An object that holds bytes, as they are or packed."""
    return b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(content), entries, content)


def pdf_of_pages(texts: Sequence[str], *, resources: bytes = b"") -> bytes:
    """A page of text each; what is blank has no text at all."""
    kids = b" ".join(b"%d 0 R" % (4 + 2 * index) for index in range(len(texts)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(texts)),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for index, text in enumerate(texts):
        page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R " % (5 + 2 * index)
        objects.append(page + b"/Resources << /Font << /F1 3 0 R >> %s >> >>" % resources)
        objects.append(stream(b"BT /F1 12 Tf 72 720 Td (%s) Tj ET" % text.encode("cp1252") if text else b""))
    return pdf(*objects)


def pdf_of_stream(content: bytes, entries: bytes = b"", *further: bytes, resources: bytes = b"") -> bytes:
    """One page that shows a content stream; `further` objects are numbered from 6 on."""
    return pdf(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 5 0 R "
        b"/Resources << /Font << /F1 3 0 R >> %s >> >>" % resources,
        stream(content, entries),
        *further,
    )


def encrypted_pdf(*, password: str) -> bytes:
    """Encrypted with AES; the empty password protects against changes alone."""
    writer = PdfWriter(PdfReader(io.BytesIO(pdf_of_pages(["Secret words."]))))
    writer.encrypt(password, owner_password="the owner's", algorithm="AES-256")
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def pdf_whose_pages_contain_themselves() -> bytes:
    return pdf(b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [2 0 R 3 0 R] /Count 1 >>", b"3 0 R")


def pdf_of_many_kids(count: int) -> bytes:
    """Names one page over and over."""
    return pdf(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b"3 0 R " * count, count),
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] >>",
    )


def pdf_that_keeps_the_processor_busy() -> bytes:
    """A few kilobytes: forty pages show the same long stream."""
    packed = zlib.compress(b"BT /F1 1 Tf " + b"(a) ' " * 500_000 + b"ET", 9)
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R /Resources << /Font << /F1 3 0 R >> >> >>"
    return pdf(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count 40 >>" % b" ".join(b"%d 0 R" % number for number in range(5, 45)),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        stream(packed.replace(b"(a)", b"( )"), b"/Filter /FlateDecode"),
        *[page] * 40,
    )


def pdf_of_nested_forms() -> bytes:
    """Ten forms, each showing the next one ten times: ten thousand million in all."""
    forms = []
    for number in range(6, 16):
        entries = b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X %d 0 R >> >>" % (
            number + 1
        )
        forms.append(stream(b"/X Do " * 10, entries))
    last = stream(b"BT (x) Tj ET", b"/Type /XObject /Subtype /Form /BBox [0 0 9 9]")
    return pdf_of_stream(b"/X Do " * 10, b"", *forms, last, resources=b"/XObject << /X 6 0 R >>")


def pdf_that_unpacks_to(size: int) -> bytes:
    return pdf_of_stream(_packed_spaces(size), b"/Filter /FlateDecode")


def _packed_spaces(size: int, wbits: int = zlib.MAX_WBITS) -> bytes:
    packer = zlib.compressobj(1, wbits=wbits)
    return b"".join([packer.compress(b" " * _MIB) for _ in range(size // _MIB)]) + packer.flush()


# DOCX

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
MATH = "http://schemas.openxmlformats.org/officeDocument/2006/math"
_MAIN = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
_MACROS = "application/vnd.ms-word.document.macroEnabled.main+xml"
_SHEET = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"


def docx_of(body: str | bytes, *, media_type: str = _MAIN, further: Mapping[str, bytes] | None = None) -> bytes:
    """A DOCX whose body is given as XML, or whose whole document part is given as bytes."""
    document = body if isinstance(body, bytes) else docx_document(body)
    return zip_of({**docx_frame(media_type), "word/document.xml": document, **(further or {})}.items())


def docx_document(body: str, *, declaration: str = '<?xml version="1.0"?>') -> bytes:
    return f'{declaration}<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'.encode()


def docx_frame(media_type: str = _MAIN) -> dict[str, bytes]:
    """What is around the document part."""
    types = "http://schemas.openxmlformats.org/package/2006/content-types"
    relationships = "http://schemas.openxmlformats.org/package/2006/relationships"
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    override = f'<Override PartName="/word/document.xml" ContentType="{media_type}"/>'
    relationship = f'<Relationship Id="rId1" Type="{kind}" Target="word/document.xml"/>'
    return {
        "[Content_Types].xml": f'<Types xmlns="{types}">{override}</Types>'.encode(),
        "_rels/.rels": f'<Relationships xmlns="{relationships}">{relationship}</Relationships>'.encode(),
    }


def zip_of(entries: Iterable[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return file.getvalue()


def paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def written_docx() -> bytes:
    """As a word processor writes it, with all that is read of it."""
    document = docx.Document()
    document.sections[0].header.paragraphs[0].text = "Confidential"
    document.sections[0].footer.paragraphs[0].text = "The end"
    document.add_heading("Rivers", level=1)
    document.add_paragraph("The longest ones:")
    document.add_paragraph("Nile", style="List Bullet")
    document.add_paragraph("Amazon", style="List Number")
    table = document.add_table(rows=0, cols=2)
    for cells in (("River", "km"), ("Nile", "6,650"), ("Amazon", "")):
        row = table.add_row()
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    document.add_paragraph("After\tthe table.\nIts second line.")
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def docx_with_part(name: str, kind: str, xml: bytes, *, media_type: str | None = None) -> bytes:
    """A DOCX with a part of a kind, such as "footnotes", under any name; `media_type`, else that of the kind."""
    media_type = media_type or _MAIN.replace("document.main", kind)
    base = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/"
    relationship = f'<Relationship Id="rId1" Type="{base}{kind}" Target="{name}"/>'
    frame = docx_frame()
    types = frame["[Content_Types].xml"].decode()
    override = f'<Override PartName="/word/{name}" ContentType="{media_type}"/></Types>'
    namespace = "http://schemas.openxmlformats.org/package/2006/relationships"
    entries = frame | {
        "[Content_Types].xml": types.replace("</Types>", override).encode(),
        "word/document.xml": docx_document(paragraph("The body.")),
        "word/_rels/document.xml.rels": f'<Relationships xmlns="{namespace}">{relationship}</Relationships>'.encode(),
        f"word/{name}": xml,
    }
    return zip_of(entries.items())


def strict_docx(content: bytes) -> bytes:
    """The same document, saved as a "Strict Open XML Document"."""
    names = re.compile(rb"http://schemas\.openxmlformats\.org/(officeDocument|wordprocessingml|drawingml)/2006/")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    return zip_of((name, names.sub(rb"http://purl.oclc.org/ooxml/\1/", part)) for name, part in parts.items())


def docx_with_relationships(*relationships: str) -> bytes:
    """A DOCX whose document part has these, each given by its attributes."""
    namespace = "http://schemas.openxmlformats.org/package/2006/relationships"
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/image"
    rows = "".join(f'<Relationship Id="rId{n}" Type="{kind}" {row}/>' for n, row in enumerate(relationships, 1))
    part = f'<Relationships xmlns="{namespace}"><!-- note -->{rows}</Relationships>'.encode()
    return docx_of(paragraph("Hello"), further={"word/_rels/document.xml.rels": part})


def docx_of_elements(count: int) -> bytes:
    """That many empty elements, in an order that packs badly: a few bytes of file each, and much memory as a tree."""
    chance = random.Random(count)
    return docx_of("".join(chance.choices(["<w:p/>", "<w:r/>", "<w:t/>", "<w:i/>"], k=count)))


def docm() -> bytes:
    return docx_of(paragraph("Hello"), media_type=_MACROS, further={"word/vbaProject.bin": b"Sub AutoOpen()"})


def xlsx() -> bytes:
    return docx_of(paragraph("Hello"), media_type=_SHEET)


def docx_with_doctype(internal_subset: str, text: str, *, encoding: str = "utf-8") -> bytes:
    declaration = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE w [{internal_subset}]>'
    return docx_of(docx_document(paragraph(text), declaration=declaration).decode().encode(encoding))


def docx_with_an_entity_bomb() -> bytes:
    entities = '<!ENTITY e0 "ha">' + "".join(f'<!ENTITY e{level} "{f"&e{level - 1};" * 10}">' for level in range(1, 11))
    return docx_with_doctype(entities, "&e10;")


def docx_that_unpacks_to(size: int) -> bytes:
    """Its document part is mostly space."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in docx_frame().items():
            archive.writestr(name, content)
        with archive.open("word/document.xml", "w", force_zip64=True) as part:
            for _ in range(size // _MIB):
                part.write(b" " * _MIB)
    return file.getvalue()


def docx_that_lies_about_its_size(size: int, claim: int) -> bytes:
    """The document part unpacks to `size` bytes of space; both of its headers claim another number."""
    content = bytearray(docx_of(b" " * size))
    for signature, name_at, size_at in ((b"PK\x03\x04", 30, 22), (b"PK\x01\x02", 46, 24)):
        position = -1
        while (position := content.find(signature, position + 1)) >= 0:
            if content[position + name_at :].startswith(b"word/document.xml"):
                struct.pack_into("<I", content, position + size_at, claim)
    return bytes(content)


def docx_whose_entries_overlap(count: int) -> bytes:
    """A ZIP whose directory names the same bytes over and over, each time as another file."""
    content = docx_of(paragraph("Hello"), further={"word/0000.bin": b" " * 2 * _MIB})
    directory = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    at = content.rindex(b"PK\x01\x02", 0, end)
    entry = content[at:end]
    copies = b"".join(entry.replace(b"0000", b"%04d" % number) for number in range(1, count))
    entries = 4 + count - 1
    size = end - directory + len(copies)
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, entries, entries, size, directory, 0)
    return content[:end] + copies + tail


def encrypted_zip() -> bytes:
    """Every entry of a DOCX is marked as encrypted."""
    content = bytearray(docx_of(paragraph("Hello")))
    for signature, flags_at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        position = -1
        while (position := content.find(signature, position + 1)) >= 0:
            content[position + flags_at] |= 1
    return bytes(content)


def encrypted_docx() -> bytes:
    """As Word encrypts one: a compound file, with the DOCX in a stream of a known name."""
    return b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 504 + "EncryptedPackage".encode("utf-16-le") + b"\0" * 512
