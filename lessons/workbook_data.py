"""The exercises of lessons/workbook.py, in the order of the course.

An exercise names a function of a script, or one statement in it ("function: variable").
Below that, a generator asks the function `f` for answers; `m` is the script as a
module. A common mistake is (find, replace, why): the text `find`, replaced in our
function, makes that mistake. So a learner whose answers equal the answers of that
variant has made it. Our function is first written by ast.unparse(): no comments,
'single quotes', each statement on one line. Where `find` is "", `replace` is the body.
"""
from dataclasses import dataclass, field
from types import SimpleNamespace

@dataclass
class Exercise:
    script: str
    function: str  # "merge", "MLP.forward", "attention_by_hand: mask" (a statement)
    lesson: int
    goal: str
    hints: list
    mistakes: list  # [(find, replace, why)]
    patch: dict = field(default_factory=dict)  # for `run`: {script: text at its end}
    run: bool = True  # False: no number that `run` shows depends on it
    name: str = ""
    ask: object = None

EXERCISES = {}

def exercise(*values, **more):
    def add(ask):
        name = ask.__name__
        EXERCISES[name] = Exercise(*values, name=name, ask=ask, **more)
        return ask
    return add

# =============================================================== Lesson 2: tokenization
@exercise(
    "01_bpe.py", "merge", 2, "replace every pair of neighbors by its new id",
    ["Walk through ids with an index i and build a new list as you go.",
     "At i there are two cases: ids[i] and ids[i + 1] are the pair, or they are not."
     " After a merge, i moves on by two, else by one.",
     "Look at ids[i + 1] only if i + 1 < len(ids). Compare (ids[i], ids[i + 1]) with"
     " pair; append new_id or ids[i]."],
    [("i += 2", "i += 1",
      "after a merge, i moves on by 1; the pair has two ids, so skip both"),
     ("i + 1 < len(ids)", "i + 2 < len(ids)",
      "a pair at the very end is overlooked: the last i to look at is len(ids) - 2"),
     ("i += 2", "return merged + ids[i + 2:]",
      "only the first occurrence of the pair is replaced")],
)
def merge(f, m):
    yield "merge([7, 8, 9, 7, 8], (7, 8), 300)", f([7, 8, 9, 7, 8], (7, 8), 300)
    yield "merge([7, 8, 9], (7, 8), 300)", f([7, 8, 9], (7, 8), 300)
    yield "merge([7, 8, 7, 8, 9], (7, 8), 300)", f([7, 8, 7, 8, 9], (7, 8), 300)
    yield "merge([5, 5, 5], (5, 5), 300)", f([5, 5, 5], (5, 5), 300)
    yield "merge([8, 7], (7, 8), 300)", f([8, 7], (7, 8), 300)
    yield "merge([], (7, 8), 300)", f([], (7, 8), 300)

@exercise(
    "01_bpe.py", "train_naive", 2, "learn merges: count pairs, merge the best, repeat",
    ["Three steps, repeated: count all pairs, pick the best one, merge it everywhere.",
     "zip(ids, ids[1:]) gives the pairs of neighbors. A pair in a sequence that occurs"
     " n times counts n times.",
     "The best pair is the smallest under the key (-count, pair), so that ties go to"
     " smaller ids. Merge it with merge() in every sequence before you count again."],
    [("+= count", "+= 1",
      "each sequence counts once; sequences says how often each one occurs"),
     ("(-pair_counts[pair], pair)", "-pair_counts[pair]",
      "ties are not broken: of equally frequent pairs take the one with smaller ids"),
     ("sequences = {", "unused = {",
      "the merged ids are never put back, so the same pair wins again and again"),
     ("first_new_id + len(merges)", "first_new_id",
      "every merge gets the same new id; the next one is first_new_id + len(merges)")],
    run=False,
)
def train_naive(f, m):
    text = (0, 0, 0, 1, 3, 0, 0, 0, 1, 0, 2)
    yield "train_naive({aaabdaaabac: 1}, 3, 4)", f({text: 1}, 3, 4)
    words = {(9, 8): 1, (1, 2, 3): 5, (2, 3): 1, (7, 6, 7): 6}
    yield f"train_naive({words}, 4, 10)", f(dict(words), 4, 10)
    tied = {(5, 6): 2, (3, 4): 2, (1, 2): 1}
    yield f"train_naive({tied}, 2, 10)", f(dict(tied), 2, 10)
    yield "train_naive({(1, 2): 1}, 9, 10): only one to learn", f({(1, 2): 1}, 9, 10)

def small_tokenizer(m):  # -> Tokenizer of 78 merges, in an order that matters
    pairs = ["h e", "e r", "t h", "t he", "  the", "he r", "a n", "s a", "an d"]
    pairs += ["s and", "th e", "r e", "the re", "\u00c3 \u00a9"]
    pairs += [f"{a} {b}" for a in "ABCDEFGH" for b in "IJKLMNOP"]  # never used
    ids = {chr(b): i for i, b in enumerate(m.byte_alphabet(), start=4)}
    merges = []
    for pair in pairs:
        left, right = pair.split(" ") if pair[0] != " " else (" ", pair[2:])
        ids[left + right] = 260 + len(merges)
        merges.append((ids[left], ids[right]))
    return m.Tokenizer(merges)

@exercise(
    "01_bpe.py", "Tokenizer.encode_pre_token", 2,
    "replay the merges, in the order of learning",
    ["Begin with one id per byte of the UTF-8 text: self.byte_id[b].",
     "Then merge as long as any pair of neighbors is in self.rank. Not from left to"
     " right: always the pair that was learned first, with the lowest rank.",
     "ids = merge(ids, self.merges[best], 260 + best), where best is the lowest rank of"
     " all pairs in zip(ids, ids[1:]). Stop if none has a rank. One loop will do."],
    [("best = min(", "best = (lambda ranks: max([r for r in ranks if r < never],"
      " default=never))(", "you take the highest rank; the merge learned first has the"
      " lowest"),
     ("best = min(", "best = (lambda ranks: next((r for r in ranks if r < never),"
      " never))(", "you take the leftmost pair; take the one that was learned first"),
     ("", "return [self.byte_id[b] for b in pre_token.encode()]",
      "these are the single bytes; their merges are still to be replayed"),
     ("in pre_token.encode()", "in map(ord, pre_token)",
      "a character is not a byte: begin with pre_token.encode()")],
)
def encode(f, m):
    tokenizer = small_tokenizer(m)
    for text in (" the", "her", " there", "sands", " caf\u00e9", "x", ""):
        yield f"encode_pre_token({text!r})", f(tokenizer, text)

@exercise(
    "01_bpe.py", "Tokenizer.decode", 2, "ids back to text, whatever the ids are",
    ["self.decode_bytes(ids) gives the bytes of all ids, without special tokens.",
     "Bytes become a str with .decode(\"utf-8\"). Do it once, for all of them: the"
     " bytes of one character may be spread over two tokens.",
     "A model may generate half a character. errors=\"replace\" turns it into U+FFFD."],
    [("errors='replace'", "errors='ignore'",
      "an incomplete character disappears; it should show as U+FFFD"),
     ("errors='replace'", "errors='strict'",
      "an incomplete character stops your function; it should show as U+FFFD"),
     ("'utf-8'", "'latin-1'", "every byte became a character; the bytes are UTF-8"),
     ("", "return ''.join(self.decode_bytes([i]).decode('utf-8', errors='replace')"
      " for i in ids)",
      "you decode each token by itself; a character may be spread over two of them")],
)
def decode(f, m):
    tokenizer = m.Tokenizer([])
    ids = [tokenizer.byte_id[b] for b in "caf\u00e9".encode()]
    yield "decode(the ids of 'caf\u00e9')", f(tokenizer, ids)
    framed = [m.BOS, *ids, m.EOS]
    yield "decode([BOS, the ids of 'caf\u00e9', EOS])", f(tokenizer, framed)
    yield "decode(all ids of 'caf\u00e9' but the last)", f(tokenizer, ids[:-1])

@exercise(
    "01_bpe.py", "train", 2, "hard: like train_naive, without recounting every pair",
    ["A slow version passes, too: turn each pre-token into a tuple of ids (the bytes"
     " have ids 4 to 259, in the order of byte_alphabet()); do what train_naive does.",
     "To be fast, count all pairs once. After a merge, change only the counts of pairs"
     " next to it: subtract the old neighbors, add the new ones.",
     "Remember for each pair which pre-tokens hold it, and visit only those. Stop below"
     " min_frequency or at vocab_size tokens; return Tokenizer(merges), merge_counts."],
    [("< min_frequency", "< 1", "min_frequency is not respected"),
     ("range(260, vocab_size)", "range(260, 260 + vocab_size)",
      "vocab_size counts all tokens, with the 4 special ones and the 256 bytes"),
     ("counts = list(pre_token_counts.values())", "counts = [1] * len(pre_tokens)",
      "each pre-token counts once; pre_token_counts says how often it occurs")],
)
def train(f, m):
    words = {" the": 9, " then": 4, " there": 4, " other": 3, "he": 2, " caf\u00e9": 3}
    for size, frequency in ((264, 1), (300, 1), (300, 5)):
        tokenizer, counts = f(dict(words), size, frequency)
        yield f"the merges of train({words}, {size}, {frequency})", tokenizer.merges
        yield f"the counts of train({words}, {size}, {frequency})", counts

# =================================================================== Lesson 3: data set
@exercise(
    "02_prepare.py", "frame", 3, "put each story between <BOS> and <EOS>",
    ["The result is one flat list, not a list of lists.",
     "bpe.BOS and bpe.EOS are ids; encode(story) is a list of ids.",
     "For each story, extend a list by [bpe.BOS, *encode(story), bpe.EOS]."],
    [("", "return [i for story in stories for i in [bpe.BOS, *encode(story)]]",
      "no <EOS>: the model would never learn when to stop"),
     ("", "return [i for story in stories for i in [*encode(story), bpe.EOS]]",
      "no <BOS>: the model would never learn how stories begin"),
     ("", "return [[bpe.BOS, *encode(story), bpe.EOS] for story in stories]",
      "a list per story; stage 4 reads one flat array"),
     ("", "return [bpe.BOS, *(i for story in stories for i in encode(story)), bpe.EOS]",
      "one frame around all; each story needs its own")],
)
def frame(f, m):
    def encode(story):
        return [ord(letter) for letter in story]
    yield 'frame(["ab", "c"], encode)', f(["ab", "c"], encode)
    yield 'frame(["", "x"], encode)', f(["", "x"], encode)

@exercise(
    "02_prepare.py", "to_bytes", 3, "ids as they are written to train.bin",
    ["numpy does it: make an array of the right dtype, then call .tobytes().",
     "Two bytes per id, unsigned: uint16.",
     "np.array(ids, dtype=\"<u2\"): < puts the low byte first, on every machine."],
    [("", "return np.array(ids, dtype='>u2').tobytes()",
      "the high byte comes first; stage 4 reads the low byte first"),
     ("", "return np.array(ids, dtype=np.int32).tobytes()",
      "four bytes per id: train.bin would be twice as large, and read wrongly"),
     ("", "return np.array(ids).tobytes()",
      "eight bytes per id; say which dtype you want"),
     ("", "return np.array(ids, dtype='<u2')", "an array; .tobytes() is missing")],
)
def to_bytes(f, m):
    yield "to_bytes([2, 300, 65535])", f([2, 300, 65_535])
    yield "to_bytes([])", f([])

@exercise(
    "02_prepare.py", "choose", 3, "drop duplicates, then hold out stories",
    ["Make a mask `keep` that is True at the first of equal fingerprints:"
     " np.unique(fingerprints, return_index=True) gives their indices.",
     "If valid is all False, hold out max(1, round(valid_share * kept stories)) of the"
     " stories you keep: those with the smallest fingerprints.",
     "np.sort(fingerprints[keep])[count - 1] is the largest of these. Return two masks:"
     " keep & ~valid and keep & valid."],
    [("keep & ~valid, keep & valid", "~valid, valid",
      "duplicates are not dropped, so a held-out story may occur twice"),
     ("valid_share * keep.sum()", "valid_share * len(fingerprints)",
      "duplicates count, too; valid_share is a fraction of the stories you keep"),
     ("valid = fingerprints <= np.sort(fingerprints[keep])[count - 1]",
      "valid = np.arange(len(keep)) >= len(keep) - count",
      "you hold out the last stories; files are often sorted, so the end is special"),
     ("[count - 1]", "[count]", "one story too many: the count-th smallest is at"
      " count - 1")],
)
def choose(f, m):
    np = m.np
    prints, none = np.array([50, 10, 40, 10, 20, 30, 60]), np.zeros(7, dtype=bool)
    yield "choose([50 10 40 10 20 30 60], all False, 0.5)", f(prints, none, 0.5)
    yield "choose([50 10 40 10 20 30 60], all False, 0.01)", f(prints, none, 0.01)
    some = np.array([False, False, False, True, True, False, False])
    yield "choose([50 10 40 10 20 30 60], two True, 0.5)", f(prints, some, 0.5)

# =============================================================== Lesson 4: transformer
# In training, torch's attention replaces attention_by_hand(); in `run`, yours does.
BY_HAND = """
F.scaled_dot_product_attention = (
    lambda q, k, v, *bias, **others: attention_by_hand(q, k, v, *bias[:1])[0]
)
"""

def heads(m, T, S, H=2, D=16):  # -> q, k, v
    size = {"q": T, "k": S, "v": S}
    return [m.torch.randn(2, H, size[name], D) for name in "qkv"]

@exercise(
    "03_model.py", "attention_by_hand: mask", 4,
    "-inf where a query must not see a key",
    ["The mask is added to the scores: 0 leaves a score as it is, -inf makes its weight"
     " 0 after softmax. Shape (T, S): a row per query, a column per key.",
     "q.new_full((T, S), -math.inf) is -inf everywhere; .triu(n) keeps what is on or"
     " above a diagonal and sets the rest to 0. n = 0 is the main diagonal.",
     "A query sees itself, so for T = S the diagonal stays 0: n = 1. With S - T earlier"
     " keys in front, the diagonal moves right by S - T."],
    [("S - T + 1", "S - T", "the mask hides the diagonal: a token may see itself"),
     ("triu(S - T + 1)", "triu(1)", "with cached keys (S > T) the mask is too far left:"
      " the queries are the LAST T positions"),
     ("triu(S - T + 1)", "tril(S - T - 1)", "the mask hides the past, not the future"),
     ("-math.inf", "0.0", "nothing is masked: every token sees the future")],
    patch={"03_model.py": BY_HAND},
)
def causal_mask(f, m):
    for T, S in ((3, 3), (2, 5), (1, 4)):
        yield f"attention weights for T = {T}, S = {S}", f(*heads(m, T, S))[1]

@exercise(
    "03_model.py", "attention_by_hand", 4, "scores, mask, softmax, weighted sum",
    ["scores = q @ k.transpose(2, 3), divided by the square root of D: (B, H, T, S). If"
     " there is a bias, add it.",
     "Add a mask (T, S) with -inf where a key is in the future of a query. The T"
     " queries are the last of the S positions: .triu(S - T + 1).",
     "attn_weights = softmax over the keys, dim=-1. Return attn_weights @ v and"
     " attn_weights."],
    [("math.sqrt(D)", "D", "divided by D, not by its square root"),
     ("math.sqrt(D)", "1", "the scores are not divided by the square root of D"),
     ("S - T + 1", "S - T", "the mask hides the diagonal: a token may see itself"),
     ("scores + bias", "scores", "the bias is left out"),
     ("scores + mask", "scores", "the mask is missing: a token sees the future"),
     (", attn_weights)", ")", "only the weighted sums come back; return the attention"
      " weights, too"),
     ("dim=-1", "dim=-2", "softmax over the queries; each query's weights over the keys"
      " must sum to 1")],
    patch={"03_model.py": BY_HAND},
)
def attention(f, m):
    for T, S in ((3, 3), (2, 5), (1, 4)):
        y, attn_weights = f(*heads(m, T, S))
        yield f"attention weights for T = {T}, S = {S}", attn_weights
        yield f"weighted sums for T = {T}, S = {S}", y
    y, attn_weights = f(*heads(m, 3, 4), m.torch.randn(2, 3, 4))
    yield "attention weights for T = 3, S = 4, with a bias", attn_weights

def small_gpt(m, **config):  # a GPT whose weights are all random, norms' too
    gpt, torch = getattr(m, "gpt", m), m.torch
    model = gpt.GPT(gpt.GPTConfig(32, 8, 2, 2, 12, **config)).eval()
    for weight in model.parameters():
        weight.data = torch.randn(weight.shape) * 0.7
    return model

@exercise(
    "03_model.py", "CausalSelfAttention.qkv", 4,
    "one product gives q, k and v of all heads",
    ["self.c_attn(x) is (B, T, 3C): the first C are queries, then keys, then values.",
     ".split(C, dim=2) gives the three parts, each (B, T, C). Head 1 is the first D"
     " channels, head 2 the next, with D = C // self.n_head.",
     "For each part: .view(B, T, H, D).transpose(1, 2). view cuts each vector,"
     " transpose swaps positions and heads."],
    [("view(B, T, self.n_head, C // self.n_head).transpose(1, 2)",
      "reshape(B, self.n_head, T, C // self.n_head)",
      "a single reshape mixes up tokens: cut into (B, T, H, D), then swap T and H"),
     (".transpose(1, 2)", "", "the shape is (B, T, H, D); heads come before positions"),
     (".split(C, dim=2)", ".split(C, dim=2)[::-1]", "the order must be q, k, v"),
     ("self.n_head, C // self.n_head).transpose(1, 2)",
      "C // self.n_head, self.n_head).permute(0, 3, 1, 2)",
      "each head takes every H-th channel; it should take D channels side by side")],
)
def split_heads(f, m):
    attn, x = small_gpt(m).h[0].attn, m.torch.randn(2, 3, 12)
    for name, part in zip("qkv", f(attn, x)):
        yield f"{name} of qkv(x), x of shape (2, 3, 12)", part

# ===================================================================== Lesson 5: model
@exercise(
    "by_hand.py", "layer_norm", 5, "mean 0, variance 1, then a scale per channel",
    ["Subtract each vector's mean: x.mean(dim=-1, keepdim=True).",
     "The variance is the mean of the squares of that. Divide by its square root.",
     "sqrt(variance + eps), and at the end times weight."],
    [("(centered * centered).mean(dim=-1, keepdim=True)",
      "x.var(dim=-1, keepdim=True)",
      "the variance is divided by C - 1, torch's default; divide by C"),
     ("x - x.mean(dim=-1, keepdim=True)", "x", "the mean is not subtracted (without it,"
      " this is RMSNorm)"),
     (" * weight", "", "the scale `weight` is missing"),
     ("torch.sqrt(variance + eps)", "(torch.sqrt(variance) + eps)",
      "eps is outside the square root"),
     ("dim=-1", "dim=0", "the mean is over the tokens; each vector has its own")],
    patch={"03_model.py": "\nnn.LayerNorm.forward = "
           "lambda self, x: layer_norm(x, self.weight)\n"},
)
def layer_norm(f, m):
    weight = m.torch.randn(6)
    yield "layer_norm(x of shape (3, 6), weight)", f(m.torch.randn(3, 6) * 2, weight)
    yield "layer_norm(x / 500, weight)", f(m.torch.randn(3, 6) / 500, weight)
    yield "layer_norm(x of shape (2, 3, 6))", f(m.torch.randn(2, 3, 6) + 5, weight)

@exercise(
    "03_model.py", "MLP.forward", 5, "widen, apply GELU, narrow again",
    ["self.c_fc widens to 4C, self.c_proj narrows to C.",
     "Between the two: F.gelu(..., approximate=\"tanh\"), as in GPT-2.",
     "At the end F.dropout(..., self.dropout, self.training): only while training."],
    [(", approximate='tanh'", "", "the exact GELU; GPT-2 uses approximate=\"tanh\""),
     ("F.gelu(", "(lambda y, approximate: y.relu())(", "ReLU in place of GELU"),
     ("F.gelu(", "(lambda y, approximate: y)(", "no nonlinearity: two matrices in a row"
      " can do no more than one"),
     ("self.training", "True", "dropout also outside of training")],
)
def mlp(f, m):
    mlp, x = small_gpt(m).h[0].mlp, m.torch.randn(2, 3, 12)
    yield "mlp(x), x of shape (2, 3, 12)", f(mlp, x)
    mlp.dropout = 0.5
    yield "mlp(x) with dropout 0.5, in eval mode", f(mlp, x)
    m.torch.manual_seed(1)
    yield "mlp(x) with dropout 0.5, while training", f(mlp.train(), x)

@exercise(
    "03_model.py", "Block.forward", 5, "residual connections around attention and MLP",
    ["x = x + attention of the normalized x; then the same with the MLP.",
     "Each has its own layer norm: self.ln_1 and self.ln_2. Normalize what goes in, not"
     " the sum.",
     "self.attn takes the normalized x, and what came with x: cache and bias."],
    [("x = x + self.attn", "x = self.attn", "no residual connection around attention"),
     ("return x + self.mlp", "return self.mlp", "no residual connection around MLP"),
     ("", "x = self.ln_1(x + self.attn(x, cache, bias))\n"
      "return self.ln_2(x + self.mlp(x))",
      "this is post-norm: the sum is normalized; here it is what goes into each part"),
     ("self.ln_2", "self.ln_1", "ln_1 twice: the MLP has a norm of its own, ln_2"),
     ("cache, bias)", "None, bias)", "the cache is not passed on to attention"),
     ("cache, bias)", "cache)", "the bias is not passed on to attention")],
)
def block(f, m):
    block, x = small_gpt(m).h[0], m.torch.randn(2, 3, 12)
    yield "block(x), x of shape (2, 3, 12)", f(block, x)
    cache = m.KVCache(8)
    yield "block(the first two positions, cache)", f(block, x[:, :2], cache)
    yield "block(the third, cache)", f(block, x[:, 2:], cache)
    yield "block(x, None, a bias)", f(block, x, None, m.torch.randn(2, 3, 3))

@exercise(
    "03_model.py", "GPT.hidden", 5, "embeddings, blocks, final norm",
    ["self.wte(idx) is a vector per token, self.wpe(...) one per position: add both.",
     "Without a cache, positions are 0 to T - 1. With one, they begin at"
     " cache[0].length, the number of tokens already in it.",
     "If self.alibi is not None: bias = self.alibi_bias(all positions from 0 on, past)."
     " Call block i of self.h with x, cache[i], bias; return self.ln_f(x). Leave"
     " checkpointing out."],
    [("self.wpe(", "0 * self.wpe(", "no position embedding: word order would be lost"),
     ("positions[past:]", "positions[:idx.shape[1]]",
      "positions begin at 0 even after a cached past"),
     ("if self.alibi is not None", "if False",
      "the distance penalty self.alibi_bias is left out"),
     ("self.ln_f(x)", "x", "the final layer norm is missing"),
     ("cache[i]", "cache[0]", "all blocks share one cache; block i has cache[i]")],
)
def hidden(f, m):
    model, idx = small_gpt(m), m.torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])
    yield "hidden(idx), idx of shape (2, 4)", f(model, idx)
    for part in (idx[:, :2], idx[:, 2:]):
        cache = model.new_cache()
        yield "hidden(two tokens, an empty cache)", f(model, part, cache)
    yield "hidden(two more tokens, the same cache)", f(model, idx[:, :2], cache)
    model.alibi = 0.5
    yield "hidden(idx) with alibi = 0.5", f(model, idx)

@exercise(
    "03_model.py", "GPTConfig.n_params", 5,
    "count the parameters without building them",
    ["The embeddings: vocab_size x C and block_size x C. The output layer is the token"
     " embedding again and counts once.",
     "A block without biases: q, k, v, and c_proj are 4 x C x C, the MLP is"
     " 2 x 4 x C x C, two layer norms are 2 x C.",
     "A final norm: C. With bias=True every norm and matrix has one: 11 x C more per"
     " block (2 norms, 3 + 1 for attention, 4 + 1 for the MLP), and C for the last."],
    [("return embeddings", "return embeddings + self.vocab_size * C",
      "the token embedding is counted twice; input and output share it"),
     ("self.vocab_size + self.block_size", "self.vocab_size",
      "the position embedding is missing"),
     ("4 + 8", "3 + 8", "attention's c_proj is missing"),
     (" + 2 * C", "", "the two layer norms of each block are missing")],
    run=False,
)
def n_params(f, m):
    yield "a vocabulary of 2,048, nano", f(m.GPTConfig(2048, 256, 2, 4, 128))
    yield "with biases", f(m.GPTConfig(2048, 256, 2, 4, 128, bias=True))
    yield "10 blocks, 448 wide", f(m.GPTConfig(8192, 512, 10, 7, 448))

@exercise(
    "by_hand.py", "cross_entropy", 5, "the loss: -ln(probability of the right token)",
    ["Leave out rows whose target is `ignore`: logits[targets != ignore].",
     "ln(softmax) of the right token is its logit minus the logsumexp of the row.",
     "logits.gather(1, targets[:, None])[:, 0] are the right tokens' logits. Return the"
     " mean of logits.logsumexp(dim=1) minus those."],
    [(".mean()", ".sum()", "this is the sum; take the mean over the tokens"),
     ("(logits.logsumexp(dim=1) - right)", "(right - logits.logsumexp(dim=1))",
      "the sign: a loss is -ln(p), never negative"),
     ("logits.logsumexp(dim=1)", "logits.exp().sum(dim=1).log()",
      "exp() overflows at large logits; logsumexp subtracts the maximum first"),
     (".mean()", ".mean() / 0.6931471805599453", "these are bits (log2); the loss is in"
      " nats, with the natural logarithm"),
     ("targets != ignore", "targets > -2", "targets equal to `ignore` are counted")],
    patch={"03_model.py": "\nGPT.chunked_loss = lambda self, x, targets: "
           "cross_entropy(self.output(x), targets)\n"},
)
def cross_entropy(f, m):
    torch = m.torch
    logits, targets = torch.randn(5, 7), torch.tensor([1, 6, 0, 3, 3])
    yield "cross_entropy(logits (5, 7), targets (5,))", f(logits, targets)
    targets[1:3] = -1
    yield "the same with two targets to ignore", f(logits, targets)
    yield "with logits up to 2,000", f(logits * 1000, targets)

# ================================================================== Lesson 6: training
@exercise(
    "04_train.py", "get_batch", 6, "sequences, and the same one token later",
    ["Batch n has sequences n * batch_size to n * batch_size + batch_size - 1. Sequence"
     " number j is the (j % count)-th of epoch j // count: divmod(j, tokens.count).",
     "tokens.starts(epoch)[i] is where it starts in tokens.ids. Read block_size + 1"
     " tokens from there and make an int64 tensor of shape (B, T + 1).",
     "Inputs are rows[:, :-1], all but the last; targets rows[:, 1:]."],
    [("rows[:, 1:]", "rows[:, :-1]", "targets not shifted: the target of token t is"
      " token t + 1"),
     ("rows[:, :-1], rows[:, 1:]", "rows[:, 1:], rows[:, :-1]",
      "inputs and targets are swapped: the model would predict the token before"),
     ("n * batch_size + i", "n + i", "batches overlap: batch n begins at sequence"
      " n * batch_size"),
     ("tokens.starts(epoch)", "tokens.starts(0)",
      "every epoch has the order of the first one")],
)
def get_batch(f, m):
    def starts(epoch):
        return m.np.roll(m.np.array([0, 9, 20, 33, 50]), epoch)
    ids = (m.np.arange(60) * 7 % 61).astype("<u2")
    tokens = SimpleNamespace(ids=ids, block_size=6, count=5, starts=starts)
    for n in (0, 1, 2):
        x, y = f(tokens, n, 2)
        yield f"the inputs of get_batch(tokens, {n}, 2)", x
        yield f"the targets of get_batch(tokens, {n}, 2)", y

@exercise(
    "04_train.py", "get_lr", 6, "a learning rate that rises, then falls",
    ["Warmup lasts `rising` steps: warmup * steps, rounded, but at least 1 and at most"
     " steps - 1. In step s the rate is max_lr * (s + 1) / rising.",
     "After the warmup the rate falls; the docstring says in which shape and how far."
     " Work its example for step 55 out by hand.",
     "A straight line from max_lr at step `rising - 1` to 0 at step `steps`, which is"
     " never taken: max_lr * (steps - step) / (steps - rising + 1)."],
    [("step < rising", "False", "no warmup: the rate should rise in the first steps"),
     ("(step + 1) / rising", "step / rising",
      "the first step has the rate 0, so it is wasted: count from step + 1"),
     ("", "rising = max(1, min(round(warmup * steps), steps - 1))\n"
      "return max_lr * min(1, (step + 1) / rising)",
      "no decay: after the warmup the rate must fall")],
)
def get_lr(f, m):
    for step in (0, 9, 10, 30, 54, 99):
        yield f"get_lr({step}, 100, 1.0, 0.1)", f(step, 100, 1.0, 0.1)
    yield "get_lr(0, 1, 0.5, 0.05): a single step", f(0, 1, 0.5, 0.05)
    yield "get_lr(1, 2, 0.5, 0.9)", f(1, 2, 0.5, 0.9)

@exercise(
    "by_hand.py", "clip_gradients", 6, "cut a long gradient to length 1",
    ["The length is that of ONE vector: add the squares of all tensors, then take the"
     " square root.",
     "If it is longer than limit, multiply every tensor by limit / norm, in place.",
     "A shorter gradient stays as it is: the factor is at most 1. Return the norm."],
    [(".clamp(max=1.0)", "", "a short gradient gets longer; the factor is at most 1"),
     ("gradient *= scale", "gradient *= (limit / gradient.norm()).clamp(max=1.0)",
      "each tensor is clipped by itself; that changes the direction"),
     ("gradient *= scale", "gradient.clamp_(-limit, limit)",
      "each number is clipped by itself; that changes the direction"),
     ("g.square().sum()", "g.square().sum().sqrt()", "the norm: add the squares of all"
      " tensors first, then take one square root")],
    patch={"04_train.py": "\ntorch.nn.utils.clip_grad_norm_ = lambda weights, limit: "
           "clip_gradients([w.grad for w in weights if w.grad is not None], limit)\n"},
)
def clip_gradients(f, m):
    for factor in (3.0, 0.01):
        gradients = [m.torch.randn(3, 2) * factor, m.torch.randn(4) * factor]
        yield f"the norm returned, gradients times {factor}", f(gradients, 1.0)
        yield f"the gradients afterwards, times {factor}", gradients

ADAMW = """
class AdamWByHand(torch.optim.AdamW):
    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            betas, decay = group["betas"], group["weight_decay"]
            for w in [w for w in group["params"] if w.grad is not None]:
                s = self.state[w]
                s["step"] = s.get("step", 0) + 1
                m = s.setdefault("exp_avg", torch.zeros_like(w))
                v = s.setdefault("exp_avg_sq", torch.zeros_like(w))
                adamw_step(w, w.grad, m, v, s["step"], group["lr"], *betas, decay)

torch.optim.AdamW = AdamWByHand
"""

@exercise(
    "by_hand.py", "adamw_step", 6, "decay the weights, then step by m / sqrt(v)",
    ["m += (1 - beta1) * (gradient - m), and likewise v with gradient * gradient and"
     " beta2. In place, so that the caller's tensors change.",
     "Both begin at 0; divide by 1 - beta1**step and 1 - beta2**step to correct that.",
     "weight -= lr * m_hat / (v_hat.sqrt() + eps). Before that, on its own, the decay:"
     " weight *= 1 - lr * weight_decay."],
    [("", "m = beta1 * m + (1 - beta1) * gradient\n"
      "v = beta2 * v + (1 - beta2) * gradient ** 2\n"
      "weight *= 1 - lr * weight_decay\nv_hat = v / (1 - beta2 ** step)\n"
      "weight -= lr * m / (1 - beta1 ** step) / (v_hat.sqrt() + eps)",
      "`m = ...` makes a new tensor; `m += ...` changes the caller's, and so for v"),
     ("weight *= 1 - lr * weight_decay", "pass", "the weight does not decay"),
     ("", "m += (1 - beta1) * (gradient - m)\n"
      "v += (1 - beta2) * (gradient * gradient - v)\n"
      "v_hat = v / (1 - beta2 ** step)\n"
      "weight -= lr * m / (1 - beta1 ** step) / (v_hat.sqrt() + eps)\n"
      "weight *= 1 - lr * weight_decay",
      "the decay comes last; the old weight decays, before the step is taken"),
     ("m / (1 - beta1 ** step)", "m", "m is not corrected for its start at 0"),
     ("v / (1 - beta2 ** step)", "v", "v is not corrected for its start at 0"),
     ("weight *= 1 - lr * weight_decay", "gradient = gradient + weight_decay * weight",
      "the decay is part of the gradient: that is Adam with L2, not AdamW"),
     ("(v_hat.sqrt() + eps)", "(v_hat + eps).sqrt()", "eps is inside the square root"),
     ("weight -= lr", "weight += lr", "uphill: the step must go against the gradient")],
    patch={"04_train.py": ADAMW},
)
def adamw_step(f, m):
    torch = m.torch
    weight, moments = torch.randn(2, 3), [torch.zeros(2, 3), torch.zeros(2, 3)]
    for step in (1, 2, 3):
        gradient = torch.randn(2, 3) * 1e-4  # not large beside sqrt(eps)
        f(weight, gradient, *moments, step, 0.1, 0.9, 0.99, 0.5)
        yield f"the weight after step {step}", weight
        yield f"m and v after step {step}", moments

@exercise(
    "04_train.py", "train_step", 6, "forward, backward, clip, step",
    ["First set group[\"lr\"] to get_lr(step, plan[\"steps\"], plan[\"max_lr\"],"
     " WARMUP) in every group of optimizer.param_groups.",
     "plan[\"accumulate\"] times: x, y = next_batch(n, plan[\"micro_batch\"]), where n"
     " counts the micro-batches of the run: step * plan[\"accumulate\"] + micro_step;"
     " loss = model(x, y, return_logits=False)[1]; divide it by"
     " plan[\"accumulate\"]; loss.backward().",
     "Then torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0), optimizer.step(),"
     " and optimizer.zero_grad(). Return the sum of losses (detached) and norm."],
    [("optimizer.zero_grad(set_to_none=True)", "pass",
      "the gradients are never set to zero, so each step adds to those before"),
     ("loss / plan['accumulate']", "loss", "the loss is not divided by the number of"
      " micro-batches"),
     ("(step * plan['accumulate'] + micro_step)", "micro_step",
      "n starts at 0 in every step, so all steps train on the same sequences"),
     ("group['lr'] = lr", "pass", "the learning rate is computed but not set in the"
      " optimizer's groups"),
     ("norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
      "norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)",
      "the gradient is not clipped to length 1"),
     ("optimizer.step()", "pass", "no optimizer.step(): the weights never move")],
)
def train_step(f, m):
    torch, model = m.torch, small_gpt(m).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plan = {"steps": 3, "max_lr": 0.3, "accumulate": 2, "micro_batch": 2}

    def next_batch(n, size):
        ids = torch.arange(n * 10, n * 10 + size * 9).view(size, 9) * 7 % 32
        return ids[:, :-1], ids[:, 1:]

    for step in range(3):
        loss, norm = f(model, optimizer, next_batch, step, plan, torch.device("cpu"))
        yield f"the loss of step {step}", loss
        yield f"the gradient's norm in step {step}", norm
        yield f"the final norm's weights after step {step}", model.ln_f.weight

# ================================================================ Lesson 7: evaluation
@exercise(
    "05_eval.py", "bits_per_byte", 7, "the loss per byte of text, in bits",
    ["A token of probability p costs -log2(p) bits.",
     "Add up the bits of all tokens.",
     "Divide by the bytes of the text, not by the number of tokens."],
    [("math.log2(p)", "math.log(p)", "these are nats (natural logarithm); bits need"
      " log2"),
     ("/ n_bytes", "/ len(probs)", "this is per token; divide by n_bytes"),
     ("-math.log2(p)", "math.log2(p)", "the sign: a cost is -log2(p)")],
    run=False,
)
def bits_per_byte(f, m):
    yield "bits_per_byte([1/2, 1/8, 1/4], 11)", f([1 / 2, 1 / 8, 1 / 4], 11)
    yield "bits_per_byte([0.9], 4)", f([0.9], 4)

@exercise(
    "05_eval.py", "sliding_windows", 7, "cut a text so that each token is scored once",
    ["The first window reads from `begin` and scores begin + 1 and what follows. It"
     " ends at first + context + 1, or at `end`.",
     "The next window starts (context + 1) // 2 later, so the two overlap. It scores"
     " only what the one before has not: from that window's end on.",
     "Append (first, scored, window_end) while scored < end."],
    [("(context + 1) // 2", "context", "no overlap: the first tokens of a window are"
      " predicted from almost nothing"),
     ("begin, begin + 1", "begin, begin", "the first token is scored, but nothing is"
      " before it"),
     ("(first, scored, window_end)", "(first, first + 1, window_end)",
      "tokens in the overlap are scored twice"),
     ("first + context + 1", "first + context", "a window has context + 1 tokens: the"
      " last one is only a target")],
)
def sliding_windows(f, m):
    yield "sliding_windows(0, 9, 4)", f(0, 9, 4)
    yield "sliding_windows(100, 105, 8)", f(100, 105, 8)
    yield "sliding_windows(3, 40, 7)", f(3, 40, 7)
    yield "sliding_windows(5, 6, 4): nothing to score", f(5, 6, 4)

@exercise(
    "05_eval.py", "summary: tokens, per_byte", 7, "bits per byte of a whole file",
    ["tokens: how many are scored; <BOS> is not (ids != BOS).",
     "per_byte: bits (S,) and n_bytes (S,) have an entry per story. For the whole file,"
     " divide the sum of all bits by the sum of all bytes.",
     "tokens, per_byte = int((ids != BOS).sum()), float(bits.sum() / ...)"],
    [("bits.sum() / n_bytes.sum()", "(bits / n_bytes).mean()",
      "the mean over stories; a short story would count as much as a long one"),
     ("int((ids != BOS).sum())", "len(ids)", "<BOS> is counted, but it is not scored"),
     ("bits.sum()", "nats.sum()", "nats per byte; a bit is ln 2 nats")],
)
def summary(f, m):
    np, ids = m.np, m.np.array([2, 5, 6, 3, 2, 7, 5, 5, 5, 3])
    nats = np.array([0, 1.5, 2.5, 0.25, 0, 3, 1, 1, 0.5, 0.25])
    byte_lengths = np.array([0, 0, 0, 0, 1, 3, 2, 6])
    yield "summary of two stories", f(nats, ids, np.array([0, 4]), byte_lengths)
    yield "summary of one story", f(nats[:4], ids[:4], np.array([0]), byte_lengths)

@exercise(
    "05_eval.py", "count_ngrams", 7, "how often each n-gram of ids occurs in train",
    ["The answer has one count per n-gram of ids, in order, repeated ones too:"
     " len(ids) - n + 1 counts.",
     "ngram_keys(ids, n) turns each n-gram into one number. np.unique(keys,"
     " return_counts=True) counts them.",
     "train may be larger than memory: read CHUNK tokens at a time, and n - 1 more, or"
     " the n-grams across the border are lost. np.searchsorted(wanted, keys) says where"
     " each key is, or would be, in the sorted `wanted`; count only those it holds."],
    [("CHUNK + n - 1]", "CHUNK]", "n-grams across the border of two chunks are lost"),
     ("+= often[known]", "+= 1", "an n-gram counts once per chunk, not as often as it"
      " occurs"),
     ("return counts[where]", "return counts", "one count per DIFFERENT n-gram; each"
      " n-gram of ids needs its own"),
     ("+ CHUNK + n - 1]", "+ CHUNK + n]", "one token too many: n-grams across the"
      " border are counted twice")],
    run=False,
)
def count_ngrams(f, m):
    f.__globals__["CHUNK"] = 10
    train, ids = m.np.arange(57) ** 2 % 11, m.np.arange(5, 25) ** 2 % 13 % 11
    for n in (1, 2, 3):
        yield f"count_ngrams(train, ids, {n}), in chunks of 10", f(train, ids, n)

@exercise(
    "05_eval.py", "wilson", 7, "how sure is 8 of 10?",
    ["The middle is not right / count: it is pulled toward 1/2, as if z * z more had"
     " been tried and half of them were right.",
     "middle = (right + z * z / 2) / (count + z * z), with z = 1.96 for 95%.",
     "half = z * sqrt(right * (count - right) / count + z * z / 4) / (count + z * z)."
     " Return (middle - half, middle + half)."],
    [("", "p, z = right / count, 1.96\n"
      "half = z * math.sqrt(p * (1 - p) / count)\nreturn p - half, p + half",
      "the normal approximation; at 0 of 10 its interval would have no width"),
     ("1.96", "1.645", "z = 1.645 gives a 90% interval; 95% needs 1.96"),
     ("/ n", "/ count", "half is divided by count; divide by count + z * z")],
    run=False,
)
def wilson(f, m):
    for right, count in ((8, 10), (0, 10), (90, 120)):
        yield f"wilson({right}, {count})", f(right, count)

# ================================================================= Lesson 8: inference
@exercise(
    "06_sample.py", "sample_by_hand", 8, "which token does a random number hit?",
    ["Lay the probabilities end to end on a ruler: token 0 ends at probs[0], token 1 at"
     " probs[0] + probs[1].",
     "The answer is the first token whose end is beyond u.",
     "itertools.accumulate(probs) gives the ends. Take the first token with end > u."],
    [("u < end", "u <= end", "at u = 0.5 exactly token 0 is hit; its part is 0 <= u <"
      " 0.5, without the end"),
     ("itertools.accumulate(probs)", "probs", "u is compared with each probability; it"
      " should be the running sum"),
     ("", "return max(range(len(probs)), key=lambda i: probs[i])",
      "this is always the most likely token; u is not used")],
    run=False,
)
def sample_by_hand(f, m):
    for u in (0.1, 0.5, 0.6, 0.75, 0.9):
        yield f"sample_by_hand([0.5, 0.25, 0.25], {u})", f([0.5, 0.25, 0.25], u)
    yield "sample_by_hand([0, 0.25, 0.75], 0)", f([0.0, 0.25, 0.75], 0.0)

@exercise(
    "06_sample.py", "keep_top_k", 8, "-inf for all but the k most likely",
    ["logits.topk(k) gives the k largest of each row, and where they are.",
     "Begin with a tensor full of -inf: torch.full_like(logits, -math.inf).",
     ".scatter(-1, ids, values) puts the values back where they were."],
    [("-math.inf", "0.0", "a logit of 0 is not a probability of 0; use -inf"),
     ("logits.topk(k)", "logits.topk(k, largest=False)", "the k LEAST likely are kept"),
     ("return ", "return values\n    return ",
      "these are the k values, sorted; they must go back to their places, (..., V)")],
    patch={"06_sample.py": "\nSETTINGS['top_k'] = 5\n"},
)
def top_k(f, m):
    logits = m.torch.randn(2, 6)
    for k in (1, 3, 6):
        yield f"keep_top_k(logits of shape (2, 6), {k})", f(logits, k)
    yield "keep_top_k([-1.0, 3.0, 2.0], 2)", f(m.torch.tensor([-1.0, 3.0, 2.0]), 2)

@exercise(
    "06_sample.py", "keep_top_p", 8, "the fewest tokens that together reach p",
    ["Sort the logits, largest first, and take the softmax: probabilities, descending.",
     "A token stays if the sum of those BEFORE it is still below p. So the token that"
     " crosses p stays, too. cumsum(dim=-1) - probs is that sum.",
     "Allow for rounding: drop where before >= p * (1 - ROUNDING), in float64. Put the"
     " values back in their places with .scatter(-1, ids, values)."],
    [(" - probs", "", "the token that crosses p is dropped; without it the sum is"
      " below p"),
     ("descending=True", "descending=False", "the LEAST likely tokens are kept; sort"
      " with descending=True"),
     ("return ", "return values\n    return ",
      "the result is in sorted order; each logit must go back to its place"),
     (".softmax(dim=-1)", "", "the sum is over logits; softmax makes probabilities of"
      " them")],
    patch={"06_sample.py": "\nSETTINGS['top_p'] = 0.9\n"},
)
def top_p(f, m):
    logits = m.torch.tensor([[0.3, 0.1, 0.1, 0.5], [0.02, 0.08, 0.6, 0.3]]).log()
    for p in (0.75, 0.45, 0.95):
        yield f"keep_top_p(ln of [.3 .1 .1 .5], [.02 .08 .6 .3], {p})", f(logits, p)
    yield "keep_top_p(ln of [.3 .1 .1 .5], 0.8)", f(logits[0], 0.8)

@exercise(
    "06_sample.py", "keep_min_p", 8, "drop what is far below the most likely token",
    ["A token stays if p >= fraction * highest p. Softmax is not needed for that.",
     "ln(p1 / p2) is the difference of the two logits. So compare logits with the"
     " highest logit + math.log(fraction).",
     "logits.amax(dim=-1, keepdim=True) is the highest of each row; subtract ROUNDING"
     " from the limit and use masked_fill."],
    [("logits.amax(dim=-1, keepdim=True)", "logits.logsumexp(dim=-1, keepdim=True)",
      "the limit is `fraction` itself; it should be `fraction` of the highest"
      " probability"),
     (" + math.log(fraction)", " * fraction", "a fraction of the highest LOGIT; logits"
      " are logarithms, so add math.log(fraction)"),
     ("amax(dim=-1, keepdim=True)", "max()", "the highest of all rows; each row has its"
      " own"),
     ("-math.inf", "0.0", "a logit of 0 is not a probability of 0; use -inf")],
)
def min_p(f, m):
    logits = m.torch.tensor([[0.5, 0.3, 0.2], [0.9, 0.06, 0.04]]).log() + 2
    logits[1] += 3
    yield "keep_min_p(ln of [.5 .3 .2], [.9 .06 .04], 0.5)", f(logits, 0.5)
    yield "keep_min_p(ln of [.5 .3 .2], [.9 .06 .04], 0.05)", f(logits, 0.05)
    yield "keep_min_p(one row, 0.3)", f(logits[0], 0.3)

@exercise(
    "06_sample.py", "penalize_repetition", 8, "make tokens already seen less likely",
    ["logits.gather(-1, seen) are the logits of the tokens seen.",
     "A positive logit is divided by the penalty. A negative one is multiplied:"
     " dividing would raise it.",
     "torch.where(old > 0, old / penalty, old * penalty), then"
     " logits.scatter(-1, seen, those)."],
    [("torch.where(old > 0, old / penalty, old * penalty)", "old / penalty",
      "a negative logit is divided, too, which makes its token MORE likely"),
     ("old > 0", "old < 0", "the two cases are swapped: divide positive logits"),
     ("torch.where(old > 0, old / penalty, old * penalty)", "old - penalty",
      "the penalty is subtracted; it is a factor")],
    patch={"06_sample.py": "\nSETTINGS['repetition_penalty'] = 1.3\n"},
)
def penalize_repetition(f, m):
    torch = m.torch
    logits = torch.tensor([[3.0, -1.0, 2.0, 0.5], [-2.0, 4.0, -0.5, 1.0]])
    seen = torch.tensor([[0, 1, 1], [2, 3, 2]])
    yield "penalize_repetition(logits (2, 4), seen (2, 3), 2.0)", f(logits, seen, 2.0)
    yield "penalize_repetition(a row, seen (2,), 1.5)", f(logits[0], seen[0, :2], 1.5)

@exercise(
    "03_model.py", "KVCache.append", 8, "keep the keys and values of earlier tokens",
    ["In the first call (self.length is 0) make a buffer for block_size positions:"
     " self.buffer = k.new_empty(2, B, H, self.block_size, D).",
     "Write the new keys and values after the first self.length positions, and raise"
     " self.length by their number, k.shape[2].",
     "Return all so far: self.buffer[0, :, :, :self.length], and [1, ...] for values."],
    [("return ", "return k, v\n    return ", "only the new keys and values come back;"
      " attention needs all so far"),
     ("past:self.length] = v", "past:self.length] = k", "the keys are stored as values,"
      " too"),
     ("self.length + k.shape[2]", "self.length + 1", "the length grows by 1, but"
      " several tokens may come at once"),
     ("past:self.length", ":self.length", "written from position 0 on, over the earlier"
      " keys; begin behind them")],
)
def kv_cache(f, m):
    cache = m.KVCache(8)
    for T in (2, 1, 3):
        cache_k, cache_v = f(cache, *m.torch.randn(2, 1, 2, T, 4))
        yield f"the keys after {T} more", cache_k
        yield f"the values after {T} more", cache_v
        yield f"cache.length after {T} more", cache.length

@exercise(
    "03_model.py", "GPT.generate", 8, "get the probabilities, sample, append, repeat",
    ["Per token: self.output(self.hidden(unread, cache)[:, -1]) are the logits (B, V)"
     " of the last position. In the first round `unread` is the prompt (at most the"
     " last block_size tokens), later just the newest token.",
     "Divide by the temperature (at least 1e-9), softmax, then torch.multinomial(probs,"
     " 1, generator=rng). top_k and min_p set logits to -inf, or probs to 0.",
     "If cache[0].length == block_size: a new cache, and unread is the last half"
     " context. Stop when every row has stop_id among its NEW tokens."],
    [("[:, -1])", "[:, 0])", "the logits of the first position; the last one predicts"
      " the next token"),
     ("logits / max(", "logits * max(", "multiplied by the temperature; divide"),
     ("idx[:, prompt_length:]", "idx", "a stop_id in the prompt ends it; only new"
      " tokens count"),
     (".all()", ".any()", "it stops when ONE row has ended; wait for all of them")],
)
def generate(f, m):
    torch, model = m.torch, small_gpt(m)
    idx = torch.tensor([[3, 1, 4], [1, 5, 9]])
    yield "generate(idx, 3, temperature=0)", f(model, idx, 3, 0.0)
    yield "generate(idx, 12, temperature=0), beyond the context", f(model, idx, 12, 0.0)
    rng = torch.Generator().manual_seed(1)
    answer = f(model, idx, 5, 2.0, rng=rng)
    yield "generate(idx, 5, temperature=2.0, rng=seed 1)", answer
    rng = torch.Generator().manual_seed(1)
    yield "the same with top_k=2", f(model, idx, 5, 2.0, top_k=2, rng=rng)
    stop = f(model, idx, 5, 0.0)[0, 3].item()
    yield f"generate(idx, 5, 0.0, stop_id={stop})", f(model, idx, 5, 0.0, stop_id=stop)
    again = torch.full_like(idx, stop)
    yield f"a prompt of stop_id={stop}", f(model, again, 3, 0.0, stop_id=stop)
