"""Writes `docs/errors.md` and `docs/settings.md` from the code: `python -m tests.architecture.written_pages`."""

import re
from collections.abc import Iterator
from pathlib import Path

from textllm_adapters.settings import CONFIG_KEYS, ENVIRONMENT, SECRET_FILES
from textllm_cli.exit_codes import exit_code
from textllm_core.errors import TextLLMError
from textllm_core.problem_details import STATUS, status_of
from textllm_http.problem_pages import EXPLAINED

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
WRITTEN_BY = "This page is written by `python -m tests.architecture.written_pages`.\n"
_ERRORS = f"""\
# Errors

Whatever TextLLM refuses has a `code` that never changes. Act on the code, and show the text to people.

- Over REST it is a problem document (RFC 9457, `application/problem+json`) with that `code`, and its `type` is the
  address of a page that explains it: `/problems/<code>`. Waiting times are in `retry_after_s` and in the header
  `Retry-After`.
- From Python it is a `TextLLMError` with the attribute `code`. `status_of(error)` is its status,
  `problem_of_error(error)` its document.
- On the command line it is a sentence on stderr and an exit code; with `--json` the problem document.

A turn that was admitted and then failed says in `cost` what it has cost, in USD, and in `estimated` whether that is an
estimate, which the provider may correct later. Neither is there where nobody knows. From Python both are in `charge`
of the error.

{WRITTEN_BY}"""
_SETTINGS = f"""\
# Settings

TextLLM needs no settings to start. Each one you make is read from these places; a later one wins:

1. what is built in,
2. `config/config.yaml` in the working directory, or the file that `--config` or `TEXTLLM_CONFIG` names,
3. `.env` in the working directory,
4. the environment: `TEXTLLM_<KEY>`, nested keys joined by two underscores (`TEXTLLM_LOGGING__LEVEL=DEBUG`).

`textllm config check` reports all mistakes at once, and `textllm config show` prints what is in force. System prompts
are in `prompts.yaml` beside the configuration file; they add to those that come with TextLLM.

The limits of one user protect a service from its callers. The command line in your own process, and `open_textllm()`
without settings, do not apply `rate_limit_per_minute`, `max_input_length` and `max_conversations_per_user`, unless you
set them.

{WRITTEN_BY}"""


def errors_page() -> str:
    """Each code with its statuses, its classes, its exit code, what it means and what to do."""
    rows = "".join(
        f"| [`{code}`](#{code}) | {_joined(status_of_kind(kind) for kind in kinds)} "
        f"| {_joined(kind.__name__ for kind in kinds)} | {_joined(exit_code_of(kind) for kind in kinds)} |\n"
        for code, kinds in _kinds().items()
    )
    table = f"| code | status | class | exit code |\n| --- | --- | --- | --- |\n{rows}"
    sections = (
        f"## {code}\n\n{EXPLAINED[code].happened}\n\n**What to do.** {EXPLAINED[code].to_do}\n{_told(kinds)}"
        for code, kinds in _kinds().items()
    )
    return "\n".join((_ERRORS, table, *sections))


def status_of_kind(kind: type[TextLLMError]) -> str:
    return str(int(status_of(kind.__new__(kind))))


def exit_code_of(kind: type[TextLLMError]) -> str:
    return str(exit_code(kind.__new__(kind)))


def _kinds() -> dict[str, list[type[TextLLMError]]]:
    """The classes of each code that is explained, in the order of the alphabet; the first is the widest."""
    kinds = sorted(STATUS, key=lambda kind: len(kind.__mro__))
    return {code: [kind for kind in kinds if kind.code == code] or [TextLLMError] for code in EXPLAINED}


def _told(kinds: list[type[TextLLMError]]) -> str:
    told = sorted({name for kind in kinds for name in kind.tells})
    return f"\nThe document tells {', '.join(f'`{name}`' for name in told)} where it applies.\n" if told else ""


def _joined(values: Iterator[str]) -> str:
    return ", ".join(f"`{value}`" for value in dict.fromkeys(values))


def settings_page() -> str:
    """Each setting of the files with its default and what it says of itself, and the variables of the environment."""
    parts, section = [_SETTINGS], ""
    for line in (ROOT / "config" / "config.yaml").read_text().splitlines()[4:]:
        if heading := re.fullmatch(r"# (\S.*)", line):
            parts.append(_table_head(*heading[1].partition(". ")[::2]))
        elif setting := re.fullmatch(r"(\s*)(\w+): +(\S.*?) +# (\S.*)", line):
            indent, key, default, says = setting.groups()
            parts[-1] += f"| `{section if indent else ''}{key}` | `{default}` | {says.replace('|', '&#124;')} |\n"
        elif group := re.fullmatch(r"(\w+):", line):
            section = f"{group[1]}."
            parts.append(_table_head(group[1].capitalize(), ""))
    return "\n".join((*parts, _variables()))


def _table_head(title: str, more: str) -> str:
    said = f"{more}\n\n" if more else ""
    return f"## {title}\n\n{said}| setting | default | meaning |\n| --- | --- | --- |\n"


def _variables() -> str:
    beginning = "## Environment\n\nThese have names of their own. Secrets are in the environment alone.\n"
    beginning += (
        "\nA secret can be in a file: put its path into the variable with `_FILE` behind its name. A line break at\n"
        "the file's end does not count. Set one of the two, not both:\n\n"
    ) + "".join(f"- `{name}`\n" for name in SECRET_FILES)
    told: list[str] = []
    says: list[str] = []
    for line in (ROOT / "config" / "env.example").read_text().splitlines()[2:]:
        if line.startswith("# ") and "TEXTLLM_<KEY>" not in line:
            says.append(line.removeprefix("# "))
        elif line.endswith("="):
            told += [f"\n{' '.join(says)}:\n"] if says else []
            says = []
            told.append(f"- `{line.removesuffix('=')}`")
    return "\n".join((beginning.rstrip(), *told)) + "\n"


def shown_settings(page: str) -> set[str]:
    return set(re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE))


def file_settings() -> set[str]:
    """The keys of the files, without the sections that hold them."""
    sections = {key.partition(".")[0] for key in CONFIG_KEYS if "." in key} - {"pricing"}
    return {key for key in CONFIG_KEYS - sections if not key.startswith("pricing.")}


def shown_variables(page: str) -> set[str]:
    return set(re.findall(r"^- `(\w+)`", page, re.MULTILINE))


def own_variables() -> set[str]:
    return {*ENVIRONMENT, *SECRET_FILES, "TEXTLLM_CONFIG"}


PAGES = {"errors.md": errors_page, "settings.md": settings_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
