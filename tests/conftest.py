"""Fixtures of all tests: tiny models, so that a test takes milliseconds and needs no network."""

import logging
import string
from pathlib import Path

import pytest
import shapes
import torch

shapes.install()
torch.set_num_threads(1)  # as the processes that tests start: sums of more threads have other bits

WORDS = """
a about account after all am an and are aspirin at back bank be been blood book by can card cash
change court day did do dose drug for from get give good had has have he her his how i in is it
judge last law letter like lost me mg money more most my new no not of off on one open or order out
pain paid pay play please send she show so stock take tell that the their they this to told transfer
was we week were what when where which who why will with you your
""".split()  # noqa: SIM905 - a list of one word a line is no easier to read
PIECES = ("##ed", "##er", "##es", "##ing", "##ly", "##ol", "##tion")
MARKS = tuple(string.punctuation + string.digits)


def make_tiny_encoder(folder: Path, seed: int = 0, hidden_size: int = 32, window: int = 64) -> Path:
    """Writes a randomly initialised BERT of 2 layers and its WordPiece tokenizer, as transformers does.

    Args:
        folder: where to; it is made.
        seed: for the weights.
        hidden_size: a multiple of 4.
        window: tokens that it reads at once.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [prefix + letter for prefix in ("", "##") for letter in string.ascii_lowercase]
    digits = ["##" + digit for digit in string.digits]
    tokens = list(dict.fromkeys([*special, *MARKS, *letters, *digits, *PIECES, *WORDS]))
    vocabulary = {token: number for number, token in enumerate(tokens)}
    fast = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer(lowercase=True)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.decoder = decoders.WordPiece()
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=fast,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=window,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden_size,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * hidden_size,
        max_position_embeddings=window,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def log_is_heard() -> None:
    """The package's log reaches `caplog`, whatever a launcher that ran in this process did to it."""
    logging.disable(logging.NOTSET)
    log = logging.getLogger("fewshot_nlp")
    log.disabled, log.propagate = False, True
    log.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def tiny_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny encoder: config.json, model.safetensors, tokenizer.json. Do not write into it."""
    return make_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


def make_tiny_translator(folder: Path, seed: int = 0, hidden_size: int = 32, window: int = 64) -> Path:
    """Writes a randomly initialised Marian model of 1+1 layers, and a sentencepiece vocabulary trained on the spot.

    It translates the words of `WORDS`, spelt backwards ("xx"), to themselves ("en"); arguments as above.
    """
    import json
    import warnings

    import sentencepiece
    from transformers import MarianConfig, MarianMTModel, MarianTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    sides = [WORDS, [word[::-1] for word in WORDS]]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(side[i : i + 5]) for side in sides for i in range(len(WORDS))]),
        model_prefix=str(folder / "source"),
        vocab_size=160,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "source.vocab").unlink()
    (folder / "source.model").rename(folder / "source.spm")
    (folder / "target.spm").write_bytes((folder / "source.spm").read_bytes())
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "source.spm"))
    vocabulary = {pieces.id_to_piece(number): number for number in range(len(pieces))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        tokenizer = MarianTokenizer(
            source_spm=str(folder / "source.spm"),
            target_spm=str(folder / "target.spm"),
            vocab=str(folder / "vocab.json"),
            source_lang="xx",
            target_lang="en",
            model_max_length=window,
        )
    config = MarianConfig(
        vocab_size=len(vocabulary),
        d_model=hidden_size,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=2 * hidden_size,
        decoder_ffn_dim=2 * hidden_size,
        max_position_embeddings=window,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        forced_eos_token_id=None,
        scale_embedding=True,
        init_std=0.15,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MarianMTModel(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_translator_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny translation model, "xx" to "en". Do not write into it."""
    return make_tiny_translator(tmp_path_factory.mktemp("translator") / "tiny")


@pytest.fixture(scope="session")
def tiny_folders(tiny_encoder_folder: Path, tiny_translator_folder: Path) -> dict[str, Path]:
    """The tiny model of each kind of backbone."""
    return {"encoder": tiny_encoder_folder, "seq2seq": tiny_translator_folder}
