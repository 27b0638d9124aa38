"""Weights of four bits below adapters: the form, products and gradients, what casts and copies make of them, and the
stages that train on them."""

import copy
import weakref

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from scipy.stats import norm
from torch import nn

from genai_core.config.pipeline import load_pipeline
from genai_core.config.release import Gold
from genai_core.config.tasks import Lesson, Mixture
from genai_core.config.training import InstructConfig, LoraConfig, RewardConfig, RlhfConfig
from genai_core.context import Context
from genai_core.errors import InputError
from genai_core.export.adapter import FOLDER, README, WEIGHTS_FILE, save_adapter
from genai_core.export.model_directory import load_model, save_model
from genai_core.inference.native import is_plain
from genai_core.inference.reward import open_reward_model, save_reward_model
from genai_core.models.adapters import (
    adapters_of,
    add_adapters,
    linear_layers,
    merge,
    trained_parameters,
    without_adapters,
)
from genai_core.models.four_bit import LEVELS, FourBitLinear, dequantize, number_of_weights, packed_bytes, quantize
from genai_core.models.huggingface import HuggingFaceConfig, HuggingFaceModel
from genai_core.models.reward import SCORE, RewardModel
from genai_core.stages import instruct, reward, rlhf
from genai_core.training.alignment.samplers import OwnSampler
from genai_core.training.alignment.vllm_sampler import weights_of
from genai_core.training.checkpoints import state_of
from genai_core.training.estimate import estimate
from genai_core.training.loop import train
from tests.conftest import tiny
from tests.genai_core import trainings
from tests.genai_core.tables import row, write_tables
from tests.genai_core.trainings import FOUR_BITS, LORA

CPU = torch.device("cpu")
IDS = torch.arange(1, 41).view(2, 20)
GPT2 = {"model_type": "gpt2", "vocab_size": 64, "n_positions": 64, "n_embd": 24, "n_layer": 2, "n_head": 2}
LLAMA = {"model_type": "llama", "vocab_size": 64, "hidden_size": 40, "intermediate_size": 56, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}


def random_model(layout):
    """A model of Qwen3's layout, or of one that `transformers` runs, none of whose sizes is a multiple of a block."""
    if layout == "qwen3":
        return tiny()
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = HuggingFaceModel(HuggingFaceConfig({"llama": LLAMA, "gpt2": GPT2}[layout])).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.1)
    return model


def learned(model, lora):
    """A model with adapters that have learned something."""
    add_adapters(model, lora, seed=0)
    generator = torch.Generator().manual_seed(1)
    for _, adapter in adapters_of(model):
        nn.init.normal_(adapter.lora_B, std=0.1, generator=generator)
    return model


def on_dequantized(layout):
    """Plain adapters on the weights that four bits hold: what training with four bits is to be."""
    base = random_model(layout)
    add_adapters(base, FOUR_BITS, seed=0)
    merge(base)      # B is 0
    return learned(base, LORA)


def gradients(model):
    F.cross_entropy(model(IDS).flatten(0, 1), IDS.roll(-1, 1).flatten()).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


# ---- the form

def test_the_levels_are_quantiles_of_the_normal_distribution():
    # Dettmers et al. 2023, section 3 and its code: equal steps of probability from 0.9677 to 1/2 on either side of 0
    upper = norm.ppf(torch.linspace(0.9677083, 0.5, 9)[:-1])
    lower = -norm.ppf(torch.linspace(0.9677083, 0.5, 8)[:-1])
    expected = torch.tensor(sorted([*upper, 0.0, *lower])) / upper.max()
    assert (torch.tensor(LEVELS) - expected).abs().max() < 1e-6


def test_each_weight_becomes_the_nearest_level_of_its_block():
    torch.manual_seed(0)
    weight = torch.randn(30, 37)
    widened = dequantize(quantize(weight), 30, 37)
    blocks = F.pad(weight.flatten(), (0, -weight.numel() % 64)).view(-1, 64)
    scales = blocks.abs().amax(1, keepdim=True)
    levels = torch.tensor(LEVELS)
    nearest = levels[(blocks / scales)[..., None].sub(levels).abs().argmin(-1)] * scales
    assert torch.equal(widened.flatten(), nearest.flatten()[:weight.numel()])
    assert torch.equal(dequantize(quantize(widened), 30, 37), widened), "the second time nothing is rounded"


def test_zeros_stay_zeros_and_the_largest_of_a_block_stays_itself():
    weight = torch.zeros(3, 64)
    weight[1, 5], weight[2, 7] = -3e-7, 1e30
    assert torch.equal(dequantize(quantize(weight), 3, 64), weight)


def test_the_first_weight_of_a_pair_is_in_the_upper_half_of_its_byte():
    packed = quantize(torch.tensor(LEVELS).repeat(4).view(4, 16))
    assert packed[0, :8].tolist() == [0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF], "as bitsandbytes has it"
    assert packed[0, 32:].clone().view(torch.float32).item() == 1


# ---- the model

@pytest.mark.parametrize("layout", ["qwen3", "llama", "gpt2"])
def test_logits_and_gradients_are_those_of_plain_adapters_on_the_dequantized_weights(layout):
    plain, packed = on_dequantized(layout), learned(random_model(layout), FOUR_BITS)
    assert torch.allclose(packed(IDS), plain(IDS), atol=1e-5)
    assert (packed(IDS) - learned(random_model(layout), LORA)(IDS)).abs().max() > 0.01, "nothing was rounded"
    expected, found = gradients(plain), gradients(packed)
    assert set(found) == set(expected) and all("lora_" in name for name in found)
    for name, gradient in found.items():
        assert torch.allclose(gradient, expected[name], rtol=1e-4, atol=1e-6 * expected[name].abs().max().item()), name


def test_in_bfloat16_they_are_the_same_to_the_bit():
    plain, packed = on_dequantized("qwen3"), learned(tiny(), FOUR_BITS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(packed(IDS), plain(IDS))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, found = gradients(plain), gradients(packed)
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


@pytest.mark.parametrize("layout", ["qwen3", "llama", "gpt2"])
def test_the_merged_model_is_the_adapted_one_in_the_layers_that_there_were(layout):
    model = random_model(layout)
    before = {name: (tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()}
    kinds = [type(part) for part in model.modules()]
    adapted = learned(model, FOUR_BITS)(IDS)
    merge(model)
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()} == before
    assert [type(part) for part in model.modules()] == kinds
    assert all(parameter.requires_grad and parameter.is_contiguous() for parameter in model.parameters())
    assert (model(IDS) - adapted).abs().max() < 1e-5


@pytest.mark.parametrize("layout", ["qwen3", "llama", "gpt2"])
def test_the_weights_of_adapted_layers_take_0_6_bytes_at_most_and_no_others_are_touched(layout):
    model = random_model(layout)
    count, before = number_of_weights(model), dict(model.named_parameters())
    add_adapters(model, FOUR_BITS, seed=0)
    layers = [part for part in model.modules() if isinstance(part, FourBitLinear)]
    weights = sum(part.inputs * part.outputs for part in layers)
    held = sum(part.packed.numel() * part.packed.element_size() for part in layers)
    assert held / weights <= 0.6, f"{held / weights:.4f} bytes a weight"
    assert held == sum(packed_bytes(part.inputs * part.outputs) for part in layers)
    assert number_of_weights(model) == count + trained_parameters(model)
    left = {name: parameter for name, parameter in model.named_parameters()
            if not name.endswith((".packed", ".lora_A", ".lora_B"))}
    kept = {name.replace(".base_layer", ""): parameter for name, parameter in left.items()}
    assert all(before[name] is parameter for name, parameter in kept.items()), "embedding, head, norms and biases"
    matrices = {name for name, parameter in kept.items() if parameter.dim() == 2}
    assert all("embed" in name or "wte" in name or "wpe" in name or "lm_head" in name for name in matrices), matrices


@pytest.mark.parametrize("layout", ["qwen3", "gpt2"])
def test_the_weights_that_were_rounded_are_let_go(layout):
    model = random_model(layout)
    weights = [weakref.ref(layer.weight) for layer in linear_layers(model).values()]
    add_adapters(model, FOUR_BITS, seed=0)
    assert len(weights) > 7 and not any(weight() is not None for weight in weights)


def test_targets_choose_what_becomes_four_bits():
    model = tiny()
    add_adapters(model, LoraConfig(rank=2, bits=4, targets=("q_proj",)), seed=0)
    assert {name for name, part in model.named_modules() if isinstance(part, FourBitLinear)} == {
        f"model.layers.{number}.self_attn.q_proj.base_layer" for number in (0, 1)}


def test_nothing_is_kept_for_the_backward_pass_but_the_bytes():
    model, kept = learned(tiny(), FOUR_BITS), []
    shapes = {(part.outputs, part.inputs) for part in model.modules() if isinstance(part, FourBitLinear)}
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        model(IDS).sum()
    of_embedding = 3      # of the first block, whose input has no gradient
    assert sum(tensor.dtype is torch.uint8 for tensor in kept) == 14 - of_embedding
    assert not [tensor.shape for tensor in kept if tuple(tensor.shape) in shapes or tuple(tensor.shape[::-1]) in shapes]


def test_a_cast_of_the_model_leaves_the_bytes_as_they_are():
    model = learned(tiny(), FOUR_BITS)
    packed = {name: tensor.clone() for name, tensor in model.state_dict().items() if name.endswith("packed")}
    weight = next(adapters_of(model))[1].weight
    model.to(torch.bfloat16)
    assert model(IDS).dtype is torch.bfloat16
    assert torch.equal(next(adapters_of(model))[1].weight, weight)
    model.to(torch.float32).half().double()
    assert len(packed) == 14
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in packed.items())


def test_a_copy_and_a_loaded_state_have_the_same_bytes():
    model, other = learned(tiny(), FOUR_BITS), tiny()
    add_adapters(other, FOUR_BITS, seed=5)
    other.load_state_dict(model.state_dict())
    expected = model(IDS)
    assert torch.equal(copy.deepcopy(model)(IDS), expected) and torch.equal(other(IDS), expected)


def test_the_reference_is_the_dequantized_base_on_the_same_bytes():
    model = learned(tiny(), FOUR_BITS)
    reference, adapted = without_adapters(model), model(IDS)
    own = {parameter.data_ptr() for parameter in model.parameters()}
    assert all(parameter.data_ptr() in own and not parameter.requires_grad for parameter in reference.parameters())
    assert not is_plain(reference), "the step in C reads float32"
    merge(model)
    base = tiny()
    add_adapters(base, FOUR_BITS, seed=0)
    merge(base)
    assert torch.allclose(reference(IDS), base(IDS), atol=1e-6) and torch.allclose(model(IDS), adapted, atol=1e-5)


def test_sampling_is_that_of_the_merged_model(tokenizer):
    config = RlhfConfig(learning_rate=1e-3, batch_size=8, group_size=4, steps=1, completion_tokens=12)
    model = learned(tiny(), FOUR_BITS)
    draws = torch.rand(2, 12, generator=torch.Generator().manual_seed(0))
    found = OwnSampler(tokenizer, config).complete(model, [[1, 2, 3], [4, 5]], draws)
    merge(model)
    expected = OwnSampler(tokenizer, config).complete(model, [[1, 2, 3], [4, 5]], draws)
    assert torch.equal(found.ids, expected.ids) and torch.allclose(found.log_probs, expected.log_probs, atol=1e-4)


@pytest.mark.parametrize("layout", ["qwen3", "gpt2"])
def test_weights_go_to_vllm_in_float32_by_the_names_of_the_model_directory(layout):
    model = learned(random_model(layout), FOUR_BITS)
    sent, of_reference = dict(weights_of(model)), dict(weights_of(without_adapters(model)))
    merge(model)
    merged = dict(weights_of(model))
    assert set(sent) == set(merged) == set(of_reference)
    assert all(torch.allclose(sent[name], weight, atol=1e-6) for name, weight in merged.items())
    base = random_model(layout)
    add_adapters(base, FOUR_BITS, seed=0)
    merge(base)
    assert all(torch.equal(of_reference[name], weight) for name, weight in weights_of(base))


# ---- training

def test_training_is_that_of_plain_adapters_on_the_dequantized_weights(tokens, tokenizer, prose, tmp_path, recorder):
    losses = {}
    for name, make in (("packed", trainings.four_bit_adapters), ("plain", trainings.instruct_adapters)):
        base = tiny()
        if name == "plain":
            add_adapters(base, FOUR_BITS, seed=0)
            merge(base)
        model, objective, config = make(base, tokens, tokenizer, prose)
        trained = train(model, objective, config, Context(tmp_path / name, recorder, device="cpu", compile="off"))
        losses[name] = [value for _, value in trained.curves["loss"]]
        losses[f"{name} flops"] = trained.metrics["flops"]
    assert losses["packed"] == pytest.approx(losses["plain"], rel=1e-4) and len(losses["packed"]) > 10
    assert losses["packed flops"] == losses["plain flops"]


def test_compiled_training_has_the_losses_of_the_other(tokens, tokenizer, prose, tmp_path, recorder):
    losses = {}
    for compiled in ("off", "on"):
        model, objective, config = trainings.four_bit_adapters(tiny(), tokens, tokenizer, prose)
        objective.steps = 3
        trained = train(model, objective, config, Context(tmp_path / compiled, recorder, device="cpu",
                                                          compile=compiled))
        losses[compiled] = [value for _, value in trained.curves["loss"]]
    assert losses["on"] == pytest.approx(losses["off"], rel=2e-3)


@pytest.mark.parametrize("layout", ["qwen3", "gpt2"])
def test_activations_that_are_made_again_give_the_same_gradients(layout):
    found = {}
    for recomputed in (False, True):
        model = learned(random_model(layout), FOUR_BITS).train()
        model.model.recompute_activations = recomputed
        found[recomputed] = gradients(model)
    assert all(torch.equal(found[True][name], gradient) for name, gradient in found[False].items())


def test_a_checkpoint_holds_the_adapters_alone_and_the_bytes_come_from_the_base(tiny_model):
    again = copy.deepcopy(tiny_model)
    for model in (tiny_model, again):
        add_adapters(model, FOUR_BITS, seed=0)
    assert all("lora_" in name for name in state_of(tiny_model)) and state_of(tiny_model)
    bytes_of = [[part.packed for part in model.modules() if isinstance(part, FourBitLinear)]
                for model in (tiny_model, again)]
    assert all(torch.equal(one, other) for one, other in zip(*bytes_of, strict=True))


# ---- the stages

ANSWER = {"role": "assistant", "content": "Yes, it is."}
DIALOGUES = [[{"role": "user", "content": f"Is it {word}?"}, ANSWER] for word in ("so", "true", "late", "good")]
MIXTURE = Mixture(lessons={"dialogue": Lesson(content="chats")})
LOOP = {"learning_rate": 0.01, "optimizer": "adamw", "lora": FOUR_BITS}


@pytest.fixture
def made(tmp_path, tiny_model, tokenizer_dir):
    """A base model, a reward model and cleaned tables."""
    for name in ("base", "reward", "cleaned", "out"):
        (tmp_path / name).mkdir()
    save_model(tiny_model, tokenizer_dir, tmp_path / "base")
    scorer = RewardModel.from_language_model(tiny_model)
    nn.init.normal_(scorer.score.weight)
    save_reward_model(scorer, tokenizer_dir, 32, tmp_path / "reward")
    preferences = [row("mine", split, id=f"{split}-{number}", prompt=dialogue[:1], chosen=[ANSWER],
                       rejected=[{"role": "assistant", "content": "No."}])
                   for split in ("train", "validation") for number, dialogue in enumerate(DIALOGUES)]
    chats = [row("mine", split, messages=dialogue) for split in ("train", "validation") for dialogue in DIALOGUES]
    write_tables(tmp_path / "cleaned", chats=chats, preferences=preferences)
    return tmp_path


def require_dequantized_base_with_adapter(made):
    """The model in the directory is the base, rounded to four bits, with the adapter beside it."""
    model = load_model(made / "base", CPU)
    add_adapters(model, FOUR_BITS, seed=0)
    weights = load_file(made / "out" / FOLDER / WEIGHTS_FILE)
    for name, adapter in adapters_of(model):
        for part in ("lora_A", "lora_B"):
            getattr(adapter, part).data = weights[f"base_model.model.{name}.{part}.weight"]
    with torch.no_grad():
        merged = load_model(made / "out", CPU)(IDS)
        assert (model(IDS) - merged).abs().max() < 1e-5
        assert (without_adapters(model)(IDS) - merged).abs().max() > 1e-4, "nothing was learned"
    assert "nf4" in (made / "out" / FOLDER / README).read_text()


def test_the_stage_instruct_writes_the_dequantized_base_with_the_adapter(made, recorder):
    config = InstructConfig(**LOOP, context_length=48, batch_size=1, text_fraction=0, epochs=4)
    instruct.run(config, base=made / "base", cleaned=made / "cleaned", tokens=made / "cleaned",
                 out_dir=made / "out", mixture=MIXTURE, context=Context(made / "checkpoints", recorder, device="cpu"))
    require_dequantized_base_with_adapter(made)


def test_the_stage_rlhf_writes_the_dequantized_base_with_the_adapter(made, recorder):
    config = RlhfConfig(**LOOP, batch_size=8, group_size=4, steps=4, completion_tokens=8, replay_rows=2,
                        tasks=("dialogue",), evaluation_prompts=8)
    fine_tuning = InstructConfig(learning_rate=1e-3, context_length=48, batch_size=1, text_fraction=0)
    rlhf.run(config, instruct=made / "base", reward=made / "reward", cleaned=made / "cleaned",
             tokens=made / "cleaned", questions=MIXTURE, mixture=MIXTURE, fine_tuning=fine_tuning, gold=Gold(),
             judged=(), out_dir=made / "out", context=Context(made / "checkpoints", recorder, device="cpu"))
    require_dequantized_base_with_adapter(made)


def test_the_stage_reward_trains_on_four_bits(made, recorder):
    config = RewardConfig(**LOOP, context_length=32, batch_size=4)
    result = reward.run(config, instruct=made / "base", cleaned=made / "cleaned", gold=Gold(), out_dir=made / "out",
                        context=Context(made / "checkpoints", recorder, device="cpu"))
    opened = open_reward_model(made / "out", CPU)
    assert opened.score(DIALOGUES).std() > 0
    assert result.metrics["parameters"] == sum(parameter.numel() for parameter in opened.model.parameters())


def test_peft_puts_the_adapter_on_the_dequantized_base(tiny_model, tokenizer_dir, tmp_path):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    base = copy.deepcopy(tiny_model)
    add_adapters(base, FOUR_BITS, seed=0)
    merge(base)
    (tmp_path / "base").mkdir()
    save_model(base, tokenizer_dir, tmp_path / "base")
    save_adapter(learned(tiny_model, FOUR_BITS), tmp_path / FOLDER)
    theirs = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / FOLDER)
    with torch.no_grad():
        assert (theirs(IDS).logits - tiny_model(IDS)).abs().max() < 1e-5


def test_the_readme_of_an_adapter_leaves_out_of_four_bits_what_it_is_not_on(tmp_path):
    for folder, layers in (("lm", ("q_proj",)), ("reward", ("all-linear",))):
        model = tiny() if folder == "lm" else RewardModel.from_language_model(tiny())
        add_adapters(model, LoraConfig(rank=2, bits=4, targets=layers), seed=0, whole=(SCORE,))
        task = "CAUSAL_LM" if folder == "lm" else "SEQ_CLS"
        save_adapter(model, tmp_path / folder, whole=() if folder == "lm" else (SCORE,), task=task)
    of_lm, of_reward = ((tmp_path / folder / README).read_text() for folder in ("lm", "reward"))
    assert "AutoModelForCausalLM" in of_lm and "AutoModelForSequenceClassification" in of_reward
    assert '"model.layers.1.self_attn.k_proj"' in of_lm and "q_proj" not in of_lm
    assert 'llm_int8_skip_modules=["lm_head", "score"]' in of_reward
    transposed = random_model("gpt2")
    add_adapters(transposed, LoraConfig(rank=2, bits=4), seed=0)
    save_adapter(transposed, tmp_path / "transposed")
    assert 'llm_int8_skip_modules=["lm_head"]' in (tmp_path / "transposed" / README).read_text()
    save_adapter(learned(tiny(), LORA), tmp_path / "plain")
    assert not (tmp_path / "plain" / README).exists()


# ---- settings and plan

def test_other_bits_are_refused_in_a_line():
    with pytest.raises(InputError, match=r"instruct\.lora\.bits: .*4") as caught:
        load_pipeline("laptop", {"instruct.lora.bits": 8})
    assert "\n" not in str(caught.value)
    assert load_pipeline("laptop", {"instruct.lora.bits": 4}).instruct.lora == LoraConfig(rank=16, bits=4)


@pytest.mark.parametrize("stage", ["instruct", "reward", "rlhf"])
def test_the_estimate_counts_0_56_bytes_a_weight_and_room_for_one_layer(stage):
    plain, packed = (estimate(stage, load_pipeline("laptop", {f"{stage}.lora": {"rank": 8, **bits}}))
                     for bits in ({}, {"bits": 4}))
    width, keys, inner = 192, 64, 512      # three blocks of the preset
    weights = 3 * (2 * width * width + 2 * width * keys + 3 * width * inner)
    assert plain.memory_bytes - packed.memory_bytes == (4 - 36 / 64) * weights - 6 * width * inner
    assert packed.flops == plain.flops and packed.parameters == plain.parameters


def test_the_estimate_on_a_cpu_is_at_least_the_model_that_is_read():
    changes = {"instruct.batch_size": 1, "instruct.context_length": 32, "tokenize.vocab_size": 60_000}
    memory = {device: estimate("instruct", load_pipeline("laptop", {**changes, "instruct.lora.bits": 4,
                                                                    "runtime.device": device}))
              for device in ("cpu", "cuda")}
    assert memory["cpu"].memory_bytes >= 4 * (memory["cpu"].parameters - memory["cpu"].trainable_parameters)
    assert memory["cuda"].memory_bytes <= memory["cpu"].memory_bytes
