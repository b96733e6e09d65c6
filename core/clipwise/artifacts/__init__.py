"""The artifact store: files by key, in a folder or in object storage."""

from clipwise.artifacts.sink import Sink, Stored
from clipwise.artifacts.store import ArtifactStore

__all__ = ["ArtifactStore", "Sink", "Stored"]
