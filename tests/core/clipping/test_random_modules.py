"""Exactness on modules that nobody has named: random programs against the slow oracle."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, note, reject, settings
from tests import reference
from tests.core.clipping.random_modules import (
    LAYOUTS,
    LOSSES,
    Program,
    Step,
    batch_of,
    module_of,
    programs,
    rows_of,
)
from tests.core.clipping.random_parts import POINTWISE, SEQUENCE
from tests.core.clipping.rounding import amplification
from torch import Tensor

from clipwise.clipping import ClippedSum, ClippingEngine, FlatClip
from clipwise.clipping.batch import as_rows

EXAMPLES = int(os.environ.get("CLIPWISE_RANDOM_MODULES", "200"))
"""Of each test; more are found with `CLIPWISE_RANDOM_MODULES=5000`, which also draws anew in each run."""
KEY = 77
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
MAY_FALL_BACK = {"derived changed": "a derived weight is written to between its uses"}
"""Parts for which the whole model may go through `vmap(grad)`, with the reason."""

profile = settings(
    max_examples=EXAMPLES,
    derandomize=EXAMPLES == 200,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
seen: Counter[str] = Counter()
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")


@pytest.fixture(scope="module", autouse=True)
def told() -> Iterator[None]:
    """Say how many modules went which way; shown by `pytest -s`."""
    yield
    print("random modules:", dict(seen))


def bound_of(program: Program, norms: Tensor) -> float:
    """Return a bound that scales some units and others not."""
    ordered = norms[norms > 0].sort().values
    if not len(ordered):
        return 1.0
    at = min(int(program.bound * len(ordered)), len(ordered) - 1)
    return float(ordered[max(at - 1, 0) : at + 1].mean())


def found_by_engine(
    program: Program, dtype: torch.dtype, rows: int, bound: float
) -> tuple[ClippedSum, ClippingEngine]:
    module = module_of(program, dtype)
    engine = ClippingEngine(module, LOSSES[program.head], microbatch_size=program.microbatch)
    batch = as_rows(batch_of(program, rows, dtype))
    found = engine.clipped_sum(batch, FlatClip(max_norm=bound), group=program.group, key=KEY)
    return found, engine


def expected_of(
    program: Program, rows: int, bound: float | None, dtype: torch.dtype = torch.float64
) -> tuple[dict[str, Tensor], Tensor]:
    module = module_of(program, dtype)
    batch = batch_of(program, rows, dtype)
    return reference.clipped_sum(module, LOSSES[program.head], batch, bound, group=program.group, key=KEY)


class NotComparedError(Exception):
    """The plain loop itself does not take a program, or gives no numbers."""


def compare(program: Program, dtype: torch.dtype, *, crowded: bool = False) -> None:
    rows = rows_of(program, module_of(program, torch.float64), crowded=crowded)
    try:
        _, norms = expected_of(program, rows, None)
    except RuntimeError as error:
        if "modified by an inplace operation" in str(error) or "is being modified inplace" in str(error):
            raise NotComparedError from error
        raise
    if not bool(norms.isfinite().all()):
        raise NotComparedError
    bound = bound_of(program, norms)
    expected, _ = expected_of(program, rows, bound)
    found, engine = found_by_engine(program, dtype, rows, bound)
    assert list(found.values) == list(expected)
    got, wanted = joined(found.values, found.norms), joined(expected, norms)
    errors = {name: reference.relative_error(got[name], value) for name, value in wanted.items()}
    off = {name: error for name, error in errors.items() if error > TOLERANCE[dtype]}
    seen["modules"] += 1
    if off:
        lost = rounding_of(program, rows, bound, dtype, wanted)
        for name, error in off.items():
            assert lost[name] > TOLERANCE[dtype] / 3, f"{name} is off by {error:.1e}"
        seen["with a sum that cancels"] += 1
        seen["nothing but rounding"] += "everything" in off
    if engine.whole_model:
        seen["by the whole model"] += 1
        parts = {str(step.part) for step in program.steps}
        assert parts & set(MAY_FALL_BACK), f"fell back: {engine.whole_model}"


def joined(values: dict[str, Tensor], norms: Tensor) -> dict[str, Tensor]:
    """Return everything that is compared: each sum, all of them as one vector, and the norms."""
    everything = torch.cat([value.double().flatten() for value in values.values()])
    return {**values, "everything": everything, "norms": norms}


def rounding_of(
    program: Program, rows: int, bound: float, dtype: torch.dtype, wanted: dict[str, Tensor]
) -> dict[str, float]:
    """Return how far rounding alone moves each sum: between operations, or within those of a plain loop."""
    shaken = amplification(lambda: joined(*expected_of(program, rows, bound)))
    plain = joined(*expected_of(program, rows, bound, dtype))
    unit = torch.finfo(dtype).eps
    return {
        name: max(unit * shaken[name], reference.relative_error(plain[name], value))
        for name, value in wanted.items()
    }


@profile
@given(program=programs())
def test_random_modules_equal_a_loop_over_single_samples(program: Program) -> None:
    note(repr(program))
    try:
        for crowded in (False, True):
            compare(program, torch.float64, crowded=crowded)
    except NotComparedError:
        reject()


@profile
@given(program=programs())
def test_random_modules_in_float32(program: Program) -> None:
    note(repr(program))
    try:
        compare(program, torch.float32)
    except NotComparedError:
        reject()


PLAIN = Program(
    inputs="floats",
    positions=3,
    width=4,
    steps=(),
    head="classes",
    ties=(),
    apart=False,
    frozen=(),
    group=1,
    weights=(1.0, 0.5),
    microbatch=None,
    bound=0.5,
    seed=3,
)


@pytest.mark.parametrize("part", [*POINTWISE, *SEQUENCE])
def test_every_part_behind_a_layer_and_alone(part: str) -> None:
    compare(replace(PLAIN, steps=(Step(part="linear"), Step(part=part))), torch.float64)
    compare(replace(PLAIN, steps=(Step(part=part),), head="square"), torch.float64)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("part", ["linear", "shift", "layer norm", "embedding", "query key value", "matmul"])
def test_every_layout(part: str, layout: str) -> None:
    for group in (1, 2):
        steps = (Step(part="linear"), Step(part=part, layout=layout))
        compare(replace(PLAIN, steps=steps, group=group), torch.float64, crowded=True)


FOUND = {
    "what an operation in place found": replace(PLAIN, steps=(Step(part="add in place"),), head="square"),
    "a weight with the shape of data": replace(PLAIN, steps=(Step(part="indexed add"),), head="square"),
    "the same behind a layer": replace(PLAIN, steps=(Step(part="linear"), Step(part="indexed add"))),
    "a derived weight written to": replace(PLAIN, steps=(Step(part="derived changed"),)),
    "a single row that is not contiguous": replace(
        PLAIN,
        steps=(Step(part="group norm over positions"), Step(part="linear")),
        microbatch=1,
        head="square",
    ),
    "instances that are not contiguous": replace(
        PLAIN, steps=(Step(part="instance norm"), Step(part="linear")), microbatch=1
    ),
    "positions that cancel": replace(
        PLAIN,
        width=6,
        steps=(
            Step(part="linear", connection="difference"),
            Step(part="layer norm"),
            Step(part="linear without bias"),
        ),
        head="square",
        weights=(1.0,),
        seed=0,
    ),
    "positions that cancel, and a head": replace(
        PLAIN, positions=2, steps=(Step(part="linear", connection="difference"),), weights=(1.0,), seed=0
    ),
}
"""Programs on which the engine once was wrong."""


@pytest.mark.parametrize("program", FOUND.values(), ids=FOUND)
def test_what_was_wrong_once(program: Program) -> None:
    compare(program, torch.float64)
    compare(program, torch.float32)
