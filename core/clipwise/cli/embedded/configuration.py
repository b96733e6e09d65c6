"""The settings of the embedded service, with errors that name the variable."""

from pydantic import ValidationError

from clipwise.errors import ConfigurationError
from clipwise.settings import Settings


def read_settings() -> Settings:
    """Return the settings from the environment.

    Raises:
        ConfigurationError: if one cannot be used; names the variable.
    """
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(
            f"CLIPWISE_{str(item['loc'][0]).upper() if item['loc'] else ''}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        )
        raise ConfigurationError(f"{wrong}; set it in the environment, or leave it out") from error
