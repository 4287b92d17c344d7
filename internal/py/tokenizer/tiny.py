"""Trains two small tokenizers and records what Hugging Face makes of some texts with them.

    $DURATUNE_PEERS internal/py/tokenizer/tiny.py internal/tokenizer/testdata

It writes wordpiece.json and bytelevel.json, and beside each the answers, wordpiece.golden.json and bytelevel.golden.json.
Tokenizers that are there stay, and only their answers are recorded anew: training a WordPiece gives another one each time.
With these the tests need neither a model's files nor Python.
"""

import json
import pathlib
import sys

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = """
All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience.
Free entry in 2 a wkly comp to win FA Cup final tkts 21st May! Text FA to 87121 to receive entry question(std txt rate).
I'll be there by 8, don't wait; she's late and they've gone. We're off... ok?! URGENT: claim your £1,000 prize now!!!
Todos los seres humanos nacen libres e iguales en dignidad y derechos. Tous les êtres humains naissent libres et égaux.
Alle Menschen sind frei und gleich an Würde und Rechten geboren. Straße, Grüße, Übermut. Všichni lidé rodí se svobodní.
Все люди рождаются свободными и равными в своём достоинстве и правах. Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι.
يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.
सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है। মানুষ স্বাধীন। மனிதர்கள் சமமானவர்கள்.
มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกัน 人人生而自由,在尊严和权利上一律平等。 すべての人間は、生まれながらにして自由である。
모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. Tất cả mọi người sinh ra đều được tự do.
""".strip().split("\n")

TEXTS = [
    "", " ", "   \n", "a", "Free entry, tonight!", "I'LL be there by 8; don't wait", "don't  stop...   now ", "tabs\tand\nnew\r\nlines",
    "Würde über alles", "cafe\u0301 caf\u00e9", "Stra\u00dfe STRASSE \u1e9e", "\u0130stanbul \u0131", "\u03a3\u03c2\u03c3 \u039f\u03b4\u03cc\u03c2",
    "Vi\u1ec7t Nam đều được", "人人生而自由", "free人entry", "\u3400\U00020000\U0002b920\U0002b820", "すべての人間", "が か\u3099", "모든 인간", "\u1106\u1169\u1103\u1173\u11ab",
    "कर्मों की", "মানুষ", "มนุษย์", "כל בני", "الناس", "a\u00a0b\u2003c\u3000d", "a\u200bb\ufeffc\u00add", "a\x00b\x07c\x7fd\x85e", "x\ue000y\U000f0000z",
    "\U0001f600 smile \U0001f468\u200d\U0001f469", "e\u0323\u0307 e\u0307\u0323 \u1e61\u0323", "\u0344\u0385\u1fb7", "z\u0300\u0316\u0301\u0317z",
    "price: £1,000.50 (50% off)", "x" * 100, "x" * 101, "free" * 40, "[CLS] free [SEP]", "[MASK][MASK]x[PAD]", "[cls] [UNK]", "<s>a</s>", "a <mask> b", "a  <mask>  b",
    "<mask>", "Duratune duratune DURATUNE", "xDuratuney", "<e> a <e>b  <e>", "D\u00fcratune <E>", "''s 's 'S 'll'd", "a'b", "  two", "\n\n\nz", "\u00a0\u00a0z", "12345 \u0662\u0663 \u2167 \u00bd",
    "_under_score-dash", "http://free.be/x?y=z&q", "\ufffd?\ufffd", "ﬁne ﬃ", "\U00010400\U00010428 \U0001d400", "\u212b \u2126 K\u212a", "#hash @at $5 +1 <x> ^ ` | ~",
]
PAIRS = [("free entry", "all beings"), ("", ""), ("Free entry to all " * 4, "human"), ("human", "Free entry to all " * 4), ("a <mask>", "[SEP] b"),
         ("Free entry to all " * 4, "human beings born free " * 4), ("human beings born free " * 4, "Free entry to all " * 4), ("one two three four", "human " * 40),
         ("equal in dignity and rights, all of them", "equal in dignity and rights, all of them")]


def wordpiece():
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer(lowercase=True)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    t.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=700, special_tokens=special, show_progress=False))
    cls, sep = ("[CLS]", t.token_to_id("[CLS]")), ("[SEP]", t.token_to_id("[SEP]"))
    t.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [cls, sep])
    t.decoder = decoders.WordPiece()
    t.enable_padding(length=64)
    return t


def bytelevel():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=700, special_tokens=special, initial_alphabet=alphabet, show_progress=False))
    t.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    t.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    return t


def extended(t):
    t.add_tokens([AddedToken("Duratune", normalized=True), AddedToken("<e>", normalized=False, lstrip=True, rstrip=True)])
    return t


def record(path, train, max_length):
    if not path.exists():
        train().save(str(path))
    t = Tokenizer.from_file(str(path))
    t.no_padding()
    t.enable_truncation(max_length)
    rows = []
    for text, pair in [(text, None) for text in TEXTS] + PAIRS:
        e = t.encode(text) if pair is None else t.encode(text, pair)
        rows.append({"text": text, "pair": pair, "ids": e.ids, "types": e.type_ids, "tokens": e.tokens, "mask": e.special_tokens_mask,
                     "offsets": e.offsets, "decoded": t.decode(e.ids), "decoded_all": t.decode(e.ids, skip_special_tokens=False)})
    lines = ",\n".join(json.dumps(r) for r in rows)
    path.with_suffix(".golden.json").write_text(f'{{"max_length": {max_length}, "rows": [\n{lines}\n]}}\n')


def main():
    out = pathlib.Path(sys.argv[1])
    record(out / "wordpiece.json", lambda: extended(wordpiece()), 24)
    record(out / "bytelevel.json", lambda: extended(bytelevel()), 24)


main()
