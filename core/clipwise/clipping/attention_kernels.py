"""Which attention kernels torch may choose: settings of the process, changed while any thread asks for it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Lock
from typing import final

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@final
class ProcessWide:
    """A change of the process's settings that threads share: made by the first, undone by the last.

    Were each to put back what it found, one could find, and leave behind, what another had changed.

    Args:
        change: makes the change, and undoes it on leaving.
    """

    def __init__(self, change: Callable[[], AbstractContextManager[None]]) -> None:
        self._change = change
        self._lock = Lock()
        self._inside = 0
        self._undo = ExitStack()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Be among those who need the change."""
        with self._lock:
            if not self._inside:
                self._undo.enter_context(self._change())
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._undo.close()


@contextmanager
def _no_fast_path() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


no_fast_path = ProcessWide(_no_fast_path)
"""Without the inference kernels of attention and transformer layers, which hide their weights."""
plain_attention = ProcessWide(lambda: sdpa_kernel(SDPBackend.MATH))
"""Without the fused kernels of attention, which `vmap` cannot take, or takes row by row."""
