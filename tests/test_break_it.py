"""Five famous mistakes, made as lesson 06 describes, and what gives each of them away.

The edits are read from the lesson's diff fences, so the lesson cannot describe an edit
that these tests do not make. The model is tiny; the symptoms do not need a large one.
"""
import csv
import importlib.util
import math
import re
import shutil

import pytest
import torch
from conftest import ROOT, Workshop

LESSON = (ROOT / "lessons" / "06_training.md").read_text("utf-8")
DIFF = re.compile(r"^```diff\n--- (\w+\.py)\n-(.*)\n\+(.*)\n```$", re.MULTILINE)
FENCES = DIFF.findall(LESSON)  # (script, the right line, the wrong line)
MASK, SHIFT, RATE, SCALING, DIVIDED = range(5)
UNIFORM = math.log(400)  # the loss of equal probabilities for the 400 tokens


def test_the_lesson_describes_five_edits_of_one_line_each():
    assert len(FENCES) == LESSON.count("```diff") == 5


def break_it(shop, number):
    """Replace the line that the lesson's fence of that number takes away."""
    script, old, new = FENCES[number]
    text = (shop.folder / script).read_text("utf-8")
    assert text.count(f"\n{old}\n") == 1, f"not once in {script}: {old}"
    broken = text.replace(f"\n{old}\n", f"\n{new}\n")
    (shop.folder / script).write_text(broken, "utf-8")
    return shop


def set_up(shop):
    """A tiny model and 150 steps of 2 micro-batches, without which mistake 5 is none.

    Where the tests compare two losses after that, runs with three seeds differed by at
    least twice as much as the tests ask for.
    """
    shop.edit("01_bpe.py", TEXT="text.txt", VOCAB_SIZE=400, WORKERS=1)
    shop.edit("03_model.py", SIZE=(1, 1, 32, 64))
    shop.edit("04_train.py", TOKENS=64 * 8 * 150, MICRO_BATCH=4, ACCUMULATE=2)
    shop.edit("04_train.py", MAX_LR=0.015, EVALUATIONS=2, DEVICE="cpu")
    return shop


def module_of(path):
    """A script of a workshop as a module, under a name that nothing else has."""
    spec = importlib.util.spec_from_file_location("broken_on_purpose", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trained(shop):
    """Run stage 4 to its end -> the rows of log.csv as numbers, what it printed."""
    done = shop.run("04_train.py")
    assert done.returncode == 0, done.stderr
    with open(shop.folder / "artifacts/04_train/log.csv") as file:
        rows = list(csv.DictReader(file))
    return [{k: float(v) for k, v in row.items() if v} for row in rows], done.stdout


def first_loss(printed):
    """The loss before the first step, from the [check] line of stage 4."""
    return float(re.search(r"\[check\] first loss ([\d.]+)", printed)[1])


@pytest.fixture(scope="module")
def sound(tmp_path_factory, prepared):
    """The run without any mistake: its folder, its log, what it printed."""
    shop = set_up(Workshop(tmp_path_factory.mktemp("sound")))
    shutil.copytree(prepared / "artifacts", shop.folder / "artifacts")
    assert shop.run("03_model.py").returncode == 0
    return shop.folder, *trained(shop)


@pytest.fixture
def ready(workshop, sound):
    """A workshop in which stages 1 to 3 have run as in `sound`."""
    for stage in ("01_bpe", "02_prepare", "03_model"):
        where = f"artifacts/{stage}"
        shutil.copytree(sound[0] / where, workshop.folder / where)
    return set_up(workshop)


def test_without_mistakes_the_loss_falls_from_near_ln_v(sound):
    _, rows, printed = sound
    assert abs(first_loss(printed) - UNIFORM) < 1
    assert rows[-1]["valid_loss"] < UNIFORM - 1  # it is about 2 lower


def test_without_a_mask_stages_3_and_4_refuse_to_go_on(ready):
    break_it(ready, MASK)
    ready.refuses("04_train.py", "The model sees the future", "03_model.py")
    ready.refuses("03_model.py", "a token sees the future", "Fix it in 03_model.py")


def test_with_unshifted_targets_the_first_loss_is_too_good_and_the_sample_stutters(
    ready,
):
    rows, printed = trained(break_it(ready, SHIFT))
    # Below the uniform baseline before the first step: nobody can know that much.
    assert first_loss(printed) < UNIFORM - 1
    assert rows[-1]["valid_loss"] < 0.5, "no honest model of this size gets there"
    story = printed.split("Sample:")[-1].split("[check]")[0].strip()
    assert len(set(story[-40:])) <= 3, "it repeats one token: " + story


def test_ten_times_the_rate_without_warm_up_learns_less(ready, sound):
    rows, _ = trained(break_it(ready, RATE))
    assert rows[0]["lr"] == pytest.approx(10 * max(row["lr"] for row in sound[1]))
    assert rows[-1]["valid_loss"] > sound[1][-1]["valid_loss"] + 0.3


def stream_after_the_last_block(path, blocks):
    """How large the residual stream's numbers are in an untrained model."""
    gpt = module_of(path)
    torch.manual_seed(0)
    model = gpt.GPT(gpt.GPTConfig(400, 64, n_layer=blocks, n_head=2, n_embd=64))
    model.ln_f = torch.nn.Identity()  # the norm would hide it
    ids = torch.randint(400, (4, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.hidden(ids).std().item()


def test_without_residual_scaling_the_stream_grows_with_the_depth(workshop):
    script = workshop.folder / "03_model.py"
    scaled = [stream_after_the_last_block(script, blocks) for blocks in (2, 24)]
    assert scaled[1] < 1.5 * scaled[0], "twelve times as deep, a third larger"
    break_it(workshop, SCALING)
    free = [stream_after_the_last_block(script, blocks) for blocks in (2, 24)]
    assert free[1] > 2 * free[0]


def test_undivided_losses_begin_at_a_multiple_of_the_first_loss(ready, sound):
    rows, printed = trained(break_it(ready, DIVIDED))
    # The script prints both: a first loss before training, and the log's first row.
    assert rows[0]["train_loss"] == pytest.approx(2 * first_loss(printed), rel=0.1)
    assert rows[-1]["train_loss"] > 1.5 * rows[-1]["valid_loss"]
    assert rows[0]["grad_norm"] == pytest.approx(2 * sound[1][0]["grad_norm"], rel=0.05)
    # Each gradient is cut to length 1 and AdamW divides by its size: hence no harm.
    assert rows[-1]["valid_loss"] < sound[1][-1]["valid_loss"] + 0.4
