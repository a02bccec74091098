"""Writes tokenizer/: a small BPE vocabulary trained by the plain algorithm, and the ids of tricky texts.

`openai` are the ids of open_clip's tokenizer (OpenAI's code, cleaning with ftfy); `transformers` those of CLIPTokenizer, which
cleans less. Both read the vocabulary written here. Mojibake, which ftfy undoes by heuristics that are not ported, is left out.

transformers 5.24.0, open_clip 3.3.0, ftfy 6.3.1, regex 2026.11.19. Run in this folder: python tokenizer.py
"""

import collections
import gzip
import json
import os
import random
import tempfile

import open_clip.tokenizer as oc
import regex
from transformers import CLIPTokenizer

SOT, EOT = "<|startoftext|>", "<|endoftext|>"
PATTERN = regex.compile(
    r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""", regex.IGNORECASE
)
byte_encoder = oc.bytes_to_unicode()

corpus = [
    f"a {a} of a {b} {c}" for a in ["photo", "drawing", "blurry photo", "painting"]
    for b in ["small", "large", "flying", "wild", "Café"] for c in ["elephant", "butterfly", "piano", "don't you?", "日本語", "2024"]
]


def train(texts, size):
    words = collections.Counter()
    for text in texts:
        for word in regex.findall(PATTERN, oc._clean_lower(text)):
            s = [byte_encoder[b] for b in word.encode()]
            words[tuple(s[:-1]) + (s[-1] + "</w>",)] += 1
    chars = list(byte_encoder.values())
    symbols = chars + [c + "</w>" for c in chars]
    merges = []
    while len(symbols) < size - 2:
        pairs = collections.Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        pairs = [(-n, p) for p, n in pairs.items() if n >= 2 and "".join(p) not in symbols]
        if not pairs:
            break
        pair = min(pairs)[1]
        merges.append(pair)
        symbols.append("".join(pair))
        merged = collections.Counter()
        for word, n in words.items():
            new, i = [], 0
            while i < len(word):
                step = 2 if word[i:i + 2] == pair else 1
                new.append("".join(word[i:i + step]))
                i += step
            merged[tuple(new)] += n
        words = merged
    return symbols + [SOT, EOT], merges


symbols, merges = train(corpus, 640)
os.makedirs("tokenizer", exist_ok=True)
with open("tokenizer/vocab.json", "w", encoding="utf-8") as f:
    json.dump({s: i for i, s in enumerate(symbols)}, f, ensure_ascii=False)
with open("tokenizer/merges.txt", "w", encoding="utf-8") as f:
    f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
merges_file = os.path.join(tempfile.mkdtemp(), "merges.gz")
with gzip.open(merges_file, "wb") as f:
    f.write(("#version\n" + "\n".join(f"{a} {b}" for a, b in merges)).encode())
openai = oc.SimpleTokenizer(merges_file)
assert len(openai.encoder) == len(symbols)
openai.encoder = {s: i for i, s in enumerate(symbols)}
openai.cache, openai.pat = {SOT: SOT, EOT: EOT}, PATTERN
hf = CLIPTokenizer.from_pretrained("tokenizer")

texts = [
    "", " ", "a", "A", "a photo of an elephant", "A PHOTO of a Butterfly.", "don't can't I'll we've they're he'd I'm it's",
    "DON'T IT'S", "'s's't'", "''s", "rock'n'roll", "o'clock", "a  b\t\tc\n\nd\r\ne", "\u00a0nbsp\u00a0", "\u2003em\u2003space",
    "x\u200by", "\ufeffbom", "a\x1cb\x1fc", "a\x85b", "2024", "3.14159", "1,000,000", "½ ² ③ Ⅳ ٣ 五", "x2y3", "a1b2c3", "C3PO R2D2",
    "café", "cafe\u0301", "naïve résumé", "Ångström \u212b", "ﬁne ﬂow", "ǅ ǆ", "STRASSE straße ẞ", "İstanbul ıI", "ΣΑΣ ΟΔΟΣ", "ſ 'ſ x'ſ",
    "日本語", "日本語のテキスト", "中文字符", "한국어 텍스트", "русский язык", "ελληνικά", "עברית", "العربية", "हिन्दी", "ไทย", "தமிழ்",
    "🦁", "🦁🐘", "👩‍👩‍👧‍👦", "🇨🇭", "🏳️‍🌈", "❤️", "☕ coffee", "a🦁b", "…", "—dash—", "“curly” ‘quotes’", "don’t", "!?!?", "a!b?c", "#hash @at",
    "http://example.com/a?b=c", "e-mail@example.org", "path\\to\\file", "snake_case_name", "kebab-case", "CamelCase", "<b>bold</b>",
    "a<b>c", "{}[]()", "$5.00 €6 £7", "50%", "~`^", "a/b", "C++", "x=y+z", "...", "a...b", ".5", "-1", "\"quoted\"", "'single'",
    "<|startoftext|>", "<|endoftext|>", "a <|endoftext|> b", "x<|startoftext|>y", "<|other|>", "<|", "|>",
    "&amp;", "a &amp; b", "&amp;amp; twice", "&lt;tag&gt;", "&#39;s", "&#x1F981;", "&eacute;", "&notit;", "&nbsp;x&nbsp;", "&unknown;", "AT&T",
    "Tom & Jerry", "a&b", "&", "&;", "&#;", "&copy 2024", "&#128;uro",
    "antidisestablishmentarianism", "supercalifragilistic", "zzzzzzzzzzzz", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "abababababab",
    "elephantelephant", "butterflybutter", "photophotophoto", "ofofof", "a of a", "drawingpainting", "theelephant's",
    "x" * 300, "ab " * 100, "\u0301", "e\u0301\u0323", "\u0300a", "a\u0308\u0304", "\u1100\u1161\u11a8", "\u0958", "ﷺ", "㍿", "ℌ", "™®©", "№5",
    "\u202eRTL", "a\u00adb", "_", "__init__", "a_b", "·", "ª º", "ʰ ʼn", "ᵃ", "𝔘𝔫𝔦", "𝟙𝟚", "𐍈", "\U000e0001", "\u0345", "Ⓐ ⓐ", "ⅷ",
    "１２３", "ＡＢＣ", "\u3000wide\u3000", "tab\tend\t", "\n", "new\nline", "a\u2028b\u2029c", "\x00null", "\x7f", "\u180e",
    "a\u0096c",
    "\x1b[31mred\x1b[0m", "\ufffcobject", "ŉ", "ĳsje Ǆ ﬃ ﬆ", "ﾃｽﾄ ﾊﾟ", "＜b＞", "P&EACUTE;REZ &NTILDE;", "<b>&eacute;</b>", "&lt;&eacute;&gt;",
    "&#x26;amp;", "&#59;",
]
rng = random.Random(5)
alphabet = list("abcdefgh'st re  .,!?123éßЖ日🦁&;#") + ["the ", "elephant", "photo", "'ll", "&amp;"]
texts += ["".join(rng.choice(alphabet) for _ in range(rng.randint(1, 40))) for _ in range(60)]
rows = [
    {"text": t, "openai": openai.encode(t), "transformers": hf(t, add_special_tokens=False)["input_ids"]} for t in texts
]
with open("tokenizer/expected.json", "w", encoding="utf-8") as f:
    f.write("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")
batch = ["a photo of a large elephant", "butterfly", ""]
with open("tokenizer/batch.json", "w") as f:
    padded = hf(batch, padding="max_length", max_length=12)["input_ids"]
    cut = hf(batch, padding="max_length", max_length=5, truncation=True)["input_ids"]
    json.dump({"texts": batch, "padded_to_12": padded, "truncated_to_5": cut, "corpus": corpus}, f)
differing = [r["text"] for r in rows if r["openai"] != r["transformers"]]
print(len(rows), "texts", len(symbols), "tokens", len(differing), "differ:", differing)
