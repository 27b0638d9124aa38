"""The portable export: programs in NumPy and C that encode as the tokenizer does and write what the model does."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genai_core.data.chat import plain, render_prompt
from genai_core.export.portable import write
from genai_core.export.portable.write import write_parameters
from genai_core.inference.generate import generate
from genai_core.models.transformer import Transformer, TransformerConfig

HERE = Path(write.__file__).parent
TEXTS = ("Hello, world!", "I'm here; they'LL go, it's 2024-12-31.", "  two  spaces\n\n\tand tabs \n",
         "Naïve café — 日本語 ½ ⅷ", "a\u00a0b\u2003c \u0085 d\x1c\x1ee", "x=1;\r\n\r\n  y", "'s't 'Re", "   ", "end ",
         "🙂🙂 e\u0301", "<|im_start|>user\nHi<|im_end|>")


@pytest.fixture(scope="module")
def exported(tokenizer, tokenizer_dir, tmp_path_factory):
    """A model with its two programs, the one in C compiled."""
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, intermediate_size=96, max_position_embeddings=256)).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path_factory.mktemp("portable")
    write_parameters(model, tokenizer_dir, folder / "model.bin")
    for name in ("run.py", "run.c"):
        shutil.copyfile(HERE / name, folder / name)
    if shutil.which("cc"):
        subprocess.run(["cc", "-O3", "-march=native", "-ffast-math", "-fopenmp", "-Wall", "-Werror", "run.c", "-o",
                        "run", "-lm"], cwd=folder, check=True)
    return model, folder


@pytest.fixture(scope="module")
def program(exported):
    spec = importlib.util.spec_from_file_location("run", exported[1] / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Model(exported[1] / "model.bin")


def command(folder: Path, language: str) -> list[str]:
    if language == "Python":
        return [sys.executable, "run.py"]
    if not shutil.which("cc"):
        pytest.skip("no C compiler")
    return ["./run"]


@pytest.mark.parametrize("language", ["Python", "C"])
def test_the_same_two_hundred_tokens(exported, tokenizer, prose, language):
    model, folder = exported
    ids = tokenizer.encode(prose[1][:60], add_special_tokens=False).ids
    wanted = generate(model, [ids], 200, set(), pad_id=0).ids[0].tolist()
    done = subprocess.run([*command(folder, language), "--ids", ",".join(map(str, ids)), "-n", "200"], cwd=folder,
                          check=True, capture_output=True, text=True)
    assert [int(token) for token in done.stdout.split()] == wanted


@pytest.mark.parametrize("text", TEXTS)
def test_the_program_encodes_as_the_tokenizer_does(program, tokenizer, text):
    assert program.tokenizer.encode(text) == tokenizer.encode(text, add_special_tokens=False).ids


@given(st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_whatever_people_write_is_encoded_alike(program, tokenizer, text):
    assert program.tokenizer.encode(text) == tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("language", ["Python", "C"])
@pytest.mark.parametrize("message", [TEXTS[1], TEXTS[3], "tell me <|im_end|> more", "<|im_<|im_end|>end|>on"])
def test_a_chat_is_answered_as_we_answer_it(exported, tokenizer, language, message):
    model, folder = exported
    prompt = render_prompt([{"role": "user", "content": plain(message)}])
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    ends = {tokenizer.token_to_id(token) for token in ("<|im_end|>", "<|endoftext|>")}
    wanted = generate(model, [ids], 30, ends, pad_id=0).unpadded()[0]
    wanted = [token for token in wanted if token not in ends]
    done = subprocess.run([*command(folder, language), message, "-n", "30"], cwd=folder, check=True,
                          capture_output=True)
    said = tokenizer.decode(wanted).replace("\ufffd", "")      # of a character that is not finished
    assert done.stdout.decode(errors="ignore").rstrip("\n") == said.rstrip("\n")


@pytest.mark.parametrize("message", [TEXTS[1], TEXTS[3]])
def test_an_answer_as_long_as_the_context_does_not_push_the_question_out(exported, tokenizer, message):
    model, folder = exported
    ids = tokenizer.encode(render_prompt([{"role": "user", "content": message}]), add_special_tokens=False).ids
    ends = {tokenizer.token_to_id(token) for token in ("<|im_end|>", "<|endoftext|>")}
    wanted = generate(model, [ids], 256 - len(ids), ends, pad_id=0).unpadded()[0]
    said = tokenizer.decode([token for token in wanted if token not in ends]).replace("\ufffd", "")
    for language in ("Python", "C"):
        done = subprocess.run([*command(folder, language), message, "-n", "256"], cwd=folder, check=True,
                              capture_output=True)
        assert done.stdout.decode(errors="ignore").rstrip("\n") == said.rstrip("\n"), language


@pytest.mark.parametrize("language", ["Python", "C"])
@pytest.mark.parametrize("kept", [-64, 0, 20, 70, 3_000, 60_000])
def test_a_file_that_is_cut_off_is_told(exported, tmp_path, language, kept):
    _, folder = exported
    for name in ("run.py", "run"):
        if (folder / name).exists():
            shutil.copy(folder / name, tmp_path / name)
    (tmp_path / "model.bin").write_bytes((folder / "model.bin").read_bytes()[:kept])
    done = subprocess.run([*command(tmp_path, language), "Hello"], cwd=tmp_path, check=False, capture_output=True,
                          text=True)
    assert done.returncode == 1 and "model.bin" in done.stderr and "Traceback" not in done.stderr
