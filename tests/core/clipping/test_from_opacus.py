"""The guide for people who come from Opacus: every block of its code, run as it stands."""

import re
from typing import Any

import pytest
import torch
from tests.conftest import ROOT

from clipwise.privacy import epsilon

GUIDE = (ROOT / "docs" / "from-opacus.md").read_text()
BLOCKS = re.findall(r"^```python( opacus)?\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
OURS = [code for theirs, code in BLOCKS if not theirs]


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, "from-opacus.md", "exec"), names)
    return names


def test_every_block_is_run_here() -> None:
    assert len(re.findall(r"^```", GUIDE, re.MULTILINE)) == 2 * len(BLOCKS)
    assert len(OURS) == 4


@pytest.mark.parametrize("code", OURS)
def test_the_code_runs(code: str) -> None:
    run(code)


def test_the_loop_says_the_epsilon_of_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.random.get_rng_state()
    torch.manual_seed(1)
    names = run(OURS[0])
    torch.random.set_rng_state(before)
    printed = float(capsys.readouterr().out)
    assert printed == epsilon(noise_multiplier=1.1, sampling_rate=0.125, steps=40, delta=1e-5)
    guessed = names["model"](names["inputs"]).argmax(1)
    assert float((guessed == names["targets"]).double().mean()) > 0.7


def test_five_lines_are_marked() -> None:
    assert [int(number) for number in re.findall(r"# (\d)$", OURS[0], re.MULTILINE)] == [1, 2, 3, 4, 5]


def test_the_repaired_network_is_what_the_guide_says(capsys: pytest.CaptureFixture[str]) -> None:
    run(OURS[1])
    printed = capsys.readouterr().out.strip()
    assert f"# {printed}" in OURS[1]


@pytest.mark.filterwarnings("ignore")
def test_the_loop_of_opacus_runs_and_says_nearly_the_same_epsilon(capsys: pytest.CaptureFixture[str]) -> None:
    (theirs,) = [code for opacus, code in BLOCKS if opacus]
    run(theirs)
    ours = epsilon(noise_multiplier=1.1, sampling_rate=0.125, steps=40, delta=1e-5)
    assert float(capsys.readouterr().out) == pytest.approx(ours, rel=0.02)
