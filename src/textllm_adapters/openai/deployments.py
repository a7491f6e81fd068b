"""Where Azure has its models: by a name of the operator's choice, and in its older API at an address of their own."""

from collections.abc import Mapping
from urllib.parse import quote

from msgspec import Struct


class Deployments(Struct, frozen=True):
    """The deployments of a resource.

    Args:
        names: by model, where they differ.
        api_version: of the API with an address for each; None: they share one.
    """

    names: Mapping[str, str]
    api_version: str | None

    def of(self, model: str) -> tuple[str, str | None]:
        """Its name for a model, and the path of its chat completions, where that is one of its own."""
        name = self.names.get(model, model)
        if self.api_version is None:
            return name, None
        return name, f"/deployments/{quote(name, safe='')}/chat/completions?api-version={quote(self.api_version)}"
