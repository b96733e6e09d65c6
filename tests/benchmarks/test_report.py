"""The page of the benchmark: what it says of a run, on figures that are made up."""

import pytest

from tests.benchmarks.report import Cell, Results, document, geometric_mean, tables


def results(**ours: float) -> Results:
    """Return a run in which an ordinary step takes 10 ms and 100 MiB, and Opacus three times as much."""
    cells = {}
    for workload, ratio in ours.items():
        cells[workload, "ordinary"] = Cell(peak=100 * 2**20, seconds=0.01, ratio=1.0, rounds=7)
        cells[workload, "ours"] = Cell(peak=110 * 2**20, seconds=0.01 * ratio, ratio=ratio, rounds=7)
        cells[workload, "opacus-hooks"] = Cell(reason="out: more than 8 GiB")
        cells[workload, "opacus-ghost"] = Cell(peak=300 * 2**20, seconds=0.03, ratio=3.0, rounds=7)
    return Results(
        cells=cells,
        workloads=list(ours),
        engines=["ordinary", "ours", "opacus-hooks", "opacus-ghost"],
        device="a device",
        threads=2,
        versions={"torch": "2"},
        seconds=1.0,
    )


def test_bars_leave_recurrent_layers_out_of_the_mean() -> None:
    page = document(results(mlp=1.0, cnn=1.44, lstm=2.5))
    assert "| time, geometric mean without LSTM and GRU | at most 1.2 | 1.20 |" in page
    assert "| time, most of these | at most 1.4 | 1.44 |" in page
    assert "| time, LSTM and GRU, most | at most 3 | 2.50 |" in page
    assert "| peak memory, geometric mean | at most 1.3 | 1.10 |" in page
    assert "| Opacus's best mode over ours, geometric mean | at least 2.5 | 1.96 |" in page


@pytest.mark.parametrize(("ours", "behind"), [(1.5, "none"), (3.5, "MLP 784-512-512-10, batch 256")])
def test_a_faster_peer_is_named(ours: float, behind: str) -> None:
    assert f"A peer is faster on: {behind}." in document(results(mlp=ours))


def test_a_cell_without_a_figure_has_a_reason() -> None:
    page = tables(results(mlp=1.1, cnn=1.2))
    assert "| MLP 784-512-512-10, batch 256 | 10.0 ms | 1.10 | out | 3.00 |" in page
    assert "- Opacus hooks: out: more than 8 GiB (cnn, mlp)" in page


def test_a_mean_tells_how_many_rows_it_is_of() -> None:
    found = results(mlp=1.1, cnn=1.2)
    found.cells["cnn", "ours"] = Cell(reason="wrong: its gradient is off by 0.1")
    assert "| time, most of these | at most 1.4 | 1.10 (of 1) |" in document(found)


def test_the_mean_of_nothing_is_none() -> None:
    assert geometric_mean([None]) is None
    assert geometric_mean([2.0, None, 8.0]) == pytest.approx(4.0)
