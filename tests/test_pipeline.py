"""The whole course as a learner walks it: six scripts in order, edited and run."""
import ast
import csv
import json
import re

import numpy as np
import pytest
import torch
from conftest import ROOT, SCRIPTS

BANNERS = [
    "2. IMPORTS", "3. CONSTANTS", "4. WORDS", "5. THE IDEA", "6. PIECES", "7. CHECKS",
    "8. MAIN", "9. GUARD",
]  # fmt: skip


@pytest.fixture(scope="module")
def walked(tmp_path_factory, small_text):
    """All six scripts, run in order on a small text with small constants."""
    from conftest import Workshop

    shop = Workshop(tmp_path_factory.mktemp("walked"))
    (shop.folder / "text.txt").write_text(small_text, "utf-8")
    shop.edit("01_bpe.py", TEXT="text.txt", VOCAB_SIZE=400)
    shop.edit("02_prepare.py", VALID_SHARE=0.1)
    shop.edit("03_model.py", SIZE=(1, 2, 64, 128))
    shop.edit("04_train.py", TOKENS=128 * 8 * 40, EVALUATIONS=2)
    shop.outputs = {}
    for script in SCRIPTS:
        done = shop.run(script, afresh=True)
        assert done.returncode == 0, script + done.stdout + done.stderr
        shop.outputs[script] = done.stdout
    return shop


def test_every_stage_names_the_next_one(walked):
    for script, following in zip(SCRIPTS, SCRIPTS[1:]):
        last = walked.outputs[script].rstrip().splitlines()[-1]
        assert last == f"Next: python {following}"


def test_every_stage_tells_what_it_reads_and_writes(walked):
    for script in SCRIPTS:
        assert "[read]" in walked.outputs[script], script
        assert "[wrote]" in walked.outputs[script], script


def test_the_tokens_on_disk_are_the_stories(walked, bpe, small_text):
    folder = walked.folder / "artifacts"
    tokenizer = bpe.Tokenizer.load(folder / "01_bpe/tokenizer.json")
    told = set()
    for name in ("train", "valid"):
        ids = np.fromfile(folder / f"02_prepare/{name}.bin", dtype="<u2").tolist()
        assert ids[0] == tokenizer.bos and ids[-1] == tokenizer.eos
        starts = [i for i, token in enumerate(ids) if token == tokenizer.bos]
        for begin, end in zip(starts, [*starts[1:], len(ids)]):
            told.add(tokenizer.decode(ids[begin:end]))
    assert told == {story.strip() for story in small_text.split("<|endoftext|>")} - {""}


def test_training_made_the_loss_fall(walked):
    text = (walked.folder / "artifacts/04_train/log.csv").read_text()
    losses = [float(row["train_loss"]) for row in csv.DictReader(text.splitlines())]
    assert losses[0] > 5.9 > losses[-1] + 1  # ln 400 is 5.99


def test_the_scale_is_one_from_stage_to_stage(walked):
    # The same vocabulary size in all artifacts, though only stage 1 has the constant.
    folder = walked.folder / "artifacts"
    meta = json.loads((folder / "02_prepare/meta.json").read_text())
    best = torch.load(folder / "04_train/best.pt", weights_only=True)
    assert meta["vocab_size"] == best["config"]["vocab_size"] == 400
    assert best["tokenizer"] == meta["tokenizer"]


def test_no_half_written_file_is_left(walked):
    assert not list(walked.folder.rglob("*.part*"))


def test_a_prompt_on_the_command_line_begins_the_story(walked):
    done = walked.run("06_sample.py", "Once upon")
    assert done.returncode == 0, done.stderr
    assert "Once upon" in done.stdout


@pytest.mark.parametrize("script", SCRIPTS[1:])
def test_a_stage_run_first_names_what_is_missing(workshop, script):
    lines = workshop.refuses(script, "is missing")
    assert re.fullmatch(r"python 0\d_\w+\.py", lines[-1].strip())
    left = (workshop.folder / "artifacts").rglob("*.*")
    assert [path.name for path in left if path.suffix != ".lock"] == []


# ----------------------------------------------------------------- the form of a script


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_a_chapter_with_the_same_banners(script):
    text = (ROOT / script).read_text("utf-8")
    places = [text.find(f"= {banner}\n") for banner in BANNERS]
    assert -1 not in places and places == sorted(places), dict(zip(BANNERS, places))
    lines = text.splitlines()
    assert lines[0] == "# /// script" and lines[3] == "# ///"
    assert len(lines) <= 480
    assert max(map(len, lines)) <= 88
    header = ast.get_docstring(ast.parse(text))
    for word in ("READS", "WRITES", "RUN", "TAKES", "LESSON", "you are here"):
        assert word in header, word


@pytest.mark.parametrize("script", SCRIPTS)
def test_importing_a_script_does_nothing(script, workshop):
    module = script.removesuffix(".py")
    code = f"import importlib; importlib.import_module({module!r})"
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        cwd=workshop.folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == done.stderr == ""
    assert not (workshop.folder / "artifacts").exists()


def test_only_the_five_packages_are_imported():
    allowed = {"torch", "numpy", "regex", "tqdm", "pytest"}
    import sys

    ours = {path.stem for path in (ROOT / "lessons").rglob("*.py")}
    for path in [*map(ROOT.joinpath, SCRIPTS), *(ROOT / "lessons").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            for name in names:
                top = name.split(".")[0]
                known = top in sys.stdlib_module_names or top in ours | allowed
                assert known, f"{path.name} imports {name}"
