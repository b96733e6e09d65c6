"""What comes between two steps of a training: paying for noisy steps, checkpoints, the lease, the stop."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import final

from clipwise.jobs.spec import Checkpoints
from clipwise.training.checkpoint import Written
from clipwise_worker.messages import Charge, CheckpointWritten, Message, Warned
from clipwise_worker.runner_channel import Control

REPLAYED = 100
"""Under privacy one part in so many of the steps is run between two checkpoints: what a crash can cost."""
LONGEST_PAUSE_SECONDS = 15.0


class CannotStore(Exception):
    """No checkpoint can be stored, and none may be missing."""


@final
class Course:
    """Lets a training run from step to step.

    Args:
        control: what the supervisor says.
        send: tells it something.
        write: writes the checkpoint of a step into a file, with the lowest loss so far, and whether the
            evaluation after this step was broken off.
        evaluates: whether one is due after a step.
        folder: where those files go.
        policy: how often checkpoints are taken.
        start: steps that the model has behind it.
        last: the last step.
        discarded: noisy steps that were paid for and lost, None without privacy.
        best_loss: the lowest loss on held-out rows so far.
    """

    def __init__(
        self,
        control: Control,
        send: Callable[[Message], None],
        write: Callable[[Path, int, float | None, bool], Written],
        evaluates: Callable[[int], bool],
        *,
        folder: Path,
        policy: Checkpoints,
        start: int,
        last: int,
        discarded: int | None,
        best_loss: float | None = None,
    ) -> None:
        self._control = control
        self._send = send
        self._write = write
        self._evaluates = evaluates
        self._folder = folder
        self._policy = policy
        self._last = last
        self._discarded = discarded
        # A hundredth of all the steps that are paid for; fewer than a hundred are taken one by one.
        self._block = None if discarded is None else max(1, (last + discarded) // REPLAYED)
        self._saved = start
        self._saved_at = time.monotonic()
        self._paid_until = start
        self._best_loss = best_loss
        self._champion: tuple[int, float] | None = None
        self._evaluated: int | None = None
        self._warned = False
        self.step = start

    @property
    def charged_steps(self) -> int | None:
        """Noisy steps that have been run in all; None without privacy."""
        return None if self._discarded is None else self._discarded + self.step

    def before(self, step: int) -> bool:
        """Return whether `step` may run; whatever is due before it has been done then.

        Raises:
            NoNews: if the supervisor does not answer.
            CannotStore: if there is no place for a checkpoint that must be.
        """
        self.step = step - 1
        if self._control.lease_is_over and not self._control.stopping():
            self._save(must=False)
            self._control.wait_for_lease()
        if not self._control.stopping():
            if self._block is not None and self.step >= self._paid_until:
                self._pay(self._block)
            elif self._is_due():
                self._save(must=False)
        if self._control.stopping():
            if self._control.keeps:
                self._save(must=False)
            return False
        return True

    def end(self, step: int) -> None:
        """Do what is due after the last step: under privacy nothing of it may be lost any more."""
        self.step = step
        if self._block is not None or self._champion is not None or self._control.keeps:
            self._save(must=self._block is not None)

    def evaluated(self, step: int, loss: float) -> None:
        """Take note of the loss on held-out rows after `step`: the lowest one is worth a checkpoint."""
        self._evaluated = step
        if self._policy.keep_best and (self._best_loss is None or loss < self._best_loss):
            self._best_loss = loss
            self._champion = (step, loss)

    def _is_due(self) -> bool:
        if self._champion is not None and self._champion[0] == self.step:
            return True
        every = self._policy.every_steps
        if every is not None and self.step > self._saved and self.step % every == 0:
            return True
        return time.monotonic() >= self._saved_at + self._policy.every_seconds

    def _pay(self, block: int) -> None:
        self._save(must=True)
        until = min(self.step + block, self._last)
        if self._control.stopping() or self._discarded is None:
            return
        self._send(Charge(charged_steps=self._discarded + until))
        if self._control.wait_for_grant(self._discarded + until):
            self._paid_until = until

    def _save(self, *, must: bool) -> None:
        champion = self._champion if self._champion and self._champion[0] == self.step else None
        if self.step <= self._saved and champion is None:
            return
        pause = 0.5
        until = time.monotonic() + self._control.wait_seconds
        while not self._try(None if champion is None else champion[1]):
            if not must or self._control.stopping():
                self._saved_at = time.monotonic()  # the next try comes when the next one is due
                return
            if time.monotonic() > until:
                raise CannotStore("no checkpoint can be stored; see the worker's log, and the disk's room")
            self._control.pause(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        self._champion = None
        self._saved, self._saved_at = self.step, time.monotonic()

    def _try(self, loss: float | None) -> bool:
        path = self._folder / f"checkpoint-{self.step}.safetensors"
        try:
            broken_off = self._evaluated != self.step and self._evaluates(self.step)
            written = self._write(path, self.step, self._best_loss, broken_off)
            self._send(
                CheckpointWritten(
                    step=self.step, file=path.name, size=written.size, sha256=written.sha256, loss=loss
                )
            )
            stored = self._control.wait_for_stored(self.step)
        except OSError as error:
            stored = False
            self._warn(f"a checkpoint could not be written: {error.strerror or error}")
        finally:
            path.unlink(missing_ok=True)
        if not stored and not self._control.stopping():
            self._warn(f"the checkpoint of step {self.step} could not be stored; the job goes on without it")
        return stored

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._send(Warned(message=message))
        self._warned = True
