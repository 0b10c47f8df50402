"""Train the model for a minute with functions from the workbook inside the six scripts.

READS   workbook/, what the learner wrote (see workbook.py), and the six scripts
WRITES  workbook/run.html, the loss beside the loss of the scripts as they are;
        workbook/run/ours and workbook/run/yours, folders in which the scripts run
RUN     python lessons/workbook.py run
"""
# =========================================================================== 1. Imports
import ast
import csv
import hashlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys

import workbook
from workbook import EXERCISES, bpe, next_step, our_path, read_theirs, source_of

# ========================================================================= 2. Constants
RUN_SECONDS = 60  # of training in `run`; more: both curves get further down
MINUTES = 15  # a script that takes longer is stopped
EDITS = {  # what `run` sets at the top of each script
    "01_bpe.py": {"TEXT": "practice"}, "02_prepare.py": {"TEXT": None},
    "03_model.py": {"SIZE": "nano"}, "04_train.py": {"START_FROM": None},
    "05_eval.py": {"SAMPLES": 2, "TEMPERATURES": (0.8,)},
    "06_sample.py": {"SAMPLES": 1, "MAX_TOKENS": 200, "CHAT": False},
}  # fmt: skip
SHOW = {  # the part of a script's output that `run` prints
    "04_train.py": r"Sample:\n((?:  .*\n)+)", "05_eval.py": r"((?:  loss .*\n)+)",
    "06_sample.py": r"\[start\] A story.*\n\n((?:.*\n)*?  \(.*tokens; .*\n)",
}  # fmt: skip
ORDER = "01_bpe.py 02_prepare.py 03_model.py 04_train.py".split()  # for a loss

# ============================================== 3. Put their functions into the scripts
def taking_part(exercise, progress):  # -> exercises
    """The one that was named; or all that are done, and the one that is started."""
    named, chosen = [exercise], []
    if not exercise:
        names = {*progress["done"], progress["started"]}
        named = [e for e in EXERCISES.values() if e.name in names]
    for exercise in [e for e in named if e.run]:
        try:
            source = source_of(read_theirs(exercise), exercise)
            chosen += [exercise] * ("raise NotImplementedError" not in source)
        except SystemExit as problem:
            print(f"[note] {exercise.name} stays out: {str(problem).splitlines()[0]}")
    return chosen

def scripts_with(exercises, tokens):  # -> {script: text}
    """The six scripts, with EDITS and with the learner's functions in them."""
    texts = {script: our_path(script).read_text("utf-8") for script in EDITS}
    for exercise in exercises:
        text, script = read_theirs(exercise), exercise.script
        source = source_of(text, exercise)
        nodes = workbook.additions(text, importlib.import_module(script[:-3]))
        extra = "".join(ast.unparse(node) + "\n\n" for node in nodes)
        if script in texts:
            texts[script] = workbook.splice(texts[script], exercise, source, extra)
            extra = source = ""
        for script, patch in exercise.patch.items():
            end = '\nif __name__ == "__main__":'
            new = f"\n{extra}{source}\n{patch}{end}"
            texts[script] = texts[script].replace(end, new, 1)
    for script, constants in [*EDITS.items(), ("04_train.py", {"TOKENS": tokens})]:
        for name, value in constants.items():
            line = re.compile(rf"^{name} = .*", re.MULTILINE)
            texts[script] = line.sub(f"{name} = {value!r}", texts[script], count=1)
    return texts

# ================================================== 4. Run the scripts, theirs and ours
def run_script(folder, script):  # -> None, or lines about what went wrong
    """Run it to its end; what it prints goes to a log file."""
    log, environment = folder / f"{script[:-3]}.log", os.environ | {"PYTHONUTF8": "1"}
    print(f"[start] {script}", flush=True)
    with open(log, "wb") as file:
        process = subprocess.Popen([sys.executable, script], cwd=folder, stdout=file,
                                   stderr=file, stdin=subprocess.DEVNULL,
                                   env=environment)  # fmt: skip
    try:
        for _ in bpe.tqdm(range(60 * MINUTES), script, leave=False, delay=2,
                          bar_format="{desc}: {elapsed}"):  # fmt: skip
            try:
                if process.wait(1) == 0:
                    return None
                break
            except subprocess.TimeoutExpired:
                pass
        else:
            return [f"  It was stopped after {MINUTES} minutes: too slow, or endless."]
    finally:
        process.kill()
    text = log.read_text("utf-8", "replace").replace("\r", "\n")
    frames = re.findall(r'File ".*", line \d+, in (\w+)\n +(.*)\n', text)
    names = {re.split(r"[.:]", "." + e.function)[-1] for e in EXERCISES.values()}
    frames = [f"  in {name}: {line}" for name, line in frames if name in names]
    lines = [line for line in text.splitlines() if line.strip()]
    last = lines[-1:] if "Traceback" in text else lines[-3:]
    return frames[-1:] + [f"  {line}" for line in last]

MEASURE = """import importlib
stage = importlib.import_module("04_train")
model, _, (tokens, _), _ = stage.read_inputs()
plan = stage.make_plan(model.config, tokens)
print(stage.choose_device(model, tokens, plan)[1] / plan["tokens_per_step"])
"""

def train_ours():  # -> (folder, tokens that take RUN_SECONDS)
    """The reference: the scripts as they are. It is kept until one of them changes."""
    folder, texts = workbook.BOOK / "run" / "ours", scripts_with([], "auto")
    key = hashlib.sha256(f"{RUN_SECONDS} {texts}".encode()).hexdigest()
    note = folder / "reference.json"
    if note.exists() and (known := json.loads(note.read_text("utf-8")))["key"] == key:
        return folder, known["tokens"]
    print("[plan] the reference first: ours alone. It is kept for later runs")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(workbook.ROOT / "lessons", folder / "lessons",
                    ignore=shutil.ignore_patterns("*.md", "images", "__pycache__"))
    bpe.write_all({folder / name: text for name, text in texts.items()})
    bpe.write_all({folder / "measure.py": MEASURE})
    tokens = None
    for script in [*ORDER[:3], "measure.py", "04_train.py"]:
        if script == "04_train.py":
            seconds = float((folder / "measure.log").read_text("utf-8").split()[-1])
            tokens = max(10_000, round(RUN_SECONDS / seconds))
            bpe.write_all({folder / script: scripts_with([], tokens)[script]})
        if wrong := run_script(folder, script):
            what = "\n".join([f"Our own {script} does not run here:", *wrong])
            raise bpe.stop(what, "So there is no reference.", f"python {script}")
    bpe.write_all({note: json.dumps({"key": key, "tokens": tokens})})
    return folder, tokens

def run(exercise, progress):
    exercises = taking_part(exercise, progress)
    if not exercises:
        why = "Nothing is in workbook/, or it is still blank, or `run` cannot use it."
        raise bpe.stop("No function of yours to train with.", why, next_step(progress))
    names = ", ".join(exercise.name for exercise in exercises)
    print(f"[plan] yours: {names}; the rest of the six scripts is ours")
    for name in [e.name for e in exercises if e.name not in progress["done"]]:
        print(f"[note] {name} has not passed its check: let us see what it does")
    ours, tokens = train_ours()
    touched = {s for e in exercises for s in [e.script, *e.patch] if s in EDITS}
    stages = [s for s in EDITS if s in touched or min(touched) <= s in ORDER]
    yours, sample = workbook.BOOK / "run" / "yours", ""
    shutil.rmtree(yours, ignore_errors=True)
    shutil.copytree(ours, yours, ignore=shutil.ignore_patterns("*.log", "__pycache__"))
    for script in stages:
        shutil.rmtree(yours / "artifacts" / script[:-3], ignore_errors=True)
    texts = scripts_with(exercises, tokens)
    bpe.write_all({yours / script: text for script, text in texts.items()})
    if ORDER[3] in stages:
        print(f"[plan] {tokens:,} tokens of the practice stories, now with yours inside")
    for script in stages:
        if wrong := run_script(yours, script):
            print("\n".join([f"[check] {script} stopped:", *wrong]))
            break
        log = (yours / f"{script[:-3]}.log").read_text("utf-8", "replace")
        if found := re.findall(SHOW.get(script, "(?!)"), log):
            shown = "".join(found if script == "05_eval.py" else found[-1:])
            print(f"        at its end:\n{shown.rstrip()[:800]}")
            sample = shown if script == ORDER[3] else sample
    if ORDER[3] in stages:
        compare_curves(read_curve(ours), read_curve(yours), names, sample)
    print(f"Next: {next_step(progress)}")

# ============================================================ 5. Compare the two losses
def read_curve(folder):  # -> [{"tokens", "train_loss", "valid_loss" (or None)}]
    path, names = folder / "artifacts/04_train/log.csv", ("train_loss", "valid_loss")
    if not path.exists():
        return []
    rows = csv.DictReader(path.read_text("utf-8").splitlines())
    return [{"tokens": int(row["tokens"])}
            | {name: float(row[name]) if row[name] else None for name in names}
            for row in rows]  # fmt: skip

def compare_curves(ours, yours, names, sample):
    """Print the validation losses side by side; write run.html."""
    losses = {row["tokens"]: row["valid_loss"] for row in yours if row["valid_loss"]}
    both = [row for row in ours if row["tokens"] in losses]
    if not both:
        return
    print("\n       tokens     ours    yours  difference (validation loss)")
    for tokens, loss in [(row["tokens"], row["valid_loss"]) for row in both]:
        mine = losses[tokens]
        print(f"  {tokens:11,}{loss:9.3f}{mine:9.3f}{mine - loss:+12.3f}")
    verdict = "the same as ours, up to noise: your function trains the model"
    if mine - loss > 0.03:
        verdict = "higher than ours: something hinders learning"
    elif mine - loss < -0.03:
        verdict = "lower than ours: you improved it, or it sees what it should predict"
    print("[check] at the end the loss is " + verdict.replace(": ", ":\n        "))
    data = {"ours": ours, "yours": yours, "names": names, "sample": sample}
    if page := bpe.fill_page("workbook.html", data | {"verdict": verdict}):
        bpe.write_all({workbook.BOOK / "run.html": page})
        print(f"[wrote] {bpe.shown(workbook.BOOK / 'run.html')}: open it in a browser")
