"""Every term has one name, and the glossary knows it.

A lesson sets a term in bold where it defines it. lessons/glossary.md is a table of all
these terms: definition, the lessons that set it in bold, its name in the code, and what
other texts call it. Bold text that ends with a period or a colon is a run-in heading
("**Schedule.** In step 1 ...") and no term.
"""
import doctest
import re
import sys
from pathlib import Path

import pytest
from test_lessons import prose

ROOT = Path(__file__).resolve().parent.parent
LESSONS = ROOT / "lessons"
GLOSSARY = LESSONS / "glossary.md"
TEACHING = sorted(LESSONS.glob("[01]*.md")) + [LESSONS / "primer.md"]
TEACHING += sorted((LESSONS / "quests").glob("*.md"))
CODE = sorted(ROOT.glob("0*.py")) + sorted(LESSONS.rglob("*.py"))


# ------------------------------------------------------------------------- the terms


def one_form(term):
    """The term without plural, adverb ending, capitals, and marks of code.

    >>> one_form("Micro-batches"), one_form("cosine similarities"), one_form("`Block`")
    ('micro-batch', 'cosine similarity', 'block')
    """
    term = " ".join(term.lower().replace("`", "").split())
    term = re.sub(r"ies$", "y", re.sub(r"ly$", "", term))
    return re.sub(r"(?<=ch)es$|s$", "", term)


def bold_terms(text):
    """{one form of each bold term: the term as it stands in the text}."""
    # In code, ** is a power: such spans are no bold text.
    text = re.sub(r"`[^`\n]*\*[^`\n]*`", "", prose(text))
    found = [" ".join(bold.split()) for bold in re.findall(r"\*\*([^*]+)\*\*", text)]
    return {one_form(term): term for term in found if term[-1] not in ".:"}


def glossary_rows():
    """[(term, definition, lessons, in the code, in other texts)], without the head."""
    lines = GLOSSARY.read_text("utf-8").splitlines()
    lines = [line for line in lines if line.startswith("| **")]
    return [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in lines]


def terms_of_glossary():
    return [row[0].strip("*") for row in glossary_rows()]


def test_the_examples_of_one_form_are_true():
    assert doctest.testmod(sys.modules[__name__]) == doctest.TestResults(0, 1)


def test_a_bold_term_is_found_and_a_heading_or_a_power_is_not():
    text = "A **heap** and `w**2`.\n\n**Schedule.** In `a**b`, **Promise:** many\n"
    text += "**pre-\ntokens** and\n\n```python\nx = 2 ** 3 ** 4\n```\n"
    assert bold_terms(text) == {"heap": "heap", "pre- token": "pre- tokens"}


@pytest.mark.parametrize("path", TEACHING, ids=lambda path: path.stem)
def test_every_bold_term_of_a_lesson_is_in_the_glossary(path):
    known = set(map(one_form, terms_of_glossary()))
    missing = [t for form, t in bold_terms(path.read_text("utf-8")).items()
               if form not in known]  # fmt: skip
    assert not missing, f"lessons/glossary.md lacks these terms of {path.name}"


def test_each_term_of_the_glossary_is_bold_in_the_lessons_it_names():
    wrong = []
    for term, _, lessons, *_ in glossary_rows():
        names = re.findall(r"\]\(([^)]+)\)", lessons)
        assert names, f"{term} names no lesson"
        for name in names:
            text = (LESSONS / name).read_text("utf-8")
            if one_form(term.strip("*")) not in bold_terms(text):
                wrong.append((term, name))
    assert not wrong


def test_the_glossary_is_in_alphabetical_order_and_has_each_term_once():
    terms = terms_of_glossary()
    assert terms == sorted(set(terms), key=str.lower)


def test_each_row_of_the_glossary_has_five_cells_and_defines_in_one_sentence():
    for row in glossary_rows():
        assert len(row) == 5 and all(row), row
        # One period, at the end; those of names and numbers have no space after them.
        assert row[1].endswith(".") and ". " not in row[1], row


def test_each_name_in_the_code_exists_there():
    words = set(re.findall(r"\w+", "".join(path.read_text("utf-8") for path in CODE)))
    words |= set(re.findall(r"\w+", (LESSONS / "primer.md").read_text("utf-8")))
    names = [(row[0], word) for row in glossary_rows()
             for code in re.findall(r"`([^`]+)`", row[3])
             for word in re.findall(r"[A-Za-z_]\w+", code)]  # fmt: skip
    assert len(names) > 100
    assert [name for name in names if name[1] not in words] == []


# ------------------------------------------------- home-made words that must stay out

# (pattern, a sentence in which the word was used, what the field says)
OUT = [
    (r"\bby heart\b", "It learns stories by heart.", "memorize"),
    (r"\bcheat(s|ed|ing)?\b", "Does it cheat?", "memorize, overfit"),
    (r"\bcopiers?\b", "The copier heads begin so.", "identity initialization"),
    (r"\bkept back\b", "loss on stories kept back", "held out"),
    (r"\btold before\b", "Stories told before: 3.", "duplicates removed"),
    (r"\bdice\b", "Throw dice accordingly.", "sample, random generator"),
    (r"\b(un)?likely chances?\b|\bchances (of|that)\b|\bthe chance (of|that)\b",
     "the chances of all tokens", "probabilities"),
    (r"\bslopes? of the (loss|error)\b|\bits slopes\b", "the slope of the loss",
     "gradient, derivative"),
    (r"(?<!On )\bthe way back\b", "Then comes the way back.", "backward pass"),
    (r"\btexts at once\b|\bpasses per step\b", "4 texts at once",
     "micro-batch size, gradient accumulation steps"),
    (r"\bblind guess", "A blind guess costs 7.6.", "uniform baseline"),
    (r"\brungs?\b|\blandmarks?\b|\bladder of\b", "the rungs of the ladder",
     "baselines, published results"),
    (r"\bthe model (speaks|tells|talks)\b", "Now the model tells.", "generates"),
    (r"\bgo(es)? on where\b|\ball it takes to go on\b", "It goes on where it stopped.",
     "resume, full training state"),
    (r"\bnumber by number\b", "added number by number", "elementwise"),
    (r"\b(query|queries) times keys?\b", "query times key, summed", "dot product"),
    (r"\bunit matrix\b", "part of a unit matrix", "identity matrix"),
    (r"\b(pure|by|bad|good) luck\b", "It may be pure luck.",
     "noise, seed-to-seed variance"),
    (r"\bthe bends?\b|\bbend function\b", "After it comes the bend.",
     "nonlinearity, activation function"),
    (r"\bshares? of attention\b|\battention shares?\b", "the shares of attention",
     "attention weights"),
    (r"\brows? of numbers (for|of) (a|each|the) token\b",
     "a row of numbers for each token", "vector, embedding"),
    (r"\bpieces of the (regex|pattern)\b", "the pieces of the regex", "pre-tokens"),
    (r"\blooks? ahead\b|\btrial step", "It looks ahead first.", "preflight check"),
    (r"\bidentity of (a|the|this) run\b", "the identity of a run", "run fingerprint"),
    (r"\bmend(s|ed|ing)?\b", "It mends what it can.", "fix, repair"),
    (r"\bthousand million\b", "two thousand million", "billion"),
    (r"\bforbidden ground\b", "That is forbidden ground.", "permission denied"),
    (r"\bdo(es)? not suffice\b", "The memory does not suffice.", "out of memory"),
    (r"\bstrangers?\b", "A stranger's request", "foreign origin"),
    (r"\blearnt\b|\bgrey\b|\bcolour|\b(initial|normal|token|memor|quant|regular)is"
     r"(e|es|ed|ing|ation)\b", "a learnt, normalised vector", "American spelling"),
]  # fmt: skip
FINE = """By chance, the sampler takes an unlikely token. On the way back the order is
reversed. A share of the stories is held out; they share one memory. ALiBi has slopes.
The positions of a sequence stand in rows. The loss goes on falling. Tokenization, gray,
and color are spelled so. A look-ahead mask is a causal mask. Recommended amendments."""


def read_words(path):
    """What a file says, without the stories that it quotes."""
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        text = re.sub(r"^ *```text\n.*?^ *```$", "", text, flags=re.DOTALL | re.M)
        text = re.sub(r"^>.*$", "", text, flags=re.M)
    return text


def files_with_words():
    yield ROOT / "README.md"
    yield from sorted(LESSONS.rglob("*.md")) + sorted(LESSONS.rglob("*.html"))
    stories = "practice_stories.py", "quiz.txt", "beginnings.txt"
    yield from [path for path in CODE if path.name not in stories]


@pytest.mark.parametrize("pattern, example, better", OUT, ids=lambda value: value[:20])
def test_a_home_made_word_does_not_come_back(pattern, example, better):
    assert re.search(pattern, example, re.I), "the pattern does not find its own example"
    assert not re.search(pattern, FINE, re.I), "the pattern is too broad"
    found = []
    for path in files_with_words():
        text = read_words(path)
        for match in re.finditer(pattern, text, re.I):
            line = text[: match.start()].count("\n") + 1
            found.append(f"{path.relative_to(ROOT)}, about line {line}: {match[0]}")
    assert not found, f"say {better}"
