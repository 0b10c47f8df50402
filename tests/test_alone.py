"""The six scripts stand alone: copied into an empty folder, run in order to the end.

The folder holds nothing else, not even lessons/, and Python lacks what Windows lacks
(fcntl, resource, os.sysconf). So what passes here starts everywhere.
"""
import ast
import csv
import json
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, SCRIPTS, Workshop

# Lines, comments included: a script that grows must earn it by cutting elsewhere.
BUDGET = dict(zip(SCRIPTS, (650, 402, 492, 620, 507, 433)))
PACKAGES = {"torch", "numpy", "regex", "tqdm"}

# Runs a script in a Python that lacks some modules: python without.py SCRIPT MODULE ...
WITHOUT = """
import os, runpy, sys
_, script, *missing = sys.argv
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
for name in missing:
    sys.modules.pop(name, None)
if "fcntl" in missing:
    for name in ("sysconf", "sched_getaffinity", "fork"):
        if hasattr(os, name):
            delattr(os, name)
runpy.run_path(script, run_name="__main__")
"""


def run_without(missing, folder, script):
    (folder / "without.py").write_text(WITHOUT)
    shop = Workshop(folder, copy=False)
    return shop.run("without.py", script, *missing.split())


@pytest.fixture(scope="module")
def alone(tmp_path_factory, small_text):
    """The six scripts and a text in a folder of their own, all run in order."""
    folder = tmp_path_factory.mktemp("alone")
    for script in SCRIPTS:
        shutil.copy(ROOT / script, folder)
    (folder / "my text.txt").write_text(small_text, "utf-8")
    shop = Workshop(folder, copy=False)
    shop.edit("01_bpe.py", TEXT="my text.txt", VOCAB_SIZE=400, WORKERS=1)
    shop.edit("02_prepare.py", VALID_SHARE=0.1, WORKERS=1)
    shop.edit("03_model.py", SIZE=(1, 2, 64, 128))
    shop.edit("04_train.py", TOKENS=128 * 8 * 40, EVALUATIONS=2)
    shop.edit("05_eval.py", SAMPLES=4)
    shop.edit("06_sample.py", SAMPLES=2, MAX_TOKENS=60)
    shop.outputs = {}
    for script in SCRIPTS:
        done = run_without("fcntl resource", folder, script)
        assert done.returncode == 0, script + done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        shop.outputs[script] = done.stdout
    return shop


def test_every_stage_names_the_next_one(alone):
    for script, following in zip(SCRIPTS, SCRIPTS[1:]):
        last = alone.outputs[script].rstrip().splitlines()[-1]
        assert last == f"Next: python {following}"


def test_every_stage_says_what_it_reads_and_writes(alone):
    for script in SCRIPTS:
        assert "[read]" in alone.outputs[script], script
    for script in SCRIPTS[:-1]:
        assert "[wrote]" in alone.outputs[script], script


def test_a_missing_page_or_quiz_is_one_line_and_no_reason_to_stop(alone):
    pages = {"01_bpe.py": "tokens.html", "04_train.py": "run.html"}
    pages |= {"05_eval.py": "report.html", "06_sample.py": "story.html"}
    for script, page in pages.items():
        (line,) = [li for li in alone.outputs[script].splitlines() if page in li]
        assert line.startswith("[note]"), script
    lines = alone.outputs["05_eval.py"].splitlines()
    (line,) = [line for line in lines if "quiz.txt" in line]
    assert line.startswith("[note]")


def test_the_tokens_on_disk_are_the_stories(alone, bpe, small_text):
    folder = alone.folder / "artifacts"
    tokenizer = bpe.Tokenizer.load(folder / "01_bpe/tokenizer.json")
    stories = set()
    for name in ("train", "valid"):
        ids = np.fromfile(folder / f"02_prepare/{name}.bin", dtype="<u2").tolist()
        assert ids[0] == tokenizer.bos and ids[-1] == tokenizer.eos
        starts = [i for i, token in enumerate(ids) if token == tokenizer.bos]
        for begin, end in zip(starts, [*starts[1:], len(ids)]):
            stories.add(tokenizer.decode(ids[begin:end]))
    assert stories == {s.strip() for s in small_text.split("<|endoftext|>")} - {""}


def test_training_made_the_loss_fall(alone):
    text = (alone.folder / "artifacts/04_train/log.csv").read_text()
    losses = [float(row["train_loss"]) for row in csv.DictReader(text.splitlines())]
    assert losses[0] > 5.9 > losses[-1] + 1  # ln 400 is 5.99


def test_the_vocabulary_size_travels_from_stage_to_stage(alone):
    # It is the same in all artifacts, though only stage 1 has the constant.
    folder = alone.folder / "artifacts"
    meta = json.loads((folder / "02_prepare/meta.json").read_text())
    best = torch.load(folder / "04_train/best.pt", weights_only=True)
    assert meta["vocab_size"] == best["config"]["vocab_size"] == 400
    assert best["tokenizer"] == meta["tokenizer"]


def test_no_half_written_file_is_left(alone):
    assert not list(alone.folder.rglob("*.part*"))


def test_a_stage_run_first_names_what_is_missing(workshop):
    for script in SCRIPTS[1:]:
        lines = workshop.refuses(script, "is missing")
        assert re.fullmatch(r"python 0\d_\w+\.py", lines[-1].strip())
    left = (workshop.folder / "artifacts").rglob("*.*")
    assert [path.name for path in left if path.suffix != ".lock"] == []


# ------------------------------------------------------------- something is not there


@pytest.mark.parametrize("script", SCRIPTS[1:])
def test_without_the_scripts_before_it_a_script_says_so_in_one_line(tmp_path, script):
    shutil.copy(ROOT / script, tmp_path)
    done = run_without("", tmp_path, script)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "01_bpe is missing" in done.stderr and "scripts together" in done.stderr


@pytest.mark.parametrize(
    "script, package",
    [("01_bpe.py", "regex"), ("02_prepare.py", "numpy"), ("03_model.py", "torch"),
     ("04_train.py", "torch"), ("05_eval.py", "torch"), ("06_sample.py", "torch")],
)  # fmt: skip
def test_without_a_package_a_script_names_the_command_that_installs_it(
    tmp_path, script, package
):
    for name in SCRIPTS:
        shutil.copy(ROOT / name, tmp_path)
    done = run_without(package, tmp_path, script)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert f"{package} is missing" in done.stderr
    assert "pip install torch numpy regex tqdm" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_older_python_is_named_before_anything_else_can_fail(script):
    # 01 checks the version, and the others import 01 before they import a package.
    text = (ROOT / script).read_text("utf-8")
    ast.parse(text, feature_version=(3, 8))  # no SyntaxError comes first
    first = "    import regex" if script == "01_bpe.py" else "    bpe = importlib."
    names = "|".join(PACKAGES)
    packages = re.search(rf"^ *(import|from) ({names})\b", text, re.MULTILINE)
    assert text.index(first) <= packages.start()
    if script == "01_bpe.py":
        assert text.index("if sys.version_info < (3, 10):") < packages.start()


def test_an_older_python_gets_one_line(tmp_path):
    for script in ("01_bpe.py", "03_model.py"):
        shutil.copy(ROOT / script, tmp_path)
        code = "import sys, runpy; sys.version_info = (3, 9); "
        (tmp_path / "old.py").write_text(code + f"runpy.run_path('{script}')")
        done = Workshop(tmp_path, copy=False).run("old.py")
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
        assert "Python 3.10 or newer is needed" in done.stderr


# ----------------------------------------------------------------- the form of a script


def imported(path):
    """Names of all modules that a file imports, those of import_module included."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Call):
            calls_it = ast.unparse(node.func).endswith("import_module")
            if calls_it and isinstance(node.args[0], ast.Constant):
                yield node.args[0].value


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_imports_only_packages_and_earlier_scripts(script):
    earlier = {name.removesuffix(".py") for name in SCRIPTS if name < script}
    data = {"practice_stories", "tinystories"}  # when TEXT asks for them
    if script in ("04_train.py", "05_eval.py"):
        data = {"practice_stories"}
    elif script != "01_bpe.py":
        data = set()
    for name in imported(ROOT / script):
        top = name.split(".")[0]
        known = top in sys.stdlib_module_names or top in PACKAGES | earlier | data
        assert known, f"{script} imports {name}"


def test_nothing_else_needs_more_than_the_four_packages():
    ours = {path.stem for path in (ROOT / "lessons").rglob("*.py")}
    ours |= {script.removesuffix(".py") for script in SCRIPTS}
    for path in (ROOT / "lessons").rglob("*.py"):
        for name in imported(path):
            top = name.split(".")[0]
            known = top in sys.stdlib_module_names or top in PACKAGES | ours
            assert known, f"{path.name} imports {name}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_a_chapter(script):
    text = (ROOT / script).read_text("utf-8")
    lines = text.splitlines()
    assert lines[0] == "# /// script" and lines[3] == "# ///"
    assert len(lines) <= BUDGET[script]
    assert max(map(len, lines)) <= 88
    header = ast.get_docstring(ast.parse(text))
    for word in ("READS", "WRITES", "RUN", "TAKES", "LESSON", "you are here"):
        assert word in header, word
    banners = re.findall(r"^# =+ (\d+)\. (.*)$", text, re.MULTILINE)
    assert [int(number) for number, _ in banners] == list(range(1, len(banners) + 1))
    titles = [title for _, title in banners]
    assert titles[:3] == ["Imports", "Constants: edit these", "Glossary of this file"]
    assert titles[3].startswith("The idea: ") and titles[-2:] == ["Checks", "Main"]
    assert text.count("# SUBTLE:") <= 3
    assert "globals()" not in text


def test_importing_a_script_does_nothing(workshop):
    names = [script.removesuffix(".py") for script in SCRIPTS]
    code = f"import importlib\nfor name in {names}: importlib.import_module(name)"
    (workshop.folder / "importing.py").write_text(code)
    done = workshop.run("importing.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (workshop.folder / "artifacts").exists()
