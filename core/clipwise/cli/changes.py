"""What a clone has other than its parent: a JSON merge patch, from a file and from `--set`."""

from collections.abc import Sequence
from typing import Any

from clipwise.cli.documents import parse_json, read_document
from clipwise.cli.failures import WrongUsage


def read_changes(file: str | None, settings: Sequence[str]) -> dict[str, Any]:
    """Return the patch of a file, if there is one, with each `path=value` of `settings` written over it.

    Raises:
        WrongFile: if the file cannot be used.
        WrongUsage: if a setting cannot.
    """
    changes = read_document(file) if file is not None else {}
    for setting in settings:
        path, given, text = setting.partition("=")
        if not given or not path:
            raise WrongUsage(f"--set {setting}: write PATH=VALUE, such as training.steps=500")
        _put(changes, _parts(path), _value(path, text), path)
    return changes


def _parts(path: str) -> list[str]:
    """Split `training.steps`, or the JSON pointer `/tags/a.b` where a name has a dot in it."""
    if path.startswith("/"):
        return [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]
    return path.split(".")


def _value(path: str, text: str) -> Any:
    try:
        return parse_json(text)
    except (ValueError, RecursionError) as error:
        raise WrongUsage(
            f"--set {path}={text}: '{text}' is not JSON; write text in quotes of its own: "
            f"--set '{path}=\"{text}\"', and null to remove a field"
        ) from error


def _put(changes: dict[str, Any], parts: Sequence[str], value: Any, path: str) -> None:
    if not all(parts):
        raise WrongUsage(f"--set {path}: a part of the path is empty; write it as training.steps")
    target: Any = changes
    for part in parts[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise WrongUsage(f"--set {path}: '{part}' is set to something else already; set it once")
    target[parts[-1]] = value
