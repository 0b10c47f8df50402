"""What several test files share: the scripts as modules, and a small trained world."""
import functools
import importlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "lessons")]
# One thread: tiny models are no faster with two, and two runs that must be equal to the
# last bit add in the same order.
os.environ["OMP_NUM_THREADS"] = "1"
# A shell that starts pytest in the background lets it, and the scripts it starts,
# ignore Ctrl-C; with a handler of its own, the scripts get the usual one again.
signal.signal(signal.SIGINT, signal.default_int_handler)

SCRIPTS = [
    "01_bpe.py", "02_prepare.py", "03_model.py", "04_train.py", "05_eval.py",
    "06_sample.py",
]  # fmt: skip


@pytest.fixture(scope="session")
def bpe():
    """Stage 1 as a module."""
    return importlib.import_module("01_bpe")


@pytest.fixture(scope="session")
def gpt():
    """Stage 3 as a module."""
    return importlib.import_module("03_model")


class Starter:
    """The process of tests/starter.py, asked by lines of JSON."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "tests" / "starter.py"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip

    def run(self, folder, script, arguments, timeout):
        with tempfile.TemporaryDirectory() as place:
            names = [os.path.join(place, name) for name in ("stdout", "stderr")]
            order = {"folder": folder, "script": script, "arguments": arguments}
            order |= {"environment": dict(os.environ)}
            order |= dict(zip(("stdout", "stderr"), names))
            print(json.dumps(order), file=self.process.stdin, flush=True)
            if not select.select([self.process.stdout], [], [], timeout)[0]:
                self.process.kill()
                starter.cache_clear()
                raise subprocess.TimeoutExpired(script, timeout)
            code = int(self.process.stdout.readline())
            texts = [Path(name).read_text("utf-8") for name in names]
        return subprocess.CompletedProcess([script, *arguments], code, *texts)


@functools.cache
def starter():
    return Starter()


def pytest_collection_finish(session):
    """Let the starter import torch on another core while the first tests run."""
    needed = {"workshop", "prepared"}
    if any(needed & set(getattr(item, "fixturenames", ())) for item in session.items):
        starter()


class Workshop:
    """A copy of the course in a temporary folder, edited and run as learners do."""

    def __init__(self, folder, copy=True):
        self.folder = Path(folder)
        if not copy:
            return
        for script in SCRIPTS:
            shutil.copy(ROOT / script, self.folder)
        ignore = shutil.ignore_patterns("__pycache__", "*.md", "images")
        shutil.copytree(ROOT / "lessons", self.folder / "lessons", ignore=ignore)

    def edit(self, script, **constants):
        """Set constants at the top of a script, each by replacing its line."""
        path = self.folder / script
        lines = path.read_text("utf-8").splitlines(keepends=True)
        for name, value in constants.items():
            start = f"{name} = "
            places = [i for i, line in enumerate(lines) if line.startswith(start)]
            assert len(places) == 1, f"{name} stands {len(places)} times in {script}"
            lines[places[0]] = f"{name} = {value!r}\n"
        path.write_text("".join(lines), "utf-8")

    def run(self, script, *arguments, timeout=300, afresh=False):
        """Run a script; returns the finished process with stdout and stderr as text.

        With afresh, by a Python of its own, as learners do; else by tests/starter.py,
        which is faster by an `import torch`.
        """
        if afresh:
            return subprocess.run(
                [sys.executable, script, *arguments],
                cwd=self.folder, capture_output=True, text=True, timeout=timeout,
            )  # fmt: skip
        return starter().run(str(self.folder), script, arguments, timeout)

    def refuses(self, script, *expected, arguments=()):
        """Run a script that must stop: three lines, exit code 1, no traceback."""
        done = self.run(script, *arguments)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        text = re.sub(r"(?m)^.*%\|.*?\]", "", done.stderr)  # without progress bars
        lines = [line for line in text.splitlines() if line.strip()]
        assert len(lines) == 3, done.stderr
        for words in expected:
            assert words in "\n".join(lines), f"{words!r} is not in: {lines}"
        return lines


@pytest.fixture
def in_process(bpe, tmp_path, monkeypatch, capsys):
    """Runs stage 1 or 2 in this process, at work in tmp_path; gives what it printed.

    A run that stops raises SystemExit. There is no lessons/, so no page is filled in.
    """
    prepare = importlib.import_module("02_prepare")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bpe, "HERE", tmp_path)
    monkeypatch.setattr(bpe, "OUT", tmp_path / "artifacts" / "01_bpe")
    monkeypatch.setattr(prepare, "OUT", tmp_path / "artifacts" / "02_prepare")

    def load_encoder():
        return prepare.Encoder(bpe.Tokenizer.load(bpe.OUT / "tokenizer.json"))

    monkeypatch.setattr(prepare, "load_encoder", load_encoder)

    def run(script, **constants):
        module = bpe if script == "01_bpe.py" else prepare
        for name, value in ({"WORKERS": 1} | constants).items():
            monkeypatch.setattr(module, name, value)
        bpe.run_stage(module.main, script)
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="session")
def browser():
    """Chromium, for the tests of our pages."""
    from browser import CHROMIUM, Browser

    if not CHROMIUM:
        pytest.skip("no Chromium to open the page with")
    chromium = Browser()
    yield chromium
    chromium.close()


@pytest.fixture
def workshop(tmp_path):
    """A fresh copy of the course, without artifacts."""
    return Workshop(tmp_path)


@pytest.fixture(scope="session")
def small_text():
    """A practice text of 600 stories, enough for a tokenizer and a few steps."""
    import practice_stories

    stories = practice_stories.stories(600)
    return "".join(f"{story}\n<|endoftext|>\n" for story in stories)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, small_text):
    """A folder in which stages 1 and 2 have run on the small text, vocabulary 400."""
    shop = Workshop(tmp_path_factory.mktemp("prepared"))
    (shop.folder / "text.txt").write_text(small_text, "utf-8")
    shop.edit("01_bpe.py", TEXT="text.txt", VOCAB_SIZE=400, WORKERS=1)
    shop.edit("02_prepare.py", VALID_SHARE=0.1, WORKERS=1)
    for script in SCRIPTS[:2]:
        done = shop.run(script)
        assert done.returncode == 0, done.stderr
    return shop.folder


@pytest.fixture
def small_tokenizer(prepared):
    """Gives a workshop the text and the artifacts of stages 1 and 2 of `prepared`."""

    def give(workshop):
        shutil.copytree(prepared / "artifacts", workshop.folder / "artifacts")
        shutil.copy(prepared / "text.txt", workshop.folder)
        workshop.edit("01_bpe.py", TEXT="text.txt", VOCAB_SIZE=400, WORKERS=1)
        return workshop

    return give
