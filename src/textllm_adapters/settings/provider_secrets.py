"""The secrets of providers: `${NAME}` of the environment, and keys that are in files."""

import re
from collections.abc import Callable, Mapping

from textllm_adapters.settings.problems import Place

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def with_secrets(
    providers: object, place: Place, environ: Mapping[str, str], read_file: Callable[[str, Place], str]
) -> object:
    """The providers as a file has them, each `${NAME}` with what the variable says, and each key read from its file.

    A key that stands in the file itself is a problem: files are copied and shown.
    """
    if not isinstance(providers, Mapping):
        return providers
    return {
        name: _of_one(provider, place.child(str(name)), environ, read_file)
        if isinstance(provider, Mapping)
        else provider
        for name, provider in providers.items()
    }


def _of_one(
    provider: Mapping[object, object], place: Place, environ: Mapping[str, str], read_file: Callable[[str, Place], str]
) -> Mapping[object, object]:
    known = dict(provider)
    if isinstance(key := known.get("api_key"), str) and not _VARIABLE.search(key):
        place.child("api_key").refuse("a key in the file itself", "${NAME} of an environment variable, or api_key_file")
        del known["api_key"]
    if isinstance(file := known.get("api_key_file"), str) and "api_key" not in known:
        text = re.sub(r"\r?\n\Z", "", read_file(file, place.child("api_key_file")))
        if text:
            known["api_key"] = text
        del known["api_key_file"]
    return {name: _filled(value, place.child(str(name)), environ) for name, value in known.items()}


def _filled(value: object, place: Place, environ: Mapping[str, str]) -> object:
    if isinstance(value, Mapping):
        return {name: _filled(inner, place.child(str(name)), environ) for name, inner in value.items()}
    if not isinstance(value, str):
        return value

    def said(match: re.Match[str]) -> str:
        if not (text := environ.get(match[1])):
            place.refuse(f"${{{match[1]}}}, and no such variable", f"{match[1]} in the environment or in .env")
        return text or "-"

    return _VARIABLE.sub(said, value)
