"""Several processes that train as one: gloo connects two of them on this machine."""
import csv
import os
import shutil
import signal

import pytest
import torch
from conftest import Workshop

# The command torchrun. With --standalone it finds a free port; else it takes 29500.
TORCHRUN = """
from torch.distributed.run import main
main(["--standalone", "--nproc-per-node", "2", "04_train.py"])
"""
# The same without an `import torch` per process: two of them, told by environment
# variables who they are and where to meet. They meet at a store in the test's process,
# which has a port already, so that no port has to be guessed.
PAIR = """
import multiprocessing, os, runpy, sys
fork = multiprocessing.get_context("fork")
os.environ |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
os.environ |= {"MASTER_PORT": sys.argv[1], "TORCHELASTIC_USE_AGENT_STORE": "True"}
os.environ |= {"TORCHELASTIC_RESTART_COUNT": "0"}

def run(rank):
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank}
    runpy.run_path("04_train.py", run_name="__main__")

pair = [fork.Process(target=run, args=(rank,)) for rank in "01"]
for process in pair:
    process.start()
for process in pair:
    process.join()
raise SystemExit(max(process.exitcode for process in pair))
"""


def run_pair(shop):
    """Run stage 4 in two processes to its end."""
    (shop.folder / "pair.py").write_text(PAIR)
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True)
    return shop.run("pair.py", str(store.port))


def log(shop):
    """log.csv as {column: numbers}."""
    with open(shop.folder / "artifacts/04_train/log.csv") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name] or 0) for row in rows] for name in rows[0]}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, prepared):
    """A workshop in which one process has trained: 20 steps of 2 x 4 sequences."""
    shop = Workshop(tmp_path_factory.mktemp("alone"))
    shutil.copytree(prepared / "artifacts", shop.folder / "artifacts")
    shop.edit("01_bpe.py", TEXT="text.txt", VOCAB_SIZE=400, WORKERS=1)
    shop.edit("03_model.py", SIZE=(1, 1, 32, 64))
    shop.edit("04_train.py", TOKENS=64 * 8 * 20, MICRO_BATCH=4, ACCUMULATE=2)
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
    done = run_pair(alone)
    assert done.returncode == 0, done.stdout + done.stderr
    return alone, done


def test_two_processes_lose_and_learn_what_one_does_with_the_same_sequences(together):
    shop, _ = together
    one, two = shop.log, log(shop)
    assert one["tokens"] == two["tokens"] and one["lr"] == two["lr"]
    # Both average the same two micro-batches, one process in turn, two of them over
    # gloo: in the first step only rounding differs. Other sequences would change loss
    # and norm by percents.
    assert two["train_loss"][0] == pytest.approx(one["train_loss"][0], rel=1e-4)
    assert two["grad_norm"][0] == pytest.approx(one["grad_norm"][0], rel=1e-3)
    # After 20 steps it is what rounding has become, which depends on the machine.
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=0.01)
    assert two["valid_loss"] == pytest.approx(one["valid_loss"], rel=0.01)


def test_only_one_of_them_prints_and_writes(together):
    shop, done = together
    for words in ("[start]", "[wrote]", "Next:", "1 micro-batches x 2 processes"):
        assert done.stdout.count(words) == 1, words
    assert done.stdout.count("Sample:") == 2
    assert done.stderr.count("training:   0%") == 1
    files = sorted(path.name for path in (shop.folder / "artifacts/04_train").iterdir())
    assert files == ["best.pt", "last.pt", "log.csv", "run.html"]


def test_stopped_under_torchrun_they_resume_as_if_nothing_had_happened(
    together, tmp_path
):
    shop, _ = together
    folder = shop.folder / "artifacts/04_train"
    names = ("log.csv", "best.pt")
    before = [(folder / name).read_bytes() for name in names]
    whole = torch.load(folder / "last.pt", weights_only=True)
    os.rename(folder, tmp_path / "whole")
    # Ctrl-C reaches torchrun during step 13, and torchrun tells its processes: they
    # finish the step, and the first saves.
    script = shop.folder / "04_train.py"
    text, line = script.read_text("utf-8"), "            self.step += 1\n"
    assert text.count(line) == 1
    press = line + "            if RANK == 0 and self.step == 13:\n"
    press += f"                os.kill(os.getppid(), {int(signal.SIGINT)})\n"
    press += "                while not asked:\n                    time.sleep(0.01)\n"
    script.write_text(text.replace(line, press), "utf-8")
    (shop.folder / "torchrun.py").write_text(TORCHRUN)
    done = shop.run("torchrun.py")
    assert done.returncode != 0 and "Step 13 of 20 is saved" in done.stderr, done.stderr
    assert done.stderr.count("torchrun --nproc-per-node 2 04_train.py") == 1
    assert torch.load(folder / "last.pt", weights_only=True)["step"] == 13
    script.write_text(text, "utf-8")
    again = run_pair(shop)
    assert "resuming after step 13\n" in again.stdout, again.stdout + again.stderr
    assert [(folder / name).read_bytes() for name in names] == before
    weights = torch.load(folder / "last.pt", weights_only=True)["weights"]
    assert all(torch.equal(weights[name], whole["weights"][name]) for name in weights)


def test_one_process_resumes_what_two_began(together):
    shop, _ = together
    folder = shop.folder / "artifacts/04_train"
    state = torch.load(folder / "last.pt", weights_only=True)
    torch.save(state | {"step": 19}, folder / "last.pt")  # one step is missing
    shop.edit("04_train.py", ACCUMULATE=2)
    done = shop.run("04_train.py")
    assert done.returncode == 0 and "resuming after step 19\n" in done.stdout
    shop.edit("04_train.py", ACCUMULATE=1)


def test_a_mistake_is_told_once(together):
    shop, _ = together
    shop.edit("04_train.py", DROPOUT=3.0)
    done = run_pair(shop)
    assert done.returncode == 1
    assert done.stderr.count("DROPOUT = 3.0 in 04_train.py cannot be used.") == 1
