"""Signing a browser in."""

import sys
from typing import Annotated

import typer

from clipwise.cli.options import JsonFlag, connect
from clipwise.cli.output import print_json, say


def signin(
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in this machine's browser.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Print a link that signs one browser in to the dashboard, once."""
    with connect() as client:
        link = client.sign_in_link()
    if as_json:
        print_json(link)
    else:
        say(link.url)
        say(f"Works once, until {link.expires_at.astimezone():%H:%M}.", error=not sys.stdout.isatty())
    if open_browser:
        typer.launch(link.url)
