"""Kinds that can be added by installed packages: a literal table of ours, and entry points of theirs.

A kind is a `configuration` class with a field `kind: Literal["..."]`. A package adds one by an entry
point whose name is the kind and whose value is the class:

    [project.entry-points."clipwise.architectures"]
    residual_mlp = "my_package.residual_mlp:ResidualMLP"
"""

import dataclasses
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from pydantic import TypeAdapter

from clipwise.errors import ConfigurationError, InvalidSpec, Problem

ARCHITECTURES_GROUP = "clipwise.architectures"
OPTIMIZER_MODULES_GROUP = "clipwise.optimizer_modules"


@cache
def installed(group: str) -> Mapping[str, type[Any]]:
    """Return the kinds that installed packages add to `group`.

    Raises:
        ConfigurationError: if two packages claim one kind, or one cannot be imported.
    """
    kinds: dict[str, type[Any]] = {}
    for entry in entry_points(group=group):
        if entry.name in kinds:
            raise ConfigurationError(
                f"two installed packages provide the {group} kind '{entry.name}'; uninstall one of them"
            )
        try:
            kinds[entry.name] = entry.load()
        except Exception as error:
            raise ConfigurationError(
                f"the {group} kind '{entry.name}' of {entry.value} cannot be imported: {error}"
            ) from error
    return kinds


def construct(kinds: Mapping[str, type[Any]], config: Any, *, what: str) -> Any:
    """Build the plug-in that `config` describes.

    Args:
        kinds: the table to look `config["kind"]` up in.
        config: a mapping with `kind` and the kind's own fields, as it came from JSON.
        what: what a kind is called in messages, such as "model".

    Raises:
        InvalidSpec: if there is no such kind; `problems` points at `/kind`.
        pydantic.ValidationError: if a field is wrong; locations are relative to `config`.
    """
    if not isinstance(config, Mapping) or not isinstance(config.get("kind"), str):
        raise InvalidSpec(
            f"a {what} is an object with a 'kind'",
            (Problem(pointer="/kind", detail=f"give one of: {', '.join(sorted(kinds))}", code="missing"),),
        )
    cls = kinds.get(config["kind"])
    if cls is None:
        raise InvalidSpec(
            f"unknown {what} kind '{config['kind']}'",
            (
                Problem(
                    pointer="/kind",
                    detail=f"unknown kind '{config['kind']}'; known: {', '.join(sorted(kinds))}",
                    code="unknown_kind",
                ),
            ),
        )
    return cls(**{str(key): value for key, value in config.items()})


def as_json(plugin: Any) -> dict[str, Any]:
    """Return `plugin` as the JSON object that `construct` takes, `kind` first."""
    fields = {field.name: getattr(plugin, field.name) for field in dataclasses.fields(plugin)}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
    return {"kind": plain.pop("kind"), **plain}


def json_schema(cls: type[Any]) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a kind's configuration."""
    return TypeAdapter(cls).json_schema()
