"""tokenizer.json gives the very ids of open_clip's wrappers around the tokenizers of ``transformers``."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from open_clip.tokenizer import HFTokenizer, SigLipTokenizer
from tokenizers import processors

from export.errors import UnsupportedModel
from export.tokenizer import build_tokenizer
from tests.export.hf_folders import KINDS, shop_texts, write_tokenizer
from tests.export.test_tokenizer import LONG, differing, generated

CONTEXT = 24


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tokenizers")
    return {kind: write_tokenizer(kind, root / kind) for kind in KINDS}


@pytest.mark.parametrize("clean", ["canonicalize", "lower", "whitespace"])
@pytest.mark.parametrize("kind", KINDS)
def test_generated_and_shop_texts(folders: dict[str, Path], kind: str, clean: str) -> None:
    original = HFTokenizer(str(folders[kind]), context_length=CONTEXT, clean=clean)
    texts = [*generated(2500), *shop_texts(), *LONG]
    assert len(texts) > 3500
    assert differing(original, texts) == []


@pytest.mark.parametrize("kind", ["wordpiece", "byte bpe", "byte bpe with a language"])
def test_stripped_separators(folders: dict[str, Path], kind: str) -> None:
    original = HFTokenizer(str(folders[kind.split(" with")[0]]), context_length=CONTEXT, strip_sep_token=True)
    inner = original.tokenizer
    if kind == "byte bpe with a language":  # as NLLB's set_src_lang_special_tokens, which changes the inner template
        language, end = (inner.mask_token, inner.mask_token_id), (inner.sep_token, inner.sep_token_id)
        template = processors.TemplateProcessing(single="<mask> $A </s>", special_tokens=[language, end])
        bytes_first = processors.ByteLevel(trim_offsets=False)
        inner.backend_tokenizer.post_processor = processors.Sequence([bytes_first, template])
        assert build_tokenizer(original).encode("mug").tokens[0] == "<mask>"
    assert not (original(["a red mug"]) == inner.sep_token_id).any()
    assert differing(original, [*generated(300), *shop_texts()[:300], *LONG]) == []


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_truncation_sides(folders: dict[str, Path], side: str) -> None:
    original = HFTokenizer(str(folders["wordpiece"]), context_length=CONTEXT, padding_side=side, truncation_side=side)
    assert differing(original, [*shop_texts()[:300], *LONG, ""]) == []


def test_siglip_tokenizers(folders: dict[str, Path]) -> None:
    """open_clip's own class for it loads from a hub; what it does with the inner tokenizer is this."""
    inner = HFTokenizer(str(folders["unigram"])).tokenizer
    original = SigLipTokenizer.__new__(SigLipTokenizer)
    original.tokenizer, original.context_length = inner, CONTEXT
    assert differing(original, [*generated(300), *shop_texts()[:300]]) == []


SPELLED = ["a </s> b", "</s>", "<pad>x</s>", "[CLS] a [SEP]", "[cls]", "a <unk> b", "<extra_id_0> z", "[MASK][PAD]"]


@pytest.mark.parametrize(
    ("kind", "clean"),
    [("unigram", "canonicalize"), ("wordpiece", "canonicalize"), ("wordpiece", "lower"), ("wordpiece", "whitespace")],
)
def test_special_tokens_spelled_out(folders: dict[str, Path], kind: str, clean: str) -> None:
    assert differing(HFTokenizer(str(folders[kind]), context_length=CONTEXT, clean=clean), SPELLED) == []


def test_refused(folders: dict[str, Path]) -> None:
    original = HFTokenizer(str(folders["wordpiece"]), tokenizer_mode="clips")
    with pytest.raises(UnsupportedModel, match="'clips'"):
        build_tokenizer(original)
    original = HFTokenizer(str(folders["wordpiece"]))
    original.tokenizer = SimpleNamespace(pad_token_id=0)
    with pytest.raises(UnsupportedModel, match="no fast tokenizer"):
        build_tokenizer(original)
    original = HFTokenizer(str(folders["unigram"]), pad_token=None)
    with pytest.raises(UnsupportedModel, match="padding"):
        build_tokenizer(original)
