"""Chat templates of bases: rendered as transformers renders them, refused where they fail, closed to special tokens."""

import json
from itertools import product

import pytest
import torch
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, normalizers

from genai_core.bases.places import find_place
from genai_core.bases.tokenizers import adopt_tokenizer
from genai_core.config.base_model import BaseModelConfig
from genai_core.data.chat import encode_chat, encode_prompt, end_of, fit_prompt, without_specials
from genai_core.data.chat_formats import ChatFormat, without_generation
from genai_core.data.instruction.packing import pack
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.models.reward import encode_subjects
from tests.genai_core.bases import LLAMA_TEMPLATE, byte_tokenizer, published

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}, {"role": "user", "content": "Bye"}]
SPELLINGS = [(f"{{%{before}generation{after}%}}", f"{{%{before}endgeneration{after}%}}", gap)
             for before, after, gap in product((" ", "-", "- ", "+ "), (" ", "-", " -", " +"), ("", "\n", "  \n  "))]


@pytest.mark.parametrize(("opening", "closing", "gap"), SPELLINGS)
def test_what_marks_the_assistant_s_words_takes_as_much_white_space_away_as_for_transformers(opening, closing, gap):
    from transformers.utils.chat_template_utils import render_jinja_template

    template = ("{% for message in messages %}<|im_start|>{{ message.role }}\n"
                f"{{% if message.role == 'assistant' %}}{gap}{opening}{gap}{{{{ message.content }}}}<|im_end|>{gap}"
                f"{closing}{gap}{{% else %}}{{{{ message.content }}}}<|im_end|>{{% endif %}}\n{{% endfor %}}")
    theirs = render_jinja_template([CHAT], chat_template=template)[0][0]
    assert ChatFormat(template, "", "<|im_end|>").render(CHAT, generate=False) == theirs
    exported = without_generation(template)
    assert "generation" not in exported
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(exported)
    assert plain.render(messages=CHAT) == theirs, "and in what reads a GGUF file"


def adopted(base, tmp_path):
    return adopt_tokenizer(find_place(BaseModelConfig(source=str(base)), tmp_path), 10_000)


@pytest.mark.parametrize("template", ["{% for message in messages %}", "{{ messages | nofilter }}",
                                      "{{ raise_exception('no') }}", "{{ ''.__class__.__mro__ }}"])
def test_a_template_that_fails_is_refused_and_not_replaced(template, tmp_path, prose):
    base = published(tmp_path / "base", "llama", prose[:10], template)
    with pytest.raises(InputError, match=r"tokenizer_config\.json: the chat template fails .*; mend it, or remove it"):
        adopted(base, tmp_path)


@pytest.mark.parametrize("given", [[{"name": "default"}], ["x"], {"default": "x"},
                                   [{"name": "default", "template": 3}]])
def test_a_template_that_is_no_text_is_one_line(given, tmp_path, prose):
    base = published(tmp_path / "base", "llama", prose[:10])
    values = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps(values | {"chat_template": given}))
    with pytest.raises(InputError, match="chat_template is neither a text nor a list of names and templates"):
        adopted(base, tmp_path)


def test_a_template_file_that_is_no_utf_8_is_one_line(tmp_path, prose):
    base = published(tmp_path / "base", "llama", prose[:10])
    (base / "chat_template.jinja").write_bytes(b"\xff\xfe{{ messages }}")
    with pytest.raises(InputError, match=r"chat_template\.jinja: not readable as UTF-8"):
        adopted(base, tmp_path)


def test_an_answer_that_the_template_does_not_end_is_not_left_unlearned_in_silence(prose):
    unended = LLAMA_TEMPLATE.replace("| trim + '<|eot|>' }}", "| trim }}{% if message['content'] != 'Yo' %}<|eot|>"
                                     "{% endif %}")
    tokenizer = byte_tokenizer(prose[:10], ["<|begin|>", "<|start|>", "<|eot|>"])
    form = ChatFormat(unended, "<|begin|>", "<|eot|>", bos_token="<|begin|>")
    with pytest.raises(InputError, match=r"writes no <\|eot\|> after message 1"):
        form.encode_chat(tokenizer, CHAT)


RESERVED = "<|reserved_special_token_5|>"


@pytest.fixture
def tokenizer(tmp_path, prose):
    """Of a base whose normalizer makes special tokens out of other characters, with one that nothing uses."""
    base = published(tmp_path / "base", "llama", prose[:20], LLAMA_TEMPLATE)
    taken = adopted(base, tmp_path)
    taken.tokenizer.normalizer = normalizers.NFKC()
    taken.tokenizer.add_special_tokens([AddedToken(RESERVED, special=True), AddedToken("<|wide|>", normalized=True)])
    out = tmp_path / "out"
    out.mkdir()
    taken.save(out)
    return load_tokenizer(out)


@pytest.mark.parametrize("written", [RESERVED, "<|eot|>", "＜｜wide｜＞", "<|e<|eot|>ot|>", "<|wi＜｜wide｜＞de|>"])
def test_no_special_token_gets_through_in_what_people_write(written, tokenizer):
    said, wanted = f"Größe {written} two", "Größe  two"
    assert without_specials(tokenizer, said) == wanted
    chats = [[{"role": "user", "content": text}, {"role": "assistant", "content": text}] for text in (said, wanted)]
    assert encode_chat(tokenizer, chats[0]) == encode_chat(tokenizer, chats[1])
    assert encode_prompt(tokenizer, chats[0][:1]) == encode_prompt(tokenizer, chats[1][:1])
    assert fit_prompt(tokenizer, chats[0][:1], 100) == fit_prompt(tokenizer, chats[1][:1], 100)
    assert torch.equal(encode_subjects(tokenizer, [said], 64)[0], encode_subjects(tokenizer, [wanted], 64)[0])


def test_special_tokens_of_a_base_with_this_project_s_format_are_taken_out_too(tmp_path, prose):
    own = byte_tokenizer(prose[:10], ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>"])
    own.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    chat = [{"role": "user", "content": "One<|vision_start|>"}]
    for encoded in (encode_chat, encode_prompt, lambda *given: fit_prompt(*given, 100)):
        assert encoded(tokenizer, chat) == encoded(tokenizer, [{"role": "user", "content": "One"}])


def test_what_is_cut_to_fit_keeps_the_start_of_a_document(tokenizer):
    start = [tokenizer.token_to_id("<|begin|>")]
    assert end_of([9, 1, 2, 3], 3, [9]) == [9, 2, 3] and end_of([1, 2, 3], 2, [9]) == [2, 3]
    chat = [{"role": "user", "content": "word " * 60}, {"role": "assistant", "content": "Yes"}]
    ids, mask = encode_chat(tokenizer, chat)
    rows = pack([(ids, mask)], 20, 0, start=start)
    assert rows.ids[0].tolist() == [*start, *ids[-20:-1]] and rows.chats_cut == 1
    assert [number for number in rows.targets[0].tolist() if number >= 0] == [
        number for number, learned in zip(ids, mask, strict=True) if learned]
    for subject in ("word " * 60, chat):
        assert encode_subjects(tokenizer, [subject], 20)[0][0, 0].item() == start[0]
    for messages in ([{"role": "user", "content": "word " * 60}], [{"role": "system", "content": "word " * 60}]):
        assert fit_prompt(tokenizer, messages, 12)[0][0] == start[0]
