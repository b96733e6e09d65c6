"""The embedded service's broker: kombu's folder of message files, with messages that appear whole."""

import json
import time
import uuid
from pathlib import Path
from typing import Any

from kombu.transport import filesystem


class Channel(filesystem.Channel):
    """Kombu's channel, but a message is written aside and renamed.

    Kombu writes into the final name, and a consumer that looks in that moment reads half a message:
    the error ends the worker's consumer.
    """

    def _put(self, queue: str, payload: Any, **_: Any) -> None:  # type: ignore[override]
        # Consumers take the smallest name first, and only names that end in ".<queue>.msg".
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex}"
        aside = Path(self.data_folder_out) / f"{name}.part"
        aside.write_text(json.dumps(payload), encoding="utf-8")
        aside.rename(aside.with_name(f"{name}.{queue}.msg"))


class Transport(filesystem.Transport):
    """What a connection is given as its `transport`."""

    Channel: type[Any] = Channel
