"""Counting and finding runs of tokens in files larger than memory. No neural network.

    ngram_losses(train, valid, V)           -> how well counting alone can predict
    Automaton(texts).read(train)            -> the longest runs that texts share with it
    nearest(train, texts)                   -> the training story most like each text
    find_copies(tokenizer, train, stories)  -> both, for people to read
    diversity(stories)                      -> how alike stories are

Stage 5 uses this file for its ladder and its copy check. Both read train.bin once, a
chunk at a time, and remember only what concerns the few texts that are asked about. So
the memory they need does not grow with the training text.
"""
from collections import Counter

import numpy as np
from tqdm import tqdm

CHUNK = 2**21  # tokens read at a time; about 150 MB while they are sorted
KEPT = 500_000  # tokens kept out of the counts, to choose the weights of n-grams
BOS, EOS = 2, 3

# Results that others reported for TinyStories, in bits per byte, to about 2 %. Each was
# got by a protocol of its own, so they are landmarks and not rungs of our ladder.
GPT2_BPE = "GPT-2's tokenizer, loss per token, stories of V1"
CS336 = "own 10,000-token BPE, loss per token on V2's validation file"
LLAMA2C = "Llama's 32,000 tokens, its own shard of stories, an easier one"
LANDMARKS = [  # name, bits per byte, protocol
    ("TinyStories paper, 64 wide, 12 layers (V100, under 30 h)", 0.72, GPT2_BPE),
    ("CS336, low-resource target, 17M (41M tokens)", 0.71, CS336),
    ("CS336, staff's run on an M3 Max, 17M (41M tokens)", 0.64, CS336),
    ("TinyStories paper, 256 wide, 8 layers (V100, under 30 h)", 0.49, GPT2_BPE),
    ("TinyStories paper, 768 wide, 8 layers (V100, under 30 h)", 0.42, GPT2_BPE),
    ("llama2.c, 15M (4 A100, hours to a day)", 0.41, LLAMA2C),
    ("llama2.c, 110M (4 A100, hours to a day)", 0.29, LLAMA2C),
]


def chunks(ids, overlap, desc):
    """Yield (place, ids[place : place + CHUNK + overlap]) to the end, with a bar."""
    for place in tqdm(range(0, len(ids), CHUNK), desc=desc, leave=False, unit="x2M"):
        yield place, ids[place : place + CHUNK + overlap]


# ------------------------------------------------------ n-grams: predicting by counting
#
# An n-gram model (Shannon 1948) guesses the next token from the n - 1 before it, by
# having counted what came next elsewhere. Where it has counted little it must lean on
# the shorter context: p(w|uv) = (c(uvw) + k p(w|v)) / (c(uv) + k), and likewise p(w|v)
# on p(w). The smaller c(uv), the more the shorter context weighs (Dirichlet smoothing,
# MacKay & Peto 1995). k is chosen on training stories that are kept out of the counts.


def pack(ids, n):  # (N,) -> (N - n + 1,) uint64
    """Each n ids side by side as one number, 16 bits each: exact up to n = 4.

    >>> pack(np.array([1, 2, 3]), 2).tolist() == [1 * 65536 + 2, 2 * 65536 + 3]
    True
    """
    ids = np.asarray(ids).astype(np.uint64)
    length = max(0, len(ids) - n + 1)
    keys = ids[:length]
    for i in range(1, n):
        keys = (keys << np.uint64(16)) | ids[i : length + i]
    return keys


def look_up(wanted, keys):  # (W,) sorted, (N,) -> (N,) places in wanted, (N,) found?
    """Where each key stands in `wanted`; a key that is not there has found = False."""
    places = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
    return places, wanted[places] == keys


def count(ids, n, wanted):  # (N,) memmap, (W,) sorted -> (W,) how often each occurs
    """Count the wanted n-grams in ids. Memory: CHUNK and W, however long ids is."""
    counts = np.zeros(len(wanted), dtype=np.int64)
    for _, part in chunks(ids, n - 1, f"counting {n}-grams"):
        keys, often = np.unique(pack(part, n), return_counts=True)
        places, found = look_up(wanted, keys)
        counts[places[found]] += often[found]
    return counts


class Counts:
    """The counts in `train` of all 1-, 2- and 3-grams that occur in `texts`.

    Every text is a flat row of stories, each <BOS> ... <EOS>; so the two tokens before
    a story's first word are the <EOS> of the story before and its own <BOS>. Before the
    very first story we imagine an <EOS>.
    """

    def __init__(self, train, texts, vocab_size):
        self.wanted, self.counts = {}, {}
        # No token follows an <EOS> but <BOS>, which is never to be predicted; so the
        # count of a context is simply that of its own n-gram.
        first = np.concatenate([[EOS], np.asarray(train[:2])])
        for n in (1, 2, 3):
            grams = [np.unique(pack(np.concatenate([[EOS], t]), n)) for t in texts]
            self.wanted[n] = np.unique(np.concatenate(grams))
            self.counts[n] = count(train, n, self.wanted[n])
            if n > 1:  # the n-gram that begins with the imagined <EOS>
                places, found = look_up(self.wanted[n], pack(first[:n], n))
                self.counts[n][places[found]] += 1
        # Unigrams: all of them, <BOS> left out, each seen once more than it was.
        every = np.arange(vocab_size, dtype=np.uint64)
        self.unigram = count(train, 1, every)
        self.unigram[BOS] = 0
        self.unigram = (self.unigram + 1) / (self.unigram.sum() + vocab_size)

    def of(self, grams, n):  # (N,) packed n-grams -> (N,) counts
        places, found = look_up(self.wanted[n], grams)
        return np.where(found, self.counts[n][places], 0)

    def facts(self, text):  # (N,) -> p(w), c(vw), c(v), c(uvw), c(uv)
        """What the formula above needs, for every token w of a text but <BOS>."""
        ids = np.concatenate([[EOS], text])
        scored = ids[2:] != BOS
        pairs = pack(ids, 2)
        return (
            self.unigram[ids[2:][scored]],
            self.of(pairs[1:][scored], 2),
            self.of(ids[1:-1][scored].astype(np.uint64), 1),
            self.of(pack(ids, 3)[scored], 3),
            self.of(pairs[:-1][scored], 2),
        )


def ngram_losses(train, valid, vocab_size, choices=(0.3, 1, 3, 10, 30, 100, 300, 1000)):
    """-> ({"unigram": nats in all, "bigram": ..., "trigram": ...}, {"k2": ..., ...}).

    The last stories of train, at most a twentieth and half a million tokens, are not
    counted: on them k2 and k3 are chosen.
    """
    cut = len(train) - min(len(train) // 20, KEPT)
    while cut < len(train) and train[cut] != BOS:
        cut += 1
    kept = np.asarray(train[cut:])
    texts = [valid, kept] if len(kept) else [valid]
    counts = Counts(train[:cut], texts, vocab_size)

    def nats(facts, k2, k3):
        one, vw, v, uvw, uv = facts
        two = (vw + k2 * one) / (v + k2)
        three = (uvw + k3 * two) / (uv + k3)
        return [float(-np.log(p).sum()) for p in (one, two, three)]

    facts = counts.facts(texts[-1])
    k2 = min(choices, key=lambda k: nats(facts, k, 1)[1])
    k3 = min(choices, key=lambda k: nats(facts, k2, k)[2])
    losses = zip(("unigram", "bigram", "trigram"), nats(counts.facts(valid), k2, k3))
    return dict(losses), {"k2": k2, "k3": k3, "counted_tokens": int(cut)}


# --------------------------------------------------------- copies: runs found elsewhere


class Automaton:
    """All runs of tokens of some texts, in a graph that another text is led through.

    The suffix automaton (Blumer et al. 1985): a state stands for runs that occur at the
    same places; next[state][token] leads to the run one token longer, link[state] to
    the longest shorter run that occurs elsewhere too. It is about as large as the texts
    it is made of, and finds the longest run that ends at each token of another text,
    however long that is.
    """

    def __init__(self, texts):
        self.next, self.link, self.length = [{}], [-1], [0]
        for ids in texts:
            state = 0
            for token in ids:
                state = self._add(state, token)
        # Of each state: the longest run found so far, and where it ended.
        self.best, self.where = [0] * len(self.next), [0] * len(self.next)

    def _state(self, follows, link, length):
        self.next.append(follows)
        self.link.append(link)
        self.length.append(length)
        return len(self.next) - 1

    def _split(self, before, token):
        """The state that follows `before`, by itself: without the longer runs in it."""
        after = self.next[before][token]
        if self.length[after] == self.length[before] + 1:
            return after
        follows, link = dict(self.next[after]), self.link[after]
        clone = self._state(follows, link, self.length[before] + 1)
        self.link[after] = clone
        while before >= 0 and self.next[before].get(token) == after:
            self.next[before][token] = clone
            before = self.link[before]
        return clone

    def _add(self, state, token):
        """The state one token further on; makes it if no text went there before."""
        if token in self.next[state]:
            return self._split(state, token)
        new = self._state({}, 0, self.length[state] + 1)
        while state >= 0 and token not in self.next[state]:
            self.next[state][token] = new
            state = self.link[state]
        if state >= 0:
            self.link[new] = self._split(state, token)
        return new

    def read(self, ids):
        """Lead a long text (an array or memmap) through, noting the longest runs.

        In plain Python: each token asks for a decision that depends on the one before,
        so numpy cannot help.
        """
        follow, link, length = self.next, self.link, self.length
        best, where = self.best, self.where
        state = run = 0
        for place, part in chunks(ids, 0, "looking for copies"):
            for token in part.tolist():
                place += 1
                after = follow[state].get(token)
                while after is None and state > 0:  # give up the run's oldest tokens
                    state = link[state]
                    run = length[state]
                    after = follow[state].get(token)
                if after is None:
                    continue
                state, run = after, run + 1
                if run > best[state]:
                    best[state], where[state] = run, place
        # A run that was found contains all its own endings.
        for state in sorted(range(1, len(length)), key=lambda state: -length[state]):
            up = link[state]
            if best[state] and best[up] < length[up]:
                best[up], where[up] = length[up], where[state]
        return self

    def runs(self, ids):  # -> [(length, end in the text read)] for each token of ids
        """For one of the texts: the longest run found that ends at each token."""
        found, state = [], 0
        for token in ids:
            state = at = self.next[state][token]
            while at > 0 and not self.best[at]:
                at = self.link[at]
            found.append((self.best[at], self.where[at]) if at > 0 else (0, 0))
        return found


def nearest(train, texts):  # -> [(share of its 4-grams found, share in nearest, place)]
    """For each text: how many of its different 4-grams stand anywhere in train, how
    many in the one story that has most of them, and where that story begins.
    """
    grams = [np.unique(pack(ids, 4)) for ids in texts]
    wanted = np.unique(np.concatenate([*grams, np.zeros(1, "u8")]))
    member = np.zeros((len(texts), len(wanted)), dtype=bool)
    for row, own in zip(member, grams):
        row[np.searchsorted(wanted, own)] = True
    seen = np.zeros(len(wanted), dtype=bool)
    best, start = np.zeros((2, len(texts)), dtype=np.int64)
    rest, rest_at = np.zeros(0, dtype=train.dtype), 0
    for place, part in chunks(train, 0, "looking for the nearest"):
        part, last = np.concatenate([rest, part]), place + CHUNK >= len(train)
        begins = np.flatnonzero(part == BOS)  # only whole stories; the rest comes later
        end = len(part) if last else begins[-1]
        rest, part, here = part[end:], part[:end], rest_at
        begins, rest_at = begins[begins < end], rest_at + end
        if end == 0:
            continue
        at, found = look_up(wanted, pack(part, 4))
        story = np.searchsorted(begins, np.flatnonzero(found), side="right") - 1
        pairs = np.unique(story * len(wanted) + at[found])  # each 4-gram once a story
        story, at = np.divmod(pairs, len(wanted))
        seen[at] = True
        for i, row in enumerate(member):
            shared = np.bincount(story[row[at]], minlength=1)
            if shared.max() > best[i]:
                best[i], start[i] = shared.max(), here + begins[shared.argmax()]
    sizes = [max(1, len(own)) for own in grams]
    return [
        (float(seen[row].sum() / size), float(b / size), int(s))
        for row, size, b, s in zip(member, sizes, best, start)
    ]


def first_sentence(text):
    """The opening: up to the first . ! or ? and the quotation mark that may follow."""
    end = min((text.find(mark) % (len(text) + 1) for mark in ".!?"), default=0) + 1
    return text[: end + (text[end : end + 1] in ('"', "”", "'"))]


def find_copies(tokenizer, train, stories):  # texts -> [dict], one per text
    """For each story: its longest run of tokens that stands in train word for word, the
    share of its 4-grams that stand nowhere in it, and the training story most like it.
    """
    # Encoded afresh: the model may cut a word as the tokenizer never would.
    ids = [[tokenizer.bos, *tokenizer.encode(text), tokenizer.eos] for text in stories]
    automaton = Automaton(ids).read(train)
    found = []
    for text, row, near in zip(stories, ids, nearest(train, ids)):
        runs = automaton.runs(row)
        length, where = max(runs, key=lambda run: run[0])
        end = next(i for i, run in enumerate(runs) if run[0] == length) + 1
        cuts = [row[: end - length], row[end - length : end], row[end:]]
        opening = 1 + len(tokenizer.encode(first_sentence(text)))
        seen, share, place = near
        source = train[place : place + 2**16].tolist()
        source = source[: source.index(3) if 3 in source else None]
        found.append({
            "tokens": len(row), "run": length, "run_share": length / len(row),
            "cut": [tokenizer.decode(cut) for cut in cuts], "new4": 1 - seen,
            "opening_new": runs[opening - 1][0] < opening, "nearest_share": share,
            "nearest": tokenizer.decode(source),
        })  # fmt: skip
    return found


def diversity(texts):  # -> {measure: share}
    """How alike stories are: to each other, and to themselves.

    distinct-n (Li et al., arXiv 1510.03055): share of different runs of n words.

    >>> diversity(["a b c d e", "a b c d f"])["overlap"]  # "a b c d", and not "b c d e"
    0.5
    """

    def runs(text, n):
        words = text.split()
        return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]

    found = {}
    for n in (1, 2, 3):
        every = [run for text in texts for run in runs(text, n)]
        found[f"distinct{n}"] = len(set(every)) / max(1, len(every))
    fours = [runs(text, 4) for text in texts]
    owners = Counter(run for own in fours for run in set(own))
    shared = [sum(owners[run] > 1 for run in own) / max(1, len(own)) for own in fours]
    again = [(len(own) - len(set(own))) / max(1, len(own)) for own in fours]
    found["overlap"] = sum(shared) / len(texts)  # runs of 4 that another story has too
    return found | {"repetition": sum(again) / len(texts)}  # runs of 4 said before
