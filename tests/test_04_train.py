"""Stage 4: the step, the order of the stories, and a run that survives everything."""
import csv
import doctest
import importlib
import math
import os
import re
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

SMALL = {"vocab_size": 400, "context": 32, "n_layer": 1, "n_head": 1, "n_embd": 32}


@pytest.fixture(scope="session")
def train():
    """Stage 4 as a module."""
    return importlib.import_module("04_train")


@pytest.fixture
def plan():
    return {"steps": 10, "max_lr": 1e-3, "accumulate": 1, "micro_batch": 4}


def test_the_examples_in_the_docstrings_are_true(train):
    outcome = doctest.testmod(train)
    assert outcome.attempted >= 2 and outcome.failed == 0


# ------------------------------------------------------------------------------- rate


def test_the_rate_rises_once_falls_once_and_ends_at_a_tenth(train):
    rates = [train.learning_rate(step, 1000, 0.004, 0.05) for step in range(1000)]
    top = rates.index(max(rates))
    assert top == 49 and rates[top] == 0.004  # 5 % of 1,000 steps, the last of the rise
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[0] > 0 and rates[-1] == pytest.approx(0.0004, rel=1e-3)


def test_a_run_of_one_step_has_a_rate(train):
    assert train.learning_rate(0, 1, 0.5, 0.05) == 0.5


# ------------------------------------------------------------------------------- data


@pytest.fixture
def numbered(tmp_path):
    """30 stories of 10 ids; story s is BOS, then s * 100 + 1..8, then EOS."""
    stories = [[2, *range(s * 100 + 10, s * 100 + 18), 3] for s in range(30)]
    path = tmp_path / "train.bin"
    np.array(stories, dtype="<u2").tofile(path)
    return path


def test_the_target_of_each_token_is_the_next_one(train, numbered):
    x, y = train.Batches(numbered, context=12, seed=1).batch(0, 4)
    assert x.shape == y.shape == (4, 12)
    assert torch.equal(x[:, 1:], y[:, :-1])


def test_every_text_begins_with_a_story(train, numbered):
    x, _ = train.Batches(numbered, context=12, seed=1).batch(3, 4)
    assert x[:, 0].tolist() == [2, 2, 2, 2]


def test_each_story_comes_once_before_any_comes_twice(train, numbered):
    batches = train.Batches(numbered, context=12, seed=1)
    count = len(batches.starts)  # 29: in the last story no 13 tokens are left
    assert count == 29
    firsts = [batches.batch(n, 4)[0][:, 1].tolist() for n in range(count)]
    seen = sum(firsts, [])[: 2 * count]  # two of four passes
    assert len(set(seen[:count])) == count and len(set(seen[count:])) == count
    assert seen[:count] != seen[count:], "the second pass should have another order"


def test_two_processes_read_together_what_one_would_read_alone(train, numbered):
    alone = train.Batches(numbered, context=12, seed=1)
    pair = [train.Batches(numbered, 12, 1, share=(i, 2)) for i in range(2)]
    for n in range(5):
        for i in range(2):
            assert torch.equal(pair[i].batch(n, 3)[0], alone.batch(2 * n + i, 3)[0])


def test_batch_n_is_the_same_in_every_run_whatever_came_before(train, numbered):
    one, other = (train.Batches(numbered, context=12, seed=5) for _ in range(2))
    for n in range(9):
        one.batch(n, 4)
    assert torch.equal(one.batch(11, 4)[0], other.batch(11, 4)[0])
    third = train.Batches(numbered, context=12, seed=6)
    assert not torch.equal(other.batch(11, 4)[0], third.batch(11, 4)[0])


# ------------------------------------------------------------------------------- step


def test_two_passes_of_half_a_batch_step_like_one_pass_of_the_whole(
    train, gpt, numbered, plan
):
    weights = []
    for micro, passes in [(8, 1), (4, 2), (1, 8)]:
        torch.manual_seed(0)
        model = gpt.GPT(SMALL | {"vocab_size": 4000, "context": 12})
        batches = train.Batches(numbered, context=12, seed=1)
        optimizer = train.make_optimizer(model)
        this = plan | {"accumulate": passes, "micro_batch": micro}
        for step in range(3):
            cpu = torch.device("cpu")
            loss, _ = train.train_step(model, optimizer, batches, step, this, cpu)
        weights.append([loss, *(weight.detach() for weight in model.parameters())])
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(weights[0], weights[2], rtol=1e-3, atol=1e-4)


def test_only_matrices_decay(train, gpt):
    model = gpt.GPT(SMALL)
    decayed, free = train.make_optimizer(model).param_groups
    assert {w.dim() for w in decayed["params"]} == {2} and decayed["weight_decay"] > 0
    assert {w.dim() for w in free["params"]} == {1} and free["weight_decay"] == 0
    together = len(decayed["params"]) + len(free["params"])
    assert together == len(list(model.parameters()))


def test_a_gradient_is_never_followed_further_than_one(train, gpt, numbered, plan):
    torch.manual_seed(0)
    model = gpt.GPT(SMALL | {"vocab_size": 4000, "context": 12})
    for weight in model.parameters():
        weight.data *= 20  # far from anything sensible: steep
    batches = train.Batches(numbered, context=12, seed=1)
    lengths = []

    class Watch:  # an optimizer that only looks
        param_groups = [{}]

        def step(self):
            squares = sum(w.grad.square().sum() for w in model.parameters())
            lengths.append(squares.sqrt().item())

        def zero_grad(self, set_to_none):
            pass

    cpu = torch.device("cpu")
    _, norm = train.train_step(model, Watch(), batches, 0, plan, cpu)
    assert norm > 1 and lengths[0] == pytest.approx(1.0, rel=1e-3)


def test_one_batch_can_be_learnt_by_heart(train, gpt, numbered, plan):
    # If the loop is right, a model forced to see one batch only must come to know it.
    torch.manual_seed(0)
    model = gpt.GPT(SMALL | {"vocab_size": 4000, "context": 12})
    batches = train.Batches(numbered, context=12, seed=1)
    same = batches.batch(0, 4)
    batches.batch = lambda n, size: same
    optimizer = train.make_optimizer(model)
    cpu, this = torch.device("cpu"), plan | {"steps": 200, "max_lr": 1e-2}
    for step in range(200):
        loss, _ = train.train_step(model, optimizer, batches, step, this, cpu)
    assert loss < 0.3 < math.log(4000)  # from 8.3: the right token has 3 chances in 4


# -------------------------------------------------------------------------------- run


@pytest.fixture
def ready(workshop, small_tokenizer):
    """A workshop with a tiny model, in which stage 4 trains for a few seconds."""
    shop = small_tokenizer(workshop)
    shop.edit("03_model.py", SIZE=(1, 1, 32, 64))
    assert shop.run("03_model.py").returncode == 0
    shop.edit("04_train.py", TOKENS=64 * 4 * 60, MICRO_BATCH=4, ACCUMULATE=1)
    shop.edit("04_train.py", MAX_LR=0.01, EVALUATIONS=3, DROPOUT=0.1)
    return shop


def outcome(shop):
    """log.csv and the weights of a finished run."""
    folder = shop.folder / "artifacts/04_train"
    last = torch.load(folder / "last.pt", weights_only=True)
    return (folder / "log.csv").read_text(), last["weights"]


def test_a_run_learns_speaks_and_leaves_everything_behind(ready):
    done = ready.run("04_train.py")
    assert done.returncode == 0, done.stderr
    log, weights = outcome(ready)
    rows = list(csv.DictReader(log.splitlines()))
    assert float(rows[0]["train_loss"]) == pytest.approx(math.log(400) + 0.5, abs=0.4)
    assert float(rows[-1]["train_loss"]) < 4.5
    assert sum(1 for row in rows if row["valid_loss"]) == 3
    assert done.stdout.count("It says:") == 3
    # What was foretold before the first step, and what it was in the end.
    foretold = re.search(r"MB of memory now, at most about ([\d,]+) MB", done.stdout)[1]
    most = re.search(r"second; ([\d,]+) MB at most", done.stdout)[1]
    foretold, most = (float(number.replace(",", "")) for number in (foretold, most))
    assert foretold == pytest.approx(most, rel=0.2)
    assert re.search(r"\[plan\] 60 steps of [\d.]+ s: .*, until", done.stdout)
    for words in ("GFLOP/s", "tiny ", "medium ", "steps on 4 short texts: loss"):
        assert words in done.stdout
    assert done.stdout.rstrip().endswith("Next: python 05_eval.py")
    # 4 bytes per weight, and 8 more for the two averages that AdamW keeps of each.
    best = os.path.getsize(ready.folder / "artifacts/04_train/best.pt")
    count = sum(weight.numel() for weight in weights.values())
    assert 4 * count < best < 4 * count + 20_000


def test_a_finished_run_says_so_and_trains_no_more(ready):
    ready.run("04_train.py")
    before = outcome(ready)[0]
    done = ready.run("04_train.py")
    assert done.returncode == 0 and "has finished" in done.stdout
    assert outcome(ready)[0] == before


def test_another_constant_makes_another_run_and_keeps_the_old_one(ready):
    ready.run("04_train.py")
    ready.edit("04_train.py", MAX_LR=0.005)
    done = ready.run("04_train.py")
    assert "these changed: max_lr" in done.stdout
    assert (ready.folder / "artifacts/04_train.1/best.pt").exists()
    assert (ready.folder / "artifacts/04_train/best.pt").exists()
    # So does an edit of stage 3, although the first weights are the same.
    script = ready.folder / "03_model.py"
    text = script.read_text("utf-8").replace(', approximate="tanh"', "")
    script.write_text(text.replace("F.gelu(", "F.relu("), "utf-8")
    done = ready.run("04_train.py")
    assert "these changed: 03_model.py;" in done.stdout
    assert (ready.folder / "artifacts/04_train.2/best.pt").exists()


# Loads torch once, then starts the training again and again in children that can be
# killed. A line per child: the seconds from [start], where the steps begin, to its end,
# or 0: it may live. Prints, per killed child, the half-written files that it leaves.
KILLER = """
import importlib, os, pathlib, signal, sys, time
sys.path.insert(0, ".")
train = importlib.import_module("04_train")
report = sys.stdout
for line in sys.stdin:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        sys.stdout = os.fdopen(write, "w", buffering=1)
        sys.stderr = open(os.devnull, "w")
        train.main()
        os._exit(0)
    os.close(write)
    said = os.fdopen(read)
    if float(line):
        for beat in said:  # none, if the child ends before it begins
            if beat.startswith("[start]"):
                break
        time.sleep(float(line))
        os.kill(child, signal.SIGKILL)
    said.read()
    os.waitpid(child, 0)
    parts = pathlib.Path("artifacts/04_train").glob("*.part")
    print("killed" if float(line) else "lived", *(path.name for path in parts),
          file=report, flush=True)
"""


def test_a_finished_model_goes_on_with_another_text_and_its_own_tokenizer(ready):
    # Fine-tuning as README tells it: put the run aside, name it in 04, a text in 02.
    assert ready.run("04_train.py").returncode == 0
    base = ready.folder / "artifacts/base"
    os.rename(ready.folder / "artifacts/04_train", base)
    tokenizer = (ready.folder / "artifacts/01_bpe/tokenizer.json").read_bytes()
    stories = "\n\n".join(f"The {n} cats sat on the {n} mats." for n in range(400))
    (ready.folder / "cats.txt").write_text(stories, "utf-8")
    ready.edit("02_prepare.py", TEXT="no.txt")
    ready.refuses("02_prepare.py", "no such file", "Edit TEXT at the top of 02_prepare")
    ready.edit("02_prepare.py", TEXT="cats.txt")
    assert ready.run("02_prepare.py").returncode == 0
    ready.edit("04_train.py", START_FROM="artifacts/nothing/best.pt")
    ready.refuses("04_train.py", "artifacts/nothing/best.pt")
    ready.edit("04_train.py", START_FROM="artifacts/base/best.pt", MAX_LR=1e-3)
    done = ready.run("04_train.py")
    assert done.returncode == 0, done.stderr
    assert (ready.folder / "artifacts/01_bpe/tokenizer.json").read_bytes() == tokenizer
    first = float(re.search(r"first loss ([\d.]+)", done.stdout)[1])
    last = float(re.search(r"lowest validation loss ([\d.]+)", done.stdout)[1])
    assert last < 0.7 * first
    before = torch.load(base / "best.pt", weights_only=True)["weights"]
    after = outcome(ready)[1]
    far = sum((after[name] - before[name]).norm() for name in before)
    assert 0 < far < 0.5 * sum(weight.norm() for weight in before.values())
    assert "has finished" in ready.run("04_train.py").stdout  # the same command: no more


def test_killed_twenty_times_a_run_ends_as_if_nothing_had_happened(ready, monkeypatch):
    # Two threads add in another order than one: equal bits need equal threads.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # With SAVE_MINUTES = 0 every step is saved, so many kills fall into a write.
    ready.edit("04_train.py", SAVE_MINUTES=0, TOKENS=64 * 4 * 100)
    assert ready.run("04_train.py", afresh=True).returncode == 0
    log, weights = outcome(ready)
    os.rename(ready.folder / "artifacts/04_train", ready.folder / "first")
    dice = np.random.default_rng(1)
    moments = [*dice.uniform(0.001, 0.05, size=20), 0]
    killer = subprocess.run(
        [sys.executable, "-c", KILLER],
        cwd=ready.folder, input="".join(f"{m}\n" for m in moments), text=True,
        check=True, timeout=200, stdout=subprocess.PIPE,
    )  # fmt: skip
    lives = killer.stdout.splitlines()
    assert len(lives) == 21 and all(life.startswith("killed") for life in lives[:20])
    assert any(".part" in life for life in lives), f"none while it wrote: {lives}"
    assert lives[-1] == "lived", "the last run should have left no half-written file"
    log_again, weights_again = outcome(ready)
    assert log_again == log
    assert all(torch.equal(weights[name], weights_again[name]) for name in weights)


def test_ctrl_c_saves_and_says_how_to_go_on(ready):
    ready.edit("04_train.py", TOKENS=64 * 4 * 100_000)
    process = subprocess.Popen(
        [sys.executable, "04_train.py"],
        cwd=ready.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("[start]"):
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in errors
    assert errors.rstrip().endswith("Go on: python 04_train.py")
    last = torch.load(ready.folder / "artifacts/04_train/last.pt", weights_only=True)
    assert f"Step {last['step']:,} of" in errors and last["step"] > 0


# ------------------------------------------------------------------------- bad inputs


@pytest.mark.parametrize(
    "constant, value, words",
    [
        ("TOKENS", "many", "TOKENS = 'many'"),
        ("TOKENS", 0, "from 1 to"),
        ("MICRO_BATCH", 2.5, "a whole number"),
        ("MAX_LR", -1e-3, "MAX_LR = -0.001"),
        ("WARMUP", 2.0, "0.0 to 0.9"),
        ("DROPOUT", 1.0, "DROPOUT = 1.0"),
        ("PRECISION", "float16", "'float32', 'bfloat16'"),
        ("COMPILE", "yes", "False, True"),
        ("DEVICE", "tpu", "'auto', "),
    ],
)
def test_constants_that_cannot_be_are_refused_by_name(
    train, monkeypatch, constant, value, words
):
    monkeypatch.setattr(train, constant, value)
    with pytest.raises(SystemExit) as stopped:
        train.check_constants()
    what, why, command = str(stopped.value).split("\n")
    assert words in what + why and command.endswith("python 04_train.py")


def test_without_a_model_stage_4_names_stage_3(workshop, small_tokenizer):
    shop = small_tokenizer(workshop)
    shop.refuses("04_train.py", "model.pt is missing", "python 03_model.py")


def test_without_tokens_stage_4_names_stage_2(ready):
    os.remove(ready.folder / "artifacts/02_prepare/train.bin")
    ready.refuses("04_train.py", "train.bin is missing", "python 02_prepare.py")


def test_a_model_cut_short_is_named(ready):
    path = ready.folder / "artifacts/03_model/model.pt"
    path.write_bytes(path.read_bytes()[:20_000])
    ready.refuses("04_train.py", "model.pt cannot be read", "python 03_model.py")


def test_tokens_of_a_larger_vocabulary_are_named(ready):
    path = ready.folder / "artifacts/02_prepare/train.bin"
    ids = np.fromfile(path, dtype="<u2")
    ids[99] = 401  # the vocabulary has 0 to 399
    ids.tofile(path)
    ready.refuses("04_train.py", "train.bin holds the id 401", "python 02_prepare.py")


def test_tokens_cut_short_are_named(ready):
    path = ready.folder / "artifacts/02_prepare/train.bin"
    path.write_bytes(path.read_bytes()[:-100])
    ready.refuses("04_train.py", "train.bin is damaged", "python 02_prepare.py")


def test_a_checkpoint_cut_short_is_named_and_not_overwritten(ready):
    assert ready.run("04_train.py").returncode == 0
    path = ready.folder / "artifacts/04_train/last.pt"
    path.write_bytes(path.read_bytes()[:9_999])
    ready.refuses("04_train.py", "last.pt cannot be read", "rm -r artifacts/04_train")
    assert path.stat().st_size == 9_999


def test_artifacts_of_two_tokenizers_are_not_mixed(ready):
    ready.edit("01_bpe.py", VOCAB_SIZE=380)
    assert ready.run("01_bpe.py").returncode == 0
    ready.refuses("04_train.py", "another tokenizer", "python 02_prepare.py")
    assert ready.run("02_prepare.py").returncode == 0
    ready.refuses("04_train.py", "model.pt was made", "python 03_model.py")


def test_a_text_shorter_than_the_context_is_refused(ready):
    ready.edit("03_model.py", SIZE=(1, 1, 32, 8192))
    ready.edit("02_prepare.py", VALID_SHARE=0.01)
    for script in ("02_prepare.py", "03_model.py"):
        assert ready.run(script).returncode == 0
    ready.refuses("04_train.py", "valid.bin is too short", "a shorter context")


def test_two_runs_in_one_folder_are_not_allowed(ready):
    import machine

    with machine.lock(ready.folder / "artifacts/04_train.lock", "04_train.py"):
        ready.refuses("04_train.py", "Another 04_train.py is running", "Ctrl-C")


def test_a_loss_that_explodes_stops_the_run_and_keeps_the_last_good_file(ready):
    # Not a number in the weights is what an exploded step leaves behind. The run has
    # 60 steps and saves at 20, 40 and 60: the files of step 40 must stay.
    script = ready.folder / "04_train.py"
    text, line = script.read_text("utf-8"), "                bar.update()\n"
    assert text.count(line) == 1
    explode = "                self.model.ln_f.weight.data /= self.step != 45\n"
    script.write_text(text.replace(line, line + explode), "utf-8")
    ready.refuses("04_train.py", "exploded by step 4", "Halve MAX_LR")
    folder = ready.folder / "artifacts/04_train"
    for name in ("best.pt", "last.pt"):
        content = torch.load(folder / name, weights_only=True)
        assert content["step"] == 40
        assert all(weight.isfinite().all() for weight in content["weights"].values())


def test_weights_that_are_no_numbers_are_refused_before_the_first_step(ready):
    path = ready.folder / "artifacts/03_model/model.pt"
    content = torch.load(path, weights_only=True)
    content["weights"]["ln_f.weight"] *= math.nan
    torch.save(content, path)
    ready.refuses("04_train.py", "first loss is nan", "python 03_model.py")


def test_a_full_disk_does_not_end_it(train, gpt, prepared, monkeypatch, capsys):
    def no_room(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(train.machine, "save_checkpoint", no_room)
    valid = train.Batches(prepared / "artifacts/02_prepare/valid.bin", 32, 0)
    monkeypatch.setattr(train.bpe, "OUT", prepared / "artifacts/01_bpe")
    tokenizer = train.bpe.Tokenizer.load(prepared / "artifacts/01_bpe/tokenizer.json")
    plan = {"steps": 4, "max_lr": 1e-3, "accumulate": 1, "micro_batch": 2}
    plan["tokens_per_step"] = 64
    model, cpu = gpt.GPT(SMALL), torch.device("cpu")
    run = train.Run(model, tokenizer, valid, plan, identity={}, device=cpu)
    run.train(valid, last=None)
    assert run.step == 4
    assert "not saved" in capsys.readouterr().out


# ---------------------------------------------------------------------------- devices


class Pretender:
    """A device that is called mps: for all that can be tested without a Mac."""

    type = "mps"


def test_a_device_that_computes_something_else_is_refused(train, gpt, monkeypatch):
    import copy

    class Wrong(gpt.GPT):
        def to(self, device):
            if device is elsewhere:
                self.h[0].mlp.c_fc.weight.data *= 1.5
            return self

    elsewhere = torch.device("cpu", 0)
    monkeypatch.setattr(copy, "deepcopy", lambda model: model)
    x = torch.randint(400, (2, 8))
    model = Wrong(SMALL)
    for weight in model.parameters():
        weight.data *= 10
    with pytest.raises(SystemExit, match="computes something else"):
        train.machine.check_device(model, x, x, elsewhere, gpt.check_causality)


def test_apple_limits_are_kept(train):
    for rows, vocabulary in [(32_767, 100), (100, 40_000)]:
        with pytest.raises(SystemExit, match="Too large for an Apple GPU"):
            train.machine.check_limits(Pretender, rows, vocabulary)
    train.machine.check_limits(Pretender, 16_384, 8_192)  # 64 x 256 tokens is safe


def test_the_faster_device_wins_and_both_times_are_told(train, monkeypatch, capsys):
    names = [torch.device("mps"), torch.device("cpu")]
    monkeypatch.setattr(train.machine, "devices", lambda: names)
    times = {"mps": 0.2, "cpu": 0.1}
    chosen, seconds = train.machine.choose_device("auto", lambda d: times[d.type])
    assert (chosen.type, seconds) == ("cpu", 0.1)
    assert "mps 0.200 s, cpu 0.100 s" in capsys.readouterr().out


def test_within_faster_products_a_product_is_as_exact_and_afterwards_all_is_as_before():
    machine = importlib.import_module("machine")
    a, b = torch.randn(300, 400), torch.randn(400, 200)
    before = torch.get_float32_matmul_precision()
    with pytest.raises(ZeroDivisionError), machine.faster_products():
        exact = (a.double() @ b.double()).float()  # bfloat16 would be wrong by 0.1
        torch.testing.assert_close(a @ b, exact, rtol=0.0, atol=1e-3)
        allowed = torch.get_float32_matmul_precision()
        _ = 1 / 0
    assert allowed == ("medium" if machine.may_take_onednn() else "highest")
    assert torch.get_float32_matmul_precision() == before == "highest"


def test_a_cpu_that_would_round_to_bfloat16_gets_no_leave_to(monkeypatch):
    machine = importlib.import_module("machine")
    product = torch.Tensor.__matmul__

    def rounding(a, b):  # as Intel's AMX would: 8 bits of each factor are left
        if a.dtype == torch.float32:
            a, b = a.bfloat16().float(), b.bfloat16().float()
        return product(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounding)
    monkeypatch.setattr(machine, "may_take_onednn", machine.may_take_onednn.__wrapped__)
    with machine.faster_products():
        assert torch.get_float32_matmul_precision() == "highest"


def test_beside_an_nvidia_gpu_float32_stays_float32(monkeypatch):
    # There the same leave would mean TF32: 10 bits of each factor.
    machine = importlib.import_module("machine")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(machine, "may_take_onednn", machine.may_take_onednn.__wrapped__)
    with machine.faster_products():
        assert torch.get_float32_matmul_precision() == "highest"


def test_a_checkpoint_that_finds_no_room_raises_what_the_system_says(tmp_path):
    machine = importlib.import_module("machine")
    path = tmp_path / "last.pt"
    machine.save_checkpoint(path, {"step": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))  # no file above 1 MiB
    try:
        with pytest.raises(OSError, match="File too large"):
            machine.save_checkpoint(path, {"weights": torch.zeros(2**20)})  # 4 MiB
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert machine.load_checkpoint(path, "") == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]
