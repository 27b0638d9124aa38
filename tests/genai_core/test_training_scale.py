"""What training takes on GPUs that are not at hand: arithmetic, held against what others have published."""

from pathlib import Path

import pytest

from genai_core.config.pipeline import load_pipeline
from genai_core.errors import InputError
from genai_core.models.transformer import parameter_count, transformer_config
from genai_core.training.scaling import PUBLISHED, SHAPES, Cluster, published_table, table, training_on


def small(**changes):
    return {"rows": 512, "length": 1024, "tokens": 1e9, **changes}


def test_the_tables_of_the_documents_are_those_of_the_code():
    text = (Path(__file__).parents[2] / "docs/training-scale.md").read_text()
    assert table().strip() in text and published_table().strip() in text


def test_published_speeds_are_met_within_half():
    for _, on, shape, rows, length, accumulation, speed in PUBLISHED:
        cluster = Cluster.named(on)
        each = training_on(cluster, shape, rows=rows, length=length, tokens=1, accumulation=accumulation, muon=False)
        assert 2 / 3 < rows * length / each.step_seconds / cluster.count / speed < 3 / 2


def test_models_have_the_sizes_of_their_names():
    sizes = {name: round(parameter_count(shape) / 1e9) for name, shape in SHAPES.items()}
    assert sizes == {"1B": 1, "7B": 7, "70B": 70}


def test_more_gpus_take_less_time_and_memory_and_send_more():
    few, many = (training_on(Cluster.named(f"{count}xH100"), SHAPES["7B"], **small()) for count in (8, 64))
    assert many.hours < few.hours / 4 and many.memory < few.memory
    assert many.utilisation < few.utilisation < 0.45
    alone = training_on(Cluster.named("1xH100"), SHAPES["7B"], **small())
    assert alone.sent == 0 and not alone.sharded and not alone.fits


def test_parts_take_less_memory_and_send_more_than_copies():
    copies, parts = (training_on(Cluster.named("8xH100"), SHAPES["1B"], **small(shard_above=above))
                     for above in (10**12, 0))
    assert parts.memory < copies.memory and parts.sent > copies.sent


def test_making_activations_again_saves_memory_and_takes_a_third_more():
    once, again = (training_on(Cluster.named("8xH100"), SHAPES["7B"], **small(recompute=recompute, muon=False))
                   for recompute in (False, True))
    assert again.memory < once.memory and again.step_seconds == pytest.approx(once.step_seconds * 4 / 3, rel=0.02)


def test_names_of_clusters():
    assert Cluster.named("8xH100") == Cluster.named("1x8xh100")
    assert (Cluster.named("64xH100").nodes, Cluster.named("4x2xH200").count) == (8, 8)
    for wrong in ("8", "H100", "8xV100", "0xH100", "12xH100", "8xH100x2"):
        with pytest.raises(InputError, match="--on"):
            Cluster.named(wrong)


def test_a_batch_that_the_gpus_do_not_divide_is_told_with_one_that_they_do():
    with pytest.raises(InputError, match="take a batch of 24"):
        training_on(Cluster.named("8xH100"), SHAPES["1B"], rows=20, length=128, tokens=1)


def test_the_preset_for_a_cluster_is_a_billion_parameters_that_fit_its_gpus():
    config = load_pipeline("cluster")
    shape = transformer_config(config.pretrain, config.tokenize.vocab_size)
    assert 1.0e9 < parameter_count(shape) < 1.2e9
    each = training_on(Cluster.named(f"{config.runtime.processes}xH100"), shape, rows=config.pretrain.batch_size,
                       length=config.pretrain.context_length, tokens=config.pretrain.tokens,
                       accumulation=config.pretrain.accumulation_steps)
    assert each.sharded and each.fits and config.runtime.processes / config.runtime.hosts == 8
