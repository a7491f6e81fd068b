"""Names and bytes of strangers become harmless keys, names and types."""

import re
from datetime import UTC, datetime

import pytest

from textllm_core.file_names import DOCX, OCTETS, clean_name, media_type_of, new_key

AT = datetime(2026, 11, 22, 12, 34, 56, tzinfo=UTC)

NAMES = [
    *("", ".", "..", "...", "/", "\\"),
    *("../../etc/passwd", "..\\..\\win.ini", "C:\\x\\y.pdf", "a\0b.txt", "a\r\nb: c.txt"),
    *("\u202egpj.exe", "日本語", "日本語.pdf"),
    *("x" * 4096, "x" * 4096 + ".pdf", "é" * 4096 + ".docx", ".htaccess", "-rf"),
    *("CON", "a b.txt", "a..b", "%2e%2e%2f", "\ud800.txt", "a." + "e" * 300, "\u2028"),
    *("'\"<>|?*;&$(`)`", "👩🏽‍🚀.png", "a/"),
]  # fmt: skip


@pytest.mark.parametrize("user_id", ["ann", "a:b@c+d", "..", ".", "-", "u" * 255])
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_key_is_harmless_whatever_the_name(name: str, user_id: str) -> None:
    key = new_key("uploads", user_id, name, AT)
    assert len(key) <= 255
    assert re.fullmatch(r"LLM/uploads/[A-Za-z0-9_-][A-Za-z0-9._-]*/20261122_123456_[0-9a-f]{8}_[A-Za-z0-9._-]+", key)
    assert ".." not in key


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("report.pdf", "_report.pdf"),
        ("Größe 2.PDF", "_Große_2.PDF".replace("ß", "_")),
        ("../x/naïve.txt", "_naive.txt"),
        ("", "_file"),
        ("...", "_file"),
        (".htaccess", "_htaccess"),
        ("x" * 4096 + ".docx", "x.docx"),
    ],
)
def test_a_key_ends_in_the_name_and_keeps_its_extension(name: str, end: str) -> None:
    assert new_key("documents", "ann", name, AT).endswith(end)


def test_no_two_keys_are_the_same() -> None:
    assert len({new_key("uploads", "ann", "a.txt", AT) for _ in range(1000)}) == 1000


def test_no_two_users_share_a_prefix() -> None:
    def prefix(user_id: str) -> str:
        return new_key("uploads", user_id, "a.txt", AT).split("/")[2]

    plain = ["ann", "a_b", "a.b", "user_0a1b2c3d4e5f60718293a4b5", "550e8400-e29b-41d4-a716-446655440000", "x" * 100]
    assert [prefix(user) for user in plain] == plain
    others = ["a:b", "a@b", "a+b", "a..b", ".a.b", "x" * 101, "x" * 100 + "y", "x" * 255]
    assert prefix("a:b").startswith("a_b-")
    assert prefix("a:b") == prefix("a:b")
    users = [*plain, *others, *map(prefix, others)]  # an id may be what another one was made into
    assert len({prefix(user) for user in users}) == len(users)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_clean_name_has_something_to_show_and_nothing_to_obey(name: str) -> None:
    clean = clean_name(name)
    assert 1 <= len(clean) <= 255
    assert clean.encode()
    assert not re.search("[\x00-\x1f\x7f-\x9f/\\\\\u202e\u2028]", clean)
    assert clean_name(clean) == clean


def test_a_clean_name_stays_what_people_called_it() -> None:
    assert clean_name("Größe 2 – 日本語.PDF") == "Größe 2 – 日本語.PDF"
    assert clean_name("👩🏽‍🚀.png") == "👩🏽‍🚀.png"


@pytest.mark.parametrize(
    ("beginning", "media_type"),
    [
        (b"%PDF-1.7\n", "application/pdf"),
        (b"\x89PNG\r\n\x1a\n\0", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\n\0\0\0WEBPVP8 ", "image/webp"),
        (b"PK\x03\x04" + bytes(26) + b"[Content_Types].xml..word/document.xml", DOCX),
        (b"PK\x03\x04" + bytes(26) + b"a.txt", "application/zip"),
        (b"", "text/plain"),
        (b"a\r\n\x1a", "text/plain"),
        ("Grüße\n".encode(), "text/plain"),
        (b"<html><script>alert(1)</script>", "text/plain"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='x'/>", "text/plain"),
        (("x" + "é" * 4096).encode()[:4096], "text/plain"),
        (b"caf\xe9 au lait", OCTETS),
        (b"abc\xc3", OCTETS),
        (b"MZ\x90\0", OCTETS),
        (b"a\0b", OCTETS),
        (b"RIFF\n\0\0\0WAVE", OCTETS),
    ],
)
def test_what_a_file_is_is_told_by_its_content(beginning: bytes, media_type: str) -> None:
    assert media_type_of(beginning) == media_type
