"""Bases from outside: what they compute here is what `transformers` computes, and a bad one is refused in one line."""

import json

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, trainers

from genai_core.bases.licences import licence_of, require_acceptance
from genai_core.bases.places import find_place
from genai_core.bases.tokenizers import adopt_tokenizer
from genai_core.bases.weights import grown, load_base, shape_of
from genai_core.config.base_model import BaseModelConfig
from genai_core.config.pipeline import load_pipeline
from genai_core.config.release import Gold
from genai_core.config.training import RlhfConfig
from genai_core.context import Context
from genai_core.data.chat import END_OF_TEXT, TURN_END, document_start, encode_chat, fit_prompt, token_id
from genai_core.data.chat_formats import ChatFormat
from genai_core.data.instruction.preferences import encoded_preferences
from genai_core.data.tokens.batches import pad
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.export.gguf_layouts import read_layout, write_layout
from genai_core.export.model_directory import load_config, load_model
from genai_core.inference.generate import generate
from genai_core.inference.reward import open_reward_model, save_reward_model
from genai_core.models.masks import left_padded_mask, packed_mask, position_ids_of
from genai_core.models.reward import RewardModel
from genai_core.models.transformer import Transformer
from genai_core.stages import adopt
from genai_core.training.alignment.samplers import OwnSampler
from genai_core.training.estimate import estimate
from tests.genai_core.bases import LAYOUTS, LLAMA_TEMPLATE, published, random_network
from tests.genai_core.tables import preference, write_tables

CPU = torch.device("cpu")
MANY = 66_000
"""Entries of a vocabulary whose ids do not fit into 16 bits."""


@pytest.fixture(params=list(LAYOUTS))
def large(request, tmp_path, prose):
    """A directory of each layout, with rows for ids above 65,536."""
    return published(tmp_path / "base", request.param, prose[:20], rows=MANY)


def loaded(directory):
    return load_base(find_place(BaseModelConfig(source=str(directory)), directory))


def adopted(directory, out):
    out.mkdir()
    adopt.run(BaseModelConfig(source=str(directory)), out_dir=out, context=Context(out))
    return out


def ids_of(count, length, vocabulary=MANY):
    return torch.randint(0, vocabulary, (count, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_logits_are_those_of_transformers(large):
    from transformers import AutoModelForCausalLM

    model, ids = loaded(large), ids_of(2, 40)
    ids[:, ::3] = MANY - 1
    expected = AutoModelForCausalLM.from_pretrained(large, dtype=torch.float32)(ids).logits
    torch.testing.assert_close(model(ids), expected, atol=2e-4, rtol=1e-4)
    assert isinstance(model, Transformer) == (json.loads((large / "config.json").read_text())["model_type"] == "qwen3")


@torch.no_grad()
def test_a_cache_changes_nothing_whatever_lengths_its_rows_have(large):
    model, ids = loaded(large), ids_of(3, 30)
    whole = model(ids)
    cache = model.new_cache(3, 40)
    states = model.read(ids, torch.tensor([20, 9, 13]), cache)
    torch.testing.assert_close(model.logits(states), whole[torch.arange(3), torch.tensor([19, 8, 12])], atol=2e-4,
                               rtol=1e-4)
    for step in range(5):      # each row goes on from its own end
        new = torch.stack([ids[0, 20 + step], ids[1, 9 + step], ids[2, 13 + step]])[:, None]
        expected = torch.stack([whole[0, 20 + step], whole[1, 9 + step], whole[2, 13 + step]])
        torch.testing.assert_close(model(new, cache=cache)[:, 0], expected, atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_padding_and_packing_change_nothing(large):
    model, ids = loaded(large), ids_of(2, 30)
    alone = model(ids[1:, :11])[0]
    padded, attention_mask = pad([ids[0].tolist(), ids[1, :11].tolist()], 0, "left")
    left = model(padded, position_ids_of(attention_mask), left_padded_mask(attention_mask))
    torch.testing.assert_close(left[1, -11:], alone, atol=2e-4, rtol=1e-4)
    packed = torch.cat([ids[0, :14], ids[1, :11]])[None]
    places = torch.cat([torch.arange(14), torch.arange(11)])[None]
    rows = model(packed, places, packed_mask(torch.tensor([[1] * 14 + [2] * 11])))
    torch.testing.assert_close(rows[0, 14:], alone, atol=2e-4, rtol=1e-4)


def test_a_batch_of_prompts_is_answered_as_each_alone_and_as_transformers_does(large):
    from transformers import AutoModelForCausalLM

    model, ids = loaded(large), ids_of(3, 20).tolist()
    prompts = [ids[0], ids[1][:5], ids[2][:11]]
    together = generate(model, prompts, 8, set(), pad_id=0, slots=2).ids.tolist()
    assert together == [generate(model, [prompt], 8, set(), pad_id=0).ids[0].tolist() for prompt in prompts]
    theirs = AutoModelForCausalLM.from_pretrained(large, dtype=torch.float32).generate(
        torch.tensor([prompts[0]]), max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert together[0] == theirs[0, 20:].tolist()


def test_a_policy_that_recomputes_its_activations_samples_as_one_that_does_not(tmp_path, prose):
    base = adopted(published(tmp_path / "base", "llama", prose[:20]), tmp_path / "adopted")
    model = load_model(base, CPU)
    config = RlhfConfig(learning_rate=1e-3, batch_size=8, steps=1, completion_tokens=6)
    sampler = OwnSampler(load_tokenizer(base), config)
    draws = torch.rand((2, 6), generator=torch.Generator().manual_seed(0))
    expected = sampler.complete(model, ids_of(2, 9, 300).tolist(), draws)
    model.model.recompute_activations = True
    model.train()
    sampled = sampler.complete(model, ids_of(2, 9, 300).tolist(), draws)
    assert torch.equal(sampled.ids, expected.ids) and torch.equal(sampled.log_probs, expected.log_probs)
    assert model.training


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_what_is_taken_in_is_a_directory_that_transformers_reads_with_the_same_logits(layout, tmp_path, prose):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = published(tmp_path / "base", layout, prose[:20])
    out = adopted(base, tmp_path / "out")
    ids = ids_of(1, 20, 300)
    before = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)(ids).logits
    after = AutoModelForCausalLM.from_pretrained(out)(ids).logits
    torch.testing.assert_close(load_model(out, CPU)(ids), after, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(after[..., :before.shape[-1]], before, atol=2e-4, rtol=1e-4)
    chat = [{"role": "user", "content": "Hello"}]
    theirs = AutoTokenizer.from_pretrained(out).apply_chat_template(chat, add_generation_prompt=True, tokenize=True,
                                                                   return_dict=False)
    assert fit_prompt(load_tokenizer(out), chat, 100)[0] == list(theirs)


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_new_rows_leave_the_logits_of_the_others_as_they_were(tied, tmp_path, prose):
    for layout in ("qwen3", "llama"):
        base = published(tmp_path / layout, layout, prose[:10], tie_word_embeddings=tied)
        model, ids = loaded(base), ids_of(1, 20, 300)
        before, rows = model(ids), model.config.vocab_size
        larger = grown(model, rows + 3, range(rows, rows + 3))
        assert larger.config.vocab_size == rows + 3
        torch.testing.assert_close(larger(ids)[..., :rows], before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", ["llama", "gemma3_text", "gpt2", "qwen3"])
@torch.no_grad()
def test_a_reward_model_comes_back_from_its_directory_with_its_scores(layout, tmp_path, prose):
    out = adopted(published(tmp_path / "base", layout, prose[:10]), tmp_path / "out")
    reward = RewardModel.from_language_model(load_model(out, CPU)).eval()
    torch.nn.init.normal_(reward.score.weight)
    save_reward_model(reward, out, 64, tmp_path)
    opened = open_reward_model(tmp_path, CPU)
    ids, last = ids_of(2, 12, 300), torch.tensor([11, 6])
    torch.testing.assert_close(opened.model(ids, last), reward(ids, last))
    from transformers import AutoModelForSequenceClassification

    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path)(ids[:1]).logits
    torch.testing.assert_close(theirs[0], reward(ids[:1], last[:1]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layout", ["llama", "gemma3_text", "gpt2"])
@torch.no_grad()
def test_a_gguf_file_holds_the_model_and_transformers_reads_it(layout, tmp_path, prose):
    from transformers import AutoModelForCausalLM

    out = adopted(published(tmp_path / "base", layout, prose[:10]), tmp_path / "out")
    model, ids = load_model(out, CPU), ids_of(1, 20, 300)
    write_layout(model, out, tmp_path / "model.gguf", "F32")
    torch.testing.assert_close(read_layout(tmp_path / "model.gguf", load_config(out))(ids), model(ids))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    torch.testing.assert_close(theirs(ids).logits, model(ids), atol=2e-4, rtol=1e-4)
    there = tmp_path / "from-gguf"
    there.mkdir()
    adopt.run(BaseModelConfig(source=str(tmp_path / "model.gguf")), out_dir=there, context=Context(tmp_path))
    torch.testing.assert_close(load_model(there, CPU)(ids), model(ids), atol=2e-4, rtol=1e-4)
    assert "quantization_config" not in json.loads((there / "config.json").read_text())      # it is widened


SPOKEN = [{"role": "user", "content": "Hello there"}, {"role": "assistant", "content": "A list"},
          {"role": "user", "content": "what"}, {"role": "assistant", "content": "is a sequence."}]
CHAT = [{"role": "user", "content": "One <|eot|> two"}, {"role": "assistant", "content": "Three"},
        {"role": "user", "content": "Four"}, {"role": "assistant", "content": "Five"}]


def test_the_template_of_the_base_decides_what_the_assistant_writes(tmp_path, prose):
    base = published(tmp_path / "base", "llama", prose[:20], LLAMA_TEMPLATE)
    tokenizer = load_tokenizer(adopted(base, tmp_path / "out"))
    ids, mask = encode_chat(tokenizer, CHAT)
    said = tokenizer.decode([number for number, learned in zip(ids, mask, strict=True) if learned],
                            skip_special_tokens=False)
    assert said == "Three<|eot|>Five<|eot|>"
    assert tokenizer.decode(ids, skip_special_tokens=False) == (
        "<|begin|><|start|>user\n\nOne  two<|eot|><|start|>assistant\n\nThree<|eot|>"
        "<|start|>user\n\nFour<|eot|><|start|>assistant\n\nFive<|eot|>"), "a special token in a message ends nothing"
    assert token_id(tokenizer, TURN_END) == tokenizer.token_to_id("<|eot|>")
    assert token_id(tokenizer, END_OF_TEXT) == tokenizer.token_to_id("<|end_of_text|>")
    assert document_start(tokenizer) == [tokenizer.token_to_id("<|begin|>")]
    prompt, lost = fit_prompt(tokenizer, [*CHAT, {"role": "user", "content": "Six"}], 18)
    assert lost and len(prompt) <= 18 and tokenizer.decode(prompt, skip_special_tokens=False).endswith(
        "<|start|>assistant\n\n")


def test_a_tokenizer_that_puts_a_blank_before_what_it_is_given_reads_turns_as_it_reads_the_whole():
    specials = ["<|begin|>", "<|start|>", "<|eot|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.train_from_iterator(["Hello there, what is a list? A mutable sequence."] * 9, trainers.BpeTrainer(
        vocab_size=120, show_progress=False, special_tokens=specials))
    form = ChatFormat(LLAMA_TEMPLATE, end_of_text="<|begin|>", turn_end="<|eot|>", bos_token="<|begin|>")
    ids, mask = form.encode_chat(tokenizer, SPOKEN)
    assert ids == tokenizer.encode(form.render(SPOKEN, False), add_special_tokens=False).ids
    prompt = form.encode_prompt(tokenizer, SPOKEN[:1])
    assert ids[:len(prompt)] == prompt and not any(mask[:len(prompt)]) and mask[len(prompt)]


ALTERNATING = ("{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
               "{{ raise_exception('roles must alternate') }}{% endif %}<|start|>{{ message['role'] }} "
               "{{ message['content'] }}<|eot|>{% endfor %}"
               "{% if add_generation_prompt %}<|start|>assistant {% endif %}")


@pytest.mark.parametrize("template", [LLAMA_TEMPLATE, ALTERNATING])
def test_the_answers_of_a_preference_are_those_of_the_base_s_template(template, tmp_path, prose, recorder):
    tokenizer = load_tokenizer(adopted(published(tmp_path / "base", "llama", prose[:20], template), tmp_path / "out"))
    write_tables(tmp_path, preferences=[preference("What is a list?", "A sequence.", "No idea at all.")])
    [found] = encoded_preferences(tmp_path, "train", (), Gold(fraction=1e-9), tokenizer, 128, recorder)
    for answer, text in ((found.chosen, "A sequence."), (found.rejected, "No idea at all.")):
        ids, mask = encode_chat(tokenizer, [{"role": "user", "content": "What is a list?"},
                                            {"role": "assistant", "content": text}])
        assert tokenizer.decode(answer.ids, skip_special_tokens=False) == f"{text}<|eot|>" and all(answer.mask)
        assert (found.prompt + answer.ids, [False] * len(found.prompt) + answer.mask) == (ids, mask)


def test_a_base_without_a_template_gets_ours_with_its_tokens_and_that_is_said(tmp_path, prose, recorder):
    base = published(tmp_path / "base", "gemma3_text", prose[:20])
    out = tmp_path / "out"
    out.mkdir()
    adopt.run(BaseModelConfig(source=str(base)), out_dir=out, context=Context(tmp_path, recorder))
    assert any("no chat template; this project's is taken, and <|im_start|>, <|im_end|> added" in note
               for note in recorder.notes)
    tokenizer = load_tokenizer(out)
    ids, _ = encode_chat(tokenizer, [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}])
    assert tokenizer.decode(ids, skip_special_tokens=False) == (
        "<bos><|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi<|im_end|>\n")


@pytest.mark.parametrize("template", [
    "{% for message in messages %}{{ message['content'] }}{% endfor %}",
    "{{ messages | length }}{% for message in messages %}<|start|>{{ message['content'] }}<|eot|>{% endfor %}"])
def test_a_template_that_does_not_tell_who_speaks_gives_way_to_ours(template, tmp_path, prose):
    base = published(tmp_path / "base", "llama", prose[:10], template)
    found = adopt_tokenizer(find_place(BaseModelConfig(source=str(base)), tmp_path), 10_000)
    assert not found.own_template and found.note.startswith("the base's chat template cannot be used (")


def test_a_template_that_refuses_a_conversation_says_so_in_one_line(tmp_path, prose):
    tokenizer = load_tokenizer(adopted(published(tmp_path / "base", "llama", prose[:10], ALTERNATING),
                                       tmp_path / "out"))
    with pytest.raises(InputError, match=r"refuses a conversation of user, user: roles must alternate; change"):
        fit_prompt(tokenizer, CHAT[:1] * 2, 100)


def _cut(base):
    file = base / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _no_header(base):
    (base / "model.safetensors").write_bytes(b"\xff" * 64)


def _unknown(base):
    values = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(values | {"model_type": "nobodys"}))


def _own_code(base):
    values = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(values | {"model_type": "own", "auto_map": {"AutoConfig": "x.Y"}}))


def _state_space(base):
    (base / "config.json").write_text(json.dumps({"model_type": "mamba", "vocab_size": 300, "hidden_size": 32,
                                                  "num_hidden_layers": 2}))


def _lacking(base):
    weights = load_file(base / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})


def _other_size(base):
    values = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(values | {"intermediate_size": 80}))


def _fewer_rows(base):
    network = random_network("llama", 300)
    network.save_pretrained(base)


def _pickles(base):
    (base / "model.safetensors").rename(base / "pytorch_model.bin")


def _nothing(base):
    (base / "model.safetensors").unlink()


def _no_tokenizer(base):
    (base / "tokenizer.json").unlink()


def _bad_tokenizer(base):
    (base / "tokenizer.json").write_text("{")


def _quantized(base):
    values = json.loads((base / "config.json").read_text())
    values["quantization_config"] = {"quant_method": "bitsandbytes"}
    (base / "config.json").write_text(json.dumps(values))


def _no_config(base):
    (base / "config.json").unlink()


@pytest.mark.parametrize(("damage", "message"), [
    (_cut, r"model\.safetensors: not a readable safetensors file .*; fetch the base again"),
    (_no_header, r"model\.safetensors: not a readable safetensors file"),
    (_unknown, "knows no decoder-only layout 'nobodys'"), (_own_code, "knows no decoder-only layout 'own'"),
    (_state_space, "the layout mamba has layers of"),
    (_lacking, r"do not fit config\.json \(model\.layers\.1\.mlp\.up_proj\.weight is missing"),
    (_other_size, r"do not fit config\.json|cannot be loaded as llama"),
    (_fewer_rows, "the tokenizer has .* entries and the weights have rows for 300: it is another model's tokenizer"),
    (_pickles, r"weights only as pytorch_model\.bin, and nothing is unpickled here"),
    (_nothing, "holds no weights"), (_no_tokenizer, r"has no tokenizer \(tokenizer\.json\)"),
    (_bad_tokenizer, "not a readable tokenizer"), (_quantized, r"the weights are quantized \(bitsandbytes\)"),
    (_no_config, r"config\.json is missing")])
def test_a_bad_base_is_refused_in_one_line(damage, message, tmp_path, prose):
    base = published(tmp_path / "base", "llama", prose[:10])
    damage(base)
    with pytest.raises(InputError, match=message) as refused:
        adopted(base, tmp_path / "out")
    assert "\n" not in str(refused.value)


def test_a_base_that_the_memory_does_not_hold_is_refused_before_it_is_loaded(tmp_path, prose, monkeypatch):
    base = published(tmp_path / "base", "llama", prose[:10])
    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=100_000))
    with pytest.raises(InputError, match=r"billion parameters take .* GiB of memory to take in, and 0\.0 GiB are free"):
        adopted(base, tmp_path / "out")


@pytest.mark.parametrize(("source", "message"), [
    ("nowhere/at-all", "there is no directory nowhere/at-all here, and the hub (cannot be reached|has no such model)"),
    ("./nothing", r"no such file or directory: .*nothing"), ("a b", "it is no name of a model on the hub")])
def test_a_base_that_is_nowhere_is_refused(source, message, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=message):
        find_place(BaseModelConfig(source=source), tmp_path)


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + b"\x00" * 100)
    with pytest.raises(InputError, match=r"model\.gguf: not a readable GGUF file"):
        loaded_file = find_place(BaseModelConfig(source=str(tmp_path / "model.gguf")), tmp_path)
        load_base(loaded_file)
    (tmp_path / "model.bin").touch()
    with pytest.raises(InputError, match="is no GGUF file"):
        find_place(BaseModelConfig(source=str(tmp_path / "model.bin")), tmp_path)


def test_terms_of_use_have_to_be_accepted_by_their_name(tmp_path, prose):
    base = published(tmp_path / "base", "llama", prose[:10])
    (base / "README.md").write_text("---\nlicense: gemma\n---\n")
    config = BaseModelConfig(source=str(base), licence="mit")
    place = find_place(config, tmp_path)
    assert licence_of(config, place) == "gemma", "what the base says counts, not what somebody says of it"
    with pytest.raises(InputError, match=r"under the terms 'gemma' \(https://ai\.google\.dev/gemma/terms\); read them"):
        require_acceptance("gemma", config, place)
    require_acceptance("gemma", config.model_copy(update={"accept_licence": "gemma"}), place)
    for free in ("apache-2.0", "MIT", "cc-by-sa-4.0", "not stated"):
        require_acceptance(free, config, place)
    for bound in ("llama3.2", "cc-by-nc-4.0", "some-own-licence"):
        with pytest.raises(InputError, match=r"base\.accept_licence"):
            require_acceptance(bound, config, place)


def test_a_preset_with_a_base_trains_it_further_only_where_tokens_are_given_beside_it(tmp_path):
    taken = load_pipeline("smoke", {"base.source": "somewhere"})
    assert "adopt" in taken.stage_names and "pretrain" not in taken.stage_names
    assert taken.why_not("pretrain").startswith("the base from outside is taken as it is")
    further = load_pipeline("smoke", {"base.source": "somewhere", "pretrain.tokens": 4096})
    assert {"adopt", "pretrain"} <= set(further.stage_names) and further.pretrain.tokens == 4096
    preset = tmp_path / "mine.yaml"
    preset.write_text("extends: smoke\nbase: {source: somewhere}\n")
    assert load_pipeline(str(preset)).stage_names == taken.stage_names
    preset.write_text("extends: smoke\nbase: {source: somewhere}\npretrain: {tokens: 4096}\n")
    assert load_pipeline(str(preset)).stage_names == further.stage_names
    assert load_pipeline("smoke", {"base.source": "x", "stages": ["instruct"]}).stage_names == (
        "adopt", "collect", "clean", "tokenize", "instruct")


def test_a_pretrained_base_has_rates_that_do_not_destroy_it_and_what_is_said_goes_before_them():
    def rates(preset, **changes):
        config = load_pipeline(preset, {name.replace("__", "."): value for name, value in changes.items()})
        return {name: (getattr(config, name).optimizer, getattr(config, name).learning_rate)
                for name in ("pretrain", "instruct", "reward", "rlhf")}

    whole = {"pretrain": ("adamw", 2e-5), "instruct": ("adamw", 2e-5), "reward": ("adamw", 1e-5),
             "rlhf": ("adamw", 5e-6)}
    assert rates("laptop", base__source="/models/mine") == whole
    adapted = rates("laptop", base__source="/models/mine", instruct__lora={}, reward__lora={"rank": 4}, rlhf__lora={})
    assert adapted == {**whole, "instruct": ("adamw", 2e-4), "reward": ("adamw", 1e-4), "rlhf": ("adamw", 5e-5)}
    assert adapted == rates("finetune")
    assert rates("finetune", instruct__lora=None)["instruct"] == ("adamw", 2e-5)
    said = rates("laptop", base__source="org/name", instruct__optimizer="muon", rlhf__learning_rate=1e-3)
    assert said == {**whole, "instruct": ("muon", 2e-5), "rlhf": ("adamw", 1e-3)}
    own = rates("laptop", base__source="models:/genai-pretrain@champion", pretrain__tokens=4096)
    assert own == rates("laptop") and own["instruct"] == ("muon", 3e-3)
    assert rates("laptop", base__source="models:/genai-adopt/3") == whole


def test_the_estimate_of_a_training_is_of_the_base_that_it_starts_from(tmp_path, prose):
    for layout in LAYOUTS:
        base = published(tmp_path / layout, layout, prose[:10])
        config = load_pipeline("smoke", {"base.source": str(base)})
        assert estimate("instruct", config) is None, "before anybody has looked"
        found = estimate("instruct", config, base=shape_of(base))
        exact = sum(parameter.numel() for parameter in random_network(layout, shape_of(base).vocab_size).parameters())
        assert found.parameters == pytest.approx(exact, rel=0.35 if layout == "gpt2" else 0.02)
        assert found.memory_bytes > 16 * exact * 0.6


def test_the_preset_finetune_takes_a_pinned_base_and_trains_none_from_noise():
    config = load_pipeline("finetune")
    assert "adopt" in config.stage_names and "pretrain" not in config.stage_names
    assert len(config.base.packages) == 5 and config.base.licence == "gemma" and not config.base.accept_licence
    own = load_pipeline("finetune", {"base.source": "/models/mine", "base.packages": [], "base.sha256": ""})
    assert own.base.source == "/models/mine" and own.stage_names == config.stage_names
