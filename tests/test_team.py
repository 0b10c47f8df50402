"""Several processes that train as one: torchrun, gloo, two of them on this machine."""
import csv
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import Workshop

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, prepared):
    """A workshop in which one process has trained: 60 steps of 2 passes of 4 texts."""
    shop = Workshop(tmp_path_factory.mktemp("alone"))
    shutil.copytree(prepared / "artifacts", shop.folder / "artifacts")
    shop.edit("01_bpe.py", TEXT="text.txt", VOCAB_SIZE=400, WORKERS=1)
    shop.edit("03_model.py", SIZE=(1, 1, 32, 64))
    shop.edit("04_train.py", TOKENS=64 * 8 * 60, MICRO_BATCH=4, ACCUMULATE=2)
    shop.edit("04_train.py", MAX_LR=0.01, EVALUATIONS=3)
    for script in ("03_model.py", "04_train.py"):
        done = shop.run(script)
        assert done.returncode == 0, done.stderr
    shop.log = log(shop)
    return shop


@pytest.fixture(scope="module")
def together(alone):
    """The same in two processes, each with one pass of 4 texts per step."""
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


def test_two_processes_lose_and_learn_what_one_does_with_the_same_texts(together):
    shop, _ = together
    one, two = shop.log, log(shop)
    assert one["tokens"] == two["tokens"] and one["lr"] == two["lr"]
    # Two means of four texts are added instead of one of eight: in the first step only
    # rounding differs; after 60 steps, what rounding has become.
    assert two["train_loss"][0] == pytest.approx(one["train_loss"][0], rel=1e-5)
    assert two["grad_norm"][0] == pytest.approx(one["grad_norm"][0], rel=1e-4)
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
    assert two["valid_loss"] == pytest.approx(one["valid_loss"], rel=1e-3)


def test_only_one_of_them_prints_and_writes(together):
    shop, done = together
    for beat in ("[start]", "[wrote]", "Next:", "64 tokens x 1 passes x 2 processes"):
        assert done.stdout.count(beat) == 1, beat
    assert done.stdout.count("It says:") == 3
    assert done.stderr.count("training:   0%") == 1
    files = sorted(path.name for path in (shop.folder / "artifacts/04_train").iterdir())
    assert files == ["best.pt", "last.pt", "log.csv", "run.html"]


def test_killed_together_they_go_on_as_if_nothing_had_happened(together, tmp_path):
    shop, _ = together
    folder = shop.folder / "artifacts/04_train"
    text = (folder / "log.csv").read_text()
    whole = torch.load(folder / "last.pt", weights_only=True)
    os.rename(folder, tmp_path / "whole")
    shop.edit("04_train.py", SAVE_MINUTES=0)  # every step is saved
    process = subprocess.Popen(
        [*TORCHRUN, "04_train.py"],
        cwd=shop.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    while not (folder / "last.pt").exists() and process.poll() is None:
        time.sleep(0.05)
    process.terminate()  # torchrun hands it on to both, who die at once
    process.wait()
    step = torch.load(folder / "last.pt", weights_only=True)["step"]
    assert 0 < step < 60
    again = torchrun(shop)
    assert f"going on after step {step}\n" in again.stdout, again.stdout + again.stderr
    assert (folder / "log.csv").read_text() == text
    weights = torch.load(folder / "last.pt", weights_only=True)["weights"]
    assert all(torch.equal(weights[name], whole["weights"][name]) for name in weights)


def test_ctrl_c_saves_in_both_and_names_the_command_for_both(together, tmp_path):
    shop, _ = together
    shop.edit("04_train.py", SAVE_MINUTES=5, TOKENS=64 * 8 * 100_000)
    process = subprocess.Popen(
        [*TORCHRUN, "04_train.py"],
        cwd=shop.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("[start]"):
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert errors.count("Go on: torchrun --nproc-per-node 2 04_train.py") == 1, errors
    folder = shop.folder / "artifacts/04_train"
    step = torch.load(folder / "last.pt", weights_only=True)["step"]
    assert f"Step {step:,} of 100,000 is saved" in errors


def test_a_mistake_is_told_once(together):
    shop, _ = together
    shop.edit("04_train.py", DROPOUT=3.0)
    done = torchrun(shop)
    assert done.returncode != 0
    assert done.stderr.count("DROPOUT = 3.0 in 04_train.py cannot be used.") == 1
    shop.edit("04_train.py", DROPOUT=0.0)
