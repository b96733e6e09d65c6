"""A call leaves nothing behind: not on the module, not in torch, not in memory; also when it fails."""

import gc
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import psutil
import pytest
import torch
from tests import reference
from tests.core.clipping.settings import mse
from torch import Tensor, nn
from torch._C import _functorch
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from clipwise.clipping import ClippingEngine, FlatClip
from clipwise.clipping.batch import as_rows

KEY = 5


class Model(nn.Module):
    """A bit of everything, with a place where something can happen."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, 3)
        self.bias = nn.Parameter(torch.randn(3))
        self.register_buffer("calls", torch.zeros(()))
        self.happens: list[Callable[[], Any]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        hidden = self.layer(self.table(x))
        for happens in self.happens:
            happens()
        return self.head(hidden).mean(1) + self.bias


class WholeModel(nn.Module):
    """A module that capture leaves to `vmap(grad)`: a derived weight is written to between its uses."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.randn(3))
        self.happens: list[Callable[[], Any]] = []

    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale * 1.0
        y = self.head(x) + scale
        scale.mul_(2.0)
        for happens in self.happens:
            happens()
        return y + scale


def model_and_batch(kind: type[nn.Module]) -> tuple[nn.Module, tuple[Any, ...]]:
    torch.manual_seed(0)
    inputs = torch.randint(7, (6, 5)) if kind is Model else torch.randn(6, 4)
    return kind(), (inputs, torch.randn(6, 3), torch.ones(6))


def flags() -> dict[str, Any]:
    """Return what torch keeps for a thread, or for the process."""
    return {
        "level of functorch": _functorch.maybe_current_level(),
        "function modes": _get_current_function_mode_stack(),
        "dispatch modes": _get_current_dispatch_mode_stack(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "autocast type": torch.get_autocast_dtype("cpu"),
        "fast path of attention": torch.backends.mha.get_fastpath_enabled(),
        "flash attention": torch.backends.cuda.flash_sdp_enabled(),
        "math attention": torch.backends.cuda.math_sdp_enabled(),
        "memory efficient attention": torch.backends.cuda.mem_efficient_sdp_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "default type": torch.get_default_dtype(),
        "anomaly": torch.is_anomaly_enabled(),
        "saved tensor hooks": torch._C._autograd._saved_tensors_hooks_is_enabled(),
    }


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def of_module(module: nn.Module) -> dict[str, Any]:
    """Return everything that a call could leave on `module`."""
    found: dict[str, Any] = {}
    for path, part in module.named_modules():
        found[f"attributes of {path}"] = {name: id(value) for name, value in vars(part).items()}
        found[f"mode of {path}"] = part.training
        found[f"hooks of {path}"] = [len(getattr(part, hooks)) for hooks in HOOKS]
        found[f"order of {path}"] = (list(part._parameters), list(part._buffers))
    for name, parameter in module.named_parameters(remove_duplicate=False):
        found[name] = (
            id(parameter),
            parameter._version,
            parameter.requires_grad,
            parameter.grad_fn,
            id(parameter.grad),
            None if parameter.grad is None else parameter.grad.tolist(),
            sorted(vars(parameter)),
            parameter._backward_hooks,
            parameter._post_accumulate_grad_hooks,
        )
    for name, buffer in module.named_buffers():
        found[name] = (id(buffer), buffer.tolist(), buffer.requires_grad)
    return found


def run(module: nn.Module, batch: tuple[Any, ...], **more: Any) -> dict[str, Tensor]:
    engine = ClippingEngine(module, mse, **more)
    return engine.clipped_sum(as_rows(batch), FlatClip(max_norm=0.5), key=KEY).values


def marked(module: nn.Module) -> None:
    """Give some parameters a gradient of the user's own."""
    for i, parameter in enumerate(module.parameters()):
        parameter.grad = torch.full_like(parameter, 7.0) if i % 2 else None


class FailedError(Exception):
    pass


def fail(what: type[BaseException]) -> Callable[[], None]:
    def happens() -> None:
        raise what

    return happens


@pytest.mark.parametrize("kind", [Model, WholeModel])
@pytest.mark.parametrize(
    "failure", [None, FailedError, RuntimeError, KeyboardInterrupt, torch.OutOfMemoryError]
)
@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_left_behind(
    kind: type[nn.Module], failure: type[BaseException] | None, training: bool
) -> None:
    module, batch = model_and_batch(kind)
    module.train(training)
    marked(module)
    if failure is not None:
        module.happens.append(fail(failure))
    before = flags(), of_module(module)
    if failure is None:
        run(module, batch)
    else:
        with pytest.raises(failure):
            run(module, batch)
    assert (flags(), of_module(module)) == before


@pytest.mark.parametrize("failure", [FailedError, RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_behind_by_a_loss_that_fails(failure: type[BaseException]) -> None:
    module, batch = model_and_batch(Model)
    before = flags(), of_module(module)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        raise failure

    with pytest.raises(failure):
        ClippingEngine(module, loss).clipped_sum(as_rows(batch), FlatClip(max_norm=1.0))
    assert (flags(), of_module(module)) == before


def test_nothing_is_left_behind_by_a_rule_that_fails() -> None:
    class Failing:
        sensitivity = 1.0

        def factors(self, norms: Tensor) -> Tensor:  # noqa: ARG002
            raise FailedError

    module, batch = model_and_batch(Model)
    before = flags(), of_module(module)
    with pytest.raises(FailedError):
        ClippingEngine(module, mse).clipped_sum(as_rows(batch), Failing())
    assert (flags(), of_module(module)) == before


def test_a_call_after_one_that_failed_is_as_good_as_the_first() -> None:
    module, batch = model_and_batch(Model)
    expected = run(module, batch)
    engine = ClippingEngine(module, mse)
    module.happens.append(fail(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        engine.clipped_sum(as_rows(batch), FlatClip(max_norm=0.5), key=KEY)
    module.happens.clear()
    found = engine.clipped_sum(as_rows(batch), FlatClip(max_norm=0.5), key=KEY).values
    assert not engine.whole_model
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("kind", [Model, WholeModel])
def test_a_callers_modes_stay_and_do_not_matter(kind: type[nn.Module]) -> None:
    module, batch = model_and_batch(kind)
    expected = run(module, batch)
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            inside = flags()
            found = run(module, batch)
            assert flags() == inside
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    with torch.autocast("cpu", torch.bfloat16):
        inside = flags()
        run(module, batch)
        assert flags() == inside


@pytest.mark.parametrize("kind", [Model, WholeModel])
@pytest.mark.parametrize("shared", [True, False])
def test_two_threads_at_once(kind: type[nn.Module], shared: bool) -> None:
    module, batch = model_and_batch(kind)
    modules = [module, module if shared else model_and_batch(kind)[0]]
    expected = run(module, batch)
    before = flags(), [of_module(one) for one in modules]
    # In the middle of a first forward pass, a thread waits until the other is there too. On one module
    # they take turns, and it only gives the other one the time to begin.
    together = threading.Barrier(2)
    met = threading.local()

    def meet() -> None:
        if not getattr(met, "once", False):
            met.once = True
            if shared:
                threading.Event().wait(0.05)
            else:
                together.wait(30)

    for one in {id(one): one for one in modules}.values():
        one.happens.append(meet)
    found: list[Any] = [None, None]

    def work(which: int) -> None:
        try:
            values = [run(modules[which], batch) for _ in range(5)]
            found[which] = values, flags()["level of functorch"], flags()["function modes"]
        except BaseException as error:  # told to the test, whatever it is
            found[which] = error
            together.abort()

    threads = [threading.Thread(target=work, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for one in modules:
        one.happens.clear()
    for outcome in found:
        assert not isinstance(outcome, BaseException), outcome
        values, level, modes = outcome
        assert (level, modes) == (None, [])
        for one in values:
            for name, value in expected.items():
                assert reference.relative_error(one[name], value) < 1e-6
    assert (flags(), [of_module(one) for one in modules]) == before


def tensors() -> int:
    gc.collect()
    return sum(isinstance(value, Tensor) for value in gc.get_objects())


@pytest.mark.parametrize("kind", [Model, WholeModel])
def test_memory_stays_flat(kind: type[nn.Module]) -> None:
    module, batch = model_and_batch(kind)
    engine = ClippingEngine(module, mse)
    rows, rule = as_rows(batch), FlatClip(max_norm=0.5)

    def step() -> None:
        engine.clipped_sum(rows, rule)

    for _ in range(20):
        step()
    alive, objects = tensors(), len(gc.get_objects())
    process = psutil.Process()
    resident = process.memory_info().rss
    tracemalloc.start()
    try:
        for _ in range(100):
            step()
        gc.collect()
        python = tracemalloc.get_traced_memory()[0]
        for _ in range(200):
            step()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - python
    finally:
        tracemalloc.stop()
    assert tensors() <= alive  # what tests before left may go meanwhile
    assert len(gc.get_objects()) - objects < 200
    assert grown < 50_000  # bytes, of 200 steps: what Python keeps for reuse varies
    assert process.memory_info().rss - resident < 20 * 2**20


def test_no_tensor_waits_for_the_garbage_collector() -> None:
    module, batch = model_and_batch(Model)
    engine = ClippingEngine(module, mse)
    engine.clipped_sum(as_rows(batch), FlatClip(max_norm=0.5))
    gc.collect()
    gc.disable()
    try:
        before = sum(isinstance(value, Tensor) for value in gc.get_objects())
        for _ in range(3):
            engine.clipped_sum(as_rows(batch), FlatClip(max_norm=0.5))
        after = sum(isinstance(value, Tensor) for value in gc.get_objects())
    finally:
        gc.enable()
    assert after == before
