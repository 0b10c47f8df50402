"""tokens.html cuts text exactly as Python does, and shows any text as text.

The page of stage 1 has a tokenizer of its own, in JavaScript. Headless Chromium opens
the page, and a script of ours runs that tokenizer (tests/browser.py).
"""
import json
import random
import re
import unicodedata
from collections import Counter
from pathlib import Path

import practice_stories
import pytest
import regex

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "lessons" / "pages" / "tokens.html"

# What would end the page's script, and its page, if a text could.
NASTY = "Tom:</script><script>document.title = 'broken'</script><!-- <b>Ow</b> &lt;"
# The whitespace of the regex module; JavaScript's \s lacks U+0085 and has U+FEFF.
WHITESPACE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000"
NO_WHITESPACE = "\ufeff\u200b\u180e\x1c\x1d\x1e\x1f\x00\x7f"  # though others say so


@pytest.fixture(scope="module")
def world(bpe, tmp_path_factory):
    """(tokenizer, pre-token counts, data, the filled page), made from 300 stories."""
    stories = [*practice_stories.stories(300, seed=5)]
    stories += [NASTY, "Naïve café – 3½ €. 🙂\n\n\tx"]
    find = regex.compile(bpe.GPT2_PATTERN).findall
    pre_token_counts = Counter(p for story in stories for p in find(story))
    tokenizer, merge_counts = bpe.train(pre_token_counts, 900, 2)
    data = bpe.page_data(tokenizer, merge_counts, pre_token_counts, stories[-8:])
    page = tmp_path_factory.mktemp("page") / "tokens.html"
    page.write_text(bpe.fill_page("tokens.html", data), "utf-8")
    return tokenizer, pre_token_counts, data, page


def as_js(value):
    """A Python value as JavaScript source that cannot end the script element."""
    return json.dumps(value).replace("<", "\\u003c")


def hostile_strings(count):
    """Strings made to tell two tokenizers apart, always the same ones."""
    rng = random.Random(20)
    # Only characters that every Unicode since Python 3.10's knows, so that both sides
    # agree on which are letters.
    anything = [
        chr(c)
        for c in range(0x110000)
        if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")
    ]
    kinds = [
        lambda: rng.choice(WHITESPACE) * rng.randint(1, 4),
        lambda: rng.choice(NO_WHITESPACE),
        lambda: rng.choice(anything),
        lambda: rng.choice(["'s", "'S", "'ll", "'re", "'", "'ve ", "’s", "''d", "'t"]),
        lambda: rng.choice(["<PAD>", "<EOS>", "<|endoftext|>", "</script>", "<!--"]),
        lambda: rng.choice(["e\u0301", "\u0301", "\u200d", "👨‍👩‍👧", "👍🏽", "שלום"]),
        lambda: rng.choice(["\ud800", "\udc00", "\ud83d\ude42", "\udc00\ud800"]),
        lambda: rng.choice(["aaaa", "the", "Once upon", " a", "...", "ⅷ", "٣", "12"]),
    ]
    return ["".join(rng.choice(kinds)() for _ in range(rng.randint(0, 12)))
            for _ in range(count)]  # fmt: skip


def well_formed(text):
    """Half characters become U+FFFD, as in the page: UTF-8 has no bytes for them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def test_the_page_cuts_a_thousand_strings_as_python_does(world, browser):
    tokenizer, _, data, page = world
    strings = hostile_strings(900) + [story for story, _ in data["stories"]]
    strings += [character + "x" + character for character in WHITESPACE + NO_WHITESPACE]
    strings += practice_stories.stories(1000 - len(strings), seed=6)
    assert len(strings) == 1000
    script = f"return {as_js(strings)}.map((text) => window.encode(text));"
    answer = browser.run(page, script)
    differ = [
        (text, theirs, ours)
        for text, theirs in zip(strings, answer)
        if theirs != (ours := tokenizer.encode(well_formed(text)))
    ]
    assert not differ, f"{len(differ)} of 1000, the first: {differ[0]}"


def test_with_fewer_merges_the_page_cuts_as_a_smaller_tokenizer_would(
    bpe, world, browser
):
    tokenizer, _, data, page = world
    story = data["stories"][0][0]
    script = f"return [0, 1, 10, 200].map((n) => encode({as_js(story)}, n));"
    answer = browser.run(page, script)
    for merges, ids in zip([0, 1, 10, 200], answer):
        smaller = bpe.Tokenizer(tokenizer.merges[:merges])
        assert ids == smaller.encode(story)
    assert len(answer[0]) == len(story.encode())  # no merges: a token is a byte


def test_a_story_with_script_tags_stays_a_story(world, browser):
    _, _, data, page = world
    number = [story for story, _ in data["stories"]].index(NASTY)
    script = (
        f"chooseStory({number}); const all = (tag) => document.querySelectorAll(tag);"
        " return [document.title, $('story').textContent, all('script').length,"
        " all('#story *:not(.token)').length];"
    )
    title, shown, scripts, others = browser.run(page, script)
    assert title == "Tokens"
    assert shown == NASTY
    assert scripts == 1  # the page's own
    assert others == 0  # no element but the colored tokens


def test_pointing_typing_and_arrow_keys_say_what_a_token_is(world, browser):
    tokenizer, _, data, page = world
    story, ids = data["stories"][0]
    fifth = ids[4]
    script = f"""
        const said = {{}}, tokens = $('story').children;
        const event = (kind, more) => new Event(kind, {{ bubbles: true, ...more }});
        tokens[4].dispatchEvent(event('pointerover'));
        said.pointed = $('looking-story').textContent;
        tokens[0].focus();
        for (let i = 0; i < 2; i++)
          document.activeElement.dispatchEvent(
            new KeyboardEvent('keydown', {{ key: 'ArrowRight', bubbles: true }}));
        said.walked = [...tokens].indexOf(document.activeElement);
        tokens[4].click();
        said.chosen = $('wanted').value;
        $('box').value = {as_js(story)};
        $('box').dispatchEvent(event('input'));
        said.typed = $('ids').textContent;
        $('limit').value = 0;
        $('limit').dispatchEvent(event('input'));
        said.without = $('typed').children.length;
        $('wanted').value = 'the';
        $('wanted').dispatchEvent(event('change'));
        said.found = Number($('wanted').value);
        $('wanted').value = '99999';
        $('wanted').dispatchEvent(event('change'));
        said.refused = $('not-found').textContent;
        return said;"""
    said = browser.run(page, script)
    assert f"id {fifth:,}" in said["pointed"]
    assert f"{data['token_counts'][fifth]:,} × in the text" in said["pointed"]
    assert tokenizer.token_bytes[fifth].hex(" ") in said["pointed"]
    assert said["walked"] == 2
    assert said["chosen"] == str(fifth)
    assert said["typed"].split()[:400] == [str(i) for i in ids[:400]]
    assert said["without"] == len(story.encode())
    assert tokenizer.token_bytes[said["found"]] in (b"the", b" the")
    assert f"{len(tokenizer) - 1:,}" in said["refused"]


def test_every_merge_tree_ends_in_the_bytes_of_its_token(world, browser):
    _, _, data, page = world
    script = """
        return tokens.map((_, id) => {
          choose(id);
          const leaves = document.querySelectorAll("#bricks .leaf small");
          return [...leaves].map((leaf) => leaf.textContent).join("");
        });"""
    answer = browser.run(page, script)
    assert answer[:4] == [""] * 4  # special tokens are made of nothing
    assert answer[4:] == data["tokens"][4:]


def test_the_curve_of_compression_is_what_encoding_with_fewer_merges_gives(
    bpe, world, browser
):
    tokenizer, pre_token_counts, data, page = world
    points, size = browser.run(page, "return growth();")
    assert size == sum(len(p.encode()) * n for p, n in pre_token_counts.items())
    assert len(points) == len(tokenizer.merges) + 1
    for merges in (0, 1, 50, 300, len(tokenizer.merges)):
        smaller = bpe.Tokenizer(tokenizer.merges[:merges])
        tokens = sum(
            len(smaller.encode_pre_token(p)) * n for p, n in pre_token_counts.items()
        )
        assert points[merges] == [260 + merges, pytest.approx(tokens, rel=1e-4)]


def test_the_page_needs_no_network_and_writes_no_html(world):
    assert PAGE.read_text("utf-8").count("/*DATA*/null") == 1
    source = world[3].read_text("utf-8")
    addresses = set(re.findall(r"https?://[^\"'\s]+", source))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, never fetched
    assert not re.search(r"innerHTML|outerHTML|document\.write|insertAdjacent", source)
    assert "prefers-color-scheme: dark" in source


def test_the_empty_page_says_how_to_fill_it(browser):
    script = "return document.getElementById('intro').textContent;"
    answer = browser.run(PAGE, script)
    assert "python 01_bpe.py" in answer
