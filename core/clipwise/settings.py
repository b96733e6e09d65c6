"""Settings of the service: environment variables `CLIPWISE_*`, and nothing else."""

from functools import cached_property
from pathlib import Path
from typing import Annotated

from platformdirs import user_data_path
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What every process of the service reads; defaults are the embedded service's."""

    model_config = SettingsConfigDict(env_prefix="CLIPWISE_", env_ignore_empty=True, frozen=True)

    data_dir: Path = Field(default_factory=lambda: user_data_path("clipwise"))
    """Folder of the embedded service: database, broker, artifacts, the first key."""
    host: str = "127.0.0.1"
    """Address that the api listens on."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8470
    """Port that the api listens on; 0 takes a free one."""
    database_url: str | None = None
    """SQLAlchemy URL with its driver: `postgresql+psycopg://...`; without, SQLite in the data folder."""
    broker_url: str | None = None
    """Celery broker, such as `redis://...`; files in the data folder without."""
    artifacts_url: str | None = None
    """fsspec URL of the artifact store, such as `s3://bucket/prefix`; a folder in the data folder without."""
    api_key: SecretStr | None = None
    """The first key, instead of a generated one. Secret."""
    public_url: str | None = None
    """Where people reach the api, when that is not where it listens; allows this Host and Origin."""
    queues: str = "cpu"
    """Queues that a worker serves, separated by commas."""
    slots: Annotated[int, Field(ge=1, le=64)] = 1
    """Attempts that a worker runs at once."""
    max_upload_bytes: Annotated[int, Field(ge=1)] = 5 * 2**30
    """Largest upload."""

    @cached_property
    def database(self) -> str:
        """The database's SQLAlchemy URL."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'clipwise.db'}"

    @cached_property
    def broker(self) -> str:
        """The broker's URL."""
        return self.broker_url or "filesystem://"

    @cached_property
    def artifacts(self) -> str:
        """The artifact store's fsspec URL."""
        return self.artifacts_url or (self.data_dir.resolve() / "artifacts").as_uri()

    @cached_property
    def key_file(self) -> Path:
        """Where the embedded service keeps the key that it made, readable by its owner only."""
        return self.data_dir / "api_key"
