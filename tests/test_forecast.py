"""Before and around a run: what is told of time and memory, and what is refused."""
import copy
import doctest
import importlib
import math
import re

import numpy as np
import pytest
import torch

SMALL = {"vocab_size": 400, "context": 32, "n_layer": 1, "n_head": 1, "n_embd": 32}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def train():
    """Stage 4 as a module."""
    return importlib.import_module("04_train")


@pytest.fixture(scope="module")
def forecast(train):
    """lessons/forecast.py, as stage 4 has it."""
    return train.forecast


@pytest.fixture
def batches(train, tmp_path):
    """Texts of random ids: nothing to understand, but it can be learnt by heart."""
    ids = np.random.default_rng(0).integers(4, 400, size=2000).astype("<u2")
    ids[::40], ids[39::40] = 2, 3
    ids.tofile(tmp_path / "train.bin")
    return train.Batches(tmp_path / "train.bin", context=32, seed=1)


@pytest.fixture
def model(gpt):
    torch.manual_seed(0)
    return gpt.GPT(SMALL)


def three_lines(stopped):
    """What a SystemExit says: what, why, how."""
    what, why, how = str(stopped.value).strip().split("\n")
    return what, why, how


# ------------------------------------------------------------------- learning by heart


def test_the_examples_in_the_docstrings_are_true(forecast):
    outcome = doctest.testmod(forecast)
    assert outcome.attempted >= 1 and outcome.failed == 0


@pytest.mark.parametrize("width, blocks", [(32, 1), (96, 2), (320, 2)])
def test_a_sound_loop_learns_four_short_texts_by_heart(
    train, forecast, gpt, batches, capsys, width, blocks
):
    torch.manual_seed(0)
    shape = {"n_embd": width, "n_layer": blocks, "n_head": width // 32}
    model = gpt.GPT(SMALL | shape)
    before = copy.deepcopy(model.state_dict())
    tools = train.make_optimizer, train.train_step
    forecast.Trial(model, batches, *tools, CPU).check_learning()
    said = capsys.readouterr()[0]
    first, last = re.search(r"loss ([\d.]+) to ([\d.]+)", said).groups()
    # Far from the limit of a third: the limit asks whether it learns, not how well.
    assert float(last) < 0.15 * float(first)
    same = (torch.equal(w, before[name]) for name, w in model.state_dict().items())
    assert all(same), "the check should have trained a copy"


def broken_steps(train):
    """Ways to break a loop in silence: {name: train_step}."""

    def no_step(model, optimizer, *rest):
        return train.train_step(model, type("Idle", (), {
            "param_groups": [], "step": lambda self: None,
            "zero_grad": lambda self, set_to_none: model.zero_grad(),
        })(), *rest)  # fmt: skip

    def uphill(model, optimizer, batches, step, plan, device):
        plan = plan | {"max_lr": -plan["max_lr"]}
        return train.train_step(model, optimizer, batches, step, plan, device)

    def other_weights(model, optimizer, *rest):
        # The famous one: the optimizer was made for a copy, so it moves nothing here.
        return train.train_step(copy.deepcopy(model), optimizer, *rest)

    return {f.__name__: f for f in (no_step, uphill, other_weights)}


@pytest.mark.parametrize("how", ["no_step", "uphill", "other_weights"])
def test_a_loop_that_does_not_learn_is_refused(train, forecast, model, batches, how):
    step = broken_steps(train)[how]
    trial = forecast.Trial(model, batches, train.make_optimizer, step, CPU)
    with pytest.raises(SystemExit) as stopped:
        trial.check_learning()
    what, why, how = three_lines(stopped)
    assert "30 steps on 4 short texts" in what and "by heart" in why
    assert "03_model.py" in how


# -------------------------------------------------------------------------- the tokens


def test_an_id_beyond_the_vocabulary_is_refused(forecast, batches):
    ids = np.array(batches.ids)
    ids[77] = 400  # the vocabulary has 0 to 399
    batches.ids = ids
    with pytest.raises(SystemExit) as stopped:
        forecast.check_tokens("train.bin", batches, 2000, SMALL)
    what, why, how = three_lines(stopped)
    assert what == "train.bin holds the id 400." and "399" in why
    assert how == "python 02_prepare.py"


def test_the_largest_id_is_told(forecast, batches, capsys):
    forecast.check_tokens("train.bin", batches, 2000, SMALL)
    assert f"ids up to {batches.ids.max()}; vocabulary 400" in capsys.readouterr()[0]


# ------------------------------------------------------------------------------ recipes


# For each Mac: texts at once x passes, for 32 texts per step (tiny and small), and for
# 64 (medium), within what its memory holds beside the system.
@pytest.mark.parametrize(
    "memory, texts, at_once, passes",
    [
        (8, 32, (4, 8), (4, 8)),  # M1
        (8, 64, (4, 8), (4, 8)),
        (16, 32, (8, 16), (2, 4)),  # M2
        (16, 64, (8, 16), (2, 4)),
        (32, 32, (16, 32), (2, 2)),  # M2 Pro
        (32, 64, (16, 32), (2, 2)),
    ],
)
def test_each_mac_has_its_recipe(train, memory, texts, at_once, passes):
    micro, accumulate = train.recipe(texts, memory)
    assert micro * accumulate == texts
    assert at_once[0] <= micro <= at_once[1]
    assert passes[0] <= accumulate <= passes[1]


@pytest.mark.parametrize("memory", [4, 8, 16, 24, 32, 64, 1000])
def test_a_recipe_keeps_apples_limits_and_splits_no_small_step(train, gpt, memory):
    assert train.recipe(4, memory) == (4, 1)  # nano: nothing to save
    for texts in (1, 2, 8, 32, 64):
        micro, accumulate = train.recipe(texts, memory)
        assert micro * accumulate == texts
        longest = max(context for *_, context in gpt.SIZES.values())
        assert micro * longest < 32_767


def test_what_the_learner_sets_is_kept(train, gpt, monkeypatch, capsys):
    monkeypatch.setattr(train, "MICRO_BATCH", 2)
    plan = train.make_plan(gpt.GPT(SMALL))
    texts = train.preset(0)[1]
    assert (plan["micro_batch"], plan["accumulate"]) == (2, texts // 2)
    monkeypatch.setattr(train, "ACCUMULATE", 7)
    plan = train.make_plan(gpt.GPT(SMALL))
    assert (plan["micro_batch"], plan["accumulate"]) == (2, 7)
    assert plan["tokens_per_step"] == 2 * 7 * 32
    assert "2 texts x 32 tokens x 7 passes = 448" in capsys.readouterr()[0]


# ----------------------------------------------------------------------------- the plan


def test_a_matrix_product_is_fast_and_said_to_be(forecast):
    rate = forecast.matmul_rate(CPU, enough=0.002)
    assert 1e8 < rate < 1e15


def test_the_plan_tells_time_memory_and_speed(forecast, capsys, monkeypatch):
    monkeypatch.setattr(forecast.machine, "gigabytes", lambda device: 1.0)
    forecast.tell(1000, 3.6, 50e9, 200e9, (300, 900), CPU)
    printed = capsys.readouterr()[0]
    assert "1,000 steps of 3.600 s: 60.0 min, until " in printed
    assert "300 MB of memory now, at most about 900 MB" in printed
    assert "50 GFLOP/s" in printed and "25% of a large matrix product's 200" in printed
    assert "[note]" not in printed
    forecast.tell(1000, 3.6, 50e9, 200e9, (300, 1100), CPU)
    assert "more than there is! Halve MICRO_BATCH" in capsys.readouterr()[0]


def test_the_other_sizes_are_estimated_and_called_so(forecast, train, gpt, capsys):
    n_layer, n_head, n_embd, context = gpt.SIZES["nano"]
    config = {"vocab_size": 2048, "context": context, "n_layer": n_layer}
    config |= {"n_head": n_head, "n_embd": n_embd}
    forecast.tell_others(gpt, config, 1e12, train.preset)
    printed = capsys.readouterr()[0]
    assert "an estimate" in printed and "nano" not in printed
    # tiny: 40 million tokens x 3 x its operations per token, at 1e12 a second.
    tiny = dict(zip(("n_layer", "n_head", "n_embd", "context"), gpt.SIZES["tiny"]))
    tokens = train.preset(10_000_000)[0]
    seconds = 3 * gpt.flops_per_token(config | tiny) * tokens / 1e12
    assert f"tiny {forecast.duration(seconds)}," in printed
    assert "small" in printed and "medium" in printed


# ------------------------------------------------------------------- devices and memory


class Mac:
    """A device that is called mps: for all that can be tested without a Mac."""

    type = "mps"


def test_checkpointing_with_dropout_is_refused_on_an_apple_gpu_only(train):
    check = train.machine.check_limits
    with pytest.raises(SystemExit) as stopped:
        check(Mac, 1024, 2048, 0.1, True)
    what, why, how = three_lines(stopped)
    assert "CHECKPOINTING with DROPOUT = 0.1" in what and "gradient" in why
    assert how.endswith("python 04_train.py")
    check(Mac, 1024, 2048, 0.0, True)
    check(Mac, 1024, 2048, 0.1, False)
    check(CPU, 1024, 2048, 0.1, True)


# The first lines of what torch says: its own class on NVIDIA, plain errors elsewhere.
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("MPS backend out of memory (MPS allocated: 8.88 GiB, other ...)"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"),
        MemoryError(),
    ],
    ids=["mps", "cuda", "cpu", "numpy"],
)
def test_a_lack_of_memory_is_told_with_its_cure(train, error):
    with pytest.raises(SystemExit) as stopped:
        with train.machine.out_of_memory_told("04_train.py"):
            raise error
    what, why, how = three_lines(stopped)
    assert "memory" in what and "Halve MICRO_BATCH, double ACCUMULATE" in how
    assert how.endswith("python 04_train.py")


def test_other_errors_keep_their_traceback(train):
    with pytest.raises(RuntimeError, match="shape"):
        with train.machine.out_of_memory_told("04_train.py"):
            raise RuntimeError("shape '[2, 3]' is invalid for input of size 5")


def test_a_model_that_is_spoilt_is_refused(train, gpt, model):
    model.ln_f.weight.data *= math.nan
    ids = torch.randint(400, (2, 8))
    with pytest.raises(SystemExit) as stopped:
        train.machine.check_device(model, ids, ids, CPU, gpt.check_causality)
    what, _, how = three_lines(stopped)
    assert "first loss is nan" in what and "python 03_model.py" in how
