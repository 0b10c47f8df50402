"""Several processes that train as one: torchrun, gloo, two of them on this machine."""
import csv
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from conftest import Workshop

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, prepared):
    """A workshop in which one process has trained: 40 steps of 2 x 4 sequences."""
    shop = Workshop(tmp_path_factory.mktemp("alone"))
    shutil.copytree(prepared / "artifacts", shop.folder / "artifacts")
    shop.edit("01_bpe.py", TEXT="text.txt", VOCAB_SIZE=400, WORKERS=1)
    shop.edit("03_model.py", SIZE=(1, 1, 32, 64))
    shop.edit("04_train.py", TOKENS=64 * 8 * 40, MICRO_BATCH=4, ACCUMULATE=2)
    shop.edit("04_train.py", MAX_LR=0.01, EVALUATIONS=2)
    for script in ("03_model.py", "04_train.py"):
        done = shop.run(script)
        assert done.returncode == 0, done.stderr
    shop.log = log(shop)
    return shop


@pytest.fixture(scope="module")
def together(alone):
    """The same in two processes, each with one micro-batch of 4 sequences per step."""
    os.rename(alone.folder / "artifacts/04_train", alone.folder / "alone")
    alone.edit("04_train.py", ACCUMULATE=1)
    done = torchrun(alone)
    assert done.returncode == 0, done.stdout + done.stderr
    return alone, done


def torchrun(shop):
    """Run stage 4 in two processes to its end."""
    return subprocess.run(
        [*TORCHRUN, "04_train.py"], cwd=shop.folder, capture_output=True, text=True,
        timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def log(shop):
    """log.csv as {column: numbers}."""
    with open(shop.folder / "artifacts/04_train/log.csv") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name] or 0) for row in rows] for name in rows[0]}


def test_two_processes_lose_and_learn_what_one_does_with_the_same_sequences(together):
    shop, _ = together
    one, two = shop.log, log(shop)
    assert one["tokens"] == two["tokens"] and one["lr"] == two["lr"]
    # Two means of four sequences are added instead of one of eight: in the first step
    # only rounding differs; after 40 steps, what rounding has become.
    assert two["train_loss"][0] == pytest.approx(one["train_loss"][0], rel=1e-5)
    assert two["grad_norm"][0] == pytest.approx(one["grad_norm"][0], rel=1e-4)
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
    assert two["valid_loss"] == pytest.approx(one["valid_loss"], rel=1e-3)


def test_only_one_of_them_prints_and_writes(together):
    shop, done = together
    for words in ("[start]", "[wrote]", "Next:", "1 micro-batches x 2 processes"):
        assert done.stdout.count(words) == 1, words
    assert done.stdout.count("Sample:") == 2
    assert done.stderr.count("training:   0%") == 1
    files = sorted(path.name for path in (shop.folder / "artifacts/04_train").iterdir())
    assert files == ["best.pt", "last.pt", "log.csv", "run.html"]


def test_stopped_together_they_resume_as_if_nothing_had_happened(together, tmp_path):
    shop, _ = together
    folder = shop.folder / "artifacts/04_train"
    names = ("log.csv", "best.pt")
    before = [(folder / name).read_bytes() for name in names]
    whole = torch.load(folder / "last.pt", weights_only=True)
    os.rename(folder, tmp_path / "whole")
    # Ctrl-C reaches torchrun during step 25, and torchrun tells its processes: they
    # finish the step, and the first saves.
    script = shop.folder / "04_train.py"
    text, line = script.read_text("utf-8"), "            self.step += 1\n"
    assert text.count(line) == 1
    press = line + "            if RANK == 0 and self.step == 25:\n"
    press += f"                os.kill(os.getppid(), {int(signal.SIGINT)})\n"
    press += "                while not asked:\n                    time.sleep(0.01)\n"
    script.write_text(text.replace(line, press), "utf-8")
    done = torchrun(shop)
    assert done.returncode != 0 and "Step 25 of 40 is saved" in done.stderr, done.stderr
    assert done.stderr.count("torchrun --nproc-per-node 2 04_train.py") == 1
    assert torch.load(folder / "last.pt", weights_only=True)["step"] == 25
    script.write_text(text, "utf-8")
    again = torchrun(shop)
    assert "resuming after step 25;" in again.stdout, again.stdout + again.stderr
    assert [(folder / name).read_bytes() for name in names] == before
    weights = torch.load(folder / "last.pt", weights_only=True)["weights"]
    assert all(torch.equal(weights[name], whole["weights"][name]) for name in weights)


def test_one_process_resumes_what_two_began(together):
    shop, _ = together
    folder = shop.folder / "artifacts/04_train"
    state = torch.load(folder / "last.pt", weights_only=True)
    torch.save(state | {"step": 39}, folder / "last.pt")  # one step is missing
    shop.edit("04_train.py", ACCUMULATE=2)
    done = shop.run("04_train.py")
    assert done.returncode == 0 and "resuming after step 39;" in done.stdout
    shop.edit("04_train.py", ACCUMULATE=1)


def test_a_mistake_is_told_once(together):
    shop, _ = together
    shop.edit("04_train.py", DROPOUT=3.0)
    done = torchrun(shop)
    assert done.returncode != 0
    assert done.stderr.count("DROPOUT = 3.0 in 04_train.py cannot be used.") == 1
