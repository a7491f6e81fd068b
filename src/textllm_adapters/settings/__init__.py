"""The settings of one process: read from files and the environment, checked as a whole, then never changed."""

from textllm_adapters.settings.kinds import Secret
from textllm_adapters.settings.problems import Problem, SettingsError
from textllm_adapters.settings.providers import ModelPrice, ModelSettings, ProviderSettings, Supports, Timeouts
from textllm_adapters.settings.records import Logging, Pricing, S3Settings, Settings
from textllm_adapters.settings.sources import CONFIG_KEYS, ENVIRONMENT, SECRET_FILES, load_settings

__all__ = [
    "CONFIG_KEYS",
    "ENVIRONMENT",
    "SECRET_FILES",
    "Logging",
    "ModelPrice",
    "ModelSettings",
    "Pricing",
    "Problem",
    "ProviderSettings",
    "S3Settings",
    "Secret",
    "Settings",
    "SettingsError",
    "Supports",
    "Timeouts",
    "load_settings",
]
