"""Stage 4: batches, the step, the checks before a run, and a run that survives a kill."""
import copy
import csv
import doctest
import importlib
import math
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from conftest import ROOT, Workshop

CPU = torch.device("cpu")
PLAN = {"steps": 10, "max_lr": 1e-3, "accumulate": 1, "micro_batch": 4}


@pytest.fixture(scope="session")
def train():
    """Stage 4 as a module."""
    return importlib.import_module("04_train")


@pytest.fixture
def model(gpt):
    torch.manual_seed(0)
    return gpt.GPT(gpt.GPTConfig(400, block_size=32, n_layer=1, n_head=1, n_embd=32))


def three_lines(stopped):
    """What a SystemExit says: what, why, how."""
    what, why, how = str(stopped.value).strip().split("\n")
    return what, why, how


def test_the_examples_in_the_docstrings_are_true(train):
    outcome = doctest.testmod(train)
    assert outcome.attempted >= 2 and outcome.failed == 0


# -------------------------------------------------------------------- learning rate


@pytest.mark.parametrize(
    "steps, warmup",
    [(1000, 0.05), (4883, 0.05), (20, 0.1), (7, 0.5), (2, 0.0), (3, 0.9), (50, 0.9)],
)
def test_the_rate_rises_to_one_peak_and_falls_in_a_line_to_0_after_the_last_step(
    train, steps, warmup
):
    rates = [train.get_lr(step, steps, 0.004, warmup) for step in range(steps + 1)]
    top = rates.index(max(rates))
    assert rates[top] == 0.004 and rates.count(0.004) == 1
    rises, falls = np.diff(rates[: top + 1]), np.diff(rates[top:])
    assert rates[0] > 0 and rises == pytest.approx(rates[0])
    assert falls == pytest.approx(-0.004 / (steps - top))
    assert rates[-1] == 0.0


def test_a_run_of_one_step_has_a_rate(train):
    assert train.get_lr(0, 1, 0.5, 0.05) == 0.5


# ------------------------------------------------------------------ distance penalty


def test_the_distance_penalty_fades_from_1_to_0_in_half_of_the_steps(train, monkeypatch):
    strengths = [train.get_alibi(step, 100) for step in range(100)]
    assert strengths[0] == 1.0 and strengths[25] == 0.5 and strengths[49] > 0
    assert strengths[:50] == sorted(strengths[:50], reverse=True)
    assert strengths[50:] == [0.0] * 50
    monkeypatch.setattr(train, "ALIBI", 0.0)
    assert train.get_alibi(0, 100) == 0.0


def test_fine_tuning_has_no_distance_penalty(train, monkeypatch):
    # A trained model has learned to attend far back; the penalty would undo that.
    monkeypatch.setattr(train, "START_FROM", "elsewhere/best.pt")
    assert train.get_alibi(0, 100) == 0.0


def test_with_the_penalty_a_step_computes_other_gradients(train, model, tokens_of):
    norms, batches = [], batches_of(train, tokens_of([40] * 20, T=32))
    for alibi in (None, torch.tensor(1.0), torch.tensor(1.0)):
        model.alibi = alibi
        norms.append(train.train_step(model, Watch(model), batches, 0, PLAN, CPU)[1])
    assert norms[1] == norms[2] and (norms[0] - norms[1]).abs() > 1e-4 * norms[0]


# -------------------------------------------------------------------------- batches


@pytest.fixture
def tokens_of(train, tmp_path):
    """Documents of the given lengths -> Tokens of context 12; the rest is numbered."""

    def make(lengths, seed=1, T=12):
        ids = np.arange(sum(lengths)) % 300 + 10
        ends = np.cumsum(lengths)
        ids[ends - lengths], ids[ends - 1] = 2, 3  # <BOS>, <EOS>
        path = tmp_path / "train.bin"
        ids.astype("<u2").tofile(path)
        return train.Tokens(path, T, seed)

    return make


@pytest.fixture
def numbered(tokens_of):
    """30 stories of 10 tokens, shorter than the context of 12."""
    return tokens_of([10] * 30)


def test_the_target_of_each_token_is_the_next_one(train, numbered):
    x, y = train.get_batch(numbered, 0, 4)
    assert x.shape == y.shape == (4, 12) and x.dtype == torch.int64
    assert torch.equal(x[:, 1:], y[:, :-1])


def test_short_stories_start_the_sequences_in_an_order_that_the_seed_fixes(
    numbered, tokens_of
):
    # 29 stories have 13 tokens up to the end of the file; the last sequence ends there.
    stories, orders = [10 * i for i in range(29)], []
    for tokens in (numbered, tokens_of([10] * 30), tokens_of([10] * 30, seed=2)):
        orders.append([tokens.starts(epoch).tolist() for epoch in (0, 1)])
    for *order, last in [*orders[0], *orders[2]]:
        assert order != stories and sorted(order) == stories and last == 287
    assert orders[0] == orders[1] and orders[0][0] != orders[0][1] != orders[2][1]


def test_batch_n_is_the_same_in_every_run_whatever_came_before(train, tokens_of):
    one, other = tokens_of([10, 100, 10]), tokens_of([10, 100, 10])
    for n in range(9):
        train.get_batch(one, n, 4)
    assert torch.equal(train.get_batch(one, 11, 4)[0], train.get_batch(other, 11, 4)[0])
    third = tokens_of([10, 100, 10], seed=6)
    assert not torch.equal(train.get_batch(one, 0, 9)[0], train.get_batch(third, 0, 9)[0])


# Books, code, verses, one long document, a document of exactly T + 1 tokens, of 2 T,
# files that are hardly longer than one sequence, and empty documents.
@pytest.mark.parametrize(
    "lengths",
    [[3000, 5000, 2000], [40, 7, 300, 13, 14, 12, 90, 3], [5] * 40, [1000], [13], [14],
     [24], [25], [26], [12, 13], [7, 7], [2] * 30],
)  # fmt: skip
def test_every_token_is_a_target_in_every_epoch(tokens_of, lengths):
    tokens = tokens_of(lengths)
    for epoch in range(3):
        starts, covered = tokens.starts(epoch), np.zeros(sum(lengths), dtype=bool)
        assert len(starts) == tokens.count and starts.min() >= 0
        for start in starts:
            assert start + 12 < sum(lengths), "its last target is in the file"
            covered[start + 1 : start + 13] = True
        assert covered[1:].all()


def test_a_long_document_is_cut_at_other_places_in_each_epoch(tokens_of):
    tokens = tokens_of([3001, 10, 3001], T=100)
    epochs = [set(tokens.starts(epoch).tolist()) for epoch in range(4)]
    assert all({0, 3001, 3011} <= starts for starts in epochs), "each document's <BOS>"
    assert all(len(a & b) < 10 for a, b in zip(epochs, epochs[1:])), "of 64"
    assert tokens.count < 1.1 * 6012 / 100, "hardly a token is read twice"


def test_validation_takes_the_same_sequences_each_time(train, model, tokens_of):
    tokens = tokens_of([50, 10, 500, 8], seed=0, T=32)
    first = train.estimate_loss(model.eval(), tokens, CPU)
    train.get_batch(tokens, 1000, 4)  # many epochs later
    assert train.estimate_loss(model, tokens, CPU) == first


# ----------------------------------------------------------------------------- step


def batches_of(train, tokens):
    return lambda n, size: train.get_batch(tokens, n, size)


class Watch:
    """An optimizer that only keeps the gradients it is given."""

    param_groups = [{}]

    def __init__(self, model):
        self.model = model

    def step(self):
        self.gradients = [weight.grad for weight in self.model.parameters()]

    def zero_grad(self, set_to_none):
        for weight in self.model.parameters():
            weight.grad = None


def test_two_micro_batches_step_like_one_of_twice_the_size(train, model, tokens_of):
    # Gradients, not weights after AdamW: it divides by the gradient's size, so that
    # where this is nearly 0, rounding alone decides which way a weight moves.
    tokens, results = tokens_of([40] * 20, T=32), []
    for micro_batch, accumulate in [(8, 1), (4, 2), (1, 8)]:
        optimizer, batches = Watch(model), batches_of(train, tokens)
        plan = PLAN | {"accumulate": accumulate, "micro_batch": micro_batch}
        loss, norm = train.train_step(model, optimizer, batches, 3, plan, CPU)
        results.append([loss, norm, *optimizer.gradients])
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(results[0], results[2], rtol=1e-3, atol=1e-5)


def test_only_matrices_decay(train, model):
    decayed, free = train.configure_optimizer(model).param_groups
    assert {w.dim() for w in decayed["params"]} == {2} and decayed["weight_decay"] > 0
    assert {w.dim() for w in free["params"]} == {1} and free["weight_decay"] == 0
    together = len(decayed["params"]) + len(free["params"])
    assert together == len(list(model.parameters()))


def test_a_gradient_is_never_followed_further_than_one(train, model, numbered):
    for weight in model.parameters():
        weight.data *= 20  # far from anything sensible: steep
    optimizer, batches = Watch(model), batches_of(train, numbered)
    _, norm = train.train_step(model, optimizer, batches, 0, PLAN, CPU)
    length = sum(gradient.square().sum() for gradient in optimizer.gradients).sqrt()
    assert norm > 1 and length.item() == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("width, blocks", [(32, 2), (320, 1)])
def test_a_sound_loop_overfits_one_batch(train, gpt, tokens_of, capsys, width, blocks):
    torch.manual_seed(0)
    model = gpt.GPT(gpt.GPTConfig(400, 32, blocks, width // 32, width))
    before = copy.deepcopy(model.state_dict())
    train.overfit_one_batch(model, tokens_of([40] * 50, T=32), CPU)
    first, last = re.search(r"loss ([\d.]+) to ([\d.]+)", capsys.readouterr()[0]).groups()
    # Far from the limit of a third: the limit asks whether it learns, not how well.
    assert float(last) < 0.15 * float(first)
    same = (torch.equal(w, before[name]) for name, w in model.state_dict().items())
    assert all(same), "the check should have trained a copy"


# Three ways to break a loop in silence.
@pytest.mark.parametrize("broken", ["no step", "uphill", "other weights"])
def test_a_loop_that_does_not_learn_is_refused(
    train, model, tokens_of, monkeypatch, broken
):
    right = train.train_step

    def wrong(model, optimizer, batches, step, plan, device):
        if broken == "no step":
            plan = plan | {"max_lr": 0.0}
        elif broken == "uphill":
            plan = plan | {"max_lr": -plan["max_lr"]}
        else:  # the famous one: the optimizer was made for a copy of the model
            model = copy.deepcopy(model)
        return right(model, optimizer, batches, step, plan, device)

    monkeypatch.setattr(train, "train_step", wrong)
    with pytest.raises(SystemExit) as stopped:
        train.overfit_one_batch(model, tokens_of([40] * 50, T=32), CPU)
    what, why, how = three_lines(stopped)
    assert "30 steps on 4 short sequences" in what and "overfit" in why
    assert "03_model.py" in how


# --------------------------------------------------------------------------- prompt


class Letters:
    """A tokenizer of one token per character."""

    def decode(self, ids):
        return "".join(chr(i) for i in ids)


@pytest.mark.parametrize(
    "text, prompt",
    [
        ('"Good morning, world!" said a little girl named Sue. ' * 3,
         '"Good morning, world!" said'),
        ("First Citizen:\nBefore we proceed any further, hear me speak." * 3,
         "First Citizen:\nBefore we"),  # the line end stays
        ("从前有一只小猫。它说你好。从前有一只小狗。", "从前有一只"),  # 5 of 20: a quarter
        ("evelyn", "e"),
        ("ab", ""),
        ("  indented = True\n" * 20, "  indented = True\n  indented"),
    ],
    ids=["English", "verses", "Chinese", "a name", "two letters", "code"],
)  # fmt: skip
def test_the_prompt_is_the_start_of_one_document_unchanged(train, text, prompt):
    ids = np.array([2, *map(ord, text), 3, 2, *map(ord, "abigail" * 100), 3])
    assert train.choose_prompt(Letters(), ids) == prompt


# ------------------------------------------------------------------------ a whole run


@pytest.fixture(scope="module")
def base(tmp_path_factory, prepared):
    """A workshop with a tiny model, in which stage 4 trains 60 steps."""
    shop = Workshop(tmp_path_factory.mktemp("base"))
    shutil.copytree(prepared / "artifacts", shop.folder / "artifacts")
    shutil.copy(prepared / "text.txt", shop.folder)
    shop.edit("01_bpe.py", TEXT="text.txt", VOCAB_SIZE=400, WORKERS=1)
    shop.edit("03_model.py", SIZE=(1, 1, 32, 64))
    assert shop.run("03_model.py").returncode == 0
    shop.edit("04_train.py", TOKENS=64 * 4 * 60, MICRO_BATCH=4, ACCUMULATE=1)
    # On one device, because runs are compared with each other here.
    shop.edit("04_train.py", MAX_LR=0.01, EVALUATIONS=3, DEVICE="cpu")
    return shop


@pytest.fixture
def ready(base, tmp_path):
    """A copy of `base`, in which stage 4 has not run yet."""
    ignore = shutil.ignore_patterns("04_train")
    shutil.copytree(base.folder, tmp_path, dirs_exist_ok=True, ignore=ignore)
    return Workshop(tmp_path, copy=False)


@pytest.fixture(scope="module")
def finished(base):
    """`base` after stage 4 has run, and what it printed."""
    done = base.run("04_train.py")
    assert done.returncode == 0, done.stderr
    return base, done


@pytest.fixture
def trained(finished, tmp_path):
    """A copy of `finished` that a test may change."""
    shutil.copytree(finished[0].folder, tmp_path, dirs_exist_ok=True)
    return Workshop(tmp_path, copy=False)


def last_of(shop):
    return torch.load(shop.folder / "artifacts/04_train/last.pt", weights_only=True)


def tensors_in(content):
    """All of them, however deep: weights, the optimizers' averages, pending losses."""
    if isinstance(content, torch.Tensor):
        return [content]
    inside = content.values() if isinstance(content, dict) else content
    nested = [part for part in inside if isinstance(part, (dict, list, torch.Tensor))]
    return [tensor for part in nested for tensor in tensors_in(part)]


def outcome(shop):
    """All that two equal runs must leave behind alike, to the last bit."""
    folder, last = shop.folder / "artifacts/04_train", last_of(shop)
    rows = [{k: v for k, v in row.items() if k != "tokens_per_s"} for row in last["rows"]]
    names = ("step", "loss", "fingerprint", "config", "tokenizer", "alibi")
    rest = {name: last[name] for name in names}
    files = [(folder / name).read_bytes() for name in ("log.csv", "best.pt")]
    return [tensor.numpy().tobytes() for tensor in tensors_in(last)], rows, rest, files


def test_a_run_learns_samples_and_leaves_everything_behind(finished):
    shop, done = finished
    log = (shop.folder / "artifacts/04_train/log.csv").read_text()
    rows = list(csv.DictReader(log.splitlines()))
    assert float(rows[0]["train_loss"]) == pytest.approx(math.log(400) + 0.5, abs=0.4)
    # It falls from 6.5 by about 1.5; half of that is no accident of rounding.
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"]) - 0.75
    assert sum(1 for row in rows if row["valid_loss"]) == 3
    assert done.stdout.count("Sample:") == 3
    assert re.search(r"\[plan\] [\d:]+ to go, about [\d,]+ MB", done.stdout)
    assert "steps on 4 short sequences: loss" in done.stdout
    assert done.stdout.rstrip().endswith("Next: python 05_eval.py")
    # 4 bytes per weight in best.pt; last.pt has 8 more, AdamW's two averages of each.
    count = sum(weight.numel() for weight in last_of(shop)["weights"].values())
    best = (shop.folder / "artifacts/04_train/best.pt").stat().st_size
    assert 4 * count < best < 4 * count + 20_000
    page = (shop.folder / "artifacts/04_train/run.html").read_text("utf-8")
    assert "/*DATA*/null" not in page


def test_a_finished_model_has_no_distance_penalty(finished, gpt):
    folder = finished[0].folder / "artifacts/04_train"
    best = torch.load(folder / "best.pt", weights_only=True)
    assert best["step"] == 60 and best["alibi"] == last_of(finished[0])["alibi"] == 0.0
    model, _ = gpt.GPT.load(folder / "best.pt", "04_train.py")
    assert model.alibi is None  # so it is plain GPT-2, as test_03_model.py shows
    assert last_of(finished[0])["fingerprint"]["ALIBI"] == 0.5


def test_a_finished_run_says_so_and_trains_no_more(trained):
    before = outcome(trained)
    done = trained.run("04_train.py")
    assert done.returncode == 0 and "has finished" in done.stdout
    assert "mv artifacts/04_train artifacts/04_train." in done.stdout
    assert outcome(trained) == before


def test_a_best_pt_that_is_damaged_after_the_run_comes_back_from_last_pt(trained):
    # Stage 5 says to run 04, which has nothing left to train: it must not send back.
    best, before = trained.folder / "artifacts/04_train/best.pt", outcome(trained)[0]
    for damage in (best.unlink, lambda: best.write_bytes(b"")):
        damage()
        *_, how = trained.refuses("04_train.py", "best.pt cannot be read")
        subprocess.run(how.split(": ")[1], shell=True, cwd=trained.folder, check=True)
        assert "has finished" in trained.run("04_train.py").stdout
    assert outcome(trained)[0] == before


def test_another_run_in_the_folder_is_refused_and_nothing_is_touched(trained):
    before = outcome(trained)
    trained.edit("04_train.py", MAX_LR=0.005, WARMUP=0.1)
    _, _, how = trained.refuses(
        "04_train.py", "holds another run", "MAX_LR (0.01, now 0.005)",
        "WARMUP (0.05, now 0.1)", "Put that back", "mv artifacts/04_train ",
    )  # fmt: skip
    assert outcome(trained) == before
    # Both ways out work.
    trained.edit("04_train.py", MAX_LR=0.01, WARMUP=0.05)
    assert "has finished" in trained.run("04_train.py").stdout
    trained.edit("04_train.py", MAX_LR=0.005, TOKENS=64 * 4 * 8, EVALUATIONS=1)
    move, then = how.split(" && ")
    assert then == "python 04_train.py"
    subprocess.run(move, shell=True, cwd=trained.folder, check=True)
    assert trained.run("04_train.py").returncode == 0
    assert (trained.folder / move.split()[-1] / "best.pt").exists()


@pytest.mark.parametrize(
    "edit, words",
    [
        (("F.gelu(", "F.relu("), "the code of 03_model.py"),
        (("# GELU,", "# a comment:"), None),  # only said differently: the same run
        (('"""Attention, then MLP;', '"""First attention, then MLP;'), None),
        (("    def forward(self", '    """A note."""\n\n    def forward(self'), None),
        (("# /// script", "\ufeff# /// script"), None),  # as Windows' Notepad saves it
    ],
    ids=["computation", "comment", "docstring", "another docstring", "byte-order mark"],
)
def test_an_edit_of_stage_3_ends_a_run_only_if_it_computes_something_else(
    trained, edit, words
):
    script = trained.folder / "03_model.py"
    text = script.read_text("utf-8")
    assert text.count(edit[0]) >= 1
    text = text.replace(*edit)
    if words:
        text = text.replace(', approximate="tanh"', "")
    script.write_text(text, "utf-8")
    if words:
        trained.refuses("04_train.py", "holds another run", words)
    else:
        assert "has finished" in trained.run("04_train.py").stdout


def test_a_run_resumes_with_half_the_micro_batch_and_twice_as_many(finished, ready):
    # The documented cure for a lack of memory, in the middle of a run.
    whole = last_of(finished[0])
    stop_at(ready, 30)
    assert last_of(ready)["step"] == 30
    ready.edit("04_train.py", MICRO_BATCH=2, ACCUMULATE=2)
    done = ready.run("04_train.py")
    assert "resuming after step 30\n" in done.stdout
    # The steps right after it differ by rounding only. Later ones differ by what
    # rounding has become in 30 steps, and how much that is depends on the machine.
    runs = last_of(ready), whole
    losses = [[row["train_loss"] for row in run["rows"]] for run in runs]
    assert losses[0][:35] == pytest.approx(losses[1][:35], rel=1e-3)
    assert len(losses[0]) == 60
    # Another number of sequences per step is another run.
    ready.edit("04_train.py", MICRO_BATCH=4)
    ready.refuses("04_train.py", "MICRO_BATCH x ACCUMULATE x processes (4, now 8)")


@pytest.mark.parametrize("script", ["04_train.py", "05_eval.py", "06_sample.py"])
def test_how_long_idle_threads_spin_is_set_before_torch_is_imported(script):
    # OpenMP reads it once, at the import; who has set it already keeps their value.
    text = (ROOT / script).read_text("utf-8")
    setting = text.index('os.environ.setdefault("GOMP_SPINCOUNT"')
    assert setting < text.index("    import torch\n")
    assert setting < text.index('gpt = importlib.import_module("03_model")')


def test_the_time_left_includes_the_evaluations(ready):
    # The steps count as 0 seconds here. Each of the three evaluations takes ten.
    script = ready.folder / "04_train.py"
    text = script.read_text("utf-8").replace("        trainer.train(train)\n", "")
    text = text.replace("        began = ", "        seconds = 0.0\n        began = ")
    line = "    size, losses = min(16, tokens.count), []\n"
    assert text.count(line) == 1
    script.write_text(text.replace(line, line + "    time.sleep(10)\n"), "utf-8")
    minutes, seconds = re.search(
        r"\[plan\] (\d+):(\d+) to go", ready.run("04_train.py").stdout
    ).groups()
    assert 30 <= 60 * int(minutes) + int(seconds) < 45


def stop_at(shop, step):
    """Run stage 4 as if Ctrl-C were pressed during a step; returns its last lines."""
    script = shop.folder / "04_train.py"
    text, line = script.read_text("utf-8"), "            self.step += 1\n"
    assert text.count(line) == 1
    press = f"            if self.step == {step}:\n                signal.raise_signal(2)\n"
    late = '            why = f"Step {self.step'  # pressed once more, impatiently
    twice = text.replace(late, "            signal.raise_signal(2)\n" + late)
    script.write_text(twice.replace(line, line + press), "utf-8")
    done = shop.run("04_train.py")
    script.write_text(text, "utf-8")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-3:]


def test_ctrl_c_finishes_the_step_saves_and_says_how_to_resume(ready, finished):
    lines = stop_at(ready, 25)
    assert lines[0] == "Stopped by Ctrl-C." and "Step 25 of 60 is saved" in lines[1]
    assert lines[2] == "Resume with: python 04_train.py"
    # The last evaluation was at step 20; only it may write best.pt.
    folder = ready.folder / "artifacts/04_train"
    best = torch.load(folder / "best.pt", weights_only=True)
    assert (best["step"], last_of(ready)["step"]) == (20, 25)
    # The penalty of the 20th step, number 19: 1 - 19 / 30. Stages 5 and 6 keep it.
    assert best["alibi"] == pytest.approx(11 / 30)
    assert best["loss"] == last_of(ready)["rows"][19]["valid_loss"]
    # Resumed, it ends like a run that nobody stopped.
    assert ready.run("04_train.py").returncode == 0
    assert outcome(ready) == outcome(finished[0])


# Trains, and dies at a moment of our choice: after as many events as it is told to
# live, or never for 0. Events are what a kill could come between: steps, and the stages
# of writing a file. It skips the checks before the training, which write nothing.
DOOMED = """
import importlib, os, signal, sys
train = importlib.import_module("04_train")
lives = int(sys.argv[1])

def dying(function, after):
    def call(*arguments, **named):
        global lives
        lives -= 1
        if lives == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **named)
        if lives == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

os.fsync = dying(os.fsync, after=False)  # half a file is written
os.replace = dying(os.replace, after=True)  # one file of several
train.train_step = dying(train.train_step, after=True)
train.choose_device = lambda *_: (train.torch.device("cpu"), 0.01)
train.check_device = train.overfit_one_batch = lambda *_: None
train.main()
"""


def test_killed_ten_times_a_run_ends_as_if_nothing_had_happened(ready):
    # Every step is saved, so that kills fall into all stages of writing.
    ready.edit("04_train.py", SAVE_MINUTES=0.0, DROPOUT=0.1, TOKENS=64 * 4 * 20)
    # Losses are logged every five steps, so that others are pending when it is saved;
    # in a script as it is, that takes 400 steps.
    script = ready.folder / "04_train.py"
    text = script.read_text("utf-8")
    assert text.count("steps // 200") == 1
    script.write_text(text.replace("steps // 200", "steps // 4"), "utf-8")
    (ready.folder / "doomed.py").write_text(DOOMED)
    folder = ready.folder / "artifacts/04_train"
    assert ready.run("doomed.py", "0").returncode == 0
    undisturbed = outcome(ready)
    shutil.rmtree(folder)
    left = set()
    # In the first half nothing, or hardly anything, is saved when the process dies.
    for count in [1, 2, 3, 4, 6, 9, 11, 14, 16, 21]:
        done = ready.run("doomed.py", str(count))
        assert done.returncode == -9, done.stderr
        left |= {path.name for path in folder.glob("*.part")}
    assert left, "no kill came while a file was written"
    assert ready.run("doomed.py", "0").returncode == 0
    assert not list(folder.glob("*.part")), "the last run should have removed them"
    assert outcome(ready) == undisturbed


def test_a_finished_model_is_fine_tuned_on_another_text(trained):
    # As in README, but step by step: what is still to be done is refused.
    tokenizer = (trained.folder / "artifacts/01_bpe/tokenizer.json").read_bytes()
    trained.edit("04_train.py", START_FROM="artifacts/04_train/best.pt", MAX_LR=1e-3)
    *_, move = trained.refuses("04_train.py", "START_FROM = ", "Move that run away")
    subprocess.run(move, shell=True, cwd=trained.folder, check=True)
    base = move.split()[-1]
    stories = "\n\n".join(f"The {n} cats sat on the {n} mats." for n in range(400))
    (trained.folder / "cats.txt").write_text(stories, "utf-8")
    trained.edit("02_prepare.py", TEXT="cats.txt")
    assert trained.run("02_prepare.py").returncode == 0
    trained.edit("04_train.py", START_FROM="artifacts/nothing/best.pt")
    trained.refuses("04_train.py", "artifacts/nothing/best.pt", "Edit START_FROM")
    for unusable in (f"{base}/log.csv", 123, "~"):
        # The command must not be the one that has just failed, word for word.
        trained.edit("04_train.py", START_FROM=unusable)
        *_, how = trained.refuses("04_train.py", "START_FROM", str(unusable))
        assert how != "python 04_train.py"
    trained.edit("04_train.py", START_FROM=f"{base}/best.pt")
    done = trained.run("04_train.py")
    assert done.returncode == 0, done.stderr
    assert (trained.folder / "artifacts/01_bpe/tokenizer.json").read_bytes() == tokenizer
    first = float(re.search(r"first loss ([\d.]+)", done.stdout)[1])
    last = float(re.search(r"lowest validation loss ([\d.]+)", done.stdout)[1])
    assert last < 0.85 * first  # 0.72 when tried; 1 is no learning
    before = torch.load(trained.folder / base / "best.pt", weights_only=True)["weights"]
    after = last_of(trained)["weights"]
    moved = sum((after[name] - before[name]).norm() for name in before)
    assert 0 < moved < 0.5 * sum(weight.norm() for weight in before.values())
    assert "has finished" in trained.run("04_train.py").stdout  # the same command
    # A likely mistake is to set TEXT in 01, which makes another tokenizer, too.
    trained.edit("01_bpe.py", TEXT="cats.txt", VOCAB_SIZE=270)
    for stage in ("01_bpe.py", "02_prepare.py"):
        assert trained.run(stage).returncode == 0
    words = "best.pt was made with another", "name your TEXT in 02"
    trained.refuses("04_train.py", *words)


def test_a_loss_that_diverges_stops_the_run_and_keeps_the_last_good_files(ready):
    # Infinite weights are what an exploded step leaves behind. The run has 60 steps and
    # saves at 20, 40 and 60: the files of step 40 must stay.
    script = ready.folder / "04_train.py"
    text, line = script.read_text("utf-8"), "            bar.update()\n"
    assert text.count(line) == 1
    explode = "            self.model.ln_f.weight.data /= self.step != 45\n"
    script.write_text(text.replace(line, line + explode), "utf-8")
    ready.refuses("04_train.py", "diverged by step 4", "Halve MAX_LR (now 0.01)", "mv ")
    for name in ("best.pt", "last.pt"):
        path = ready.folder / "artifacts/04_train" / name
        content = torch.load(path, weights_only=True)
        assert content["step"] == 40
        assert all(weight.isfinite().all() for weight in content["weights"].values())


def test_a_full_disk_stops_in_three_lines_and_the_run_resumes(ready):
    script = ready.folder / "04_train.py"
    text, line = script.read_text("utf-8"), "        content = self.header |"
    assert text.count(line) == 1
    full = "        if self.step == 40:\n            raise OSError(28, 'No space left')\n"
    script.write_text(text.replace(line, full + line), "utf-8")
    ready.refuses("04_train.py", "The disk is full", "python 04_train.py")
    script.write_text(text, "utf-8")
    assert "resuming after step 20\n" in ready.run("04_train.py").stdout


# ----------------------------------------------------------------------- bad inputs


@pytest.mark.parametrize(
    "constant, value, words",
    [
        ("TOKENS", 0, "TOKENS = 0"),
        ("TOKENS", 1.5, "a whole number"),
        ("MICRO_BATCH", "many", "MICRO_BATCH = 'many'"),
        ("EVALUATIONS", "auto", "EVALUATIONS = 'auto'"),
        ("MAX_LR", -1e-3, "MAX_LR = -0.001"),
        ("WARMUP", 2.0, "0.0 to 0.9"),
        ("DROPOUT", 1.0, "DROPOUT = 1.0"),
        ("ALIBI", 1.0, "ALIBI = 1.0"),
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
    what, why, how = three_lines(stopped)
    assert words in what + why and how.endswith("python 04_train.py")


def cut(path, size=None):
    """Leave only the beginning of a file, or nothing of it."""
    if size is None:
        os.remove(path)
    else:
        path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize(
    "name, size, words",
    [
        ("03_model/model.pt", None, ["model.pt is missing", "python 03_model.py"]),
        ("03_model/model.pt", 20_000, ["cannot be read", "python 03_model.py"]),
        ("02_prepare/train.bin", None, ["is missing", "python 02_prepare.py"]),
        ("02_prepare/train.bin", 999, ["train.bin is damaged", "python 02_prepare.py"]),
        ("02_prepare/valid.bin", 0, ["valid.bin is damaged", "python 02_prepare.py"]),
        ("02_prepare/meta.json", 50, ["cannot be used", "python 02_prepare.py"]),
    ],
)
def test_inputs_that_are_missing_or_cut_short_name_their_stage(ready, name, size, words):
    cut(ready.folder / "artifacts" / name, size)
    ready.refuses("04_train.py", *words)


def test_one_changed_token_is_noticed(ready):
    path = ready.folder / "artifacts/02_prepare/train.bin"
    ids = np.fromfile(path, dtype="<u2")
    ids[99] = 401  # the vocabulary has 0 to 399
    ids.tofile(path)
    ready.refuses("04_train.py", "train.bin is damaged", "python 02_prepare.py")


def test_a_checkpoint_cut_short_is_named_and_not_overwritten(trained):
    path = trained.folder / "artifacts/04_train/last.pt"
    cut(path, 9_999)
    trained.refuses("04_train.py", "last.pt cannot be read", "mv artifacts/04_train")
    assert path.stat().st_size == 9_999


def test_a_best_pt_of_another_run_is_not_overwritten_either(trained):
    os.remove(trained.folder / "artifacts/04_train/last.pt")
    trained.edit("04_train.py", SEED=7)
    trained.refuses("04_train.py", "holds another run", "SEED (1, now 7)")


def test_artifacts_of_two_tokenizers_are_not_mixed(ready):
    ready.edit("01_bpe.py", VOCAB_SIZE=380)
    assert ready.run("01_bpe.py").returncode == 0
    ready.refuses("04_train.py", "another tokenizer", "python 02_prepare.py")
    assert ready.run("02_prepare.py").returncode == 0
    ready.refuses("04_train.py", "model.pt was made", "python 03_model.py")


def test_a_text_shorter_than_the_context_is_refused(ready):
    path = ready.folder / "artifacts/03_model/model.pt"
    content = torch.load(path, weights_only=True)
    for context, words in [
        (23_000, ["valid.bin is too short: 22,775 tokens", "VALID_SHARE (02)"]),
        (300_000, ["train.bin is too short: 205,155 tokens", "a longer TEXT"]),
    ]:
        content["config"]["block_size"] = context
        content["weights"]["wpe.weight"] = torch.zeros(context, 32)
        torch.save(content, path)
        ready.refuses("04_train.py", *words, f"takes {context + 1:,}.", "smaller SIZE")


def test_two_runs_in_one_folder_are_not_allowed(ready):
    import fcntl

    with open(ready.folder / "artifacts/04_train.lock", "a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        ready.refuses("04_train.py", "Another 04_train.py is running", "Ctrl-C")


def test_weights_that_are_no_numbers_are_refused_before_the_first_step(ready):
    path = ready.folder / "artifacts/03_model/model.pt"
    content = torch.load(path, weights_only=True)
    content["weights"]["ln_f.weight"] *= math.nan
    torch.save(content, path)
    ready.refuses("04_train.py", "First loss nan", "python 03_model.py")


def test_compile_without_a_compiler_is_refused_in_three_lines(
    train, model, tokens_of, monkeypatch
):
    def compile(model):
        def run(*arguments, **named):
            # What torch says, shortened. It compiles at the first call.
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\n...")

        return run

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(train, "COMPILE", True)
    with pytest.raises(SystemExit) as stopped:
        train.check_device(model, tokens_of([40] * 50, T=32), PLAN, CPU)
    what, why, how = three_lines(stopped)
    assert what == "torch.compile does not work here."
    assert why == "InvalidCxxCompiler: No working C++ compiler found"
    assert how.startswith("Set COMPILE = False")


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
    def main():
        raise error

    with pytest.raises(SystemExit) as stopped:
        train.bpe.run_stage(main, "04_train.py", lock=False, memory_hint=train.HINT)
    what, why, how = three_lines(stopped)
    assert "emory" in what + why and "Halve MICRO_BATCH, double ACCUMULATE" in how
    assert how.endswith("python 04_train.py")


# ------------------------------------------------------------------ plan and devices


@pytest.mark.parametrize("text, known", [("practice", True), ("my.txt", False)])
def test_the_page_shows_the_limit_of_the_loss_for_the_practice_stories_only(
    train, monkeypatch, text, known
):
    import practice_stories

    # 1,000 stories of 28.6 nats each; 198,334 tokens, of which 1,000 are <BOS> and so
    # no targets: 28.6 * 1,000 / 197,334 nats per token.
    limit = practice_stories.Limit(28.6, 739.0, 0.0558)
    monkeypatch.setattr(practice_stories, "limit", lambda: limit)
    meta = {"constants": {"TEXT": text}, "valid": {"stories": 1000, "tokens": 198_334}}
    found = train.loss_limit(meta)
    assert found == (pytest.approx(0.144932, abs=1e-6) if known else None)


def test_without_lessons_there_is_no_limit_and_no_complaint(
    train, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(train.bpe, "HERE", tmp_path)
    meta = {"constants": {"TEXT": "practice"}, "valid": {"stories": 9, "tokens": 99}}
    assert train.loss_limit(meta) is None and capsys.readouterr() == ("", "")


@pytest.fixture
def planned(train, gpt, numbered, monkeypatch, capsys):
    """Gigabytes of memory, a configuration -> plan, what was printed."""

    def plan(gigabytes, config=None):
        pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": int(gigabytes * 2**18)}
        monkeypatch.setattr(os, "sysconf", pages.__getitem__)
        result = train.make_plan(config or gpt.GPTConfig(400, 12, 1, 1, 32), numbered)
        return result, capsys.readouterr()[0]

    return plan


# For each Mac: what a step of "tiny" (32 sequences) and of "medium" (64) becomes. The
# smallest model's step of 8 sequences is never divided.
@pytest.mark.parametrize("gigabytes, most", [(8, 8), (16, 16), (32, 32), (64, 32)])
def test_each_mac_has_its_recipe(planned, gpt, gigabytes, most):
    for name, sequences in (("nano", 8), ("tiny", 32), ("small", 32), ("medium", 64)):
        n_layer, n_head, n_embd, block_size = gpt.SIZES[name]
        config = gpt.GPTConfig(8192, block_size, n_layer, n_head, n_embd)
        plan, _ = planned(gigabytes, config)
        assert plan["micro_batch"] == min(sequences, most)
        assert plan["micro_batch"] * plan["accumulate"] == sequences
        assert plan["micro_batch"] * block_size < 32_767, "Apple's limit"


def test_what_the_learner_sets_is_kept(train, planned, monkeypatch):
    monkeypatch.setattr(train, "MICRO_BATCH", 2)
    plan, _ = planned(16)
    assert (plan["micro_batch"], plan["accumulate"]) == (2, 4)
    monkeypatch.setattr(train, "ACCUMULATE", 7)
    plan, printed = planned(16)
    assert (plan["micro_batch"], plan["accumulate"]) == (2, 7)
    assert plan["tokens_per_step"] == 2 * 7 * 12
    assert "2 sequences x 12 tokens x 7 micro-batches x 1 processes = 168" in printed


class Mac:
    """A device that is called mps: for all that can be tested without a Mac."""

    type = "mps"


@pytest.mark.parametrize(
    "micro_batch, V, constants, cure",
    [
        (1024, 400, {}, "Halve MICRO_BATCH"),  # 1,024 x 32 tokens = 32,768
        (1023, 32_766, {}, None),
        (1, 32_767, {}, 'Set DEVICE = "cpu"'),
        (512, 400, {"CHECKPOINTING": True, "DROPOUT": 0.1}, 'Set DEVICE = "cpu"'),
        (512, 400, {"CHECKPOINTING": True}, None),
        (512, 400, {"DROPOUT": 0.1}, None),
    ],
)
def test_apple_limits_are_kept(
    train, model, tokens_of, monkeypatch, micro_batch, V, constants, cure
):
    for name, value in constants.items():
        monkeypatch.setattr(train, name, value)
    model.config.vocab_size = V  # the weights keep theirs, which nobody asks here
    tokens, plan = tokens_of([40] * 50, T=32), {"micro_batch": micro_batch}
    # What is not refused goes on to model.to(Mac), which no torch knows: a TypeError.
    with pytest.raises(SystemExit if cure else TypeError) as stopped:
        train.check_device(model, tokens, plan, Mac)
    if cure:
        what, why, how = three_lines(stopped)
        assert "Apple GPU" in what and "32,767" in why and "DROPOUT = 0.0" in why
        assert how.startswith(cure)
    train.check_device(model, tokens, plan, CPU)


def test_a_device_that_computes_something_else_is_refused(
    train, model, tokens_of, monkeypatch
):
    def to(module, place):
        if place is elsewhere:
            module.h[0].mlp.c_fc.register_full_backward_hook(
                lambda _, gradient, __: (2 * gradient[0],)
            )
        return module

    elsewhere = CPU  # where one layer is wrong, and only in its gradient
    monkeypatch.setattr(torch.nn.Module, "to", to)
    with pytest.raises(SystemExit) as stopped:
        train.check_device(model, tokens_of([40] * 50, T=32), PLAN, elsewhere)
    what, _, how = three_lines(stopped)
    assert "does not compute what the CPU computes" in what and 'DEVICE = "cpu"' in how


def test_the_faster_device_wins_and_both_times_are_printed(
    train, model, numbered, monkeypatch, capsys
):
    slow, fast = torch.device("cpu", 0), torch.device("cpu")
    monkeypatch.setattr(train.gpt, "available_devices", lambda: [slow, fast])
    clock = [0.0]

    def step(model, optimizer, batches, step, plan, device):
        clock[0] += 0.2 if device is slow else 0.1
        return torch.tensor(1.0), torch.tensor(1.0)

    monkeypatch.setattr(train, "train_step", step)
    monkeypatch.setattr(train.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    chosen, seconds = train.choose_device(model, numbered, PLAN)
    assert chosen is fast and seconds == pytest.approx(0.1)
    assert "cpu:0 1: 0.200 s, cpu 1: 0.100 s" in capsys.readouterr()[0]


def test_beside_busy_programs_one_thread_can_win_and_a_resumed_run_keeps_its_threads(
    train, model, numbered, monkeypatch, capsys
):
    threads, clock = [2], [0.0]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda n: threads.__setitem__(0, n))
    monkeypatch.setattr(train.gpt, "available_devices", lambda: [torch.device("cpu")])

    def step(*arguments):
        clock[0] += 0.1 * threads[0]  # two threads are slower
        return torch.tensor(1.0), torch.tensor(1.0)

    monkeypatch.setattr(train, "train_step", step)
    monkeypatch.setattr(train.time, "perf_counter", lambda: clock[0])
    assert train.choose_device(model, numbered, PLAN)[1] == pytest.approx(0.1)
    assert threads == [1] and "cpu, 1 CPU thread(s)" in capsys.readouterr()[0]
    threads[0] = 2  # a new process resumes: its run had two threads from the beginning
    assert train.choose_device(model, numbered, PLAN, 2)[1] == pytest.approx(0.2)
    assert threads == [2]
