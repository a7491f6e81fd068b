"""Where the models of the settings are, by name; nothing is opened for it."""

from __future__ import annotations

from typing import Final

from textllm_adapters.settings import ProviderSettings, Settings

# What is named here keeps its own names in the books and its ids as they are: all that was written down before there
# were several providers is of this one.
_UNNAMED: Final = "openai"


class Catalogue:
    """The names of models and providers.

    Attributes:
        providers: their names.
        first: what stands before the names of the first one's models; empty: nothing.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.providers = tuple(settings.all_providers)
        self.first = self.prefix(self.providers[0])

    def prefix(self, provider: str) -> str:
        """What stands before its models and ids in the books; empty: nothing."""
        return provider if self._settings.providers and provider != _UNNAMED else ""

    def asked_by(self, name: str) -> tuple[str, ...]:
        """Itself; or where it has weights, the names that have a share of its turns, the largest first."""
        model = self._settings.models.get(name)
        if model is None or not model.weights:
            return (name,)
        shares = {other: weight for other, weight in model.weights.items() if weight}
        return tuple(sorted(shares, key=lambda other: -shares[other]))

    def provider_of(self, name: str) -> str:
        """Whose the model is that callers ask for by this name; of several, that which most turns go to."""
        [name, *_] = self.asked_by(name)
        if (model := self._settings.models.get(name)) is not None and model.provider is not None:
            return model.provider
        provider, slash, rest = name.partition("/")
        return provider if slash and rest and provider in self._settings.providers else self.providers[0]

    def own_name_of(self, name: str) -> str:
        """What its provider calls it; of several, as `provider_of`."""
        provider = self.provider_of(name)
        [name, *_] = self.asked_by(name)
        if (model := self._settings.models.get(name)) is not None:
            return model.model or name
        return name.removeprefix(f"{provider}/") if provider in self._settings.providers else name

    def model_of(self, name: str) -> str:
        """Its name in the books; of several, as `provider_of`."""
        own, prefix = self.own_name_of(name), self.prefix(self.provider_of(name))
        return f"{prefix}/{own}" if prefix else own


def reads_images(provider: ProviderSettings) -> bool:
    """Whether its models may be sent images."""
    stated = provider.supports.images
    return provider.kind != "embedded" and (True if stated is None else stated)


def reads_files(provider: ProviderSettings) -> bool:
    """Whether a PDF goes to the model as it is.

    Other servers speak the Responses API, but hardly one takes files as they are; those with conversations do.
    """
    if provider.kind == "embedded":
        return False
    if provider.supports.files is not None:
        return provider.supports.files
    return provider.kind == "openai" or (provider.kind == "responses" and provider.base_url is None)
