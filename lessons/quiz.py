"""Read the quiz: texts with two endings, one of them sensible. Stage 5 asks the model.

An item of lessons/quiz.txt, with an empty line before the next (# begins a comment):

    facts practice
    Anna was thirsty, so she drank a glass of
    + water.
    - sand.

The first word is the category: facts, reasoning, context (keeping track of what has
been said), grammar or names. "practice" marks an item about the world of the practice
stories, which a model trained on them can solve. Write your own: both endings should
fit the text in length and form, so that only sense decides.
"""
from plumbing import shown, stop


def read_items(path):  # -> [{"category", "practice", "text", "right", "wrong"}]
    """Read quiz.txt. Raises SystemExit, naming the item, if one is not as above."""
    again = f"git checkout {shown(path)}, then: python 05_eval.py"
    if not path.exists():
        raise stop(f"{shown(path)} is missing.", "It is part of the course.", again)
    items = []
    for block in path.read_text("utf-8").split("\n\n"):
        lines = [line for line in block.splitlines() if line.strip()]
        lines = [line for line in lines if not line.startswith("#")]
        if not lines:
            continue
        category, *mark = lines[0].split()
        right = [line[2:] for line in lines if line.startswith("+ ")]
        wrong = [line[2:] for line in lines if line.startswith("- ")]
        text = " ".join(lines[1:-2])
        if not (text and len(right) == len(wrong) == 1 and mark in ([], ["practice"])):
            what = f"{shown(path)}: the item {' / '.join(lines)[:60]!r} cannot be read."
            why = "An item is its category, its text, a line '+ ...', a line '- ...'."
            raise stop(what, why, f"Mend {shown(path)}, then: python 05_eval.py")
        items.append({"category": category, "practice": bool(mark), "text": text})
        items[-1] |= {"right": right[0], "wrong": wrong[0]}
    if not items:
        what = f"{shown(path)} holds no items."
        raise stop(what, "There is nothing to ask.", again)
    return items
