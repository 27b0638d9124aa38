"""What leaves: each form is run by the program that it is for, and gives what the model gives here."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from genai_core.errors import InputError
from genai_core.export.gguf import read_gguf
from genai_core.export.handover import FORMS, export
from genai_core.export.model_directory import load_model, save_model
from genai_core.families.bert.model import Bert, BertClassifier, BertShape
from genai_core.families.directory import save_family_model
from genai_core.quantization.directory import load_quantized, quantize_to_directory

CPU = torch.device("cpu")
CARD = "# A model\n"
TEXT_FORMS = sorted(set(FORMS) - {"onnx"})


@pytest.fixture
def directory(tiny_model, tokenizer_dir, tmp_path):
    made = tmp_path / "model"
    made.mkdir()
    save_model(tiny_model, tokenizer_dir, made)
    return made


def exported(directory, out, form):
    export(directory, out, form, CARD)
    assert (out / "README.md").read_text().startswith(CARD) and "## Use" in (out / "README.md").read_text()
    return out


def test_a_folder_for_transformers_holds_the_weights_as_they_are(directory, tmp_path):
    out = exported(directory, tmp_path / "out", "huggingface")
    for ours, theirs in zip(load_model(directory, CPU).parameters(), load_model(out, CPU).parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_quantized_model_leaves_as_the_file_that_was_evaluated(tiny_model, tokenizer_dir, tmp_path):
    quantize_to_directory(tiny_model, "Q8_0", tokenizer_dir, tmp_path / "int8")
    out = exported(tmp_path / "int8", tmp_path / "out", "gguf")
    assert (out / "model.gguf").read_bytes() == (tmp_path / "int8" / "model.gguf").read_bytes()
    assert "num_ctx 128" in (out / "Modelfile").read_text()
    whole = exported(tmp_path / "int8", tmp_path / "whole", "huggingface")
    ids = torch.randint(0, 700, (1, 20))
    assert torch.equal(load_model(whole, CPU)(ids), load_quantized(tmp_path / "int8", CPU)(ids))


def test_gguf_of_a_full_model_has_sixteen_bits(directory, tmp_path):
    out = exported(directory, tmp_path / "out", "gguf")
    for ours, theirs in zip(load_model(directory, CPU).parameters(), read_gguf(out / "model.gguf").parameters(),
                            strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-6)


def test_the_portable_folder_answers_by_itself(directory, tmp_path):
    out = exported(directory, tmp_path / "out", "portable")
    done = subprocess.run([sys.executable, "-I", "run.py", "--ids", "5,9,300", "-n", "5"], cwd=out, check=True,
                          capture_output=True, text=True, env={})
    assert len(done.stdout.split()) == 5


@pytest.mark.parametrize("changes", [{"normalizer": {"type": "NFC"}}, {"pre_tokenizer": {
    "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}}])
def test_the_portable_folder_is_refused_for_text_that_its_programs_would_cut_otherwise(directory, tmp_path, changes):
    path = directory / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match="cuts text otherwise than Qwen2's has no form portable; there are hugg"):
        export(directory, tmp_path / "out", "portable", CARD)
    export(directory, tmp_path / "gguf", "gguf", CARD)


def test_compressed_tensors_give_transformers_the_values_of_q8_0(directory, tokenizer_dir, tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("compressed_tensors")
    out = exported(directory, tmp_path / "out", "compressed-tensors")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    quantize_to_directory(load_model(directory, CPU), "Q8_0", tokenizer_dir, tmp_path / "int8")
    ours = load_quantized(tmp_path / "int8", CPU)
    ours.model.embed_tokens.weight.data.copy_(load_model(directory, CPU).model.embed_tokens.weight)
    ids = torch.randint(0, 700, (2, 24))
    with torch.no_grad():
        assert torch.allclose(theirs(ids).logits, ours(ids), atol=1e-3)


def test_what_other_programs_read_is_refused_in_one_line_that_says_what_to_do(directory, tmp_path):
    out = exported(directory, tmp_path / "out", "compressed-tensors")
    with pytest.raises(InputError, match="form compressed-tensors, which transformers and, on a GPU, vLLM") as caught:
        load_model(out, CPU)
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


def test_weights_that_do_not_fit_are_told_by_one_of_them(directory):
    config = json.loads((directory / "config.json").read_text())
    for changes, words in (({"num_hidden_layers": 3}, r"\(no model\.layers\.2\.\S+, and 10 others\)"),
                           ({"num_hidden_layers": 1}, r"\(an unknown model\.layers\.1\.\S+, and 10 others\)"),
                           ({"vocab_size": 699}, r"\(model\.embed_tokens\.weight has the shape \(700, 64\) in")):
        (directory / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(InputError, match=words):
            load_model(directory, CPU)


@pytest.mark.parametrize("labels", [0, 2])
def test_an_encoder_leaves_as_onnx_for_texts_of_any_length(tmp_path, labels):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    shape = BertShape(vocab_size=50, hidden_size=32, heads=2, layers=2, feed_forward_size=64, text_tokens=40)
    model = BertClassifier(Bert(shape), labels) if labels else Bert(shape)
    directory = tmp_path / "encoder"
    directory.mkdir()
    save_family_model(model.eval(), "bert_classifier" if labels else "bert", shape, directory)
    out = exported(directory, tmp_path / "out", "onnx")
    session = onnxruntime.InferenceSession(out / "model.onnx")
    for texts, length in ((1, 3), (3, 17)):
        ids = torch.randint(0, 50, (texts, length))
        mask = torch.ones(texts, length, dtype=torch.bool)
        mask[0, length - 1:] = False
        (logits,) = session.run(None, {"ids": ids.numpy(), "attention_mask": mask.numpy()})
        assert np.allclose(logits, model(ids, mask).detach().numpy(), atol=1e-4)


def test_what_a_model_has_not_is_one_line_and_leaves_nothing(directory, tmp_path):
    with pytest.raises(InputError, match="there is no format 'pickle'; choose one of huggingface, gguf"):
        export(directory, tmp_path / "out", "pickle", CARD)
    with pytest.raises(InputError, match="the form onnx can be had of encoders"):
        export(directory, tmp_path / "out", "onnx", CARD)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("form", TEXT_FORMS)
def test_a_model_of_another_kind_is_refused(tmp_path, form):
    shape = BertShape(vocab_size=50, hidden_size=32, heads=2, layers=1, feed_forward_size=64, text_tokens=40)
    (tmp_path / "encoder").mkdir()
    save_family_model(Bert(shape), "bert", shape, tmp_path / "encoder")
    with pytest.raises(InputError, match=f"a model of kind bert has no form {form}"):
        export(tmp_path / "encoder", tmp_path / "out", form, CARD)


def test_a_folder_in_use_is_not_touched(directory, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(InputError, match="exists already; name a new folder"):
        export(directory, tmp_path / "out", "gguf", CARD)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_quantized_directory_of_an_earlier_version_is_told(directory, tmp_path):
    config = (directory / "config.json").read_text().replace('"kind": "language_model"',
                                                             '"kind": "quantized_language_model"')
    (directory / "config.json").write_text(config)
    with pytest.raises(InputError, match="a quantized model of an earlier version"):
        export(directory, tmp_path / "out", "gguf", CARD)
