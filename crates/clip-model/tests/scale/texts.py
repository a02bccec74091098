"""Writes texts and their token ids by open_clip's tokenizer to OUT (JSON lines).

Usage: python texts.py OUT DATA [TEXT ...]; then:
cargo run --release -p clip-model --example compare_texts -- OUT bpe_simple_vocab_16e6.txt.gz

DATA: a folder with CoOp's split files (`splits/*.json`) and prompt files (`prompts/*.json`). TEXT: any text files; their lines
are used as they are and damaged in the ways that ftfy repairs.

`ids` is SimpleTokenizer.encode of open_clip with the special tokens spelled as in openai/CLIP; texts without them get the same
ids from open_clip as it is, which is checked here.

open_clip 3.3.0, ftfy 6.3.1, regex 2026.11.19, Python 3.11.
"""

import glob
import json
import random
import sys
import unicodedata

import ftfy.bad_codecs  # noqa: F401
import open_clip.tokenizer as oc
import regex

OUT, DATA, FILES = sys.argv[1], sys.argv[2], sys.argv[3:]
rng = random.Random(7)
plain = oc.SimpleTokenizer()
openai = oc.SimpleTokenizer()
SOT, EOT = "<|startoftext|>", "<|endoftext|>"
openai.encoder[SOT], openai.encoder[EOT] = openai.sot_token_id, openai.eot_token_id
openai.cache = {SOT: SOT, EOT: EOT}
openai.pat = regex.compile(
    r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""", regex.IGNORECASE
)
TEMPLATES = [
    "a photo of a {}.", "itap of a {}.", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}.", "a {} in a video game.",
    "art of the {}.", "a photo of the small {}.", "{} texture.", "a centered satellite photo of {}.", "a photo of a person doing {}.",
    "a photo of a {}, a type of pet.", "a photo of a {}, a type of flower.", "{}", "A {}",
]
rows = []


def add(source, text):
    rows.append({"source": source, "text": text})


names = set()
for path in sorted(glob.glob(f"{DATA}/splits/*.json")):
    for split in json.load(open(path)).values():
        names.update(item[2] for item in split)
for name in sorted(names):
    for template in TEMPLATES:
        add("class names", template.format(name))
    add("class names", name.replace("_", " "))


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


for path in sorted(glob.glob(f"{DATA}/prompts/*.json")):
    for text in strings(json.load(open(path))):
        add("prompts", text)

lines = set()
for path in FILES:
    with open(path, encoding="utf-8", errors="replace") as file:
        lines.update(line.rstrip("\n") for line in file)
lines = sorted(lines)
beyond = [line for line in lines if not line.isascii()]
ascii_lines = [line for line in lines if line.isascii()]
for line in rng.sample(ascii_lines, min(4000, len(ascii_lines))):
    add("text lines, ascii", line)
for line in beyond if len(beyond) <= 8000 else rng.sample(beyond, 8000):
    add("text lines, unicode", line)

ENCODINGS = ["latin-1", "sloppy-windows-1252", "sloppy-windows-1251", "sloppy-windows-1250", "sloppy-windows-1253", "sloppy-windows-1254",
             "sloppy-windows-1257", "iso-8859-2", "macroman", "cp437"]


def mojibake(text, encoding):
    return text.encode("utf-8").decode(encoding, errors="replace")


base = beyond + ["café", "naïve résumé", "“curly” – dash…", "l’été à la plage", "voilà le travail", "Ångström", "日本語のテキスト", "русский язык",
                 "ελληνικά", "🦁 lion", "❤️ hearts", "à quel point", "às vezes àquele", "£5 ½ ©2024 ®", "×²", "¡Hola! ¿Qué?"] * 20
for index in range(6000):
    text = rng.choice(base)[:200]
    encoding = rng.choice(ENCODINGS)
    damaged = mojibake(text, encoding)
    kind = index % 6
    if kind == 1:
        damaged = mojibake(damaged, rng.choice(ENCODINGS))
    elif kind == 2:
        damaged = damaged.replace("\xa0", " ")
    elif kind == 3:
        damaged = "".join("\ufffd" if rng.random() < 0.1 and not c.isascii() else c for c in damaged)
    elif kind == 4:
        damaged = text + " " + damaged
    elif kind == 5:
        damaged = damaged.replace("\ufffd", "?")
    add("mojibake", damaged)

for point in range(0x20, 0x30000):
    if point % 7 == 0 or point < 0x3000 or 0xF900 <= point <= 0xFFFF or 0x1F000 <= point <= 0x1FAFF:
        if unicodedata.category(chr(point)) not in ("Cs", "Cn", "Co"):
            add("single characters", f"a{chr(point)}b {chr(point)} {chr(point)}1")
EMOJI = [chr(p) for p in range(0x1F300, 0x1FAF0) if unicodedata.category(chr(p)) == "So"]
for _ in range(1500):
    add("emoji", "".join(rng.choice(EMOJI + ["\u200d", "\ufe0f", " ", "a", "🏻"]) for _ in range(rng.randint(1, 12))))
import html.entities  # noqa: E402

ENTITIES = sorted(html.entities.html5)
for name in ENTITIES:
    add("html references", f"x &{name} y&{name}z &{name.upper()} &amp;{name}")
for _ in range(1000):
    add("html references", "".join(rng.choice(["&", "&#", "&#x", ";", "amp", "lt", "39", "1F981", "233", "x", " ", "a", "<", "é", "quot;", "EACUTE;", "128;", "0;"])
                                   for _ in range(rng.randint(1, 14))))
CONTROL = [chr(p) for p in list(range(0x20)) + list(range(0x7F, 0xA1))] + ["\u2028", "\u2029", "\ufeff", "\u200b", "\u200e", "\ufffc", "\u206a", "\r\n", "\x1b[31m", "\x1b[0;1m"]
for _ in range(1500):
    add("control characters", "".join(rng.choice(CONTROL + ["a", "B", "é", "Ã", "©", " "]) for _ in range(rng.randint(1, 20))))
ALPHABET = list("abcdefgh'st re  .,!?123éßЖ日🦁&;#ÃÂâ€™œ\u0345ſİΣς") + ["the ", "photo", "'ll", "&amp;", SOT, EOT, "\ufffd", "<", "’s", "ﬁ", "Ａ", "ǆ", "\u0301"]
for _ in range(4000):
    add("random mixtures", "".join(rng.choice(ALPHABET) for _ in range(rng.randint(1, 40))))
for index in range(60):
    length = rng.choice([500, 3000, 20000])
    unit = rng.choice(["a", "photo", "ab", "日本", "🦁", "é", "x1", "don't ", "the quick brown fox ", "&amp;", "Ã©", "zq"])
    add("very long", (unit * length)[:length])
for row in rows:
    # ftfy and lower() know Python's Unicode, regex its own, Rust a third: beyond the oldest they need not agree.
    if any(unicodedata.category(c) == "Cn" for c in oc._clean_lower(row["text"])):
        row["source"] = f"characters newer than Unicode {unicodedata.unidata_version}"
with open(OUT, "w", encoding="utf-8") as file:
    for row in rows:
        row["ids"] = openai.encode(row["text"])
        if SOT not in row["text"] and EOT not in row["text"]:
            if "start_of_text" not in row["text"] and "end_of_text" not in row["text"]:
                other = plain.encode(row["text"])
                # A special token can also appear through cleaning.
                assert row["ids"] == other or "|>" in oc._clean_lower(row["text"]), row["text"]
        file.write(json.dumps(row) + "\n")
print(len(rows), "texts")
