"""tokenizer.json gives the very ids of open_clip's tokenizer."""

from __future__ import annotations

import html
import random
from pathlib import Path
from typing import Any

import pytest
from open_clip.tokenizer import SimpleTokenizer
from tokenizers import Tokenizer

from export.cleaning import clean_kind
from export.errors import UnsupportedModel
from export.tokenizer import build_tokenizer
from tests.export.hf_folders import shop_texts

PIECES = [
    *["red shirt", "a photo of", "don't", "IT'S", "we'll", "x1y2z3", "100%", "T-shirt/Top", "__init__", "!!!", "..."],
    *["naïve", "café", "e\u0301", "Größe XL", "ß", "ΣΟΦΟΣ Σ", "İstanbul", "½", "№5", "€5.99", "—", "'\u017f"],
    *["北京烤鸭", "日本語テキスト", "العربية", "हिन्दी", "🍎🧀", "👩\u200d👩\u200d👧", "\ufeff", "\u200b"],
    *["\t\n", "\r\n", "\u00a0", "\u2028", "\u3000", "\x07", "\x85", "\x1b[31mred\x1b[0m"],
    *["“quoted”", "\u2018s", "\ufb01ne", "\uff26\uff55\uff4c\uff4c", "\u01c5", "\u0149"],
    *["&amp;", "&amp;nbsp;", "&nbsp;", "&eacute;", "&#39;", "&lt;b&gt;", "&trade;", "<b>", "a < b", "a" * 90],
]
LONG = ["red shirt " * 5000, "a" * 10000, "🍎" * 3000, "红" * 3000]


def generated(count: int, seed: int = 0) -> list[str]:
    random.seed(seed)
    texts = ["", " ", *PIECES]
    while len(texts) < count:
        separator = random.choice([" ", " ", ""])
        texts.append(separator.join(random.choice(PIECES) for _ in range(random.randint(1, 12))))
    for low, high in [(0, 127), (0x20, 0x17F), (0x370, 0x52F), (0x4E00, 0x9FFF), (0x1F300, 0x1F64F)]:
        for _ in range(count // 20):
            texts.append("".join(chr(random.randint(low, high)) for _ in range(random.randint(1, 40))))
    # Where ftfy finds mojibake, also among what entities stood for, it repairs what no normalizer can.
    import ftfy

    return [text for text in texts if not ftfy.badness.is_bad(html.unescape(text))]


@pytest.fixture(scope="module", params=["clip", "own"])
def simple(request: pytest.FixtureRequest, encoder_folder: Path) -> SimpleTokenizer:
    if request.param == "clip":
        return SimpleTokenizer()
    return SimpleTokenizer(bpe_path=str(encoder_folder / "bpe.txt.gz"), context_length=16)


def differing(original: Any, texts: list[str]) -> list[str]:
    """The texts to which the exported tokenizer gives other ids."""
    tokenizer = Tokenizer.from_str(build_tokenizer(original).to_str())
    wanted = original(texts).tolist()
    came = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    return [text for text, a, b in zip(texts, wanted, came, strict=True) if a != b]


def test_generated_and_shop_texts(simple: SimpleTokenizer) -> None:
    assert differing(simple, [*generated(2000), *shop_texts(), *LONG]) == []


@pytest.mark.parametrize("kind", ["lower", "whitespace", "canonicalize"])
def test_cleanings(kind: str) -> None:
    simple = SimpleTokenizer(clean=kind)
    assert clean_kind(simple) == kind
    # Without lower case, the pattern's IGNORECASE matters.
    texts = [text.lower() if kind == "whitespace" else text for text in generated(500)]
    assert differing(simple, texts) == []


def test_special_tokens_spelled_out() -> None:
    assert differing(SimpleTokenizer(), ["a <start_of_text> b", "<end_of_text>", "a<END_OF_TEXT>b"]) == []


def test_refused(simple: SimpleTokenizer) -> None:
    with pytest.raises(UnsupportedModel, match="reduction mask"):
        build_tokenizer(SimpleTokenizer(reduction_mask="simple"))
    with pytest.raises(UnsupportedModel, match="object"):
        build_tokenizer(object())
