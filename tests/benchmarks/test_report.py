"""The page of the benchmark: what it says of a run, on figures that are made up."""

import pytest

from tests.benchmarks.engines import ENGINES
from tests.benchmarks.report import Cell, Results, document, geometric_mean, tables
from tests.benchmarks.summary import BEGIN, END, summary, with_summary
from tests.benchmarks.workloads import WORKLOADS
from tests.conftest import ROOT


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


def test_the_readme_gets_the_best_mode_of_each_peer() -> None:
    found = results(mlp=1.25)
    table = summary(found)
    assert "| MLP 784-512-512-10, batch 256 | 1.25 |  | 3.00 |  | 1.10 |" in table
    readme = with_summary(f"above\n{BEGIN}an old table\n{END}below\n", found)
    assert readme == f"above\n{BEGIN}{table}{END}below\n"


def cells_of(page: str, heading: str) -> dict[tuple[str, str], str]:
    """Return the cells of a table of a page, by workload and engine."""
    titles = {WORKLOADS[name].title: name for name in WORKLOADS}
    columns = {ENGINES[name].title: name for name in ENGINES}
    head, _, *rows = page.partition(f"## {heading}")[2].strip().partition("\n\n")[0].splitlines()
    engines = [columns.get(cell.strip()) for cell in head.strip("|").split("|")]
    found = {}
    for row in rows:
        title, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        for engine, cell in zip(engines[1:], cells, strict=True):
            if title in titles and engine is not None:
                found[titles[title], engine] = cell
    return found


def test_the_readme_shows_what_the_page_says() -> None:
    page = (ROOT / "docs" / "benchmarks" / "engine.md").read_text(encoding="utf-8")
    times = cells_of(page, "Time of a step, over an ordinary step")
    peaks = cells_of(page, "Peak memory of a step, over an ordinary step")
    cells = {}
    for name, time in times.items():
        word = time.isalpha()
        ratio = None if word or name[1] == "ordinary" else float(time)
        cells[name] = Cell(reason=time if word else "", ratio=ratio)
    for workload in WORKLOADS:  # as ratios, so that an ordinary step has one byte
        cells[workload, "ordinary"] = Cell(peak=100)
        ours = cells[workload, "ours"]
        cells[workload, "ours"] = Cell(ratio=ours.ratio, peak=round(100 * float(peaks[workload, "ours"])))
    engines = list(dict.fromkeys(engine for _, engine in times))
    said = Results(
        cells=cells,
        workloads=list(WORKLOADS),
        engines=engines,
        device="",
        threads=2,
        versions={},
        seconds=0.0,
    )
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.partition(BEGIN)[2].partition(END)[0].splitlines()
    *wanted, _ = summary(said).splitlines()
    assert shown[:-1] == wanted
    means = [float(cell) for cell in shown[-1].strip("|").split("|")[1:] if cell.strip()]
    for mean, of in zip(means, (said.time, said.memory), strict=True):
        assert mean == pytest.approx(geometric_mean(of(name, "ours") for name in WORKLOADS), abs=0.01)
