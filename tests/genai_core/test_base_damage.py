"""Bases that would be computed wrongly, or that are damaged, are refused in one line."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from genai_core.bases.places import find_place
from genai_core.bases.weights import grown, load_base, shape_of
from genai_core.config.base_model import BaseModelConfig
from genai_core.errors import InputError
from genai_core.hardware import available_memory
from tests.genai_core.bases import published


def loaded(directory):
    return load_base(find_place(BaseModelConfig(source=str(directory)), directory))


def with_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return directory


def local_attention(directory, window):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model("gpt_neo", vocab_size=300, hidden_size=64, num_layers=2, num_heads=4,
                                  max_position_embeddings=1024, window_size=window,
                                  attention_types=[[["global", "local"], 1]])
    network = AutoModelForCausalLM.from_config(config)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(directory)
    return directory


def test_windows_are_probed_beyond_their_length(tmp_path, prose):
    with pytest.raises(InputError, match=r"gpt_neo computes something else .* beyond a window of 32 tokens"):
        loaded(local_attention(tmp_path / "neo", 32))
    with pytest.raises(InputError, match="gpt_neo has layers of local attention whose window is too long"):
        loaded(local_attention(tmp_path / "far", 800))
    loaded(published(tmp_path / "gemma", "gemma3_text", prose[:10], sliding_window=64))


def test_a_model_that_reads_images_too_is_refused_by_its_name(tmp_path, prose):
    base = published(tmp_path / "base", "gemma3_text", prose[:10])
    values = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": values}))
    assert shape_of(base) is None
    with pytest.raises(InputError, match=r"gemma3 is of a model that reads more than text; .* \(gemma3_text\)"):
        loaded(base)


@pytest.mark.parametrize("layout", ["qwen3", "llama"])
def test_quantization_that_is_null_is_none(layout, tmp_path, prose):
    loaded(with_config(published(tmp_path / layout, layout, prose[:10]), quantization_config=None))


@pytest.mark.parametrize(("layout", "field", "value"), [
    ("qwen3", "hidden_size", "big"), ("qwen3", "vocab_size", None), ("llama", "num_attention_heads", 5),
    ("llama", "hidden_size", "big"), ("gpt2", "n_head", 5), ("llama", "quantization_config", "int4")])
def test_sizes_that_make_no_model_are_one_line(layout, field, value, tmp_path, prose):
    base = with_config(published(tmp_path / layout, layout, prose[:10]), **{field: value})
    shape_of(base)
    with pytest.raises(InputError, match=r"config\.json|cannot be loaded as"):
        loaded(base)


def test_an_index_that_names_no_files_is_one_line(tmp_path, prose):
    base = published(tmp_path / "base", "llama", prose[:10])
    (base / "model.safetensors").rename(base / "model-1.safetensors")
    (base / "model.safetensors.index.json").write_text('{"weight_map": ["model-1.safetensors"]}')
    with pytest.raises(InputError, match="weight_map is no object of tensors"):
        loaded(base)


@pytest.mark.parametrize("layout", ["qwen3", "llama"])
def test_weights_that_are_no_numbers_are_refused_by_their_name(layout, tmp_path, prose):
    base = published(tmp_path / layout, layout, prose[:10])
    weights = load_file(base / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"model\.layers\.1\.mlp\.up_proj\.weight has weights that are no numbers"):
        loaded(base)


def test_a_path_that_is_not_there_is_said_to_be_so(tmp_path):
    for source in (str(tmp_path / "nonexist"), "./nonexist"):
        with pytest.raises(InputError, match=r"^base\.source: there is no such file or directory: .*nonexist$"):
            find_place(BaseModelConfig(source=source), tmp_path)


@pytest.mark.parametrize("layout", ["llama", "gpt2", "qwen3"])
def test_a_base_is_not_cut_where_its_config_has_fewer_layers_than_its_weights(layout, tmp_path, prose):
    base = with_config(published(tmp_path / layout, layout, prose[:10]),
                       **{"n_layer" if layout == "gpt2" else "num_hidden_layers": 1, "layer_types": None})
    with pytest.raises(InputError, match=r"do not fit config\.json \(.*"):
        loaded(base)


def test_what_earlier_versions_wrote_beside_the_weights_is_no_reason_to_refuse_them(tmp_path, prose):
    for layout, beside in (("llama", {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}),
                           ("gpt2", {"transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8), "lm_head.weight": None,
                                     "transformer.h.0.attn.masked_bias": torch.tensor(-1e4)})):
        base = published(tmp_path / layout, layout, prose[:10])
        weights = load_file(base / "model.safetensors")
        given = {name: weights["transformer.wte.weight"].clone() if value is None else value
                 for name, value in beside.items()}
        save_file(weights | given, base / "model.safetensors", metadata={"format": "pt"})
        loaded(base)


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_tokens_that_take_rows_of_padding_begin_near_the_mean_of_the_others(tied, tmp_path, prose):
    for layout in ("qwen3", "llama"):
        model = loaded(published(tmp_path / layout, layout, prose[:10], rows=700, tie_word_embeddings=tied))
        network = getattr(model, "network", model)
        before = {name: values.clone() for name, values in network.named_parameters()}
        tables = [name for name, values in before.items() if len(values) == 700]
        assert len(tables) == (1 if tied else 2)
        after = dict(getattr(grown(model, 602, [600, 601]), "network", model).named_parameters())
        for name, values in after.items():
            if name not in tables:
                assert torch.equal(values, before[name])
                continue
            others = [row for row in range(700) if row not in (600, 601)]
            assert torch.equal(values[others], before[name][others])
            known = before[name][:600]
            far = (values[[600, 601]] - known.mean(0)).abs() / known.std(0)
            assert 0 < far.max() < 0.6, "and not where padding left them"


@pytest.mark.parametrize(("groups", "top", "names", "stat"), [
    ("0::/pod\n", "sys/fs/cgroup", ("memory.max", "memory.current"), "anon 5\ninactive_file 100\n"),
    ("4:memory:/elsewhere\n0::/\n", "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"),
     "cache 5\ntotal_inactive_file 100\n")])
def test_memory_is_what_the_container_has_left(groups, top, names, stat, tmp_path):
    assert available_memory(tmp_path) > 1000, "without limits that of the machine"
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    assert available_memory(tmp_path) > 1000
    group = tmp_path / top
    group.mkdir(parents=True)
    for name, text in zip((*names, "memory.stat"), ("1000\n", "400\n", stat), strict=True):
        (group / name).write_text(text)
    assert available_memory(tmp_path) == 700, "files that were read fall out of memory by themselves"
    (group / names[0]).write_text("max\n")
    assert available_memory(tmp_path) > 1000
