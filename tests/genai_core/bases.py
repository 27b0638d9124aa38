"""Small directories as others publish them: random weights of a layout, a tokenizer, and a chat template or none."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

LAYOUTS: dict[str, dict[str, Any]] = {
    "qwen3": {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 160, "rope_theta": 1e6,
              "tie_word_embeddings": True},
    "llama": {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "max_position_embeddings": 160, "tie_word_embeddings": False},
    "gemma3_text": {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 6, "num_attention_heads": 4,
                    "num_key_value_heads": 1, "head_dim": 256, "max_position_embeddings": 160, "sliding_window": 8,
                    "query_pre_attn_scalar": 256},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 1024},
}
LLAMA_TEMPLATE = ("{{ bos_token }}{% for message in messages %}{{ '<|start|>' + message['role'] + '\n\n' + "
                  "message['content'] | trim + '<|eot|>' }}{% endfor %}"
                  "{% if add_generation_prompt %}{{ '<|start|>assistant\n\n' }}{% endif %}")


def config_of(layout: str, vocab_size: int, **changes: Any) -> dict[str, Any]:
    return {"model_type": layout, "vocab_size": vocab_size, **LAYOUTS[layout], **changes}


def random_network(layout: str, vocab_size: int, **changes: Any) -> Any:
    """A network of `transformers` whose every path shows in its logits."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    values = config_of(layout, vocab_size, **changes)
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(values.pop("model_type"), **values))
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.08)
        else:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return network.eval()


def byte_tokenizer(texts: list[str], specials: list[str], size: int = 600, start: str = "") -> Tokenizer:
    """Byte-level BPE with other people's special tokens; `start` is written before every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=size, show_progress=False, special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in specials])
    if start:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start} $A", pair=f"{start} $A {start} $B", special_tokens=[(start, tokenizer.token_to_id(start))])
    return tokenizer


def published(directory: Path, layout: str, texts: list[str], template: str = "", *, rows: int = 0, **changes: Any
              ) -> Path:
    """A directory of a layout: Llama's with its own tokens, a start of every document and perhaps a template, the
    others with the tokens that their tokenizers have."""
    directory.mkdir(parents=True, exist_ok=True)
    specials, values = {
        "llama": (["<|begin|>", "<|end_of_text|>", "<|start|>", "<|eot|>"],
                  {"bos_token": "<|begin|>", "eos_token": "<|end_of_text|>"}),
        "gemma3_text": (["<pad>", "<eos>", "<bos>"], {"bos_token": "<bos>", "eos_token": "<eos>"}),
        "qwen3": (["<|endoftext|>", "<|im_start|>", "<|im_end|>"], {"eos_token": "<|im_end|>",
                                                                    "pad_token": "<|endoftext|>"}),
    }.get(layout, (["<|endoftext|>"], {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}))
    start = str(values["bos_token"]) if layout in ("llama", "gemma3_text") else ""
    tokenizer = byte_tokenizer(texts, list(specials), start=start)
    network = random_network(layout, rows or tokenizer.get_vocab_size(), **changes)
    network.save_pretrained(directory)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **values}
    if template:
        config["chat_template"] = template
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory
