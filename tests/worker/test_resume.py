"""Real runners that are interrupted: what comes out must be what would have come out."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from clipwise.models import saved
from clipwise_worker.course import REPLAYED
from tests.worker.attempts import PLAIN, PRIVATE, Runner, prepare

STEPS = 40
EVERY: dict[str, Any] = {"every_steps": 10, "every_seconds": 3600}
RUN: dict[str, Any] = {
    **PLAIN,
    "training": {"steps": STEPS, "batch_size": 48, "seed": 3},
    "optimizer": {"learning_rate": 0.05, "modules": [{"kind": "adam"}, {"kind": "momentum", "beta": 0.5}]},
    "checkpoints": EVERY,
}
CASES = {
    "plain": RUN,
    "clipped": {**RUN, "clipping": {"max_norm": 1.0}},
    "microbatches": {**RUN, "training": {**RUN["training"], "microbatch_size": 7}},
    "dropout": {
        **RUN,
        "clipping": {"max_norm": 1.0},
        "model": {"kind": "mlp", "hidden_sizes": [16], "dropout": 0.3},
    },
    "a convolution": {**RUN, "model": {"kind": "cnn", "channels": [4, 4]}},
}


def weights(output: Path) -> dict[str, torch.Tensor]:
    with safe_open(output / saved.WEIGHTS_FILE, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def finish(runner: Runner) -> list[dict[str, Any]]:
    told = list(runner.messages())
    code, printed = runner.end()
    assert code == 0, printed
    return told


def killed_after(folder: Path, document: dict[str, Any], step: int, **changes: Any) -> Runner:
    """Run an attempt and kill it once its checkpoint of `step` is kept; return the runner."""
    prepare(folder, document, **changes)
    runner = Runner(folder)
    for _ in runner.messages():
        if step in runner.kept:
            runner.process.kill()
            break
    runner.end()
    return runner


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_goes_on_ends_bit_for_bit_where_it_would_have_ended(tmp_path: Path, case: str) -> None:
    document = CASES[case]
    whole = prepare(tmp_path / "whole", document)
    finish(Runner(tmp_path / "whole"))
    checkpoint: Path | None = None
    for number, step in enumerate((10, 30)):
        runner = killed_after(
            tmp_path / f"attempt{number}", document, step, checkpoint=checkpoint and str(checkpoint)
        )
        checkpoint = runner.kept[step]
    last = prepare(tmp_path / "last", document, checkpoint=str(checkpoint), attempt=3)
    told = finish(Runner(tmp_path / "last"))
    steps = [message["step"] for message in told if message["type"] == "progress"]
    assert (steps[0], steps[-1]) == (30, STEPS)
    expected, got = weights(whole), weights(last)
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        assert torch.equal(value, got[name]), name
    final = [m["values"] for m in told if m["type"] == "metrics" and "eval/loss" in m["values"]][-1]
    assert final == json.loads(json.dumps(final))
    assert told[-1]["metrics"]["eval/loss"] == final["eval/loss"]


def test_another_checkpoint_would_be_seen(tmp_path: Path) -> None:
    whole = prepare(tmp_path / "whole", RUN)
    finish(Runner(tmp_path / "whole"))
    other = {**RUN, "optimizer": {**RUN["optimizer"], "learning_rate": 0.06}}
    runner = killed_after(tmp_path / "other", other, 10)
    last = prepare(tmp_path / "last", RUN, checkpoint=str(runner.kept[10]))
    finish(Runner(tmp_path / "last"))
    name = next(iter(weights(whole)))
    assert not torch.equal(weights(whole)[name], weights(last)[name])


def test_under_privacy_what_was_lost_is_paid_for_and_the_run_ends_so_many_steps_earlier(
    tmp_path: Path,
) -> None:
    document = {**PRIVATE, "training": {"steps": STEPS, "batch_size": 64, "seed": 3}}
    runner = killed_after(tmp_path / "first", document, 12)
    # Five steps were charged beyond the checkpoint, whether they ran or not.
    changes = {"checkpoint": str(runner.kept[12]), "charged_steps": 17, "attempt": 2}
    output = prepare(tmp_path / "second", document, **changes)
    told = finish(Runner(tmp_path / "second"))
    charges = [m["charged_steps"] for m in told if m["type"] == "charge"]
    assert charges == list(range(18, STEPS + 1))
    progress = [m for m in told if m["type"] == "progress"]
    assert (progress[0]["step"], progress[-1]["step"], progress[-1]["steps"]) == (12, STEPS - 5, STEPS - 5)
    plan = json.loads((tmp_path / "second" / "attempt.json").read_text())["plan"]
    assert progress[-1]["epsilon"] == told[-1]["epsilon"] == plan["epsilon"]
    assert progress[0]["epsilon"] > 0
    said = json.loads((output / "privacy.json").read_text())["mechanism"]
    assert (said["steps"], said["discarded_steps"]) == (STEPS, 5)


def test_under_privacy_a_checkpoint_has_no_state_of_sampling_or_noise(tmp_path: Path) -> None:
    runner = killed_after(tmp_path / "first", PRIVATE, 3)
    with safe_open(runner.kept[3], framework="pt") as file:
        names = set(file.keys())
        header = json.loads(file.metadata()["clipwise"])
    assert not [name for name in names if name.startswith(("random.", "sampler."))]
    assert header["sampler"] is None
    models = []
    for number in range(2):
        output = prepare(tmp_path / f"{number}", PRIVATE, checkpoint=str(runner.kept[3]), charged_steps=3)
        finish(Runner(tmp_path / f"{number}"))
        models.append(weights(output))
    name = next(iter(models[0]))
    assert not torch.equal(models[0][name], models[1][name])


def test_a_crash_costs_a_hundredth_of_the_steps_at_most(tmp_path: Path) -> None:
    steps = 3 * REPLAYED
    document = {**PRIVATE, "training": {"steps": steps, "batch_size": 32}}
    prepare(tmp_path / "a", document)
    told = finish(Runner(tmp_path / "a"))
    saved_at, paid, lost = 0, 0, []
    for message in told:
        if message["type"] == "checkpoint":
            saved_at = message["step"]
        if message["type"] == "charge":
            paid = message["charged_steps"]
        lost.append(paid - saved_at)
    assert max(lost) == math.ceil(steps / REPLAYED)
    assert (paid, saved_at) == (steps, steps)


def test_every_step_that_ran_was_paid_for_before(tmp_path: Path) -> None:
    prepare(tmp_path / "a", PRIVATE)
    runner = Runner(tmp_path / "a")
    runner.answers = False
    for message in runner.messages():
        if message["type"] == "charge":
            break
    # Nobody grants it: no step runs, whatever else is said.
    runner.say(json.dumps({"type": "stop"}))
    told = finish(runner)
    assert told[-1] == {"type": "stopped", "step": 0, "charged_steps": 0}


def test_a_stop_that_keeps_writes_a_checkpoint_first_and_says_what_it_has_run(tmp_path: Path) -> None:
    document = {**PRIVATE, "training": {"steps": 100_000, "batch_size": 64}}
    prepare(tmp_path / "a", document)
    runner = Runner(tmp_path / "a")
    told = []
    for message in runner.messages():
        told.append(message)
        if message["type"] == "progress" and message["step"] > 20 and runner.answers:
            runner.say(json.dumps({"type": "stop", "keep": True}))
    runner.end()
    last = told[-1]
    assert last["type"] == "stopped"
    assert last["step"] in runner.kept
    assert last["charged_steps"] == last["step"]
    assert [m["type"] for m in told if m["type"] in {"checkpoint", "stopped"}][-2:] == [
        "checkpoint",
        "stopped",
    ]


def test_without_news_a_runner_writes_a_checkpoint_and_waits_and_goes_on_when_it_hears(
    tmp_path: Path,
) -> None:
    document = {
        **RUN,
        "training": {"steps": 2_000_000, "batch_size": 48},
        "checkpoints": {"every_seconds": 3600},
    }
    prepare(tmp_path / "a", document)
    runner = Runner(tmp_path / "a")
    runner.say(json.dumps({"type": "lease", "seconds": 3600}))
    messages = runner.messages()
    next(m for m in messages if m["type"] == "progress" and m["step"] > 0)
    runner.say(json.dumps({"type": "lease", "seconds": 0}))
    written = next(m for m in messages if m["type"] == "checkpoint")
    assert written["step"] in runner.kept
    runner.say(json.dumps({"type": "lease", "seconds": 3600}))
    assert next(m for m in messages if m["type"] == "progress" and m["step"] > written["step"])
    # And when it hears nothing for too long it gives up; here, when nobody is there any more.
    runner.process.kill()
    runner.end()


def test_a_runner_that_hears_nothing_for_too_long_gives_the_job_back(tmp_path: Path) -> None:
    document = {**RUN, "training": {"steps": 2_000_000, "batch_size": 48}}
    prepare(tmp_path / "a", document, wait_seconds=0.3)
    runner = Runner(tmp_path / "a")
    messages = runner.messages()
    next(m for m in messages if m["type"] == "progress" and m["step"] > 0)
    runner.say(json.dumps({"type": "lease", "seconds": 0}))
    told = list(messages)
    assert runner.end()[0] == 0
    assert told[-1]["type"] == "interrupted"
    assert "has not answered" in told[-1]["message"]


def test_the_best_checkpoint_is_the_one_with_the_lowest_loss(tmp_path: Path) -> None:
    document = {
        **RUN,
        "training": {"steps": 60, "batch_size": 48, "seed": 1},
        "evaluation": {"fraction": 0.2, "every_steps": 7},
        "checkpoints": {"every_seconds": 3600, "keep_best": True},
    }
    prepare(tmp_path / "a", document)
    told = finish(Runner(tmp_path / "a"))
    measured = {
        m["step"]: m["values"]["eval/loss"]
        for m in told
        if m["type"] == "metrics" and "eval/loss" in m["values"]
    }
    taken = {m["step"]: m["loss"] for m in told if m["type"] == "checkpoint"}
    best = min(measured, key=lambda step: measured[step])
    assert taken[best] == measured[best] == min(taken.values())


def test_an_evaluation_that_a_stop_broke_off_is_made_up_for(tmp_path: Path) -> None:
    document = {
        **RUN,
        # Most of the time goes into evaluations, so that a stop comes in the middle of one.
        "model": {"kind": "mlp", "hidden_sizes": [1024, 1024]},
        "training": {"steps": 1000, "batch_size": 1, "seed": 1},
        "evaluation": {"fraction": 0.95, "every_steps": 1},
        "checkpoints": {"every_seconds": 3600},
    }
    evaluated: list[int] = []
    checkpoint: Path | None = None
    start = 0
    for attempt in range(1, 4):
        folder = tmp_path / f"attempt{attempt}"
        prepare(folder, document, checkpoint=checkpoint and str(checkpoint), attempt=attempt)
        runner = Runner(folder)
        told = []
        for message in runner.messages():
            told.append(message)
            if message["type"] == "progress" and message["step"] > start:
                runner.say(json.dumps({"type": "stop", "keep": True}))
        assert runner.end()[0] == 0
        evaluated += [m["step"] for m in told if m["type"] == "metrics" and "eval/loss" in m["values"]]
        start = told[-1]["step"]
        checkpoint = runner.kept[start]
    with safe_open(checkpoint, framework="pt") as file:
        unevaluated = json.loads(file.metadata()["clipwise"])["unevaluated"]
    assert evaluated == list(range(1, start + 1 - unevaluated))


def test_a_damaged_or_foreign_checkpoint_is_an_error_and_no_guess(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"no checkpoint")
    runner = killed_after(tmp_path / "narrow", RUN, 10)
    wide = {**RUN, "model": {"kind": "mlp", "hidden_sizes": [17]}}
    for name, document, path in (
        ("a", RUN, tmp_path / "broken.safetensors"),
        ("b", wide, runner.kept[10]),
    ):
        prepare(tmp_path / name, document, checkpoint=str(path))
        told = finish(Runner(tmp_path / name))
        assert told[-1]["type"] == "failed"
        assert "checkpoint" in told[-1]["message"]


def test_a_runner_that_was_made_ahead_does_the_same(tmp_path: Path) -> None:
    cold = prepare(tmp_path / "cold", RUN)
    finish(Runner(tmp_path / "cold"))
    warm = prepare(tmp_path / "warm", RUN)
    runner = Runner(tmp_path / "warm", warm=True)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    runner.say(
        json.dumps(
            {"type": "begin", "folder": str(tmp_path / "warm"), "environment": {"TMPDIR": str(temporary)}}
        )
    )
    told = finish(runner)
    assert told[-1]["type"] == "succeeded"
    for name, value in weights(cold).items():
        assert torch.equal(value, weights(warm)[name])
