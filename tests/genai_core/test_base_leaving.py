"""A base with a chat format of its own keeps it in what leaves: GGUF, Modelfile, portable folder, lm-eval's prompts."""

import json

import pytest
import torch

from genai_core.config.base_model import BaseModelConfig
from genai_core.context import Context
from genai_core.data.chat import CHAT_TEMPLATE, encode_prompt, fit_prompt
from genai_core.data.chat_formats import without_generation
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.evaluation.harness.model import harness_model
from genai_core.evaluation.tasks import Subject
from genai_core.export.gguf_tokenizer import PATTERNS, NotForLlamaCpp, require_tokenizer
from genai_core.export.handover import export
from genai_core.export.model_directory import load_model, save_model
from genai_core.quantization.directory import load_quantized, quantize_to_directory
from genai_core.serving.engines.description import describe
from genai_core.serving.engines.gguf_cache import gguf_of
from genai_core.serving.errors import EngineMissing
from genai_core.stages import adopt
from tests.genai_core.bases import LLAMA_TEMPLATE, published

CPU = torch.device("cpu")
QUESTION = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def directory(tmp_path, prose):
    """A base in Qwen3's layout with the tokens and the template of another family."""
    base, tokens = published(tmp_path / "base", "qwen3", prose[:10], rows=700), tmp_path / "tokens"
    published(tokens, "llama", prose[:10], LLAMA_TEMPLATE)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).write_bytes((tokens / name).read_bytes())
    return taken_in(base, tmp_path / "model")


def taken_in(base, out):
    out.mkdir()
    adopt.run(BaseModelConfig(source=str(base)), out_dir=out, context=Context(out))
    return out


def fields(path):
    gguf = pytest.importorskip("gguf")
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()
            if name.startswith("tokenizer.")}


def test_gguf_and_modelfile_have_the_chat_format_of_the_base(directory, tmp_path):
    export(directory, tmp_path / "out", "gguf", "# A model\n")
    found, tokenizer = fields(tmp_path / "out" / "model.gguf"), load_tokenizer(directory)
    assert found["tokenizer.chat_template"] == LLAMA_TEMPLATE
    assert found["tokenizer.ggml.pre"] == "gpt-2"
    assert found["tokenizer.ggml.bos_token_id"] == tokenizer.token_to_id("<|begin|>")
    assert found["tokenizer.ggml.add_bos_token"] is True
    assert found["tokenizer.ggml.eos_token_id"] == tokenizer.token_to_id("<|eot|>")
    assert (tmp_path / "out" / "Modelfile").read_text() == (
        "FROM ./model.gguf\nPARAMETER stop <|eot|>\nPARAMETER stop <|end_of_text|>\nPARAMETER num_ctx 160\n")


def test_gguf_and_modelfile_of_our_own_models_are_as_they_were(tiny_model, tokenizer_dir, tmp_path):
    (tmp_path / "model").mkdir()
    save_model(tiny_model, tokenizer_dir, tmp_path / "model")
    export(tmp_path / "model", tmp_path / "out", "gguf", "# A model\n")
    found = fields(tmp_path / "out" / "model.gguf")
    assert list(found) == [f"tokenizer.{name}" for name in (
        "ggml.model", "ggml.pre", "ggml.tokens", "ggml.token_type", "ggml.merges", "ggml.eos_token_id",
        "ggml.eot_token_id", "ggml.padding_token_id", "ggml.add_bos_token", "chat_template")]
    assert found["tokenizer.ggml.pre"] == "qwen2" and found["tokenizer.ggml.add_bos_token"] is False
    assert found["tokenizer.chat_template"] == without_generation(CHAT_TEMPLATE)
    assert (tmp_path / "out" / "Modelfile").read_text() == '''FROM ./model.gguf
TEMPLATE """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
PARAMETER stop <|im_end|>
PARAMETER stop <|endoftext|>
PARAMETER num_ctx 128
'''


def test_the_portable_folder_is_refused_where_its_programs_would_say_something_else(directory, tmp_path, prose):
    with pytest.raises(InputError, match="a chat format of its own has no form portable; there are huggingface, gguf"):
        export(directory, tmp_path / "out", "portable", "# A model\n")
    untied = taken_in(published(tmp_path / "untied", "qwen3", prose[:10], tie_word_embeddings=False), tmp_path / "own")
    with pytest.raises(InputError, match="an output matrix of its own has no form portable; there are huggingface"):
        export(untied, tmp_path / "out", "portable", "# A model\n")
    export(untied, tmp_path / "out", "compressed-tensors", "# A model\n")


def test_the_harness_asks_in_the_chat_format_of_the_base_and_starts_documents_as_it_reads_them(directory):
    pytest.importorskip("lm_eval")
    tokenizer, model = load_tokenizer(directory), load_model(directory, CPU)
    asked = harness_model(Subject(model, tokenizer, chats=True))
    ids = asked.tok_encode(asked.apply_chat_template(QUESTION))
    assert ids == encode_prompt(tokenizer, QUESTION) == fit_prompt(tokenizer, QUESTION, 100)[0]
    plain = harness_model(Subject(model, tokenizer, chats=False))
    start, hello = tokenizer.token_to_id("<|begin|>"), tokenizer.encode("Hello", add_special_tokens=False).ids
    assert plain.tok_encode("Hello") == [start, *hello] and plain.prefix_token_id == start
    assert plain.tok_encode("Hello", add_special_tokens=False) == hello


def cut_by(directory, pre_tokenizer, **others):
    path = directory / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pre_tokenizer": pre_tokenizer} | others))
    return directory


def split(pattern):
    return {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}


DIGITS = {"type": "Sequence", "pretokenizers": [
    {"type": "Split", "pattern": {"Regex": "[\\r\\n]"}, "behavior": "Isolated", "invert": False},
    {"type": "Digits", "individual_digits": True},
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]}
OTHERWISE = [({"pre_tokenizer": split(r"\s?\p{L}+|\p{N}")}, "Split, ByteLevel"),
             ({"pre_tokenizer": DIGITS}, "Split, Digits, ByteLevel"), ({"normalizer": {"type": "NFKC"}}, "NFKC")]


def test_text_is_cut_in_llama_cpp_by_the_name_of_the_very_pattern(directory, tmp_path):
    for name, pattern in PATTERNS.items():
        cut_by(directory, split(pattern))
        export(directory, tmp_path / name, "gguf", "# A model\n")
        assert fields(tmp_path / name / "model.gguf")["tokenizer.ggml.pre"] == name


@pytest.mark.parametrize(("changes", "what"), OTHERWISE)
def test_a_tokenizer_that_llama_cpp_would_read_otherwise_leaves_in_no_gguf_file_for_it(changes, what, directory,
                                                                                       tmp_path):
    path = directory / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(NotForLlamaCpp, match=f"no name for how this tokenizer cuts text .*{what}.*huggingface"):
        export(directory, tmp_path / "out", "gguf", "# A model\n")
    model = load_model(directory, CPU)
    quantize_to_directory(model, "Q8_0", directory, tmp_path / "int8")      # which does not fail
    assert not fields(tmp_path / "int8" / "model.gguf"), "and llama.cpp opens no file without a tokenizer"
    load_quantized(tmp_path / "int8", CPU)
    for given in (directory, tmp_path / "int8"):
        with pytest.raises(EngineMissing, match="no name for how this tokenizer"):      # so our own engine answers
            gguf_of(given, tmp_path / "cache")


@pytest.mark.parametrize("form", ["directory", "file"])
def test_llama_cpp_is_given_messages_without_special_tokens_of_the_base(directory, form, tmp_path):
    """The same of a GGUF file as of the directory that it was written from."""
    path = directory if form == "directory" else gguf_of(directory, tmp_path)
    description, tokenizer = describe(path), load_tokenizer(directory)
    assert description.without_specials("One<|eot|> t<|e<|begin|>ot|>wo\n\n") == "One two\n\n"
    assert description.empty_prompt == (tokenizer.token_to_id("<|begin|>"),)
    assert description.context == 160


def test_words_and_blanks_that_somebody_added_to_a_tokenizer_stay_in_messages(tmp_path):
    gguf = pytest.importorskip("gguf")
    path, kinds = tmp_path / "model.gguf", gguf.TokenType
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_token_list(["a", "<eos>", "\n\n", "<table>", "<turn>"])
    writer.add_token_types([kinds.NORMAL, kinds.CONTROL, *[kinds.USER_DEFINED] * 3])
    writer.add_chat_template("{{ '<turn>' }}\n\n")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert describe(path).without_specials("a<eos>\n\n<table><turn>") == "a\n\n<table>"


BLANKS = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
PREPENDED = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, BLANKS]}
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}


@pytest.mark.parametrize(("model", "normalizer", "cut", "known"), [
    ("BPE", PREPENDED, None, True), ("BPE", BLANKS, None, True), ("BPE", None, METASPACE, True),
    ("Unigram", None, METASPACE, False), ("BPE", None, None, False),
    ("BPE", {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, BLANKS]}, None, False)])
def test_pieces_are_those_of_sentencepiece_s_bpe_alone(model, normalizer, cut, known, tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps({
        "model": {"type": model, "byte_fallback": True}, "normalizer": normalizer, "pre_tokenizer": cut}))
    if known:
        require_tokenizer(tmp_path)
    else:
        with pytest.raises(NotForLlamaCpp, match=model):
            require_tokenizer(tmp_path)
