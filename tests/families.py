"""Small random models of the families of transformers."""

import torch
import transformers

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
SIX = {"max_position_embeddings": 66, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}


def of_family(folder, tokenizer_folder, config):
    """A random model of a family, with the tiny tokenizer."""
    config.vocab_size = len(transformers.AutoTokenizer.from_pretrained(tokenizer_folder))
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.model_max_length = 10**6
    tokenizer.save_pretrained(folder)
    return folder
