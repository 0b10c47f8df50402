"""Pipes in the wall: messages, checked constants, safe writing. Nothing about models.

Every idea of a stage stands in its own script. Here is only what all six need so that
a mistake costs nobody a file and nobody sees a traceback. A first reader may skip it.
"""
import contextlib
import errno
import hashlib
import json
import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # the folder of the six scripts


def stop(what, why, command):
    """The three lines of a mistake that its maker can mend, to be raised: exit 1."""
    return SystemExit(f"{what}\n{why}\n{command}")


def shown(path):
    """A path as short as it can be read from where the learner stands."""
    short = os.path.relpath(path)
    return str(path) if short.startswith("..") else short


def need(path, writer):
    """Raise SystemExit unless the file is there, naming the stage that writes it."""
    if not path.is_file():
        why = f"{writer} writes it, and has not been run yet (or not to its end)."
        raise stop(f"{shown(path)} is missing.", why, f"python {writer}")


def in_range(script, name, value, kind, low, high):
    """Raise SystemExit unless value is of that kind (int or float), low to high."""
    good = isinstance(value, (int, kind)) and not isinstance(value, bool)
    if not good or not low <= value <= high:
        number = "a whole number" if kind is int else "a number"
        raise stop(
            f"{name} = {value!r} in {script} cannot be used.",
            f"It must be {number} from {low:,} to {high:,}.",
            f"Edit {name} at the top of {script}, then: python {script}",
        )


def one_of(script, name, value, choices):
    """Raise SystemExit unless value is one of the choices."""
    if value not in choices:
        raise stop(
            f"{name} = {value!r} in {script} cannot be used.",
            f"It must be one of {', '.join(map(repr, choices))}.",
            f"Edit {name} at the top of {script}, then: python {script}",
        )


def sha256_of(path):
    """The sha256 of a file as hexadecimal digits: equal digits mean an equal file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def same_tokenizer(folder, theirs, what, again):
    """Raise SystemExit unless `theirs` is the sha256 of the folder's tokenizer.json."""
    if theirs != sha256_of(folder / "tokenizer.json"):
        why = "Its ids would mean other words: stage 1 has run again since."
        raise stop(f"{what} was made with another tokenizer.", why, again)


def read_json(path, writer, form):
    """A JSON artifact as dict; SystemExit if missing, garbled or of another form."""
    need(path, writer)
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["format"] == form:
            return content
        why = f"Its form is {content['format']!r}, but this version reads {form!r}."
    except (ValueError, KeyError, TypeError) as error:
        why = f"It is no whole JSON file any more ({type(error).__name__}: {error})."
    raise stop(f"{shown(path)} cannot be used.", why, f"python {writer}")


def write_all(files):
    """Write {path: bytes, text, function of a file, or None (no file)}: all, or none.

    All are complete, under other names, before the first gets its own: a full disk or
    Ctrl-C leaves what was there before.
    """
    files = {path: data for path, data in files.items() if data is not None}
    parts = {path: path.with_name(path.name + ".part") for path in files}
    try:
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(parts[path], "wb") as file:
                if callable(data):
                    data(file)
                else:
                    file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
        for path in files:
            os.replace(parts[path], path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def write_whole(path, data):
    """Write a file so that a killed run leaves the old one or the new one, no half."""
    write_all({path: data})


def hugging_face_json(names, merges, special):
    """The text of a tokenizer.json of Hugging Face's library: a byte-level BPE.

    names: list of str, one per id; merges: list of [name, name]; special: first names.
    """
    off = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False}
    byte_level |= {"trim_offsets": True, "use_regex": True}  # GPT-2's pattern
    model = {
        "type": "BPE",
        **dict.fromkeys(["dropout", "unk_token"]),  # null
        **dict.fromkeys(["continuing_subword_prefix", "end_of_word_suffix"]),
        **dict.fromkeys(["fuse_unk", "byte_fallback", "ignore_merges"], False),
        "vocab": {name: i for i, name in enumerate(names)},
        "merges": merges,
    }
    content = {
        "version": "1.0",
        **dict.fromkeys(["truncation", "padding", "normalizer", "post_processor"]),
        "added_tokens": [
            {"id": i, "content": name, **off, "special": True}
            for i, name in enumerate(special)
        ],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": model,
    }
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def filled_page(name, data):
    """The text of lessons/pages/NAME that shows `data`, or None if there is no page."""
    page = ROOT / "lessons" / "pages" / name
    if not page.exists():
        print(f"[note] there is no lessons/pages/{name} here, so no {name} is written")
        return None
    # "<" is written as its code, so that no text can end the page's script element.
    safe = json.dumps(data).replace("<", "\\u003c")
    return page.read_text("utf-8").replace("/*DATA*/null", safe)


def fill_page(name, data, path):
    """Write a copy of lessons/pages/NAME that shows `data`."""
    write_all({path: filled_page(name, data)})


@contextlib.contextmanager
def ctrl_c_noted():
    """Within this, Ctrl-C only fills a list: the step under way is finished first."""
    asked = []
    before = signal.signal(signal.SIGINT, lambda *_: asked.append("Ctrl-C"))
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def run_stage(main, script):
    """Run main(); answer Ctrl-C and a full disk in three lines, without a traceback.

    Whoever reads what is printed may leave early: python 06_sample.py | head. Then the
    run ends in silence, as other programs do.
    """
    try:
        main()
        sys.stdout.flush()  # now, while we can still answer
    except KeyboardInterrupt:
        why = "Whatever was finished is kept; no half-written file is left."
        go_on = f"Go on with: python {script}"
        raise stop("\nStopped by Ctrl-C.", why, go_on) from None
    except BrokenPipeError:
        # Python flushes once more at its end; let that go nowhere, as its docs advise.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:
        kept = "The files of earlier runs are as they were."
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            again = f"Make room, then: python {script}"
            raise stop(f"The disk is full ({error}).", kept, again) from None
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            again = f"Give yourself the right to it, then: python {script}"
            raise stop(f"A file is forbidden ground ({error}).", kept, again) from None
        raise
