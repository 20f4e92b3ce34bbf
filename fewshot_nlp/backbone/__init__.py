"""Backbones: Hugging Face models seen as extractors of one feature vector a slot."""

from typing import Any

from fewshot_nlp.backbone.base import Backbone
from fewshot_nlp.backbone.encoder import Encoder
from fewshot_nlp.backbone.seq2seq import Seq2Seq
from fewshot_nlp.backbone.vocabulary import VocabularyHead

BACKBONES: dict[str, Any] = {"encoder": Encoder, "seq2seq": Seq2Seq}

__all__ = ["BACKBONES", "Backbone", "Encoder", "Seq2Seq", "VocabularyHead"]
