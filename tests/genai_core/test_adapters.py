"""Adapters: what is trained, what the merged model and `peft` make of them, and the stages that train them."""

import copy

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from genai_core.config.release import Gold
from genai_core.config.tasks import Lesson, Mixture
from genai_core.config.training import LINEAR_LAYERS, InstructConfig, LoraConfig, RewardConfig, RlhfConfig
from genai_core.context import Context
from genai_core.errors import InputError
from genai_core.export.adapter import FOLDER, WEIGHTS_FILE, save_adapter
from genai_core.export.model_directory import load_model, save_model
from genai_core.inference.native import compiled_library, is_plain
from genai_core.inference.reward import open_reward_model, save_reward_model
from genai_core.models.adapters import (
    adapter_parameters,
    adapters_of,
    add_adapters,
    last,
    linear_layers,
    merge,
    merged_copy,
    trained_parameters,
    without_adapters,
)
from genai_core.models.huggingface import HuggingFaceConfig, HuggingFaceModel
from genai_core.models.reward import SCORE, RewardModel
from genai_core.stages import instruct, reward, rlhf
from genai_core.training.alignment.samplers import OwnSampler, merged_for_decoding
from genai_core.training.checkpoints import state_of
from genai_core.training.loop import train
from genai_core.training.optimizers import build_optimizers
from tests.genai_core import trainings
from tests.genai_core.bases import random_network
from tests.genai_core.tables import rating, row, write_tables

CPU = torch.device("cpu")
IDS = torch.arange(1, 41).view(2, 20)
LORA = LoraConfig(rank=4, alpha=8)


def with_random_adapters(model, lora=LORA, **options):
    """A model whose adapters have learned something."""
    add_adapters(model, lora, 0, **options)
    generator = torch.Generator().manual_seed(1)
    for _, adapter in adapters_of(model):
        torch.nn.init.normal_(adapter.lora_B, std=0.1, generator=generator)
    return model


def test_a_model_with_new_adapters_is_the_model_that_they_were_put_on(tiny_model):
    before = tiny_model(IDS)
    add_adapters(tiny_model, LORA, 0)
    assert torch.equal(tiny_model(IDS), before)


def test_every_linear_layer_gets_an_adapter_and_they_alone_are_trained(tiny_model):
    expected = adapter_parameters(tiny_model, LORA)
    add_adapters(tiny_model, LORA, 0)
    names = [name for name, _ in adapters_of(tiny_model)]
    assert len(names) == 2 * 7 and set(map(last, names)) == set(LINEAR_LAYERS)
    trained = {name for name, parameter in tiny_model.named_parameters() if parameter.requires_grad}
    assert trained == {f"{name}.{part}" for name in names for part in ("lora_A", "lora_B")}
    assert trained_parameters(tiny_model) == expected


def test_targets_choose_the_layers(tiny_model):
    add_adapters(tiny_model, LoraConfig(targets=("q_proj", "0.mlp.up_proj")), 0)
    assert {name for name, _ in adapters_of(tiny_model)} == {
        "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "model.layers.0.mlp.up_proj"}


def test_a_target_that_is_no_layer_is_named_with_those_that_are(tiny_model):
    with pytest.raises(InputError, match=r"no linear layer of this model is called 'query'; there are q_proj, k_proj"):
        add_adapters(tiny_model, LoraConfig(targets=("query",)), 0)
    with pytest.raises(ValidationError, match="targets name no layer"):
        LoraConfig(targets=())


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_training_moves_the_adapters_and_nothing_else(optimizer, tiny_model, tokens, tokenizer, prose, tmp_path,
                                                      recorder):
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    model, objective, config = trainings.instruct_adapters(tiny_model, tokens, tokenizer, prose, optimizer=optimizer)
    train(model, objective, config, Context(tmp_path, recorder, device="cpu", compile="off"))
    assert all(torch.equal(parameter, before[name.replace(".base_layer", "")])
               for name, parameter in model.named_parameters() if "lora_" not in name)
    assert all(adapter.lora_B.abs().max() > 0 for _, adapter in adapters_of(model))
    held = [parameter for each in build_optimizers(model, config, CPU) for group in each.param_groups
            for parameter in group["params"]]
    assert sum(parameter.numel() for parameter in held) == trained_parameters(model)


def test_a_checkpoint_holds_the_adapters_alone(tiny_model):
    add_adapters(tiny_model, LORA, 0)
    assert all("lora_" in name for name in state_of(tiny_model))
    assert sum(tensor.numel() for tensor in state_of(tiny_model).values()) == trained_parameters(tiny_model)


def test_compiled_training_has_the_losses_of_the_other(tiny_model, tokens, tokenizer, prose, tmp_path, recorder):
    losses = {}
    for compiled in ("off", "on"):
        model, objective, config = trainings.instruct_adapters(copy.deepcopy(tiny_model), tokens, tokenizer, prose)
        objective.steps = 3
        trained = train(model, objective, config, Context(tmp_path / compiled, recorder, device="cpu",
                                                          compile=compiled))
        losses[compiled] = [value for _, value in trained.curves["loss"]]
    assert losses["on"] == pytest.approx(losses["off"], rel=2e-3)


def test_the_merged_model_is_the_adapted_one(tiny_model):
    before = tiny_model(IDS)
    names = set(tiny_model.state_dict())
    adapted = with_random_adapters(tiny_model)(IDS)
    merge(tiny_model)
    assert set(tiny_model.state_dict()) == names
    assert (adapted - before).abs().max() > 0.1
    assert (tiny_model(IDS) - adapted).abs().max() < 1e-5
    assert all(parameter.requires_grad for parameter in tiny_model.parameters())


def test_a_merged_copy_is_the_merged_model_and_leaves_the_other_as_it_was(tiny_model):
    model = with_random_adapters(tiny_model, LoraConfig(targets=["q_proj", "down_proj"]))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    copied = merged_copy(model)
    assert not list(adapters_of(copied)) and len(list(adapters_of(model))) == 4
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    own = {id(parameter) for parameter in model.parameters()}
    assert sum(id(parameter) not in own for parameter in copied.parameters()) == 4, "all others are shared"
    assert (copied(IDS) - model(IDS)).abs().max() < 1e-5
    merge(model)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in copied.state_dict().items())


def test_what_a_policy_with_adapters_samples_with_them_merged_is_what_it_says_itself(tiny_model, tokenizer, prose,
                                                                                    monkeypatch):
    if compiled_library() is None:
        pytest.skip("no C compiler")
    monkeypatch.delenv("GENAI_NATIVE", raising=False)
    _, objective, config = trainings.rlhf_adapters(tiny_model, None, tokenizer, prose, temperature=0.8)
    for _, adapter in adapters_of(objective.policy):
        torch.nn.init.normal_(adapter.lora_B, std=0.1)
    prompts = [[5, 9, 4]] * 4 + [[7, 3]] * 2
    draws = torch.rand(6, config.completion_tokens)
    own = OwnSampler(tokenizer, config).complete(objective.policy, prompts, draws)
    monkeypatch.setenv("GENAI_NATIVE", "0")
    assert merged_for_decoding(objective.policy) is objective.policy, "no copy where nothing is won by it"
    expected = OwnSampler(tokenizer, config).complete(objective.policy, prompts, draws)
    assert torch.equal(own.ids, expected.ids) and torch.allclose(own.log_probs, expected.log_probs, atol=1e-5)
    monkeypatch.delenv("GENAI_NATIVE")
    assert is_plain(merged_for_decoding(objective.policy)) and not is_plain(objective.policy)
    rollout = objective.sample(0, config.group_size)[0]      # which raises where the two do not agree
    trained = objective.log_probs(objective.policy, rollout.sequences)
    assert (trained - rollout.log_probs)[rollout.target_mask].abs().max() < 1e-4


def test_a_layout_of_transformers_is_sampled_with_its_adapters_beside_it():
    pytest.importorskip("transformers")
    network = random_network("llama", 300)
    policy = with_random_adapters(HuggingFaceModel(HuggingFaceConfig(network.config.to_dict()), network))
    assert merged_for_decoding(policy) is policy


def test_the_reference_is_the_base_on_the_same_weights(tiny_model):
    before = tiny_model(IDS)
    reference = without_adapters(with_random_adapters(tiny_model))
    assert torch.equal(reference(IDS), before) and not torch.equal(tiny_model(IDS), before)
    own = {parameter.data_ptr() for parameter in tiny_model.parameters()}
    assert all(parameter.data_ptr() in own and not parameter.requires_grad for parameter in reference.parameters())


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "v_proj"), ("0.mlp.up_proj",)])
def test_peft_puts_the_adapter_on_the_base_and_gives_our_logits(targets, tiny_model, tokenizer_dir, tmp_path):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    base, adapter = tmp_path / "base", tmp_path / FOLDER
    base.mkdir()
    save_model(tiny_model, tokenizer_dir, base)
    before = tiny_model(IDS)
    save_adapter(with_random_adapters(tiny_model, LoraConfig(rank=4, alpha=8, targets=targets)), adapter)
    theirs = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), adapter)
    ours = tiny_model(IDS)
    assert (ours - before).abs().max() > 0.01
    with torch.no_grad():
        assert (theirs(IDS).logits - ours).abs().max() < 1e-5
    assert set(load_file(adapter / WEIGHTS_FILE)) == set(peft.get_peft_model_state_dict(theirs))
    merged = theirs.merge_and_unload().state_dict()
    merge(tiny_model)
    assert all(torch.allclose(merged[name], parameter, atol=1e-6) for name, parameter in tiny_model.named_parameters())


def test_peft_puts_the_adapter_of_a_reward_model_on_its_base(tiny_model, tokenizer_dir, tmp_path):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    base, adapter = tmp_path / "base", tmp_path / FOLDER
    base.mkdir()
    model = RewardModel.from_language_model(tiny_model)
    save_reward_model(model, tokenizer_dir, 32, base)
    add_adapters(model, LORA, 0, whole=(SCORE,))
    assert model.score.weight.requires_grad and not model.model.norm.weight.requires_grad
    torch.nn.init.normal_(model.score.weight)
    save_adapter(model, adapter, whole=(SCORE,), task="SEQ_CLS")
    theirs = peft.PeftModel.from_pretrained(
        transformers.AutoModelForSequenceClassification.from_pretrained(base, pad_token_id=0), adapter)
    with torch.no_grad():
        rewards = theirs(IDS).logits[:, 0]
    assert (rewards - model(IDS, torch.tensor([19, 19]))).abs().max() < 1e-5


def test_layers_that_keep_their_weights_transposed_are_adapted_too(tmp_path):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    shape = transformers.GPT2Config(vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2)
    model = transformers.GPT2LMHeadModel(shape).eval()
    base = copy.deepcopy(model)
    assert {last(name) for name in linear_layers(model)} == {"c_attn", "c_proj", "c_fc"}, "not the head"
    save_adapter(with_random_adapters(model), tmp_path)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path)
    with torch.no_grad():
        ours = model(IDS).logits
        assert (theirs(IDS).logits - ours).abs().max() < 1e-5
        merge(model)
        assert (model(IDS).logits - ours).abs().max() < 1e-5


ANSWER = {"role": "assistant", "content": "Yes, it is."}
DIALOGUES = [[{"role": "user", "content": f"Is it {word}?"}, ANSWER] for word in ("so", "true", "late", "good")]


@pytest.fixture
def made(tmp_path, tiny_model, tokenizer_dir):
    """A base model, a reward model and cleaned tables."""
    for name in ("base", "reward", "cleaned"):
        (tmp_path / name).mkdir()
    save_model(tiny_model, tokenizer_dir, tmp_path / "base")
    scorer = RewardModel.from_language_model(tiny_model)
    torch.nn.init.normal_(scorer.score.weight)
    save_reward_model(scorer, tokenizer_dir, 32, tmp_path / "reward")
    preferences = [row("mine", split, id=f"{split}-{number}", prompt=dialogue[:1], chosen=[ANSWER],
                       rejected=[{"role": "assistant", "content": "No."}])
                   for split in ("train", "validation") for number, dialogue in enumerate(DIALOGUES)]
    chats = [row("mine", split, messages=dialogue) for split in ("train", "validation") for dialogue in DIALOGUES]
    write_tables(tmp_path / "cleaned", chats=chats, preferences=preferences)
    return tmp_path


MIXTURE = Mixture(lessons={"dialogue": Lesson(content="chats")})
LOOP = {"learning_rate": 0.01, "optimizer": "muon", "lora": LORA}


def require_adapter_beside_merged(folder, base, out):
    """The base with the adapter is the model in the directory, to rounding."""
    model = load_model(base, CPU)
    add_adapters(model, LORA, 0)
    weights = load_file(out / FOLDER / WEIGHTS_FILE)
    for name, adapter in adapters_of(model):
        for part in ("lora_A", "lora_B"):
            getattr(adapter, part).data = weights[f"base_model.model.{name}.{part}.weight"]
    with torch.no_grad():
        merged = load_model(out, CPU)(IDS)
        assert (model(IDS) - merged).abs().max() < 1e-5
        assert (load_model(base, CPU)(IDS) - merged).abs().max() > 1e-4, "nothing was learned"


def test_the_stage_instruct_writes_the_adapter_beside_the_merged_model(made, recorder):
    config = InstructConfig(**LOOP, context_length=48, batch_size=1, text_fraction=0, epochs=4)
    out = made / "out"
    out.mkdir()
    result = instruct.run(config, base=made / "base", cleaned=made / "cleaned", tokens=made / "cleaned", out_dir=out,
                          mixture=MIXTURE, context=Context(made / "checkpoints", recorder, device="cpu"))
    require_adapter_beside_merged(made, made / "base", out)
    model = load_model(made / "base", CPU)
    assert result.metrics["trainable_parameters"] == adapter_parameters(model, LORA)


def test_the_stage_rlhf_writes_the_adapter_beside_the_merged_model(made, recorder):
    config = RlhfConfig(**LOOP, batch_size=8, group_size=4, steps=4, completion_tokens=8, replay_rows=2,
                        tasks=("dialogue",), evaluation_prompts=8)
    out = made / "out"
    out.mkdir()
    fine_tuning = InstructConfig(learning_rate=1e-3, context_length=48, batch_size=1, text_fraction=0)
    rlhf.run(config, instruct=made / "base", reward=made / "reward", cleaned=made / "cleaned",
             tokens=made / "cleaned", questions=MIXTURE, mixture=MIXTURE, fine_tuning=fine_tuning, gold=Gold(),
             judged=(), out_dir=out, context=Context(made / "checkpoints", recorder, device="cpu"))
    require_adapter_beside_merged(made, made / "base", out)


def test_ratings_that_differ_by_too_little_are_refused_in_a_line(made, recorder):
    rated = write_tables(made / "rated", ratings=[rating(f"text {number}", number / 8, split=split)
                                                  for split in ("train", "validation") for number in range(8)])
    config = RewardConfig(learning_rate=0.01, context_length=32, batch_size=4, min_rating_gap=2)
    with pytest.raises(InputError, match=r"reward\.min_rating_gap: no two ratings of a source differ by 2, so"):
        reward.run(config, instruct=made / "base", cleaned=rated, gold=Gold(fraction=1e-9), out_dir=made,
                   context=Context(made / "checkpoints", recorder, device="cpu"))
    assert recorder.notes == ["pairs to train on: 0 of mine"]


def test_the_stage_reward_trains_adapters_and_the_head(made, recorder):
    config = RewardConfig(**LOOP, context_length=32, batch_size=4)
    out = made / "out"
    out.mkdir()
    reward.run(config, instruct=made / "base", cleaned=made / "cleaned", gold=Gold(), out_dir=out,
               context=Context(made / "checkpoints", recorder, device="cpu"))
    opened = open_reward_model(out, CPU)
    weights = load_file(out / FOLDER / WEIGHTS_FILE)
    assert torch.equal(weights["base_model.model.score.weight"], opened.model.score.weight)
    assert opened.score(DIALOGUES).std() > 0 and len(weights) == 2 * 2 * 7 + 1
