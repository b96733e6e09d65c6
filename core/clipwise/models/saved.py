"""A trained model on disk: `model.safetensors` and `config.json`, and back into a module.

    >>> from clipwise.models import saved
    >>> model = saved.load("downloads/job_01k...")  # doctest: +SKIP
    >>> model.module(torch.zeros(1, *model.input_shape))  # doctest: +SKIP

The weights file holds parameters and buffers, and nothing else. The configuration holds what it takes
to build the module and to encode rows for it: `clipwise.data.encoding.Encoder` of the schema in it gives
the module's inputs. Nothing is unpickled, and no code comes from the files.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_model
from torch import Tensor, nn

import clipwise
from clipwise import architectures, plugins
from clipwise.errors import InvalidData

FORMAT = "clipwise.model/1"
WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@final
@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """A trained model, ready to use.

    Attributes:
        module: (B, *input_shape) to (B, outputs), in evaluation mode.
        config: what `config.json` holds.
    """

    module: nn.Module
    config: dict[str, Any]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one encoded sample."""
        return tuple(self.config["input_shape"])

    @property
    def classes(self) -> tuple[str, ...] | None:
        """What the outputs stand for, in order; None for a regression."""
        schema = self.config.get("schema") or {}
        classes = schema.get("classes")
        return tuple(classes) if classes and schema.get("task") == "classification" else None


def save(
    module: nn.Module,
    folder: Path | str,
    *,
    model: dict[str, Any],
    input_shape: tuple[int, ...],
    outputs: int,
    precision: str,
    schema: dict[str, Any],
) -> None:
    """Write `module` into `folder`.

    Args:
        module: its parameters and buffers are written; a tied tensor once.
        folder: exists; files of the same names are replaced.
        model: configuration of the architecture that built it, as JSON.
        input_shape: of one encoded sample.
        outputs: width of the outputs.
        precision: "float32" or "float64".
        schema: the data set's schema, as JSON.
    """
    config = {
        "format": FORMAT,
        "model": model,
        "input_shape": list(input_shape),
        "outputs": outputs,
        "precision": precision,
        "schema": schema,
        "versions": {"clipwise": clipwise.__version__, "torch": torch.__version__},
    }
    save_model(module, str(Path(folder) / WEIGHTS_FILE))
    (Path(folder) / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load(folder: Path | str) -> SavedModel:
    """Read the model that lies in `folder` as `model.safetensors` and `config.json`.

    Raises:
        InvalidData: if a file is missing or is not what it should be.
        InvalidSpec: if the model's kind is not installed here.
    """
    try:
        config = json.loads((Path(folder) / CONFIG_FILE).read_text(encoding="utf-8"))
        weights = load_file(Path(folder) / WEIGHTS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise InvalidData(
            f"'{folder}' holds no readable {WEIGHTS_FILE} and {CONFIG_FILE}: {error}"
        ) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InvalidData(f"'{CONFIG_FILE}' is not of the format '{FORMAT}'; download the model again")
    architecture = plugins.construct(architectures.kinds(), config["model"], what="model")
    module: nn.Module = architecture.build(tuple(config["input_shape"]), config["outputs"])
    module.to(DTYPES[config["precision"]])
    _fill(module, weights)
    return SavedModel(module=module.eval(), config=config)


def _fill(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy `weights` into `module`.

    Raises:
        InvalidData: if they are not those of such a module.
    """
    own = module.state_dict()
    # A tied tensor is written under one of its names.
    filled = {own[name].data_ptr() for name in weights if name in own}
    missing = [name for name in own if name not in weights and own[name].data_ptr() not in filled]
    foreign = [name for name in weights if name not in own]
    other = [name for name in weights if name in own and own[name].shape != weights[name].shape]
    if missing or foreign or other:
        raise InvalidData(
            f"'{WEIGHTS_FILE}' does not fit '{CONFIG_FILE}': missing {missing or 'nothing'}, "
            f"foreign {foreign or 'nothing'}, of another shape {other or 'nothing'}; download both again"
        )
    module.load_state_dict(weights, strict=False)
