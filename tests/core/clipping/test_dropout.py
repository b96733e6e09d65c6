import pytest
import torch
from torch import Tensor
from torch.nn import functional

from clipwise.clipping.dropout import row_keys
from clipwise.clipping.row_mode import RowMode


def masks(rows: int, calls: int, size: int, p: float, key: int = 7) -> Tensor:
    """Return what was kept, (rows, calls, size)."""
    found = []
    for row in row_keys(key, rows):
        with RowMode(row):
            found.append([functional.dropout(torch.ones(1, size), p) != 0 for _ in range(calls)])
    return torch.stack([torch.cat(row) for row in found]).double()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_elements_are_dropped_at_the_rate_and_independently(p: float) -> None:
    kept = masks(rows=20, calls=4, size=2000, p=p)
    assert float(kept.mean()) == pytest.approx(1 - p, abs=0.005)
    # Rows, calls and neighbours: 80 masks of 2000 elements, none of which knows of another.
    correlations = torch.corrcoef(kept.flatten(0, 1)) - torch.eye(80)
    assert float(correlations.abs().max()) < 0.13
    shifted = torch.corrcoef(torch.stack([kept[..., 1:].flatten(), kept[..., :-1].flatten()]))
    assert abs(float(shifted[0, 1])) < 0.01


def test_masks_depend_on_the_key_alone() -> None:
    state = torch.random.get_rng_state()
    first = masks(3, 2, 50, 0.5)
    torch.random.set_rng_state(state)
    assert torch.equal(first, masks(3, 2, 50, 0.5))
    assert not torch.equal(first, masks(3, 2, 50, 0.5, key=8))


def test_what_is_kept_is_scaled_and_extremes_are_exact() -> None:
    x = torch.randn(1, 6, 4, 4)
    with RowMode(row_keys(1, 1)[0]):
        scaled = functional.dropout(x, 0.25)
        channels = functional.dropout2d(input=x, p=0.5)
        assert torch.equal(functional.dropout(x, 0.0), x)
        assert torch.equal(functional.dropout(x, 0.9, training=False), x)
        assert not functional.dropout(x, 1.0).any()
        own = x.clone()
        assert functional.dropout(own, 0.5, inplace=True) is own
    kept = scaled != 0
    assert torch.allclose(scaled[kept], x[kept] / 0.75)
    whole = (channels != 0).flatten(2)
    assert torch.equal(whole.all(2), whole.any(2))
