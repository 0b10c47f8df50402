"""Separate: put a line <|endoftext|> between the items of a file, for 01 to read it.

READS   a UTF-8 file in which each item is a story: JSON records (one per line, one
        list, or an object with a list), the rows of a table (CSV or TSV), or lines
WRITES  a text beside it, FILE.txt: TEXT in 01_bpe.py can name it
RUN     python lessons/separate.py FILE

Of a record or a row, the field with the longest text is the story.
"""
import csv
import importlib
import json
import re
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))
# `import 01_bpe` is a syntax error (a name cannot start with a digit), hence:
bpe = importlib.import_module("01_bpe")
SCRIPT = "lessons/separate.py"


def read_records(text):  # -> list of str
    """The story of each JSON record: its longest field that is text."""
    decode, records, at = json.JSONDecoder().raw_decode, [], 0
    while at < len(text):
        record, at = decode(text, at)
        records += record if isinstance(record, list) else [record]
        at = re.compile(r"\s*").match(text, at).end()
    if len(records) == 1 and isinstance(records[0], dict):  # {"data": [...]}
        values = list(records[0].values())
        lists = [v for v in values if isinstance(v, list)]
        records = max(lists, key=len) if lists else values
    records = [r if isinstance(r, dict) else {"": r} for r in records]
    lengths = {}  # {field: characters in all records}
    for record in records:
        for field, value in record.items():
            if isinstance(value, str):
                lengths[field] = lengths.get(field, 0) + len(value)
    longest = max(lengths, key=lengths.get)
    return [r[longest] for r in records if isinstance(r.get(longest), str)]


def read_rows(text):  # -> list of str
    """The story of each row but the first, the header: the column with most text."""
    csv.field_size_limit(2**31 - 1)
    header = text.partition("\n")[0]
    delimiter = max(",;\t|", key=header.count)
    reader = csv.reader(re.findall(r".*\n|.+", text), delimiter=delimiter)
    rows = [row for row in reader if row]
    columns = range(min(map(len, rows)))
    longest = max(columns, key=lambda column: sum(len(row[column]) for row in rows))
    return [row[longest] for row in rows[1:]]


READERS = {"JSON record": read_records, "row of the table (CSV)": read_rows}


def main():
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        what = f"No such file: {' '.join(sys.argv[1:]) or '(none was named)'}"
        raise bpe.stop(what, "It takes one file.", f"python {SCRIPT} my-stories.jsonl")
    path = Path(sys.argv[1])
    out = path.with_name(path.name + ".txt")
    try:
        text = path.read_text("utf-8-sig").strip()
        kind = bpe.kind_of_items(path, text or " ")
        stories = READERS.get(kind, re.compile(".+").findall)(text)
    except (ValueError, LookupError, RecursionError, TypeError, csv.Error) as error:
        why = f"It cannot be read as UTF-8 text with stories ({str(error)[:150]})."
        how = shlex.join(["less", str(path)])
        raise bpe.stop(f"{path} was not separated.", why, how) from None
    if out.exists():
        how = shlex.join(["mv", str(out), f"{out}.old"])
        raise bpe.stop(f"{out} already exists.", "Move it, then run this again:", how)
    stories = [story.strip() for story in stories if story.strip()]
    bpe.write_all({out: "".join(f"{story}\n<|endoftext|>\n" for story in stories)})
    print(f"[wrote] {bpe.shown(out)}: {len(stories):,} stories, one per {kind}")
    print(f"Next: TEXT = {bpe.shown(out)!r} in 01_bpe.py, then: python 01_bpe.py")


if __name__ == "__main__":
    bpe.run_stage(main, SCRIPT, lock=False)
