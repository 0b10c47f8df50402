# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.13.0", "numpy", "regex", "tqdm"]
# ///
"""Side quest: let a large language model grade our model's stories, as a teacher would.

READS   artifacts/04_train/best.pt, artifacts/02_prepare/valid.bin, artifacts/01_bpe/,
        lessons/beginnings.txt
WRITES  artifacts/05_eval/judge.json         marks, intervals, every assessment
        artifacts/05_eval/judge-cache.jsonl  answers so far: a stopped run resumes there
RUN     python lessons/quests/judge.py   (nothing is sent while JUDGE_URL is None)
LESSON  lessons/quests/judge.md

The protocol is that of the TinyStories paper (Eldan & Li 2023, arXiv 2305.07759): 44
beginnings, cut in the middle of a sentence; the model continues from there; the judge
sees both parts with *** between them, writes an assessment and then gives marks.
"""
# =========================================================================== 1. Imports
import email.utils
import hashlib
import http.client
import importlib
import json
import os
import random
import re
import shlex
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))
# `import 01_bpe` is a syntax error (a name cannot start with a digit), hence:
bpe = importlib.import_module("01_bpe")
gpt = importlib.import_module("03_model")

import numpy as np  # noqa: E402  01 and 03 have said so if a package is missing
import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

# ============================================================= 2. Constants: edit these
# Who judges
JUDGE_URL = None  # "http://localhost:11434/v1" (Ollama), ":1234/v1" (LM Studio),
#                   ":8080/v1" (llama-server), "https://api.openai.com/v1" (OpenAI)
JUDGE_MODEL = "llama3.1"  # its name there
KEY_FROM = "OPENAI_API_KEY"  # environment variable with the key; None: no key is sent
DRY_RUN = False  # True: show the first request and send nothing
# What is judged
COMPLETIONS = 1  # endings per beginning; the paper has 10
CONTROLS = 12  # real stories, judged with their own ending and with a shuffled one
TEMPERATURE = 1.0  # of our model, as in the paper
SEED = 1  # of the random generators; another seed, other endings
# Patience
TIMEOUT = 180  # seconds for one answer
TRIES = 5  # per story, with longer and longer pauses between them

ME = "lessons/quests/judge.py"
BEGINNINGS = ROOT / "lessons" / "beginnings.txt"
MODEL = ROOT / "artifacts" / "04_train" / "best.pt"
DATA = ROOT / "artifacts" / "02_prepare"
OUT = ROOT / "artifacts" / "05_eval"
FORMAT = "judge/1"
MARKS = ("grammar", "creativity", "consistency", "plot")
AGES = ("A: 3 or under", "B: 4-5", "C: 6-7", "D: 8-9", "E: 10-12", "F: 13-16")
LONGEST_PAUSE = 60  # seconds

REQUEST = """A student was given the beginning of a story and had to complete it. The
sign *** stands between the given beginning and what the student wrote.

{beginning} *** {completion}

Judge only the part after ***. First write a short assessment, three or four sentences:
Is it grammatical? Does it continue the beginning well, and above all, does it
complete the sentence that *** interrupts? Is it creative? Does the plot make sense?
Then give grades from 0 to 10 and guess the student's age group (A: 3 or under, B: 4-5,
C: 6-7, D: 8-9, E: 10-12, F: 13-16), in one line of JSON, in exactly this form:
{{"grammar": 0, "creativity": 0, "consistency": 0, "plot": 0, "age": "A"}}"""

# ============================================================ 3. The idea: two controls
# A loss cannot tell whether a story is a good one. A large model can, roughly. How far
# to trust it shows in its grades for endings whose quality we know. So in every run it
# also reads real endings, the best there are, and the same with their words shuffled. A
# judge that cannot tell these apart has nothing to say about ours.


# =================================================================== 4. Read the answer
# Models answer with prose, code fences, thoughts, and marks like 4/5.


def number(value):
    """A mark as JSON or text may hold it -> 0 to 10, or None.

    >>> number(7), number("8/10"), number("4 / 5"), number("70/100"), number(11)
    (7.0, 8.0, 8.0, 7.0, None)
    """
    match = re.match(r"\s*(\d+(?:\.\d+)?)(?:\s*/\s*(\d+))?", str(value))
    if isinstance(value, bool) or not match:
        return None
    mark = float(match[1]) * 10 / (float(match[2] or 10) or 10)
    return mark if 0 <= mark <= 10 else None


def read_marks(answer):
    """The text of an answer -> {"grammar": ..., ..., "age": "A".."F" or None}, or None.

    Counts the last JSON object that has all four marks; failing that, the last number
    after each word.
    """
    text = re.sub(r"<think>.*?(</think>|$)", " ", answer, flags=re.DOTALL)
    text = text.split("</think>")[-1].replace("```json", " ").replace("```", " ")
    marks, age = None, None
    for start in (match.start() for match in re.finditer(r"\{", text)):
        try:
            content, _ = json.JSONDecoder().raw_decode(text[start:])
        except (ValueError, RecursionError):
            continue
        content = {str(name).lower(): value for name, value in content.items()}
        if all(name in content for name in MARKS):
            marks = [number(content[name]) for name in MARKS]
            age = next((content[name] for name in content if name[:3] == "age"), None)
    if marks is None:
        each = [
            re.findall(rf"(?i){name}\W{{0,12}}(\d+(?:\.\d+)?(?:\s*/\s*\d+)?)", text)
            for name in MARKS
        ]
        marks = [number(numbers[-1]) if numbers else None for numbers in each]
        ages = re.findall(r"(?i:age(?: group)?)\W{0,12}([A-F])\b", text)
        age = ages[-1] if ages else None
    if None in marks:
        return None
    letter = re.match(r"\W*([A-F])\b", str(age))
    return dict(zip(MARKS, marks)) | {"age": letter[1] if letter else None}


# ===================================================================== 5. Ask the judge
class Refused(Exception):
    """The judge will not answer for this story, however often we ask."""


class Judge:
    """An OpenAI-style address that answers; keeps what it has answered."""

    def __init__(self, url, model, cache_path):
        self.url = url.rstrip("/") + "/chat/completions"
        self.model, self.cache_path = model, cache_path
        self.options = {"temperature": 0, "max_tokens": 1500}
        self.headers = {"Content-Type": "application/json"}
        key = os.environ.get(KEY_FROM, "").strip() if KEY_FROM else ""
        if key:
            self.headers["Authorization"] = f"Bearer {key}"
        self.cache, self.answered = read_cache(cache_path), False

    def body(self, beginning, completion):
        """What is sent, as dict."""
        content = REQUEST.format(beginning=beginning, completion=completion)
        messages = [{"role": "user", "content": content}]
        return {"model": self.model, "messages": messages} | self.options

    def marks(self, beginning, completion):
        """-> marks, age and assessment of a story. Raises Refused if there are none."""
        question = json.dumps([REQUEST, beginning, completion, self.model])
        story = hashlib.sha256(question.encode()).hexdigest()
        if story in self.cache:
            return self.cache[story]
        for _ in range(2):  # one answer without marks may be an accident, two are not
            answer = self.ask(beginning, completion)
            marks = read_marks(answer)
            if marks:
                entry = {"story": story, "assessment": answer.strip()} | marks
                self.cache[story] = entry
                with open(self.cache_path, "a", encoding="utf-8") as file:
                    # On a new line, because a killed run may have left half a line.
                    file.write("\n" + json.dumps(entry))
                return entry
        raise Refused("no marks in its answer")

    def ask(self, beginning, completion):
        """One answer as text. Waits and asks again where that can help."""
        pause, tries = 1.0, 0
        while True:
            body = json.dumps(self.body(beginning, completion)).encode()
            wait = None
            try:
                request = urllib.request.Request(self.url, body, self.headers)
                with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:
                    answer = json.loads(reply.read())
                text = answer["choices"][0]["message"]["content"]
                if not isinstance(text, str):
                    raise TypeError("no text in the message")
                self.answered = True
                return text
            except urllib.error.HTTPError as error:
                said = error.read().decode("utf-8", "replace")
                trouble = f"{error.code}: {said[:200]}"
                # Some models refuse options that others need.
                bad = [name for name in self.options if name in said]
                if error.code == 400 and bad:
                    for name in bad:
                        del self.options[name]
                    continue
                if error.code in (401, 403, 404):
                    raise self.hopeless(error.code, said) from None
                if error.code not in (408, 409, 429) and error.code < 500:
                    raise Refused(trouble) from None
                wait = retry_after(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException) as error:  # time-outs too
                trouble = str(error)
                wrong_url = urllib.error.URLError, http.client.InvalidURL
                if isinstance(error, wrong_url) and not self.answered:
                    raise self.hopeless(None, trouble) from None
            except (ValueError, KeyError, IndexError, TypeError) as error:
                trouble = f"not in the form of OpenAI's answers ({error!r})"
            tries += 1
            if tries == TRIES:
                raise Refused(trouble)
            time.sleep(min(LONGEST_PAUSE, pause if wait is None else wait))
            pause *= 2

    def hopeless(self, code, said):
        """The three lines for an error that waiting cannot cure."""
        why = {
            401: f"It wants another key than the one in the variable {KEY_FROM}.",
            403: f"It does not allow this with the key in the variable {KEY_FROM}.",
            404: f"There is no such address, or no model {self.model!r}.",
        }.get(code, "Is it running, and is JUDGE_URL its address?")
        said = " ".join(said.split())[:150]
        what = f"The judge at {self.url} does not answer ({code or ''} {said})."
        return bpe.stop(what, why, f"Then: python {ME}   (earlier answers are kept)")


def read_cache(path):  # -> {hash of a story: its entry}
    """Earlier answers. Damaged lines are left out, and so their stories asked again."""
    cache = {}
    text = path.read_text("utf-8", errors="replace") if path.exists() else ""
    for line in text.splitlines():
        try:
            entry = json.loads(line)
            marks = {name: number(entry[name]) for name in MARKS}
            if None not in marks.values():
                cache[entry["story"]] = {"age": None, "assessment": ""} | entry | marks
        except (ValueError, KeyError, TypeError, RecursionError):
            pass  # for example a line that a killed run did not finish
    return cache


def retry_after(value):
    """The header Retry-After, seconds or a date -> seconds to wait, or None.

    >>> retry_after("7"), retry_after(None), retry_after("soon")
    (7.0, None, None)
    """
    try:
        return max(0.0, float(value))
    except (TypeError, ValueError):
        pass
    try:
        date = email.utils.parsedate_to_datetime(value)
        return max(0.0, date.timestamp() - time.time())
    except (TypeError, ValueError):
        return None


# ============================================================= 6. Choose what is judged
def read_beginnings(path):
    """The beginnings in lessons/beginnings.txt, as a list of strings."""
    if not path.exists():
        what, why = f"{bpe.shown(path)} is missing.", "It is part of the course."
        how = f"git checkout {shlex.quote(bpe.shown(path))} && python {ME}"
        raise bpe.stop(what, why, how)
    lines = path.read_text("utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    return [" ".join(part.split()) for part in ("\n" + text).split("\n- ")[1:]]


def complete(model, tokenizer, beginning, count, seed):  # -> count strings
    """Sample `count` endings for one beginning, side by side."""
    ids, T = [bpe.BOS, *tokenizer.encode(beginning)], model.config.block_size
    if len(ids) >= T:
        why = f"One has {len(ids)} tokens, and the model reads only {T}."
        how = f"Shorten it in {shlex.quote(bpe.shown(BEGINNINGS))}, then: python {ME}"
        raise bpe.stop("A beginning leaves no space for an ending.", why, how)
    rng, idx = torch.Generator().manual_seed(seed), torch.tensor([ids] * count)
    idx = model.generate(idx, T - len(ids), TEMPERATURE, stop_id=bpe.EOS, rng=rng)
    new = [row[len(ids) :] for row in idx.tolist()]  # (count, T') -> count lists
    ends = [row.index(bpe.EOS) if bpe.EOS in row else None for row in new]
    return [tokenizer.decode(row[:end]).strip() for row, end in zip(new, ends)]


def real_endings(tokenizer, ids, count, longest):
    """Validation stories, cut in the middle of a sentence: [(beginning, ending)].

    Of a long document only the first tokens, as many as the model can generate.
    """
    starts, pairs = np.flatnonzero(ids == bpe.BOS), []
    for start in starts[:: max(1, len(starts) // count)][:count]:
        story = ids[start : start + longest].tolist()
        story = story[: story.index(bpe.EOS) if bpe.EOS in story else None]
        words = tokenizer.decode(story).split(" ")
        cut = max(1, len(words) // 3)
        while cut > 1 and words[cut - 1].endswith((".", "!", "?", '"')):
            cut -= 1
        pairs.append((" ".join(words[:cut]), " ".join(words[cut:])))
    return pairs


def shuffled(text, seed):
    """The same words in another order."""
    words = text.split()
    random.Random(seed).shuffle(words)
    return " ".join(words)


def interval(groups, resamples=2000):
    """Marks by beginning, [[...], ...] -> mean and its 95% interval (bootstrap).

    Whole beginnings are resampled, because the endings of one are not independent
    (Efron 1979). The same marks give the same interval.
    """
    sums = np.array([sum(group) for group in groups], dtype=float)
    sizes = np.array([len(group) for group in groups], dtype=float)
    shape = resamples, len(groups)
    draws = np.random.default_rng(SEED).integers(len(groups), size=shape)
    means = sums[draws].sum(1) / sizes[draws].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean": sums.sum() / sizes.sum(), "low": float(low), "high": float(high)}


# ============================================================================ 7. Checks
def check_inputs():
    """-> (model, tokenizer, validation ids, sha256 of best.pt), or SystemExit."""
    for name, value, kind, low, high in [
        ("COMPLETIONS", COMPLETIONS, int, 1, 1000),
        ("CONTROLS", CONTROLS, int, 1, 1000),
        ("TRIES", TRIES, int, 1, 100),
        ("TIMEOUT", TIMEOUT, float, 0.1, 3600),
        ("TEMPERATURE", TEMPERATURE, float, 0.01, 10),
        ("SEED", SEED, int, 0, 2**31),
    ]:
        bpe.in_range(ME, name, value, kind, low, high)
    if JUDGE_URL is None and not DRY_RUN:
        why = "So nothing is sent anywhere. DRY_RUN = True shows what would be."
        how = f"Set JUDGE_URL and JUDGE_MODEL at the top of {ME}, then: python {ME}"
        raise bpe.stop("There is no judge: JUDGE_URL is None.", why, how)
    if JUDGE_URL is not None and not str(JUDGE_URL).startswith(("http://", "https://")):
        why = "It must begin with http:// or https:// and usually ends with /v1."
        how = f"Edit JUDGE_URL at the top of {ME}, then: python {ME}"
        raise bpe.stop(f"JUDGE_URL = {JUDGE_URL!r} is not an address.", why, how)
    tokenizer = bpe.Tokenizer.load(bpe.OUT / "tokenizer.json")
    model, content = gpt.GPT.load(MODEL, "04_train.py")
    bpe.check_tokenizer(content.get("tokenizer"), "best.pt", "python 04_train.py")
    meta = bpe.read_json(DATA / "meta.json", "02_prepare.py", "02_prepare/2")
    bpe.check_tokenizer(meta["tokenizer"], "valid.bin", "python 02_prepare.py")
    bpe.need(DATA / "valid.bin", "02_prepare.py")
    ids = np.fromfile(DATA / "valid.bin", dtype="<u2")
    return model.eval(), tokenizer, ids, bpe.sha256_of(MODEL)


# ============================================================================== 8. Main
def stories_to_judge(model, tokenizer, ids):
    """-> [(group, beginning, completion)]"""
    stories, beginnings = [], read_beginnings(BEGINNINGS)
    for i, beginning in enumerate(tqdm(beginnings, desc="generating", leave=False)):
        seed = SEED * 1000 + i
        for ending in complete(model, tokenizer, beginning, COMPLETIONS, seed):
            stories.append(("this model", beginning, ending))
    controls = real_endings(tokenizer, ids, CONTROLS, model.config.block_size)
    stories += [("real endings", beginning, ending) for beginning, ending in controls]
    return stories + [
        ("shuffled words", beginning, shuffled(ending, SEED + i))
        for i, (beginning, ending) in enumerate(controls)
    ]


def main():
    model, tokenizer, ids, fingerprint = check_inputs()
    stories = stories_to_judge(model, tokenizer, ids)
    OUT.mkdir(parents=True, exist_ok=True)
    judge = Judge(JUDGE_URL or "(JUDGE_URL)", JUDGE_MODEL, OUT / "judge-cache.jsonl")
    key = f"the key in {KEY_FROM}" if "Authorization" in judge.headers else "no key"
    print(f"[plan] {len(stories)} stories for {JUDGE_MODEL} at {judge.url}, with {key}")
    if DRY_RUN:
        print(json.dumps(judge.body(*stories[0][1:]), indent=1, ensure_ascii=False))
        print("[note] DRY_RUN: this is the first request; nothing was sent.")
        return
    graded, failures = [], []
    for group, beginning, completion in tqdm(stories, desc="judging", unit="story"):
        story = {"group": group, "beginning": beginning, "completion": completion}
        try:
            marks = judge.marks(beginning, completion)
            graded.append(story | {k: v for k, v in marks.items() if k != "story"})
        except Refused as error:  # counted, but not as a 0: we do not know its quality
            failures.append(story | {"trouble": str(error)})
    result = {"format": FORMAT, "model": fingerprint, "judge": JUDGE_MODEL}
    result |= {"asked": len(stories), "failed": len(failures), "ages": AGES}
    result |= {"groups": summary(graded), "stories": graded, "failures": failures}
    bpe.write_all({OUT / "judge.json": json.dumps(result, indent=1)})
    report(result)


def summary(graded):
    """-> {group: {stories, grammar: {mean, low, high}, ..., ages: {letter: count}}}"""
    groups = {}
    for group in ("this model", "real endings", "shuffled words"):
        own = [story for story in graded if story["group"] == group]
        letters = [story["age"] for story in own]
        ages = {age: letters.count(age[0]) for age in AGES if age[0] in letters}
        entry = {"stories": len(own), "ages": ages}
        by_beginning = {}
        for story in own:
            by_beginning.setdefault(story["beginning"], []).append(story)
        for name in MARKS:
            marks = [[s[name] for s in same] for same in by_beginning.values()]
            entry[name] = interval(marks) if marks else None
        groups[group] = entry
    return groups


def report(result):
    """Print the marks."""
    print(f"\n  {'':16}{'stories':>8}" + "".join(f"{name:>22}" for name in MARKS))
    for name, group in result["groups"].items():
        print(f"  {name:16}{group['stories']:8}", end="")
        for mark in MARKS:
            m = group[mark]
            text = f"{m['mean']:.2f} ({m['low']:.2f}-{m['high']:.2f})" if m else "none"
            print(f"{text:>22}", end="")
        print()
    print(f"[check] {result['failed']} of {result['asked']} answers could not be used;")
    print("        they are not counted, and the next run asks for them again")
    real, floor = (result["groups"][n] for n in ("real endings", "shuffled words"))
    both = [mark for mark in MARKS if real[mark] and floor[mark]]
    blind = [mark for mark in both if real[mark]["low"] <= floor[mark]["high"]]
    if blind:
        print(f"[note] in {', '.join(blind)}, real and shuffled endings get", end=" ")
        print("grades too much alike: this judge is too weak, use a larger one")
    print(f"[wrote] {bpe.shown(OUT / 'judge.json')}")
    print("Next: python 05_eval.py   (puts the grades into report.html)")


if __name__ == "__main__":
    bpe.run_stage(main, ME)
