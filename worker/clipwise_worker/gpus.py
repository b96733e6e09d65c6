"""The GPUs of this host, as their driver names them; read without torch and without touching them."""

import logging
import os
from collections.abc import Mapping

import pynvml

from clipwise.errors import ConfigurationError
from clipwise.store.devices import Device

log = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"


def devices_for(setting: str, environment: Mapping[str, str] = os.environ) -> list[Device]:
    """Return the devices that a worker may use.

    Args:
        setting: `auto` for all that the driver shows within `CUDA_VISIBLE_DEVICES`, none without a driver;
            or UUIDs, separated by commas, which are taken at their word.
        environment: the worker's.

    Raises:
        ConfigurationError: if a UUID is named twice.
    """
    if setting.strip() == "auto":
        return _visible(_found(), environment.get(VISIBLE))
    uuids = [uuid.strip() for uuid in setting.split(",") if uuid.strip()]
    if len(set(uuids)) < len(uuids):
        raise ConfigurationError(f"CLIPWISE_DEVICES names a device twice: {setting}; name each once")
    known = {device.uuid: device for device in _found()}
    return [known.get(uuid, Device(uuid=uuid, name="unknown", memory_bytes=None)) for uuid in uuids]


def _visible(found: list[Device], visible: str | None) -> list[Device]:
    """Return the devices that `CUDA_VISIBLE_DEVICES` leaves; it names indices, UUIDs or their beginnings."""
    if visible is None:
        return found
    kept = []
    for name in (part.strip() for part in visible.split(",")):
        if name.isdigit():
            chosen = found[int(name) : int(name) + 1]
        else:
            chosen = [device for device in found if name and device.uuid.startswith(name)][:1]
        if not chosen:  # CUDA ignores what comes behind a name that it does not know
            break
        kept += chosen
    return kept


def _found() -> list[Device]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []  # no driver, no device
    try:
        return [_describe(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        log.warning("the GPUs cannot be listed: %s", error)
        return []
    finally:
        pynvml.nvmlShutdown()


def _describe(index: int) -> Device:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    return Device(
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        name=pynvml.nvmlDeviceGetName(handle),
        memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
    )
