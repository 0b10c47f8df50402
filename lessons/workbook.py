"""The workbook: you write a function of the course, and it trains the model.

READS   the six scripts, lessons/by_hand.py, and the exercises in workbook_data.py
WRITES  workbook/: copies of the scripts, in which you write; progress.json; run.html
RUN     python lessons/workbook.py                the list of exercises
        python lessons/workbook.py start merge    blank a function; you write it
        python lessons/workbook.py check          compare yours with ours
        python lessons/workbook.py hint           up to three hints
        python lessons/workbook.py solution       ours
        python lessons/workbook.py run            train for a minute with yours inside
TAKES   a check: 1 to 4 seconds; a run: about 2 minutes, the first one 4 (2 cores of an
        Intel Xeon, torch 2.13.0, 2026-11-26)
"""
# =========================================================================== 1. Imports
import ast
import copy
import difflib
import faulthandler
import functools
import importlib
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import textwrap
import traceback
from numbers import Integral, Real
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "lessons")]
# `import 01_bpe` is a syntax error (a name cannot start with a digit), hence:
bpe = importlib.import_module("01_bpe")
EXERCISES = importlib.import_module("workbook_data").EXERCISES

# ========================================================================= 2. Constants
CHECK_SECONDS = float(os.environ.get("WORKBOOK_SECONDS", 20))  # longer: it is endless
BOOK, ME = ROOT / "workbook", "python lessons/workbook.py"
SCRIPTS = dict.fromkeys(exercise.script for exercise in EXERCISES.values())

# ============================================ 3. Functions as text: find, blank, splice
# exercise  an entry of workbook_data.py      ours, theirs  the function in the script,
# variant   ours with a common mistake in it                and the learner's

def our_path(script):
    return ROOT / ("lessons" if script == "by_hand.py" else "") / script

def our_text(exercise):
    return our_path(exercise.script).read_text("utf-8")

parse = functools.lru_cache(20)(ast.parse)

def find(text, exercise):  # -> the node of the function
    node = parse(text)
    for name in exercise.function.partition(":")[0].split("."):
        node = next(n for n in node.body if getattr(n, "name", "") == name)
    return node

def lines_of(node):  # -> slice of the lines, with decorators
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    return slice(first - 1, node.end_lineno)

def source_of(text, exercise):  # -> the function as it is written in `text`
    return "".join(list(io.StringIO(text))[lines_of(find(text, exercise))])

def splice(text, exercise, source, extra=""):
    """Replace the function in `text` by `source`; put `extra` before it."""
    lines, node = list(io.StringIO(text)), find(text, exercise)
    lines[lines_of(node)] = [source]
    outer = [n for n in parse(text).body if n.lineno <= node.lineno][-1]
    lines.insert(lines_of(outer).start if extra else 0, extra)
    return "".join(lines)

def body_of(node):  # -> (statements without the docstring, the docstring's last line)
    has = ast.get_docstring(node) is not None
    return node.body[has:], node.body[0].end_lineno if has else None

def blank(exercise):  # -> text of our script
    """Keep the signature, the docstring and the shapes; the rest is for the learner."""
    text, variable = our_text(exercise), exercise.function.partition(": ")[2]
    body, end = body_of(find(text, exercise))
    if variable:  # just the statement that assigns it
        body = [n for n in body if isinstance(n, ast.Assign)
                and ast.unparse(n.targets[0]).strip("()") == variable]  # fmt: skip
    first = body[0].lineno if variable or not end else end + 1
    indent = " " * body[0].col_offset
    hole = f"{indent}# Your code here{f': {variable} = ...' * bool(variable)}\n"
    hole += f'{indent}raise NotImplementedError("{exercise.name}")\n'
    lines = list(io.StringIO(text))  # splitlines() would split at more than Python does
    lines[first - 1 : body[-1].end_lineno] = [hole]
    return "".join(lines)

def additions(text, module):  # -> nodes: what a learner's file imports or defines anew
    def names(node):
        targets = [t.id for t in getattr(node, "targets", []) if hasattr(t, "id")]
        imported = [a.asname or a.name for a in getattr(node, "names", [])]
        return [node.name] if hasattr(node, "name") else targets or imported

    return [node for node in parse(text).body
            if names(node) and not any(hasattr(module, n) for n in names(node))]

def build(node, module, filename, extras=()):
    """Node of a function -> the function, in a copy of the module's names. So whatever
    else is wrong or blank in the learner's file does not matter here.
    """
    names = dict(vars(module))
    exec(compile(ast.Module([*extras, node], []), filename, "exec"), names)
    function = names[node.name]
    return function.fget if isinstance(function, property) else function

def variants(exercise, module):  # yields (why, function)
    """Our function with each of the common mistakes in it."""
    for old, new, why in exercise.mistakes:
        node = copy.copy(find(our_text(exercise), exercise))
        node.body = body_of(node)[0] if old else ast.parse(new).body
        text = ast.unparse(node)
        if old not in text:
            what = f"{exercise.name}: {old!r} does not occur in our function any more:"
            raise bpe.stop(what, text, "Edit its mistakes in lessons/workbook_data.py")
        text = text.replace(old, new) if old else text
        yield why, build(ast.parse(text).body[0], module, "<mistake>")

# =================================================== 4. Compare their answers with ours
def settle(value):  # -> a copy that later calls cannot change
    if hasattr(value, "detach"):
        return value.detach().clone()
    if isinstance(value, (list, tuple)) or hasattr(value, "__next__"):
        return (list if isinstance(value, list) else tuple)(map(settle, value))
    return copy.deepcopy(value)

def ask(exercise, function, module):  # -> ([(what was asked, answer)], error or None)
    answers = []
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    try:
        for asked, answer in exercise.ask(function, module):
            answers.append((asked, settle(answer)))
    except (Exception, SystemExit) as error:
        return answers, error
    return answers, None

def differ(yours, ours, at=""):  # -> str about the first difference, or None
    """Floats may differ by rounding; types and shapes must be equal."""
    kind, right = type(yours).__name__, type(ours).__name__
    place = f"at {at}: " * bool(at)
    if isinstance(ours, Real) and isinstance(yours, Real):
        if isinstance(ours, Integral) and not isinstance(yours, Integral):
            return f"{place}yours is a {kind}, {yours:g}; ours is {ours}"
        exact = isinstance(ours, Integral) or math.isinf(ours)
        near = not exact and abs(yours - ours) < 1e-5 + 1e-4 * abs(ours)
        close = yours == ours or near
        same = close or (yours != yours and ours != ours)  # nan
        form = "" if isinstance(ours, bool) else ".6g"  # True, not 1
        return None if same else f"{place}yours {yours:{form}}, ours {ours:{form}}"
    if kind != right:
        none = ". Is a `return` missing?" if yours is None else ""
        return f"{place}yours is a {kind}, ours a {right}{none}"
    if hasattr(ours, "shape"):
        shapes = tuple(yours.shape), tuple(ours.shape)
        for what, *pair in [("shape", *shapes), ("dtype", yours.dtype, ours.dtype)]:
            if pair[0] != pair[1]:
                return f"{place}yours has {what} {pair[0]}, ours {pair[1]}"
        flat = zip(yours.flatten().tolist(), ours.flatten().tolist())
        for i, pair in enumerate(flat):
            if found := differ(*pair):
                index, shape = [], f"the shape {shapes[1]} is right"
                for size in reversed(shapes[1]):
                    index, i = [i % size, *index], i // size
                return f"at {at}{index}: {found}; {shape}" if index else found
        return None
    if isinstance(ours, dict):
        pairs = [(f"{at}[{k!r}]", yours.get(k), ours.get(k)) for k in {**ours, **yours}]
    elif isinstance(ours, (list, tuple)):
        pairs = [(f"{at}[{i}]", *pair) for i, pair in enumerate(zip(yours, ours))]
    else:
        return None if yours == ours else f"{place}yours {yours!r}, ours {ours!r}"
    for where, *pair in pairs:
        if found := differ(*pair, where):
            return found
    if len(yours) != len(ours):
        return f"{place}yours has {len(yours)} item(s), ours {len(ours)}"
    return None

def equal(one, other):  # two results of ask()
    (answers, error), (others, its_error) = one, other
    pairs = zip(answers, others)
    return (len(answers) == len(others) and repr(error) == repr(its_error)
            and not any(differ(a, b) for (_, a), (_, b) in pairs))

def explain(exercise, theirs, module, path):  # -> lines; none if all is right
    """As a teacher would: what was asked, the first difference, the common mistake."""
    node, lines = find(our_text(exercise), exercise), []
    ours = ask(exercise, build(node, module, "<ours>"), module)
    if equal(theirs, ours):
        return []
    for (asked, yours), (_, right) in zip(theirs[0], ours[0]):
        if found := differ(yours, right):
            colon = ":" * found.startswith("yours")
            lines = [f"  asked: {asked}", f"  first difference{colon} {found}"]
            if not found.startswith("yours") and len(repr((yours, right))) < 150:
                lines += [f"  yours  {yours!r}", f"  ours   {right!r}"]
            lines = [line for line in lines if "tensor(" not in line]
            break
    else:
        asked = ours[0][min(len(theirs[0]), len(ours[0]) - 1)][0]
        lines = [f"  asked: {asked}", *say_error(theirs[1], path)]
    for why, variant in variants(exercise, module):
        if equal(theirs, ask(exercise, variant, module)):
            return [*lines, f"  A common mistake: {why}."]
    return lines

def say_error(error, path):  # -> lines: their line and the error, none of our frames
    if error is None:
        return ["  It returned too little."]
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f.lineno for f in frames if f.filename == str(path)]
    what = f"  {type(error).__name__}: {str(error)[:400]}"
    if not theirs:
        return ["  Python cannot use what it returned. Is a `return` missing?", what]
    line = path.read_text("utf-8-sig").splitlines()[theirs[-1] - 1].strip()
    if "raise NotImplementedError" in line:
        return [f"  Line {theirs[-1]} is still blank: {line}"]
    return [f"  in your line {theirs[-1]}: {line}", what]

# =========================================== 5. Check, in a process that can be stopped
def read_theirs(exercise):  # -> text of their file; SystemExit if it cannot be used
    path, again = BOOK / exercise.script, f"{ME} start {exercise.name}"
    name, fix = exercise.function.partition(":")[0], f"Then: {ME} check {exercise.name}"
    shown = bpe.shown(path)
    try:
        text = path.read_text("utf-8-sig")
        node = find(text, exercise)
    except FileNotFoundError:
        raise bpe.stop(f"{shown} is missing.", "You write in it.", again) from None
    except SyntaxError as error:
        line, offset = (error.text or "").rstrip().expandtabs(1), error.offset or 1
        caret = " " * (offset - 1) + "^"
        what = f"{shown}, line {error.lineno}: {error.msg}\n\n{line}\n{caret}\n"
        raise bpe.stop(what, "Python cannot read this line. Fix it.", fix) from None
    except ValueError as error:  # another encoding, or null bytes
        what = f"{shown} is not UTF-8 text ({error})."
        raise bpe.stop(what, "Save it as UTF-8 in your editor.", fix) from None
    except StopIteration:
        what = f"{shown} has no function {name} any more."
        raise bpe.stop(what, "It must keep its name and its place.", again) from None
    args, ours = node.args, find(our_text(exercise), exercise).args
    if [a.arg for a in args.args] != [a.arg for a in ours.args]:
        what = f"{name}({ast.unparse(args)}) has other parameters than ours."
        raise bpe.stop(what, f"It is called as {name}({ast.unparse(ours)}).", fix)
    return text

def judge(exercise):
    """In a process of its own: print what is wrong; exit code 0 if nothing, else 3."""
    text, path = read_theirs(exercise), BOOK / exercise.script
    os.environ["OMP_NUM_THREADS"] = "1"  # the tensors are small
    module = importlib.import_module(exercise.script[:-3])
    faulthandler.dump_traceback_later(CHECK_SECONDS, exit=True)
    try:
        parts = find(text, exercise), module, str(path), additions(text, module)
        theirs = ask(exercise, build(*parts), module)
    except Exception as error:  # in statements that they have added
        lines = say_error(error, path)
    else:
        faulthandler.cancel_dump_traceback_later()
        lines = explain(exercise, theirs, module, path)
    if lines and len(lines[-1]) > 88:
        lines[-1] = textwrap.fill(lines[-1], 88, subsequent_indent="    ")
    print("".join(line + "\n" for line in lines), end="", flush=True)
    os._exit(3 if lines else 0)  # at once: to take torch apart takes a while

def check(exercise, progress):
    path, name = bpe.shown(BOOK / exercise.script), exercise.name
    theirs, ours = source_of(read_theirs(exercise), exercise), our_text(exercise)
    if theirs == source_of(ours, exercise) and name != progress["started"]:
        what = f"{name} in {path} is still ours: it was not started."
        raise bpe.stop(what, "`start` blanks it, so that you can write it.",
                       f"{ME} start {name}")  # fmt: skip
    print(f"[check] {name}: yours in {path} against ours", flush=True)
    command = [sys.executable, __file__, "judge", name]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = done.stderr.decode("utf-8", "replace")
    if done.returncode == 0:
        progress["done"] = sorted({*progress["done"], name})
        save(progress)
        print(f"[check] right: it answers as ours does. {count(progress)}")
        print(f"        Compare with ours: {ME} solution {name}")
        if exercise.run:
            print(f"        Run the scripts with it: {ME} run {name}")
        print(f"Next: {next_step(progress, name)}")
        return 0
    if done.returncode != 3 and "Timeout (" in errors:
        script = re.escape(exercise.script)
        line = re.search(rf'File ".*{BOOK.name}.{script}", line (\d+)', errors)
        print(f"  It was stopped after {CHECK_SECONDS:g} seconds: is the loop endless?")
        if line:
            print(f"  It was in your line {line[1]}.")
    elif done.returncode != 3:
        print(f"  Python ended with code {done.returncode}. " + errors[-300:])
    print(f"Next: edit {path}, then: {type_in('check', exercise, progress)}")
    print(f"      Stuck? {type_in('hint', exercise, progress)}")
    return 1

# ======================================================= 6. List, start, hint, solution
def save(progress):
    bpe.write_all({BOOK / "progress.json": json.dumps(progress, indent=1)})

def load_progress():  # -> {"started": name, "done": [names], "hints": {name: how many}}
    path = BOOK / "progress.json"
    try:
        known = json.loads(path.read_text("utf-8"))
        done = [name for name in EXERCISES if name in known["done"]]
        return {"started": known["started"], "done": done, "hints": {**known["hints"]}}
    except FileNotFoundError:
        pass
    except (ValueError, TypeError, LookupError):
        print(f"[note] {bpe.shown(path)} cannot be read; kept as {keep(path)}")
    return {"started": None, "done": [], "hints": {}}

def keep(path):  # -> a free numbered name, under which the file now is
    n = 1
    while (kept := path.with_name(f"{path.stem}.{n}{path.suffix}")).exists():
        n += 1
    os.replace(path, kept)
    return bpe.shown(kept)

def count(progress):
    return f"{len(progress['done'])} of {len(EXERCISES)} done."

def next_step(progress, last=None):  # the first that is not done after `last`
    names, last = list(EXERCISES), last or progress["started"]
    after = names.index(last) + 1 if last in names else 0
    left = [n for n in names[after:] + names[:after] if n not in progress["done"]]
    return f"{ME} start {left[0]}" if left else f"all are done. {ME} run"

def type_in(command, exercise, progress):  # named unless it was started last
    named = f" {exercise.name}" * (exercise.name != progress["started"])
    return f"{ME} {command}{named}"

def lesson_of(exercise):  # -> path
    found = (ROOT / "lessons").glob(f"{exercise.lesson:02}_*.md")
    return next(found, ROOT / "lessons" / f"lesson {exercise.lesson}")

def show_list(progress):
    print("Write the functions of the course yourself: `start` blanks one,")
    print("`check` compares yours with ours, `run` trains the model with it.")
    lesson, started = None, progress["started"]
    for name, exercise in EXERCISES.items():
        if exercise.lesson != lesson:
            lesson = exercise.lesson
            print(f"\n  Lesson {lesson_of(exercise).stem.replace('_', ' ')}")
        mark = "x" if name in progress["done"] else ">" if name == started else " "
        print(f"  [{mark}] {name:20} {exercise.goal}{'' if exercise.run else ' *'}")
    print("\n  [x] done  [>] started  * `run` cannot use it")
    print(f"\n{count(progress)}")
    going = started in EXERCISES and started not in progress["done"]
    print(f"Next: {f'{ME} check {started}' if going else next_step(progress)}")

def start(exercise, progress):
    BOOK.mkdir(exist_ok=True)
    for script in SCRIPTS:
        if not (BOOK / script).exists():
            shutil.copyfile(our_path(script), BOOK / script)
    path, blanked, name = BOOK / exercise.script, blank(exercise), exercise.name
    hole = source_of(blanked, exercise)
    try:
        text = path.read_text("utf-8-sig")
        new, theirs = splice(text, exercise, hole), source_of(text, exercise)
        is_work = theirs not in (hole, source_of(our_text(exercise), exercise))
    except (SyntaxError, ValueError, StopIteration):  # unreadable, or it is not there
        new, is_work = blanked, True
    if is_work:
        print(f"[note] {bpe.shown(path)} held your work; it is kept as {keep(path)}")
    bpe.write_all({path: new})
    save(progress | {"started": name})
    lines = enumerate(new.splitlines(), start=1)
    line = next(n for n, text in lines if f'NotImplementedError("{name}")' in text)
    print(f"[wrote] {bpe.shown(path)}; line {line} is for you:\n")
    print(textwrap.indent(textwrap.dedent(hole), "    "))
    print(f"[plan] {exercise.goal} (see {bpe.shown(lesson_of(exercise))})")
    print(f"Next: write it, then: {ME} check")
    print(f"      Stuck? {ME} hint")

def hint(exercise, progress):
    hints, name = exercise.hints, exercise.name
    progress["hints"][name] = n = min(progress["hints"].get(name, 0) + 1, len(hints))
    save(progress)
    wrap = textwrap.TextWrapper(84, subsequent_indent=" " * 9, break_on_hyphens=False)
    for number, text in enumerate(hints[:n], start=1):
        print(wrap.fill(f"[hint {number}] {text}"))
    command = "hint" if n < len(hints) else "solution"
    more = f"{len(hints) - n} more: " * (n < len(hints))
    print(f"Next: {type_in('check', exercise, progress)}")
    print(f"      Stuck? {more}{type_in(command, exercise, progress)}")

def solution(exercise, progress):
    unread = len(exercise.hints) - progress["hints"].get(exercise.name, 0)
    if exercise.name not in progress["done"] and unread:
        print(f"[note] {exercise.name} is not done yet, and has {unread} more hint(s)")
    text, path = our_text(exercise), bpe.shown(our_path(exercise.script))
    print(f"[read] {path}, from line {find(text, exercise).lineno} on:\n")
    print(textwrap.indent(textwrap.dedent(source_of(text, exercise)), "    "))
    done = exercise.name in progress["done"]
    again = type_in("check", exercise, progress)
    print(f"Next: {next_step(progress, exercise.name) if done else again}")

# ============================================================================== 7. Main
def run(exercise, progress):
    importlib.import_module("workbook_run").run(exercise, progress)

COMMANDS = {"start": start, "check": check, "hint": hint, "solution": solution,
            "run": run}  # fmt: skip

def nearest(word, words, what, before=""):  # SystemExit
    near = difflib.get_close_matches(word, words, 1, 0.4)
    why = f"The nearest is {near[0]}." if near else f"There are {', '.join(words)}."
    how = " ".join([ME + before * bool(near), *near])
    return bpe.stop(f"No {what} is called {word!r}.", why, how)

def main():
    command, *words = sys.argv[1:] or ["list"]
    if command == "judge":
        judge(EXERCISES[words[0]])
    progress = load_progress()
    if command == "list":
        return show_list(progress)
    if command not in COMMANDS:
        raise nearest(command, ["list", *COMMANDS], "command")
    name = words[0] if words else progress["started"]
    if command == "start" and not words:
        name = next((n for n in EXERCISES if n not in progress["done"]), "merge")
    if name is None and command != "run":
        raise bpe.stop("No exercise is started yet.", "Begin with one.", f"{ME} start")
    if name is not None and name not in EXERCISES:
        raise nearest(name, list(EXERCISES), "exercise", " " + command)
    exercise = EXERCISES[name] if words or command != "run" else None
    raise SystemExit(COMMANDS[command](exercise, progress))

if __name__ == "__main__":
    bpe.run_stage(main, "lessons/workbook.py", lock=False)
