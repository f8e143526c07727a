"""Small tokenizers of the three kinds that open_clip's models take from ``transformers``, trained on the catalogue."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast as Untyped

from training.catalogue.items import draw_item

VOCABULARY = 2000
PreTrainedTokenizerFast: Any = Untyped
ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789éßσΣ½€北京日本 !#$%&'()*,-./:;<=>?@[]_{}~"  # noqa: RUF001


@cache
def shop_texts() -> list[str]:
    """Titles, descriptions and captions of 400 products."""
    rng = np.random.default_rng(0)
    items = [draw_item(rng) for _ in range(400)]
    return [text for item in items for text in (item.title, item.description, item.caption)]


def unigram() -> PreTrainedTokenizerFast:
    """Like T5's, SigLIP's and XLM-R's: words begin with ▁, a text ends with ``</s>``; ``<extra>`` lies outside."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Strip(left=False, right=True), normalizers.Replace("  ", "▁")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        unk_token="<unk>",
        initial_alphabet=list(ALPHABET.replace(" ", "▁")),
        show_progress=False,
    )
    tokenizer.train_from_iterator(shop_texts(), trainer)
    tokenizer.add_special_tokens([AddedToken("<extra_id_0>", special=True, normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", tokenizer.token_to_id("</s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", padding_side="right"
    )


def wordpiece() -> PreTrainedTokenizerFast:
    """Like BERT's."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=list(ALPHABET.lower()), show_progress=False
    )
    tokenizer.train_from_iterator(shop_texts(), trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def byte_bpe() -> PreTrainedTokenizerFast:
    """Like RoBERTa's: bytes, so that no character is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(shop_texts(), trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


KINDS = {"unigram": unigram, "wordpiece": wordpiece, "byte bpe": byte_bpe}


def write_tokenizer(kind: str, folder: Path) -> Path:
    """``tokenizer.json`` and ``tokenizer_config.json``, as a hub's folder has them."""
    KINDS[kind]().save_pretrained(folder)
    return folder
