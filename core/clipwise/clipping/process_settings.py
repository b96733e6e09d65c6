"""Which kernels torch may choose: settings of the process, changed while any thread asks for it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from types import TracebackType
from typing import Any, final

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

Undo = Callable[[], None] | None
_NOTHING = nullcontext()


@final
class ProcessWide:
    """A change of the process's settings that threads share: made by the first, undone by the last.

    Were each to put back what it found, one could find, and leave behind, what another had changed.

    Args:
        change: makes the change, and returns what undoes it, or None where there was nothing to change.
    """

    def __init__(self, change: Callable[[], Undo]) -> None:
        self._change = change
        self._lock = Lock()
        self._inside = 0
        self._undo: Undo = None

    def __enter__(self) -> None:
        """Be among those who need the change."""
        with self._lock:
            if not self._inside:
                self._undo = self._change()
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Need it no longer."""
        with self._lock:
            self._inside -= 1
            undo = self._undo
            if not self._inside and undo is not None:
                self._undo = None
                undo()


def _no_fast_path() -> Undo:
    if not torch.backends.mha.get_fastpath_enabled():
        return None
    torch.backends.mha.set_fastpath_enabled(False)
    return lambda: torch.backends.mha.set_fastpath_enabled(True)


def _plain_attention() -> Undo:
    kernels: Any = sdpa_kernel(SDPBackend.MATH)
    kernels.__enter__()
    return lambda: kernels.__exit__(None, None, None)


no_fast_path = ProcessWide(_no_fast_path)
"""Without the inference kernels of attention and transformer layers, which hide their weights."""
plain_attention = ProcessWide(_plain_attention)
"""Without the fused kernels of attention, which `vmap` cannot take, or takes row by row."""


def _full_precision(settings: Callable[[], tuple[Any, ...]]) -> ProcessWide:
    def change() -> Undo:
        changed = [(one, _own(one)) for one in settings() if one.fp32_precision in ("tf32", "bf16")]
        for one, _ in changed:
            one.fp32_precision = "ieee"

        def undo() -> None:
            for one, value in changed:
                one.fp32_precision = value

        return undo if changed else None

    return ProcessWide(change)


def _own(setting: Any) -> str:
    """Return what a setting was set to: "none" where it follows another one, and so goes on following it."""
    value: str = setting.fp32_precision
    setting.fp32_precision = "none"
    return "none" if setting.fp32_precision == value else value


_BACKENDS: Any = torch.backends
# The two have no setting in common: each knows only its own threads.
_FULL_PRECISION = {
    "cpu": _full_precision(lambda: (_BACKENDS.mkldnn.matmul, _BACKENDS.mkldnn.conv)),
    "cuda": _full_precision(lambda: (_BACKENDS.cuda.matmul, _BACKENDS.cudnn.conv)),
}
_AS_IT_IS = ProcessWide(lambda: None)


def full_precision(device: str) -> ProcessWide:
    """Return within what products of float32 are of float32, whatever torch was told.

    Norms and sums of ten bits of mantissa (TF32), or of eight (bfloat16), could exceed the bound by a
    thousandth. The model's own products are left to the caller.

    Args:
        device: type of the device.
    """
    return _FULL_PRECISION.get(device, _AS_IT_IS)


def without_autocast(device: str) -> AbstractContextManager[Any]:
    """Return within what a caller's autocast is off; where it is off already, that costs nothing."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else _NOTHING
