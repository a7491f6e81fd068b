"""The site of the documentation: the pages as they are, and a reference out of the docstrings. It needs no internet.

CONTRIBUTING.md has the command. The root is the folder of the project, so that pages link to each other as they do
in it.
"""

import dataclasses
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any, Final, get_args, get_type_hints

import mmdr
from docutils import nodes
from msgspec import Struct
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from sphinx.util.inspect import stringify_signature
from sphinx.util.typing import stringify_annotation

import textllm_core
from textllm_adapters import memory, settings, testing, wiring
from textllm_adapters.memory import application

project = "TextLLM"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = ["docs/**.md", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
templates_path = ["_templates"]
html_theme = "furo"
html_title = "TextLLM"
html_show_copyright = False
html_copy_source = False
html_additional_pages = {"index": "to_first_page.html"}
myst_heading_anchors = 4
myst_fence_as_directive = {"mermaid"}
default_role = "py:obj"  # a name in backticks leads to what it names

_SECTIONS: Final = Config(napoleon_use_ivar=True, napoleon_custom_sections=["Source"])
LONGEST_DEFAULT: Final = 30  # characters: so long a name or a number is, and hardly a record
_CORE: Final[dict[str, str]] = vars(textllm_core)["_HOMES"]


def groups() -> dict[str, list[tuple[ModuleType, list[str]]]]:
    """What each mark of a page stands for: names, and the modules that users import them from."""

    def of(*homes: str) -> list[str]:
        return [name for name, home in sorted(_CORE.items()) if home.split(".")[0] in homes]

    grouped = {
        "ports": of("ports"),
        "errors": of("errors", "problem_details"),
        "records": of("records", "tenancy", "uploads", "usage", "money", "policy", "images", "wire"),
        "events": of("events", "steps"),
    }
    rest = _CORE.keys() - {name for names in grouped.values() for name in names}
    grouped["use-cases"] = sorted(rest, key=lambda name: (name != "TextLLM", _CORE[name] != "application", name))
    return {group: [(textllm_core, names)] for group, names in grouped.items()} | {
        "opening": [
            (
                wiring,
                sorted(
                    set(wiring.__all__) - set(settings.__all__), key=lambda name: ("textllm" not in name.lower(), name)
                ),
            )
        ],
        "settings": [(settings, settings.__all__)],
        "testing": [(testing, testing.__all__)],
        "memory": [(application, ["open_in_memory"]), *_adapters_of(memory)],
    }


def _adapters_of(package: ModuleType) -> Iterator[tuple[ModuleType, list[str]]]:
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        module = import_module(found.name)
        classes = [name for name, kind in vars(module).items() if getattr(kind, "__module__", None) == found.name]
        yield module, [name for name in classes if name.startswith(("Memory", "Fixed", "Scripted"))]


class Mermaid(SphinxDirective):
    """A diagram, drawn when the site is built."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        drawn = mmdr.render("\n".join(self.content)).svg()
        return [nodes.raw("", f'<div class="diagram">{drawn}</div>', format="html")]


def show_names(app: Sphinx, page: str, source: list[str]) -> None:
    """Put what autodoc needs in the place of `<!-- reference: GROUP -->`."""

    def shown(mark: re.Match[str]) -> str:
        lines = ["```{eval-rst}"]
        for module, names in groups()[mark[1]]:
            lines += [f".. currentmodule:: {module.__name__}", ""]
            lines += [line for name in names for line in _directive(module, name)]
        return "\n".join([*lines, "```"])

    source[0] = re.sub(r"<!-- reference: ([\w-]+) -->", shown, source[0])
    # A link that is named after its file gets the title of the page.
    source[0] = re.sub(r"\[[\w/]+\.md\]\((?!https?:)([^)]+)\)", r"[](\1)", source[0])


def attribute_docs(module: str) -> dict[tuple[str, str], list[str]]:
    return ModuleAnalyzer.for_module(module).find_attr_docs()


def _directive(module: ModuleType, name: str) -> Iterator[str]:
    value = getattr(module, name)
    if inspect.isclass(value):
        yield f".. auto{'exception' if issubclass(value, BaseException) else 'class'}:: {name}"
        if not name.endswith("Contract"):
            yield from ("   :members:", "   :undoc-members:", "   :special-members: __call__")
            yield from (f"   :exclude-members: {', '.join(names)}" for names in [fields_of(value)] if names)
    elif callable(value) and inspect.isfunction(inspect.unwrap(value)):
        yield f".. autofunction:: {name}"
    else:  # a type under a name, or a constant
        home = f"textllm_core.{_CORE[name]}" if module is textllm_core else module.__name__
        parts = [part for part in sys.modules if part == home or part.startswith(f"{home}.")]
        (told,) = (docs[key] for part in parts if (key := ("", name)) in (docs := attribute_docs(part)))
        yield f".. py:data:: {name}"
        yield f"   :type: {named(value)}"
        yield from ("", *(f"   {line}" for line in told))
    yield ""


def fields_of(kind: object) -> list[str]:
    """The fields of a record, or of a dataclass."""
    if inspect.isclass(kind) and issubclass(kind, Struct):
        return [*kind.__struct_fields__]
    is_dataclass = inspect.isclass(kind) and dataclasses.is_dataclass(kind)
    return [field.name for field in dataclasses.fields(kind) if not field.name.startswith("_")] if is_dataclass else []


def types_of(value: Any, **how: bool) -> dict[str, Any]:
    """Its annotations; names that stand in it for type checkers alone are those of the core, or of the settings."""
    return get_type_hints(value, localns={name: getattr(textllm_core, name) for name in _CORE} | vars(settings), **how)


def tell(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Read the sections of a docstring; say of each field what its type says of it."""
    # What stands before a colon in the docstring of a property is no type, other than the extension takes it.
    kind = "method" if what in ("attribute", "property") else what
    lines[:] = GoogleDocstring(lines, _SECTIONS, app, kind, name, value, options).lines()
    if name.endswith(".__call__") and getattr(value, "__doc__", None) is None:
        lines.clear()  # which is what Python says of any call
    names, told = fields_of(value), "\n".join(lines)
    types, metas = (types_of(value), types_of(value, include_extras=True)) if names else ({}, {})
    for field in names:
        says = [meta.description for meta in get_args(metas[field])[1:] if getattr(meta, "description", None)]
        lines += [f":param {field}: {' '.join(says)}"] if f":param {field}:" not in told else []
        lines.append(f":type {field}: {named(types[field])}")
    lines.append("")


def named(annotation: Any) -> str:
    return stringify_annotation(annotation, "smart").replace("~typing.", "").replace("~collections.abc.", "")


class Short:
    """A default too long to be read."""

    def __repr__(self) -> str:
        return "…"


def short(default: object) -> object:
    return default if default is inspect.Parameter.empty or len(repr(default)) <= LONGEST_DEFAULT else Short()


def plain_signature(
    app: Sphinx, what: str, name: str, value: Any, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None] | None:
    """Signatures without what annotations say beside the type; the types of fields stand below, with what they mean."""
    if signature is None or not callable(value):
        return None
    if getattr(value, "_is_protocol", False):
        return "", None
    found = inspect.signature(value)
    hints = {} if fields_of(value) else types_of(value.__init__ if inspect.isclass(value) else inspect.unwrap(value))
    given = [
        each.replace(annotation=hints.get(each.name, each.empty), default=short(each.default))
        for each in found.parameters.values()
    ]
    if what == "method" and given and given[0].name == "self":
        given = given[1:]
    plain = found.replace(parameters=given, return_annotation=hints.get("return", found.empty))
    if what == "class":
        plain = plain.replace(return_annotation=found.empty)
    told = stringify_signature(plain, unqualified_typehints=True)
    arguments, _, answer = told.partition(" -> ")
    return arguments, answer or None


def find_in_core(app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: nodes.Node) -> nodes.Node | None:
    """Names of the core are meant by their own name everywhere."""
    target = node["reftarget"].split(".")
    if node.get("refdomain") != "py" or target[0] not in _CORE:
        return None
    found = ".".join(["textllm_core", *target])
    return env.domains.python_domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found, node, shown)


def setup(app: Sphinx) -> None:
    app.add_directive("mermaid", Mermaid)
    app.connect("source-read", show_names)
    app.connect("autodoc-process-docstring", tell)
    app.connect("autodoc-process-signature", plain_signature)
    app.connect("missing-reference", find_in_core)
