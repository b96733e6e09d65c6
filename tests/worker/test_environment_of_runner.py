from clipwise_worker.runner_environment import ALLOCATOR, runner_environment


def test_only_what_is_known_to_be_harmless_passes() -> None:
    own = {
        "PATH": "/bin",
        "LC_ALL": "C.UTF-8",
        "CUDA_VISIBLE_DEVICES": "0",
        "CLIPWISE_API_KEY": "x",
        "DATABASE": "x",
        "AWS_ACCESS_KEY_ID": "x",
        "TORCH_HUB_TOKEN": "x",
        "PYTHON_KEYRING_BACKEND": "x",
        "REDIS": "x",
    }
    passed = runner_environment(own)
    assert passed == {
        **ALLOCATOR,
        "PATH": "/bin",
        "LC_ALL": "C.UTF-8",
        "CUDA_VISIBLE_DEVICES": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
    }


def test_slots_share_the_cores_unless_the_operator_says_otherwise() -> None:
    assert int(runner_environment({}, slots=2)["OMP_NUM_THREADS"]) >= 1
    assert runner_environment({"OMP_NUM_THREADS": "3"}, slots=2)["OMP_NUM_THREADS"] == "3"
    assert "OMP_NUM_THREADS" not in runner_environment({})


def test_the_operator_may_choose_another_way_to_keep_memory() -> None:
    passed = runner_environment({"MALLOC_TRIM_THRESHOLD_": "1"})
    assert passed["MALLOC_TRIM_THRESHOLD_"] == "1"
    assert passed["MALLOC_MMAP_MAX_"] == ALLOCATOR["MALLOC_MMAP_MAX_"]
