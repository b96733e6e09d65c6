"""`clipwise up`: the embedded service until Ctrl-C."""

import time
from typing import TYPE_CHECKING

from clipwise.cli.options import JsonFlag
from clipwise.cli.output import print_json_line, say
from clipwise.cli.processes import require_extra

if TYPE_CHECKING:
    from clipwise.cli.embedded.service import EmbeddedService


def up(as_json: JsonFlag = False) -> None:
    """Serve on this machine: api, dashboard and one worker, with all data in one folder.

    Settings are environment variables, CLIPWISE_DATA_DIR, CLIPWISE_HOST and CLIPWISE_PORT first of all.
    """
    require_extra("api")
    require_extra("worker")
    from clipwise.cli.embedded.configuration import read_settings
    from clipwise.cli.embedded.interrupts import Interrupted, interruptible
    from clipwise.cli.embedded.service import EmbeddedService

    begun = time.monotonic()
    service = EmbeddedService(read_settings(), lambda line: say(line, error=True))
    try:
        with interruptible(), service:
            _announce(service, time.monotonic() - begun, as_json=as_json)
            service.serve()
    except Interrupted:
        say("Stopped.", error=True)


def _announce(service: "EmbeddedService", seconds: float, *, as_json: bool) -> None:
    if as_json:
        print_json_line(
            {
                "url": service.url,
                "sign_in_url": service.sign_in_url,
                "data_dir": str(service.folder),
                "seconds": seconds,
                "seconds_of": service.timings,
            }
        )
        return
    say(f"Clipwise serves (started in {seconds:.1f} s). Ctrl-C stops it.")
    announce_addresses(service.url, service.sign_in_url, service.folder)


def announce_addresses(url: str, sign_in_url: str, folder: object) -> None:
    """Print where dashboard, api and data are, each link on a line of its own."""
    say(f"  Dashboard  {sign_in_url}")
    say("             (signs one browser in, once; 'clipwise signin' makes another link)")
    say(f"  API        {url}")
    say(f"  Data       {folder}")
