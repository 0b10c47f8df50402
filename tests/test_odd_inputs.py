"""Odd texts: whatever a learner puts into TEXT, no stage ends with a traceback.

To add a case, add a line to CASES: its name, the text, and what a script must say that
refuses it ("" if both stages must run). Stages 1 and 2 read the text itself and try all
cases; one text that holds many kinds of stories then goes through all six stages.
"""
import json
import random

import pytest
from conftest import SCRIPTS

END = "\n<|endoftext|>\n"
SENTENCES = {
    "English": "The old cat sat in the sun and thought about fish, number {}.",
    "German": "„Komm her“, sagte der Hase Nummer {}. „Ich zeige dir den Weg!“",
    "French": "Le chat numéro {} demanda : « Où est passé mon fromage ? »",
    "Spanish": "—¿Dónde está el perro número {}? —preguntó la niña. ¡Qué susto!",
    "Polish": "Żółw numer {} szedł powoli przez łąkę, a jeż mówił: „Szybciej!”",
    "Russian": "Жила-была лиса номер {}. Она сказала: «Добрый день!»",
    "Greek": "Μια φορά κι έναν καιρό ήταν η αλεπού {}. Είπε: «Καλημέρα!»",
    "Turkish": "Işık İstanbul'da uyandı; kedi {} hâlâ uyuyordu.",
    "Chinese": "从前有一只小猫,编号{}。它说:「你好!」",
    "Japanese": "むかしむかし、{}番の犬がいました。「おはよう」と言いました。",
    "Korean": "옛날에 {}번 고양이가 살았습니다. “안녕!” 하고 말했어요.",
    "Arabic": "كان يا ما كان قطة رقم {} تحب السمك. قالت: «أين السمك؟»",
    "Hebrew": 'פעם היה חתול מספר {}. הוא אמר: "שלום!"',
    "Hindi": "एक बार एक बिल्ली थी, संख्या {}। उसने कहा, “नमस्ते!”",
    "Thai": "กาลครั้งหนึ่งมีแมวตัวที่ {} ชอบกินปลา",
    "emoji": "The {}th cat was happy 😀👩‍👩‍👧❤️",
    "combining": "Cafe\u0301 nai\u0308ve n\u0303 {} e\u0301te\u0301.",
    "no spaces": "a{}bcdefghijklmnopqrstuvwxyz",
    "numbers": "3.14159 {} 2.71828 1,000,000 0x1F 1e-9",
    "punctuation": "!!! ??? ... --- *** ### {} ((([[[{{{{<<<>>>}}}}]]])))",
    "code": "def f{}(x):\n    if x > 0:\n\treturn [i for i in range(x)]\n    return None",
    "html": "<p class='c{}'>Hello &amp; goodbye</p><script>alert(1)</script>",
    "special tokens": "<EOS> and <PAD>, said {}, are <BOS> words <UNK>.",
    "quotes in a row": '""""\'\'\'\'""""{}""\'\'""',
    "iPhone first": "iPhone number {} was on the table. eBay sold it.",
}


def stories(sentence, count=300, separator=END):
    """Many stories of one kind; the number makes each of them different."""
    return separator.join(sentence.replace("{}", str(i)) for i in range(count))


def noise(alphabet, length=40_000):
    return "".join(random.Random(1).choices(alphabet, k=length))


ENGLISH = SENTENCES["English"]
LONG = " ".join(ENGLISH.format(i) for i in range(4000))
CASES = [
    *[(name, stories(sentence), "") for name, sentence in SENTENCES.items()],
    *[(name + ", blank lines", stories(SENTENCES[name], separator="\n\n"), "")
      for name in ("English", "Arabic", "Chinese")],
    # what separates the stories
    ("Windows line ends", stories(ENGLISH, separator="\r\n\r\n"), ""),
    ("old Mac line ends", stories(ENGLISH, separator="\r\r"), ""),
    ("a blank line holds a space", stories(ENGLISH, separator="\n \n"), ""),
    ("a blank line holds a tab", stories(ENGLISH, separator="\n\t\n"), ""),
    ("a blank line holds U+3000", stories(ENGLISH, separator="\n\u3000\n"), ""),
    ("many blank lines", stories(ENGLISH, separator="\n" * 9), ""),
    ("no line end at the separator", stories(ENGLISH, separator="<|endoftext|>"), ""),
    ("separators in a row", stories(ENGLISH, separator=END * 3), ""),
    ("one story per line", stories(ENGLISH, separator="\n"), "each line is a"),
    ("names, one per line", "\n".join(f"anna{i}" for i in range(3000)),
     "each line is a story"),
    ("one single line", LONG, "one single story"),
    ("JSONL", "\n".join(json.dumps({"text": ENGLISH.format(i)}) for i in range(300)),
     "each JSON record is a story"),
    ("JSON", json.dumps([{"text": ENGLISH.format(i)} for i in range(300)]),
     "each JSON record is a story"),
    ("CSV", "id,text\n" + "\n".join(f'{i},"{ENGLISH}"' for i in range(300)),
     "each row of the table (CSV) is a story"),
    # what the bytes are
    ("empty", "", "too small"),
    ("tiny", "The cat sat.", "too small"),
    ("only whitespace", " \n\t\n" * 5000, "nothing but whitespace"),
    ("only separators", END * 2000, "nothing but whitespace"),
    ("a byte-order mark", "\ufeff" + stories(ENGLISH), ""),
    ("UTF-16", stories(ENGLISH).encode("utf-16"), "iconv -f UTF-16"),
    ("Latin-1", stories(SENTENCES["French"]).encode("latin-1"), "not UTF-8"),
    ("one byte of another encoding", stories(SENTENCES["French"]).encode() + b"caf\xe9",
     "iconv -f UTF-8 -c"),
    ("JSON with an odd key", "\n".join(json.dumps({"my story": ENGLISH.format(i)})
                                      for i in range(300)), "each JSON record is a"),
    ("JSON that names a separator", "\n".join(
        json.dumps({"text": ENGLISH.format(i) + END}) for i in range(300)),
     "each JSON record is a story"),
    ("a text that begins like JSON", '["a", "b"] was on the wall.' + END
     + stories(ENGLISH), ""),
    ("lists as lines", "\n".join(json.dumps([ENGLISH.format(i)]) for i in range(300)),
     "each JSON record is a story"),
    ("cut inside a character", stories(SENTENCES["Greek"]).encode()[:-3], ""),
    ("zero bytes", "\0" * 20_000, "byte 0x00 at offset 0"),
    ("random bytes", random.Random(1).randbytes(20_000), "not UTF-8"),
    ("control characters", stories("\x01\x02 bell \x07 {} \x1b[31m red \x7f."), ""),
    ("mojibake", stories("Itâ€™s late, said {} cafÃ©."), ""),
    ("line separators U+2028", stories("One.\u2028Two {}.\u2029Three."), ""),
    ("invisible characters", stories("Zero\u200bwidth\u2060{}\ufeff."), ""),
    ("private use and unassigned", stories("\ue000\uf8ff{}\U0010ffff.", 900), ""),
    ("half an emoji's sequence", stories("\u200d\ufe0f{}\u200d.", 900), ""),
    # how long things are
    ("the same story a thousand times", stories("The cat sat in the sun.", 1000),
     "0 stories to train on and 1 for"),
    ("nineteen stories", stories(ENGLISH * 12, 19), "At least 20 are needed"),
    ("twenty stories", stories(ENGLISH * 12, 20), ""),
    ("one-letter stories", stories("{}", 9000), ""),
    ("one long pre-token", noise("ACGT") + END + stories(ENGLISH), ""),
    ("one letter for ever", "a" * 100_000 + END + stories(ENGLISH), ""),
    ("spaces for ever", "x" + " " * 50_000 + "y." + END + stories(ENGLISH), ""),
    ("base64", noise("ABCDEFGHabcdefgh0123456789+/") + END + stories(ENGLISH), ""),
    ("Chinese without punctuation", noise("的一是不了在人有我他") + END
     + stories(SENTENCES["Chinese"]), ""),
    ("a book among stories", LONG + END + stories(ENGLISH), ""),
    ("one book four times", END.join([LONG] * 4), "0 stories to train on and 1 for"),
]  # fmt: skip


@pytest.mark.parametrize("name, text, words", CASES, ids=[case[0] for case in CASES])
def test_stages_1_and_2_run_or_say_why_not(in_process, tmp_path, name, text, words):
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    (tmp_path / "odd text.txt").write_bytes(data)
    said = ""
    try:
        # A vocabulary that any text can fill.
        in_process("01_bpe.py", TEXT="odd text.txt", VOCAB_SIZE=300)
        in_process("02_prepare.py")
    except SystemExit as stopped:
        said = str(stopped.code).strip()
        assert len(said.splitlines()) == 3, said
    if words:
        assert words in said, said
    else:
        assert said == "", f"a text that stages 1 and 2 can use was refused: {said}"


def test_all_six_stages_run_with_stories_of_every_kind(workshop):
    kinds = [stories(sentence, 40) for sentence in SENTENCES.values()]
    text = END.join([*kinds, LONG, "a" * 9000, noise("ACGT", 9000)])
    (workshop.folder / "odd text.txt").write_text(text, "utf-8")
    workshop.edit("01_bpe.py", TEXT="odd text.txt", VOCAB_SIZE=300, WORKERS=1)
    workshop.edit("02_prepare.py", WORKERS=1)
    workshop.edit("03_model.py", SIZE=(1, 1, 32, 16))
    workshop.edit("04_train.py", TOKENS=16 * 4 * 20, EVALUATIONS=1, DEVICE="cpu")
    workshop.edit("05_eval.py", SAMPLES=2, TEMPERATURES=(1.0,))
    workshop.edit("06_sample.py", SAMPLES=2, MAX_TOKENS=20)
    for script in SCRIPTS:
        done = workshop.run(script)
        assert done.returncode == 0, script + done.stderr
