"""A Hypothesis strategy of random modules, with batches and settings of the engine to run them on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from tests.core.clipping.random_parts import POINTWISE, SEQUENCE
from torch import Tensor, nn
from torch.nn import functional

from clipwise.clipping.losses import cross_entropy

CLASSES = 4
TOKENS = 11

Layout = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]


def time_first(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return f(x.transpose(0, 1)).transpose(0, 1)


def folded_time_first(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    n, t, e = x.shape
    return f(x.transpose(0, 1).reshape(t * n, e)).reshape(t, n, e).transpose(0, 1)


def more_axes(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return f(x[:, None, :, None]).reshape(x.shape)


def doubled(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return f(x.expand(2, *x.shape) * torch.tensor([1.0, -0.5]).to(x)[:, None, None, None]).sum(0)


LAYOUTS: dict[str, Layout] = {
    "batch first": lambda f, x: f(x),
    "time first": time_first,
    "folded": lambda f, x: f(x.reshape(-1, x.shape[-1])).reshape(x.shape),
    "folded, time first": folded_time_first,
    "more axes": more_axes,
    "doubled": doubled,
    "step by step": lambda f, x: torch.stack([f(step) for step in x.unbind(1)], 1),
    "in halves": lambda f, x: torch.cat([f(part) for part in x.chunk(2, 1)], 1),
}

Connection = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]


def residual(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    y = f(x * 1.0)
    return x + (y if y.shape == x.shape else y.mean(1, keepdim=True))


def beside_no_grad(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.no_grad():
        fixed = f(x * 1.0)
    return f(x * 1.0) - 0.5 * fixed


CONNECTIONS: dict[str, Connection] = {
    "plain": lambda f, x: f(x),
    "behind tanh": lambda f, x: torch.tanh(f(x)),
    "residual": residual,
    "gate": lambda f, x: x[:, :1] * torch.sigmoid(f(x * 1.0)),
    "detached": lambda f, x: f(x.detach() * 1.0) + x.mean(1, keepdim=True),
    "twice": lambda f, x: f(torch.tanh(f(x)))[:, : x.shape[1]],
    "difference": lambda f, x: f(x * 1.0) - f(x.flip(1)),
    "branches": lambda f, x: torch.cat([f(x * 1.0), x], 1)[:, -4:],
    "beside no grad": beside_no_grad,
}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One part of a random module.

    Attributes:
        part: its name in `POINTWISE` or `SEQUENCE`, or the number of an earlier step that is used again.
        layout: name in `LAYOUTS`; only pointwise parts have one.
        connection: name in `CONNECTIONS`.
    """

    part: str | int
    layout: str = "batch first"
    connection: str = "plain"


@dataclass(frozen=True, kw_only=True)
class Program:
    """All that a random module and its batch are made of.

    Attributes:
        inputs: "floats" (B, T, E); "tokens" (B, T); "two", both, by position; "named", both, by name.
        positions: T.
        width: E.
        steps: in order.
        head: "square" of all outputs, "classes" of the mean, "tied" to the embedding, or "masked".
        ties: pairs of numbers, each to pick two parameters of one shape to be one.
        apart: ties are two parameters over one storage.
        frozen: numbers of parameters, modulo how many there are.
        group: rows of a unit.
        weights: of the rows, repeated as needed.
        microbatch: rows, or None.
        bound: which norm the bound lies above, as a part of all.
        seed: of all values.
    """

    inputs: str
    positions: int
    width: int
    steps: tuple[Step, ...]
    head: str
    ties: tuple[tuple[int, int], ...]
    apart: bool
    frozen: tuple[int, ...]
    group: int
    weights: tuple[float, ...]
    microbatch: int | None
    bound: float
    seed: int


class RandomModule(nn.Module):
    """The module of a program."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        t, e = program.positions, program.width
        self.program = program
        self.stem = nn.Embedding(TOKENS, e) if program.inputs != "floats" else None
        self.condition = nn.Linear(e, e) if program.inputs in ("two", "named") else None
        self.parts = nn.ModuleList()
        self.sizes = {t, e, 2 * e, 3 * e, TOKENS, CLASSES}
        x = torch.zeros(1, t, e)
        for step in program.steps:
            self.parts.append(self._made(step, x.shape[1], e))
            with torch.no_grad():
                x = self._apply_step(len(self.parts) - 1, x * 1.0)
            self.sizes |= set(x.shape[1:])
        trained = any(True for _ in self.parameters())
        outputs = TOKENS if program.head == "tied" else CLASSES
        self.head = None if program.head in ("square", "masked") and trained else nn.Linear(e, outputs)
        if self.head is not None and self.stem is not None and program.head == "tied":
            self.head.weight = self.stem.weight

    def _made(self, step: Step, t: int, e: int) -> nn.Module:
        if isinstance(step.part, int):
            earlier: nn.Module = self.parts[step.part]
            return earlier
        return (POINTWISE.get(step.part) or SEQUENCE[step.part])(t, e)

    def _apply_step(self, i: int, x: Tensor) -> Tensor:
        step, part = self.program.steps[i], self.parts[i]
        layout, connection = LAYOUTS[step.layout], CONNECTIONS[step.connection]
        return connection(lambda y: layout(part, y), x)

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        if self.stem is not None:
            looked_up = self.stem(x if tokens is None else tokens)
            x = looked_up if tokens is None or self.condition is None else looked_up + self.condition(x)
        else:
            x = x * 1.0
        for i in range(len(self.parts)):
            x = self._apply_step(i, x)
        return x if self.head is None else self.head(x.mean(1))


def square(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.flatten(1).square().mean(1)


def masked(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over the first elements, as many as the target says."""
    flat = functional.huber_loss(outputs.flatten(1), torch.ones_like(outputs.flatten(1)), reduction="none")
    counted = torch.arange(flat.shape[1]) <= targets[:, None]
    return (flat * counted).sum(1) / counted.sum(1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "square": square,
    "masked": masked,
    "classes": cross_entropy,
    "tied": cross_entropy,
}


def module_of(program: Program, dtype: torch.dtype) -> RandomModule:
    """Return the module of `program`; of one program the values are the same in every type."""
    before = torch.random.get_rng_state()
    try:
        module = RandomModule(program)
    finally:
        torch.random.set_rng_state(before)
    _tie(module, program)
    module.to(dtype) if not program.apart else _cast_apart(module, dtype)
    generator = torch.Generator().manual_seed(program.seed)
    parameters = list(module.parameters())
    seen: set[int] = set()
    for parameter in parameters:
        values = torch.randn(parameter.shape, generator=generator)
        if parameter.data_ptr() not in seen:
            seen.add(parameter.data_ptr())
            parameter.data.copy_(values * (0.3 + 0.7 / max(parameter.shape[-1:] or (1,)) ** 0.5))
    for number in program.frozen:
        others = [p for p in parameters if p.requires_grad and p is not parameters[number % len(parameters)]]
        if others:
            parameters[number % len(parameters)].requires_grad_(False)
    return module


def _places(module: nn.Module) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """Return where parameters are held, those of parametrizations left out: they may not be replaced."""
    return [
        (part, name, parameter)
        for path, part in module.named_modules()
        if "parametrizations" not in path
        for name, parameter in part.named_parameters(recurse=False)
    ]


def _tie(module: nn.Module, program: Program) -> None:
    for one, other in program.ties:
        places = _places(module)
        parameter = places[one % len(places)][2]
        alike = [place for place in places if place[2].shape == parameter.shape and place[2] is not parameter]
        if alike:
            holder_of_other, name_of_other, _ = alike[other % len(alike)]
            shared = nn.Parameter(parameter.detach()) if program.apart else parameter
            setattr(holder_of_other, name_of_other, shared)


def _cast_apart(module: nn.Module, dtype: torch.dtype) -> None:
    """Change the type of the parameters, and keep two that share a storage on one storage."""
    storages: dict[int, Tensor] = {}
    for parameter in module.parameters():
        place = parameter.data_ptr()
        if place not in storages:
            storages[place] = parameter.detach().to(dtype)
        parameter.data = storages[place]
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.data = buffer.data.to(dtype)


def rows_of(program: Program, module: RandomModule, *, crowded: bool) -> int:
    """Return a number of rows that equals no dimension of the module, or, if `crowded`, one of them."""
    k = program.group
    sizes = sorted(size for size in module.sizes if size >= 3)
    if crowded:
        whole = [size for size in sizes if size % k == 0 and size // k >= 3]
        return whole[program.seed % len(whole)] if whole else k * sizes[0]
    rows = 5 * k
    while rows in sizes or rows // k in sizes:
        rows += k
    return rows


def batch_of(program: Program, rows: int, dtype: torch.dtype) -> tuple[Any, Tensor, Tensor]:
    """Return inputs, targets and weights of `rows` rows."""
    t, e = program.positions, program.width
    generator = torch.Generator().manual_seed(program.seed + rows)
    floats = torch.randn(rows, t, e, generator=generator).to(dtype)
    tokens = torch.randint(TOKENS, (rows, t), generator=generator)
    classes = torch.randint(CLASSES, (rows,), generator=generator)
    repeated = (program.weights * rows)[:rows]
    weights = torch.tensor(repeated, dtype=dtype)
    inputs: dict[str, Any] = {
        "floats": floats,
        "tokens": tokens,
        "two": (floats, tokens),
        "named": {"tokens": tokens, "x": floats},
    }
    return inputs[program.inputs], classes, weights


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Random programs; they shrink towards few, plain steps."""
    steps: list[Step] = []
    for i in range(draw(st.integers(1, 4), label="steps")):
        connection = draw(st.sampled_from(list(CONNECTIONS)))
        kind = draw(st.sampled_from(["pointwise", "pointwise", "sequence", "again"]))
        earlier = [j for j in range(i) if steps[j].part in POINTWISE]
        if kind == "sequence":
            steps.append(Step(part=draw(st.sampled_from(list(SEQUENCE))), connection=connection))
            continue
        again = kind == "again" and earlier
        part = draw(st.sampled_from(earlier)) if again else draw(st.sampled_from(list(POINTWISE)))
        steps.append(Step(part=part, layout=draw(st.sampled_from(list(LAYOUTS))), connection=connection))
    inputs = draw(st.sampled_from(["floats", "floats", "tokens", "two", "named"]))
    heads = ["square", "classes", "masked"] + (["tied"] if inputs != "floats" else [])
    numbers = st.integers(0, 30)
    return Program(
        inputs=inputs,
        positions=draw(st.sampled_from([2, 3, 4])),
        width=draw(st.sampled_from([4, 6])),
        steps=tuple(steps),
        head=draw(st.sampled_from(heads)),
        ties=tuple(draw(st.lists(st.tuples(numbers, numbers), max_size=2))),
        apart=draw(st.booleans()),
        frozen=tuple(draw(st.lists(numbers, max_size=2))),
        group=draw(st.sampled_from([1, 1, 2, 3])),
        weights=tuple(draw(st.lists(st.sampled_from([1.0, 0.0, 0.5, 3.0]), min_size=1, max_size=7))),
        microbatch=draw(st.sampled_from([None, None, 1, 2, 5])),
        bound=draw(st.floats(0.2, 0.8)),
        seed=draw(st.integers(0, 1000)),
    )
