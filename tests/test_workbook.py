"""The workbook: every blank fails, every solution passes, every mistake is named."""
import ast
import doctest
import importlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import textwrap
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT

workbook = importlib.import_module("workbook")
running = importlib.import_module("workbook_run")
by_hand = importlib.import_module("by_hand")
EXERCISES = workbook.EXERCISES
EACH = pytest.mark.parametrize("name", EXERCISES)


@pytest.fixture(autouse=True)
def book(tmp_path, monkeypatch):
    """An empty workbook in a temporary folder."""
    monkeypatch.setattr(workbook, "BOOK", tmp_path / "workbook")
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are small
    yield workbook.BOOK
    torch.set_num_threads(threads)


@pytest.fixture
def command(monkeypatch):
    """Run a command of the workbook in this process; returns its exit code or words."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["workbook.py", *words])
        try:
            workbook.main()
        except SystemExit as stopped:
            return stopped.code
        return None

    return run


def write(exercise, body):
    """Do what a learner does: put code in the place of the blank."""
    path = workbook.BOOK / exercise.script
    text = path.read_text("utf-8")
    lines = text.splitlines(keepends=True)
    line = next(i for i, x in enumerate(lines) if f'Error("{exercise.name}")' in x)
    indent = lines[line][: -len(lines[line].lstrip())]
    lines[line - 1 : line + 1] = [textwrap.indent(textwrap.dedent(body), indent)]
    path.write_text("".join(lines), "utf-8")


def say(exercise, body, command):
    """What check says about that code, without the process of its own."""
    assert command("start", exercise.name) is None
    write(exercise, body)
    return judged(exercise)


def judged(exercise):
    text, path = workbook.read_theirs(exercise), workbook.BOOK / exercise.script
    module = importlib.import_module(exercise.script[:-3])
    node, new = workbook.find(text, exercise), workbook.additions(text, module)
    function = workbook.build(node, module, str(path), new)
    theirs = workbook.ask(exercise, function, module)
    return workbook.explain(exercise, theirs, module, path)


# ---- the matrix: blank, solution, mistakes


@EACH
def test_the_blank_fails_and_ours_passes(name, command):
    exercise = EXERCISES[name]
    assert command("start", name) is None
    lines = judged(exercise)
    assert len(lines) == 2 and "is still blank" in lines[1], lines
    ours = workbook.our_text(exercise)
    text = (workbook.BOOK / exercise.script).read_text("utf-8")
    text = workbook.splice(text, exercise, workbook.source_of(ours, exercise))
    assert text == ours  # the blank was all that differed
    (workbook.BOOK / exercise.script).write_text(text, "utf-8")
    assert judged(exercise) == []


@EACH
def test_every_usual_mistake_is_recognized_and_no_two_are_mixed_up(name, book):
    exercise = EXERCISES[name]
    module = importlib.import_module(exercise.script[:-3])
    assert len(exercise.mistakes) >= 2
    book.mkdir()
    for why, variant in workbook.variants(exercise, module):  # it names a stale text
        theirs = workbook.ask(exercise, variant, module)
        lines = workbook.explain(exercise, theirs, module, book / "missing.py")
        assert lines[-1:] == [f"  A common mistake: {why}."], (why, lines)


@EACH
def test_an_exercise_has_a_goal_a_lesson_and_three_hints(name):
    exercise = EXERCISES[name]
    assert exercise.goal and len(exercise.hints) == 3
    assert workbook.lesson_of(exercise).is_file()
    node = workbook.find(workbook.our_text(exercise), exercise)
    assert isinstance(node, ast.FunctionDef)
    assert set(exercise.patch) <= set(running.EDITS)


def test_the_exercises_cover_all_six_scripts_in_the_order_of_the_lessons():
    assert len(EXERCISES) >= 26
    assert {e.script for e in EXERCISES.values()} == {*running.EDITS, "by_hand.py"}
    lessons = [exercise.lesson for exercise in EXERCISES.values()]
    assert lessons == sorted(lessons)


def test_the_exercises_that_lessons_name_exist():
    texts = [path.read_text("utf-8") for path in (ROOT / "lessons").rglob("*.md")]
    named = re.findall(r"workbook\.py start (\w+)", "".join(texts))
    assert len(named) >= 4 and set(named) <= set(EXERCISES)


@EACH
def test_a_blank_keeps_the_signature_and_the_docstring(name):
    exercise = EXERCISES[name]
    ours = workbook.find(workbook.our_text(exercise), exercise)
    theirs = workbook.find(workbook.blank(exercise), exercise)
    assert ast.unparse(theirs.args) == ast.unparse(ours.args)
    assert ast.get_docstring(theirs) == ast.get_docstring(ours)
    assert len(theirs.body) <= len(ours.body)


def test_a_mistake_whose_text_is_gone_is_reported_with_the_text(monkeypatch):
    exercise = EXERCISES["merge"]
    monkeypatch.setattr(exercise, "mistakes", [("no such text", "", "why")])
    with pytest.raises(SystemExit, match="merge: 'no such text' does not occur"):
        list(workbook.variants(exercise, importlib.import_module("01_bpe")))


# ---- by_hand.py computes what torch computes


def test_by_hand_agrees_with_its_doctests():
    assert doctest.testmod(by_hand) == doctest.TestResults(failed=0, attempted=8)


def test_layer_norm_by_hand_is_torchs():
    x, weight = torch.randn(2, 3, 8), torch.randn(8)
    right = F.layer_norm(x, (8,), weight)
    torch.testing.assert_close(by_hand.layer_norm(x, weight), right)


def test_cross_entropy_by_hand_is_torchs():
    logits, targets = torch.randn(6, 9) * 3, torch.tensor([0, 8, -1, 3, 3, -1])
    right = F.cross_entropy(logits, targets, ignore_index=-1)
    torch.testing.assert_close(by_hand.cross_entropy(logits, targets), right)


@pytest.mark.parametrize("size", [0.01, 10.0])
def test_clip_gradients_by_hand_is_torchs(size):
    weights = [torch.zeros(shape, requires_grad=True) for shape in ((3, 2), 4)]
    for weight in weights:
        weight.grad = torch.randn(weight.shape) * size
    mine = [weight.grad.clone() for weight in weights]
    norm = by_hand.clip_gradients(mine, 1.0)
    torch.testing.assert_close(norm, torch.nn.utils.clip_grad_norm_(weights, 1.0))
    torch.testing.assert_close(mine, [weight.grad for weight in weights])


def test_adamw_by_hand_is_torchs():
    weight = torch.randn(3, 2, requires_grad=True)
    mine, m, v = weight.detach().clone(), torch.zeros(3, 2), torch.zeros(3, 2)
    adamw = torch.optim.AdamW([weight], lr=0.1, betas=(0.9, 0.99), weight_decay=0.5)
    for step in (1, 2, 3):
        weight.grad = torch.randn(3, 2)
        by_hand.adamw_step(mine, weight.grad, m, v, step, 0.1, 0.9, 0.99, 0.5)
        adamw.step()
        torch.testing.assert_close(mine, weight.detach())


# ---- what it says about a difference


@pytest.mark.parametrize("yours, ours, said", [
    ([1, 2, 3], [1, 2, 3], None),
    ([1, 5], [1, 2], "at [1]: yours 5, ours 2"),
    ([1], [1, 2], "yours has 1 item(s), ours 2"),
    ((1,), [1], "yours is a tuple, ours a list"),
    (None, [1], "yours is a NoneType, ours a list. Is a `return` missing?"),
    (2.0, 2, "yours is a float, 2; ours is 2"),
    (1.0000001, 1.0, None),  # rounding
    (1.01, 1.0, "yours 1.01, ours 1"),
    (math.nan, math.nan, None),
    (math.nan, 1.0, "yours nan, ours 1"),
    (-math.inf, -math.inf, None),
    (0.0, -math.inf, "yours 0, ours -inf"),
    (b"\x01", b"\x01\x00", r"yours b'\x01', ours b'\x01\x00'"),
    ({"a": 1}, {"a": 1, "b": 2}, "at ['b']: yours is a NoneType, ours a int. Is a"
     " `return` missing?"),
    (torch.ones(2, 3), torch.ones(3, 2), "yours has shape (2, 3), ours (3, 2)"),
    (torch.ones(2), torch.ones(2).double(), "yours has dtype torch.float32, ours"
     " torch.float64"),
    (torch.tensor([[1.0, 2.0], [3.0, 4.5]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
     "at [1, 1]: yours 4.5, ours 4; the shape (2, 2) is right"),
    (np.array([True]), np.array([False]), "at [0]: yours True, ours False; the shape"
     " (1,) is right"),
    ([torch.ones(2)], [torch.zeros(2)], "at [0][0]: yours 1, ours 0; the shape (2,) is"
     " right"),
])  # fmt: skip
def test_the_first_difference_is_said_with_its_place(yours, ours, said):
    assert workbook.differ(yours, ours) == said


def test_a_right_answer_written_differently_passes(command):
    body = """
        scores = torch.einsum("bhtd,bhsd->bhts", q, k) * q.shape[-1] ** -0.5
        scores = scores + (0 if bias is None else bias)
        T, S = scores.shape[-2:]
        future = torch.arange(S) > torch.arange(S - T, S)[:, None]
        weights = F.softmax(scores.masked_fill(future, float("-inf")), dim=3)
        return torch.matmul(weights, v), weights
    """
    assert say(EXERCISES["attention"], body, command) == []


def test_divided_by_d_is_named(command):
    body = """
        T, S, D = q.shape[2], k.shape[2], q.shape[3]
        future = torch.ones(T, S, dtype=torch.bool).triu(S - T + 1)
        scores = q @ k.transpose(2, 3) / D + (0 if bias is None else bias)
        scores = scores.masked_fill(future, -torch.inf)
        weights = scores.softmax(-1)
        return weights @ v, weights
    """
    lines = say(EXERCISES["attention"], body, command)
    assert lines[0] == "  asked: attention weights for T = 3, S = 3"
    assert "first difference at [0, 0, 1, 0]: yours 0." in lines[1]
    assert lines[-1] == "  A common mistake: divided by D, not by its square root."


def test_unshifted_targets_are_named(command):
    body = """
        rows = [tokens.starts((n * batch_size + i) // tokens.count)
                [(n * batch_size + i) % tokens.count] for i in range(batch_size)]
        x = np.stack([tokens.ids[r : r + tokens.block_size] for r in rows])
        x = torch.tensor(x.astype("int64"))
        return x, x
    """
    lines = say(EXERCISES["get_batch"], body, command)
    assert "the targets of get_batch" in lines[0]
    assert lines[-1].startswith("  A common mistake: targets not shifted")


def test_an_error_in_their_function_shows_their_line_and_none_of_ours(command):
    lines = say(EXERCISES["merge"], "merged = []\nreturn merged[len(ids)]\n", command)
    line = 1 + workbook.find(workbook.our_text(EXERCISES["merge"]), EXERCISES["merge"])\
        .body[0].end_lineno + 1
    assert lines[1:] == [f"  in your line {line}: return merged[len(ids)]",
                         "  IndexError: list index out of range"]  # fmt: skip


def test_no_return_is_said_in_plain_words(command):
    lines = say(EXERCISES["attention"], "scores = q @ k.transpose(2, 3)\n", command)
    assert lines[1] == "  Python cannot use what it returned. Is a `return` missing?"


def test_too_few_parts_are_said(command):
    body = "return tuple(self.c_attn(x).split(12, 2)[:0])\n"
    lines = say(EXERCISES["split_heads"], body, command)
    assert lines[-1] == "  It returned too little."


def test_an_exercise_that_was_not_started_does_not_pass(command):
    command("start", "merge")
    code = command("check", "train_naive")
    assert "is still ours" in code
    assert code.endswith("python lessons/workbook.py start train_naive")


def test_exit_in_their_function_does_not_end_the_check(command):
    assert "SystemExit" in say(EXERCISES["merge"], "raise SystemExit(0)\n", command)[-1]


def test_a_learner_may_import_and_define_helpers(command):
    exercise = EXERCISES["merge"]
    command("start", "merge")
    write(exercise, "return list(walk(deque(ids), pair, new_id))\n")
    path = workbook.BOOK / exercise.script
    helper = """
        from collections import deque
        SKIP = 1
        def walk(ids, pair, new_id):
            while ids:
                first = ids.popleft()
                hit = bool(ids) and (first, ids[0]) == pair
                if hit:
                    for _ in range(SKIP):
                        ids.popleft()
                yield new_id if hit else first
    """
    text = path.read_text("utf-8").replace("\ndef merge(", textwrap.dedent(helper)
                                           + "\ndef merge(")  # fmt: skip
    path.write_text(text, "utf-8")
    assert judged(exercise) == []
    with_it = running.scripts_with([exercise], 1000)["01_bpe.py"]
    assert "def walk(" in with_it and "SKIP = 1" in with_it
    ast.parse(with_it)


def test_whatever_else_is_wrong_in_their_file_does_not_matter(command):
    command("start", "train_naive")  # stays blank
    command("start", "merge")
    write(EXERCISES["merge"], workbook_body("merge"))
    assert judged(EXERCISES["merge"]) == []


def workbook_body(name):  # the body of ours
    exercise = EXERCISES[name]
    node = workbook.find(workbook.our_text(exercise), exercise)
    return "\n".join(map(ast.unparse, workbook.body_of(node)[0])) + "\n"


# ---- the commands


def test_the_list_says_what_is_done_and_what_to_type_next(command, capsys):
    assert command() is None
    said = capsys.readouterr().out
    assert all(f"[ ] {name} " in said for name in EXERCISES)
    assert said.endswith("Next: python lessons/workbook.py start merge\n")
    command("start", "merge")
    workbook.save({"started": "merge", "done": ["frame"], "hints": {}})
    capsys.readouterr()
    command("list")
    said = capsys.readouterr().out
    assert "[>] merge " in said and "[x] frame " in said
    assert f"1 of {len(EXERCISES)} done." in said
    assert said.endswith("Next: python lessons/workbook.py check merge\n")


@pytest.mark.parametrize("words, nearest", [
    (["start", "atention"], "start attention"), (["check", "mrege"], "check merge"),
    (["hnit"], "hint"), (["solution", "topp"], "solution top_p"),
])  # fmt: skip
def test_an_unknown_name_gets_the_nearest_one(words, nearest, command):
    assert command(*words).splitlines()[-1] == f"python lessons/workbook.py {nearest}"


def test_a_check_before_any_start_says_to_start(command):
    assert command("check").endswith("python lessons/workbook.py start")


def test_start_without_a_name_takes_the_first_that_is_not_done(command, capsys, book):
    book.mkdir()
    workbook.save({"started": None, "done": ["merge"], "hints": {}})
    command("start")
    assert "train_naive" in capsys.readouterr().out


def test_a_second_start_keeps_the_work_under_a_number(command, capsys, book):
    for number in (1, 2):
        command("start", "merge")
        write(EXERCISES["merge"], f"return {number}\n")
    command("start", "merge")
    said = capsys.readouterr().out
    for number in (1, 2):
        kept = (book / f"01_bpe.{number}.py").read_text("utf-8")
        assert f"    return {number}\n" in kept
        name = os.path.join("workbook", f"01_bpe.{number}.py")
        assert f"it is kept as {name}" in said
    command("start", "merge")  # nothing written since: nothing to keep
    assert not (book / "01_bpe.3.py").exists()


def test_the_next_start_leaves_what_was_written_before(command, book):
    command("start", "merge")
    write(EXERCISES["merge"], "return [1]\n")
    command("start", "train_naive")
    text = (book / "01_bpe.py").read_text("utf-8")
    assert "    return [1]\n" in text and 'NotImplementedError("train_naive")' in text
    assert not (book / "01_bpe.1.py").exists()


@pytest.mark.parametrize("text", ["def merge(:\n", "x = 1\n", "\0"])
def test_start_over_a_broken_file_keeps_it_and_begins_anew(text, command, book):
    command("start", "merge")
    (book / "01_bpe.py").write_text(text, "utf-8")
    assert command("start", "merge") is None
    assert (book / "01_bpe.1.py").read_text("utf-8") == text
    assert judged(EXERCISES["merge"])


@pytest.mark.parametrize("change, said", [
    (lambda path: path.unlink(), "is missing."),
    (lambda path: path.write_text("x = 1\n"), "has no function merge any more"),
    (lambda path: path.write_text("def merge(a):\n  pass\n"), "has other parameters"),
    (lambda path: path.write_bytes(b"\xff\xfe\0"), "is not UTF-8 text"),
    (lambda path: path.write_text("def merge(\0"), "null bytes"),
])  # fmt: skip
def test_a_file_that_cannot_be_checked_says_why_and_what_to_type(
    change, said, command, book
):
    command("start", "merge")
    change(book / "01_bpe.py")
    code = command("check")
    assert said in code and "python lessons/workbook.py" in code.splitlines()[-1]


def test_a_syntax_error_shows_the_line_and_a_caret(command, book):
    command("start", "merge")
    write(EXERCISES["merge"], "for i in range(3)\n    pass\n")
    code = command("check").splitlines()
    assert code[0].startswith(os.path.join("workbook", "01_bpe.py") + ", line ")
    assert code[2] == "    for i in range(3)" and code[3].strip() == "^"
    assert "Traceback" not in "".join(code)


def test_hints_come_one_by_one_and_the_third_names_the_solution(command, capsys):
    command("start", "merge")
    for number in (1, 2, 3, 3):
        capsys.readouterr()
        command("hint")
        said = capsys.readouterr().out
        assert [n for n in (1, 2, 3) if f"[hint {n}]" in said] == [1, 2, 3][:number]
    assert said.endswith("Stuck? python lessons/workbook.py solution\n")


def test_what_is_next_comes_after_the_exercise_that_was_started(command, capsys):
    command("start", "attention")
    workbook.save({"started": "attention", "done": ["attention"], "hints": {}})
    capsys.readouterr()
    command("list")
    assert capsys.readouterr().out.endswith("start split_heads\n")
    last = [*EXERCISES][-1]
    workbook.save({"started": last, "done": [last], "hints": {}})
    command("list")
    assert capsys.readouterr().out.endswith("start merge\n")


def test_commands_name_the_exercise_unless_it_was_started_last(command, capsys):
    command("start", "merge")
    command("start", "frame")
    capsys.readouterr()
    command("hint", "merge")
    said = capsys.readouterr().out
    assert "Next: python lessons/workbook.py check merge\n" in said
    assert said.endswith("Stuck? 2 more: python lessons/workbook.py hint merge\n")


def test_the_solution_is_ours_as_it_is_written_in_the_script(command, capsys):
    command("solution", "merge")
    said = capsys.readouterr().out
    assert "[note] merge is not done yet, and has 3 more hint(s)" in said
    exercise = EXERCISES["merge"]
    source = workbook.source_of(workbook.our_text(exercise), exercise)
    assert textwrap.indent(source, "    ") in said


@pytest.mark.parametrize("text", ["{", "[]", '{"done": 3}'])
def test_a_damaged_progress_file_is_kept_and_said(text, command, capsys, book):
    book.mkdir()
    (book / "progress.json").write_text(text)
    assert command("list") is None
    assert "cannot be read; kept as" in capsys.readouterr().out
    assert (book / "progress.1.json").read_text() == text


# ---- run


@pytest.mark.parametrize("name", [n for n, e in EXERCISES.items() if e.run])
def test_run_puts_their_function_into_the_scripts(name, command):
    exercise = EXERCISES[name]
    command("start", name)
    write(exercise, "their_code_is_here = 1\n" + workbook_body_with_hole(name))
    assert running.taking_part(exercise, {}) == [exercise]
    texts = running.scripts_with([exercise], 1234)
    places = [exercise.script, *exercise.patch]
    for script, text in texts.items():
        compile(text, script, "exec")
        here = script == (places[0] if places[0] in texts else places[1])
        assert ("their_code_is_here = 1" in text) == here
    assert "\nTOKENS = 1234\n" in texts["04_train.py"]
    assert '\nTEXT = \'practice\'\n' in texts["01_bpe.py"]


def workbook_body_with_hole(name):
    variable = EXERCISES[name].function.partition(": ")[2]
    if not variable:
        return workbook_body(name)
    node = workbook.find(workbook.our_text(EXERCISES[name]), EXERCISES[name])
    assignments = [n for n in node.body if isinstance(n, ast.Assign)]
    return "".join(ast.unparse(n) + "\n" for n in assignments
                   if ast.unparse(n.targets[0]).strip("()") == variable)  # fmt: skip


def module_of(text):  # a script's text -> module; "from outside" the file system
    module = types.ModuleType("patched")
    module.__file__ = str(ROOT / "patched.py")
    sys.modules["patched"] = module  # for dataclasses
    exec(compile(text, "patched", "exec"), vars(module))
    return module


@pytest.mark.parametrize("name", ["attention", "layer_norm", "cross_entropy"])
def test_the_model_trains_through_their_function(name, command, gpt, monkeypatch):
    for owner, attribute in [(torch.nn.LayerNorm, "forward"),
                             (F, "scaled_dot_product_attention")]:  # fmt: skip
        monkeypatch.setattr(owner, attribute, getattr(owner, attribute))
    exercise, config = EXERCISES[name], gpt.GPTConfig(32, 8, 2, 2, 16)
    x = torch.randint(32, (2, 8))

    def loss_and_gradients(GPT):
        torch.manual_seed(1)
        model = GPT(config)
        loss = model(x, x, return_logits=False)[1]
        loss.backward()
        return [loss, *(weight.grad for weight in model.parameters())]

    right = loss_and_gradients(gpt.GPT)
    command("start", name)
    write(exercise, "CALLS.append(1)\n" + workbook_body(name))
    text = running.scripts_with([exercise], 1)["03_model.py"]
    patched = module_of("CALLS = []\n" + text)
    torch.testing.assert_close(loss_and_gradients(patched.GPT), right)
    assert patched.CALLS


@pytest.mark.parametrize("name", ["adamw_step", "clip_gradients"])
def test_the_weights_move_through_their_function(name, command, gpt, monkeypatch):
    for owner, attribute in [(torch.optim, "AdamW"),
                             (torch.nn.utils, "clip_grad_norm_")]:  # fmt: skip
        monkeypatch.setattr(owner, attribute, getattr(owner, attribute))
    exercise, config = EXERCISES[name], gpt.GPTConfig(32, 8, 1, 2, 16)
    plan = {"steps": 4, "max_lr": 0.01, "accumulate": 1, "micro_batch": 2}
    x = torch.randint(32, (2, 9))
    command("start", name)
    write(exercise, "CALLS.append(1)\n" + workbook_body(name))
    text = "CALLS = []\n" + running.scripts_with([exercise], 1)["04_train.py"]
    models = []
    for make in (lambda: importlib.import_module("04_train"), lambda: module_of(text)):
        stage = make()
        torch.manual_seed(1)
        models.append(model := gpt.GPT(config))
        optimizer = stage.configure_optimizer(model)
        for step in range(3):
            stage.train_step(model, optimizer, lambda n, size: (x[:, :-1], x[:, 1:]),
                             step, plan, torch.device("cpu"))  # fmt: skip
        optimizer.load_state_dict(optimizer.state_dict())  # as resuming does
    assert stage.CALLS
    torch.testing.assert_close(*[list(model.parameters()) for model in models],
                               rtol=1e-3, atol=1e-4)  # fmt: skip


def test_what_run_shows_of_a_script_is_what_the_script_prints():
    prints = {"04_train.py": ". Sample:", "05_eval.py": 'print(f"  loss {',
              "06_sample.py": r"\n[start] A story"}  # fmt: skip
    for script, words in prints.items():
        assert words in (ROOT / script).read_text("utf-8")
    lines = "step 3: loss. Sample:\n  Once\n  there\n\nmore\n"
    assert re.findall(running.SHOW["04_train.py"], lines) == ["  Once\n  there\n"]
    story = "  Once\n\n  there\n  (9 tokens; cut off)\n"
    lines = f"x\n[start] A story, as it comes:\n\n{story}\n[start] more"
    assert re.findall(running.SHOW["06_sample.py"], lines) == [story]


def test_run_says_that_nothing_is_written_yet(command):
    assert command("run").startswith("No function of yours to train with.")
    command("start", "merge")
    assert command("run").startswith("No function of yours to train with.")


def small_course(monkeypatch, text, seconds=1):
    """A run of seconds: few stories, a small model, and a Python that has torch."""
    from conftest import starter

    edits = {script: dict(constants) for script, constants in running.EDITS.items()}
    edits["01_bpe.py"] |= {"TEXT": str(text), "VOCAB_SIZE": 300, "WORKERS": 1}
    edits["02_prepare.py"] |= {"WORKERS": 1, "VALID_SHARE": 0.1}
    edits["03_model.py"] |= {"SIZE": (1, 1, 16, 16)}
    edits["04_train.py"] |= {"EVALUATIONS": 3, "DEVICE": "cpu"}
    monkeypatch.setattr(running, "EDITS", edits)
    monkeypatch.setattr(running, "RUN_SECONDS", seconds)
    ran = []

    def run_script(folder, script):
        done = starter().run(str(folder), script, [], 300)
        (folder / f"{script[:-3]}.log").write_text(done.stdout, "utf-8")
        ran.append(f"{folder.name}/{script[:-3]}")
        return done.stderr.splitlines()[-3:] if done.returncode else None

    monkeypatch.setattr(running, "run_script", run_script)
    return ran


def test_a_run_trains_with_theirs_and_draws_both_curves(
    command, capsys, book, monkeypatch, tmp_path, small_text
):
    (tmp_path / "text.txt").write_text(small_text[:60_000], "utf-8")
    ran = small_course(monkeypatch, tmp_path / "text.txt", seconds=0.05)
    command("start", "cross_entropy")
    write(EXERCISES["cross_entropy"], workbook_body("cross_entropy"))
    assert command("run") is None
    said = capsys.readouterr().out
    assert "[plan] yours: cross_entropy; the rest" in said
    assert "has not passed its check" in said
    assert "difference (validation loss)" in said and "wrote" in said
    ours = [f"ours/{name}" for name in
            ("01_bpe", "02_prepare", "03_model", "measure", "04_train")]  # fmt: skip
    assert ran == [*ours, "yours/03_model", "yours/04_train"]
    page = (book / "run.html").read_text("utf-8")
    assert "cross_entropy" in page and "DATA*/null" not in page
    curves = [running.read_curve(book / "run" / who) for who in ("ours", "yours")]
    assert [row["tokens"] for row in curves[0]] == [row["tokens"] for row in curves[1]]
    last = [rows[-1]["valid_loss"] for rows in curves]
    assert math.isclose(*last, rel_tol=0.01)  # the same function, other rounding
    ran.clear()
    assert running.train_ours()[0] == book / "run" / "ours"  # it is there: nothing runs
    assert ran == []


def test_a_script_that_fails_is_reported_with_their_line_only(tmp_path):
    script = 'def merge(ids):\n    return ids[9]\n\nprint("hello")\nmerge([])\n'
    (tmp_path / "01_bpe.py").write_text(script)
    lines = running.run_script(tmp_path, "01_bpe.py")
    error = "  IndexError: list index out of range"
    assert lines == ["  in merge: return ids[9]", error]


def test_a_script_that_refuses_is_reported_in_its_own_three_lines(tmp_path):
    (tmp_path / "01_bpe.py").write_text('raise SystemExit("what\\nwhy\\nhow")\n')
    lines = running.run_script(tmp_path, "01_bpe.py")
    assert lines == ["  what", "  why", "  how"]


@pytest.mark.parametrize("loss, verdict", [
    (2.01, "the same as ours, up to noise"), (2.5, "higher than ours"), (0.1, "lower than"),
])  # fmt: skip
def test_the_end_of_both_curves_is_judged(loss, verdict, capsys, book):
    def curve(last):
        return [{"tokens": 100, "train_loss": 5.0, "valid_loss": None},
                {"tokens": 200, "train_loss": last, "valid_loss": last}]  # fmt: skip

    running.compare_curves(curve(2.0), curve(loss), "<b>", "a </script> sample")
    assert f"the loss is {verdict}" in capsys.readouterr().out
    assert "</script> sample" not in (book / "run.html").read_text("utf-8")


# ---- the command as learners run it: processes of their own


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    for script in running.EDITS:
        shutil.copy(ROOT / script, folder)
    (folder / "lessons").mkdir()
    for name in ("workbook.py", "workbook_data.py", "by_hand.py"):  # enough for check
        shutil.copy(ROOT / "lessons" / name, folder / "lessons")
    return folder


def run_check(course, body, monkeypatch, seconds="20"):
    """start merge, write the body, check; returns (exit code, stdout, stderr)."""
    monkeypatch.setattr(workbook, "BOOK", course / "workbook")
    exercise = EXERCISES["merge"]
    (course / "workbook").mkdir(exist_ok=True)
    (course / "workbook" / "01_bpe.py").write_text(workbook.blank(exercise), "utf-8")
    workbook.save({"started": "merge", "done": [], "hints": {}})
    write(exercise, body)
    words = [sys.executable, "lessons/workbook.py", "check", "merge"]
    environment = os.environ | {"WORKBOOK_SECONDS": seconds}
    done = subprocess.run(words, cwd=course, text=True, capture_output=True,
                          env=environment)  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr


def test_check_passes_ours_and_notes_it(course, monkeypatch):
    code, said, errors = run_check(course, workbook_body("merge"), monkeypatch)
    assert (code, errors) == (0, "") and "[check] right" in said
    progress = json.loads((course / "workbook" / "progress.json").read_text())
    assert progress["done"] == ["merge"]


def test_check_names_a_mistake_and_shows_what_they_print(course, monkeypatch):
    body = workbook_body("merge").replace("i += 2", "i += 1; print('hello', i)")
    code, said, _ = run_check(course, body, monkeypatch)
    assert code == 1 and "A common mistake: after a merge, i moves on by 1" in said
    assert "hello 1" in said


def test_an_endless_loop_is_stopped_and_its_line_is_said(course, monkeypatch):
    code, said, _ = run_check(course, "while True:\n    ids\n", monkeypatch, "0.5")
    assert code == 1 and "It was stopped after 0.5 seconds" in said
    lines = (course / "workbook" / "01_bpe.py").read_text("utf-8").splitlines()
    line = lines.index("        ids") + 1  # or the one above it, with `while True:`
    assert re.search(rf"It was in your line ({line - 1}|{line})\.", said)


def test_a_python_that_dies_is_survived(course, monkeypatch):
    code, said, _ = run_check(course, "import os\nos._exit(7)\n", monkeypatch)
    assert code == 1 and "Python ended with code 7" in said
