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


def test_saturating_dropout_keeps_mean_and_variance_and_has_the_values_of_torch() -> None:
    x = torch.randn(1, 200_000, dtype=torch.float64)
    with RowMode(row_keys(1, 1)[0]):
        found = functional.alpha_dropout(x, 0.3, training=True)
        features = functional.feature_alpha_dropout(x.view(1, 2000, 100), 0.3, training=True)
        assert torch.equal(functional.alpha_dropout(x, 0.3), x)
    expected = functional.alpha_dropout(x, 0.3, training=True)
    saturated, at = found.mode().values, expected.mode().values
    assert float(saturated) == pytest.approx(float(at), rel=1e-12)
    both = (found != saturated) & (expected != at)
    assert torch.allclose(found[both], expected[both], rtol=1e-12)
    assert float(found.mean()) == pytest.approx(0, abs=0.01)
    assert float(found.var()) == pytest.approx(1, abs=0.02)
    dropped = features == saturated
    assert torch.equal(dropped.all(2), dropped.any(2))
    assert float(dropped.double().mean()) == pytest.approx(0.3, abs=0.04)


def test_a_dropout_that_drops_nothing_uses_no_key() -> None:
    x = torch.ones(1, 100)
    with RowMode(row_keys(1, 1)[0]):
        functional.dropout(x, 0.0)
        functional.dropout(x, 0.5, training=False)
        first = functional.dropout(x, 0.5)
    with RowMode(row_keys(1, 1)[0]):
        assert torch.equal(functional.dropout(x, 0.5), first)
