# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.13.0", "numpy", "regex", "tqdm"]
# ///
"""Side quest: let a large language model grade the stories of ours, as a teacher would.

READS   artifacts/04_train/best.pt, artifacts/02_prepare/valid.bin, artifacts/01_bpe/,
        lessons/beginnings.txt
WRITES  artifacts/05_eval/judge.json         marks, intervals, every assessment
        artifacts/05_eval/judge-cache.jsonl  answers so far: a stopped run goes on there
RUN     python lessons/quests/judge.py   (nothing is sent while JUDGE_URL is None)
LESSON  lessons/quests/judge.md

The protocol is that of the TinyStories paper (Eldan & Li 2023, arXiv 2305.07759): 44
beginnings, cut in the middle of a sentence; the model goes on from there; the judge
sees both parts with *** between them, writes an assessment and then gives marks.
"""

# ======================================================================= 2. IMPORTS
import email.utils
import hashlib
import http.client
import importlib
import json
import os
import random
import re
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path += [str(ROOT), str(ROOT / "lessons")]
import plumbing  # noqa: E402  lessons/plumbing.py: messages, safe writing
from plumbing import shown, stop  # noqa: E402

bpe = importlib.import_module("01_bpe")  # as in 04_train.py: see the comment there
gpt = importlib.import_module("03_model")

# ===================================================================== 3. CONSTANTS
# -- who judges
JUDGE_URL = None  # "http://localhost:11434/v1" (Ollama), ":1234/v1" (LM Studio),
#                   ":8080/v1" (llama-server), "https://api.openai.com/v1" (OpenAI)
JUDGE_MODEL = "llama3.1"  # its name there
KEY_FROM = "OPENAI_API_KEY"  # environment variable with the key; None: no key is sent
DRY_RUN = False  # True: show the first request and send nothing
# -- what is judged
COMPLETIONS = 1  # endings per beginning; the paper has 10
CONTROLS = 12  # real stories, judged with their own ending and with a shuffled one
TEMPERATURE = 1.0  # of our model, as in the paper
SEED = 1  # of the dice
# -- patience
TIMEOUT = 180  # seconds for one answer
TRIES = 5  # per story, with longer and longer pauses between them

ME = "lessons/quests/judge.py"
BEGINNINGS = ROOT / "lessons" / "beginnings.txt"
OUT = ROOT / "artifacts" / "05_eval"
FORMAT = "judge/1"
MARKS = ("grammar", "creativity", "consistency", "plot")
AGES = ("A: 3 or under", "B: 4-5", "C: 6-7", "D: 8-9", "E: 10-12", "F: 13-16")
LONGEST_PAUSE = 60  # seconds

REQUEST = """A student was given the beginning of a story and had to complete it. The
sign *** stands between the given beginning and what the student wrote.

{beginning} *** {completion}

Judge only the part after ***. First write a short assessment, three or four sentences:
Is it grammatical? Does it go on well from the beginning, and above all, does it
complete the sentence that *** interrupts? Is it creative? Does the plot make sense?
Then give marks from 0 to 10 and guess the student's age group (A: 3 or under, B: 4-5,
C: 6-7, D: 8-9, E: 10-12, F: 13-16), in one line of JSON, in exactly this form:
{{"grammar": 0, "creativity": 0, "consistency": 0, "plot": 0, "age": "A"}}"""

# ====================================================================== 5. THE IDEA
# A loss cannot tell whether a story is a good one. A large model can, roughly: its
# marks are worth as much as its marks for endings whose worth we know. So in every run
# it also reads real endings, the best there is, and the same with their words shuffled.
# A judge who does not tell these apart has nothing to say about ours.


# ======================================================================== 6. PIECES
# ---- reading the answer: models answer with prose, fences, thoughts, and n/5


def number(value):
    """A mark as JSON or text may hold it -> 0 to 10, or None.

    >>> number(7), number("8/10"), number("4 / 5"), number("70/100"), number(11)
    (7.0, 8.0, 8.0, 7.0, None)
    """
    found = re.match(r"\s*(\d+(?:\.\d+)?)(?:\s*/\s*(\d+))?", str(value))
    if isinstance(value, bool) or not found:
        return None
    mark = float(found[1]) * 10 / (float(found[2] or 10) or 10)
    return mark if 0 <= mark <= 10 else None


def read_marks(answer):
    """The text of an answer -> {"grammar": ..., ..., "age": "A".."F" or None}, or None.

    Counts the last JSON object that has all four marks; failing that, the last number
    after each word.
    """
    text = re.sub(r"<think>.*?(</think>|$)", " ", answer, flags=re.DOTALL)
    text = text.split("</think>")[-1].replace("```json", " ").replace("```", " ")
    found, age = None, None
    for start in (match.start() for match in re.finditer(r"\{", text)):
        try:
            content, _ = json.JSONDecoder().raw_decode(text[start:])
        except ValueError:
            continue
        content = {str(name).lower(): value for name, value in content.items()}
        if all(name in content for name in MARKS):
            found = [number(content[name]) for name in MARKS]
            age = next((content[name] for name in content if name[:3] == "age"), None)
    if found is None:
        each = [
            re.findall(rf"(?i){name}\W{{0,12}}(\d+(?:\.\d+)?(?:\s*/\s*\d+)?)", text)
            for name in MARKS
        ]
        found = [number(numbers[-1]) if numbers else None for numbers in each]
        ages = re.findall(r"(?i:age(?: group)?)\W{0,12}([A-F])\b", text)
        age = ages[-1] if ages else None
    if None in found:
        return None
    letter = re.match(r"\W*([A-F])\b", str(age))
    return dict(zip(MARKS, found)) | {"age": letter[1] if letter else None}


# ---- asking


class Refused(Exception):
    """The judge will not answer this story, however often we ask."""


class Judge:
    """An OpenAI-style address that answers; keeps what it has answered."""

    def __init__(self, url, model, cache):
        self.url = url.rstrip("/") + "/chat/completions"
        self.model, self.cache_path = model, cache
        self.options = {"temperature": 0, "max_tokens": 1500}
        self.headers = {"Content-Type": "application/json"}
        key = os.environ.get(KEY_FROM) if KEY_FROM else None
        if key:
            self.headers["Authorization"] = f"Bearer {key}"
        self.cache, self.answered = {}, False
        if cache.exists():
            for line in cache.read_text("utf-8").splitlines():
                try:
                    entry = json.loads(line)
                    self.cache[entry["story"]] = entry
                except (ValueError, KeyError, TypeError):
                    pass  # a line that a killed run did not finish

    def body(self, beginning, completion):
        """What is sent, as dict."""
        content = REQUEST.format(beginning=beginning, completion=completion)
        messages = [{"role": "user", "content": content}]
        return {"model": self.model, "messages": messages} | self.options

    def marks(self, beginning, completion):
        """-> marks, age and assessment of a story. Raises Refused if there are none."""
        said = json.dumps([REQUEST, beginning, completion, self.model])
        story = hashlib.sha256(said.encode()).hexdigest()
        if story in self.cache:
            return self.cache[story]
        for _ in range(2):  # an answer without marks may be bad luck, two are not
            answer = self.ask(beginning, completion)
            marks = read_marks(answer)
            if marks:
                entry = {"story": story, "assessment": answer.strip()} | marks
                self.cache[story] = entry
                with open(self.cache_path, "a", encoding="utf-8") as file:
                    file.write("\n" + json.dumps(entry))  # a new line, whatever was
                return entry
        raise Refused("no marks in its answer")

    def ask(self, beginning, completion):
        """One answer as text. Waits and asks again where that can help."""
        pause, tries = 1.0, 0
        while True:
            body = json.dumps(self.body(beginning, completion)).encode()
            request = urllib.request.Request(self.url, body, self.headers)
            wait = None
            try:
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
                # Some models refuse options that others need; an old name for one too.
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
                if not self.answered and isinstance(error, urllib.error.URLError):
                    raise self.hopeless(None, trouble) from None
            except (ValueError, KeyError, IndexError, TypeError) as error:
                trouble = f"not in the form of OpenAI's answers ({error!r})"
            tries += 1
            if tries == TRIES:
                raise Refused(trouble)
            time.sleep(min(LONGEST_PAUSE, pause if wait is None else wait))
            pause *= 2

    def hopeless(self, code, said):
        """The three lines for what no patience can mend."""
        why = {
            401: f"It wants another key than the one in the variable {KEY_FROM}.",
            403: f"It does not allow this with the key in the variable {KEY_FROM}.",
            404: f"There is no such address, or no model {self.model!r}.",
        }.get(code, "Is it running, and is JUDGE_URL its address?")
        said = " ".join(said.split())[:150]
        what = f"The judge at {self.url} does not answer ({code or ''} {said})."
        return stop(what, why, f"Then: python {ME}   (what was answered is kept)")


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


# ---- what is judged


def read_beginnings(path):
    """The beginnings in lessons/beginnings.txt, as a list of strings."""
    if not path.exists():
        how = f"git checkout {shown(path)}, then: python {ME}"
        raise stop(f"{shown(path)} is missing.", "It is part of the course.", how)
    lines = path.read_text("utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    return [" ".join(part.split()) for part in ("\n" + text).split("\n- ")[1:]]


@torch.no_grad()
def go_on(model, tokenizer, beginning, count, seed):  # -> count strings
    """`count` endings for one beginning, told side by side as in 05_eval.py."""
    dice = torch.Generator().manual_seed(seed)
    ids = [tokenizer.bos, *tokenizer.encode(beginning)]
    T = model.config["context"]
    if len(ids) >= T:
        why = f"One has {len(ids)} tokens, and the model reads only {T}."
        raise stop("The beginnings leave no room for an ending.", why, "Shorten them.")
    new = stories = torch.tensor([ids] * count)
    cache = model.new_cache()
    done = torch.zeros(count, dtype=torch.bool)
    while stories.shape[1] < T and not done.all():
        logits = model(new, cache)[:, -1].float()
        logits[:, :3] = -torch.inf  # <PAD>, <UNK>, <BOS>
        new = torch.multinomial((logits / TEMPERATURE).softmax(-1), 1, generator=dice)
        stories = torch.cat([stories, new], dim=1)
        done |= new[:, 0] == tokenizer.eos
    rows = [row[len(ids) :] for row in stories.tolist()]
    rows = [row[: row.index(3) if 3 in row else None] for row in rows]
    return [tokenizer.decode(row).strip() for row in rows]


def real_endings(tokenizer, ids, count):
    """Validation stories, cut in the middle of a sentence: [(beginning, ending)]."""
    starts = np.flatnonzero(ids == tokenizer.bos)
    found = []
    for start in starts[:: max(1, len(starts) // count)][:count]:
        end = start + int(np.argmax(ids[start:] == tokenizer.eos))
        words = tokenizer.decode(ids[start:end].tolist()).split(" ")
        cut = max(1, len(words) // 3)
        while cut > 1 and words[cut - 1].endswith((".", "!", "?", '"')):
            cut -= 1
        found.append((" ".join(words[:cut]), " ".join(words[cut:])))
    return found


def shuffled(text, seed):
    """The same words in another order."""
    words = text.split()
    random.Random(seed).shuffle(words)
    return " ".join(words)


def interval(groups, resamples=2000):
    """Marks by beginning, [[...], ...] -> mean and its 95 % interval (bootstrap).

    Whole beginnings are drawn anew, for the endings of one are not independent. Efron
    1979. Deterministic.
    """
    sums = np.array([sum(group) for group in groups], dtype=float)
    sizes = np.array([len(group) for group in groups], dtype=float)
    shape = resamples, len(groups)
    draws = np.random.default_rng(SEED).integers(len(groups), size=shape)
    means = sums[draws].sum(1) / sizes[draws].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean": sums.sum() / sizes.sum(), "low": float(low), "high": float(high)}


# ======================================================================== 7. CHECKS
def check_inputs():
    """-> (model, tokenizer, validation ids, fingerprint of best.pt)."""
    for name, kind, low, high in [
        ("COMPLETIONS", int, 1, 1000), ("CONTROLS", int, 1, 1000),
        ("TRIES", int, 1, 100), ("TIMEOUT", float, 0.1, 3600),
        ("TEMPERATURE", float, 0.01, 10),
    ]:  # fmt: skip
        plumbing.in_range(ME, name, globals()[name], kind, low, high)
    if JUDGE_URL is None and not DRY_RUN:
        why = "So nothing is sent anywhere. DRY_RUN = True shows what would be."
        how = f"Set JUDGE_URL and JUDGE_MODEL at the top of {ME}, then: python {ME}"
        raise stop("There is no judge: JUDGE_URL is None.", why, how)
    if JUDGE_URL is not None and not str(JUDGE_URL).startswith(("http://", "https://")):
        why = "It must begin with http:// or https:// and mostly ends with /v1."
        raise stop(f"JUDGE_URL = {JUDGE_URL!r} is no address.", why, f"Edit {ME}.")
    tokenizer = bpe.Tokenizer.load(bpe.OUT / "tokenizer.json")
    path = ROOT / "artifacts" / "04_train" / "best.pt"
    model, content = gpt.GPT.load(path, "04_train.py")
    if content["tokenizer"] != plumbing.sha256_of(bpe.OUT / "tokenizer.json"):
        why = "Its ids would mean other words: stage 1 has run again since."
        what = "best.pt was made with another tokenizer."
        raise stop(what, why, "python 04_train.py")
    valid = ROOT / "artifacts" / "02_prepare" / "valid.bin"
    plumbing.need(valid, "02_prepare.py")
    ids = np.fromfile(valid, dtype="<u2")
    return model.eval(), tokenizer, ids, plumbing.sha256_of(path)


# ========================================================================== 8. MAIN
def stories_to_judge(model, tokenizer, ids):
    """-> [(group, beginning, completion)]"""
    found = []
    beginnings = read_beginnings(BEGINNINGS)
    for i, beginning in enumerate(tqdm(beginnings, desc="telling", leave=False)):
        for ending in go_on(model, tokenizer, beginning, COMPLETIONS, SEED * 1000 + i):
            found.append(("this model", beginning, ending))
    controls = real_endings(tokenizer, ids, CONTROLS)
    found += [("real endings", beginning, ending) for beginning, ending in controls]
    return found + [
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
        except Refused as error:  # counted, and no 0: we do not know what it is worth
            failures.append(story | {"trouble": str(error)})
    result = {"format": FORMAT, "model": fingerprint, "judge": JUDGE_MODEL}
    result |= {"asked": len(stories), "failed": len(failures), "ages": AGES}
    result |= {"groups": summary(graded), "stories": graded, "failures": failures}
    plumbing.write_whole(OUT / "judge.json", json.dumps(result, indent=1).encode())
    report(result)


def summary(graded):
    """-> {group: {stories, grammar: {mean, low, high}, ..., ages: {letter: count}}}"""
    found = {}
    for group in ("this model", "real endings", "shuffled words"):
        own = [story for story in graded if story["group"] == group]
        letters = [story["age"] for story in own]
        ages = {age: letters.count(age[0]) for age in AGES if age[0] in letters}
        entry = {"stories": len(own), "ages": ages}
        by_beginning = {}
        for story in own:
            by_beginning.setdefault(story["beginning"], []).append(story)
        for name in MARKS:
            marks = [[s[name] for s in some] for some in by_beginning.values()]
            entry[name] = interval(marks) if marks else None
        found[group] = entry
    return found


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
    print("[check] they are not counted, and the next run asks for them again")
    real, floor = (result["groups"][n] for n in ("real endings", "shuffled words"))
    both = [mark for mark in MARKS if real[mark] and floor[mark]]
    blind = [mark for mark in both if real[mark]["low"] <= floor[mark]["high"]]
    if blind:
        print(f"[note] in {', '.join(blind)}, real and shuffled endings get", end=" ")
        print("marks too much alike: this judge sees too little, take a larger one")
    print(f"[wrote] {shown(OUT / 'judge.json')}")
    print("Next: python 05_eval.py   (puts the marks into report.html)")


# ========================================================================= 9. GUARD
if __name__ == "__main__":
    plumbing.run_stage(main, ME)
