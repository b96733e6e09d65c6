"""Settings of the service: environment variables `CLIPWISE_*`, and nothing else."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

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
    devices: str = "auto"
    """GPUs that a worker may use: `auto` for all that it sees, or their UUIDs, separated by commas."""
    runner_memory_bytes: Annotated[int, Field(ge=2**28)] | None = None
    """Memory that one attempt may take; the machine's own without."""
    warm_runners: bool = True
    """Whether a worker keeps a runner ready for each free slot, with its imports done (some 300 MB each)."""
    heartbeat_seconds: Annotated[float, Field(ge=0.1, le=300)] = 10.0
    """How often a worker says that it is alive and renews the leases of its attempts."""
    lease_seconds: Annotated[float, Field(ge=0.5, le=3600)] = 45.0
    """How long an attempt owns its job without a renewal."""
    lease_wait_seconds: Annotated[float, Field(ge=0, le=86_400)] = 900.0
    """How long a runner whose lease has passed waits for news before it gives up."""
    retry_seconds: Annotated[float, Field(ge=0.01, le=3600)] = 2.0
    """How long an interrupted job waits before it is taken up again; twice as long each time."""
    drain_seconds: Annotated[float, Field(ge=0.5, le=3600)] = 3.5
    """What a worker that is told to stop gives its attempts to write a checkpoint."""
    log_format: Literal["text", "json"] = "text"
    """How processes log: lines for people, or one JSON object a line."""
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
