"""The training loop: resumed equals uninterrupted, micro-batches change nothing, what is not finite is skipped."""

import copy
import math
import signal
from itertools import pairwise

import numpy as np
import pytest
import torch

from genai_core.config.training import PretrainConfig, TrainConfig
from genai_core.context import Context
from genai_core.data.tokens.batches import Windows
from genai_core.data.tokens.token_files import TokenFile
from genai_core.errors import BudgetSpent, InputError
from genai_core.hardware import prepare
from genai_core.models.adapters import linear_layers
from genai_core.models.huggingface import HuggingFaceConfig, HuggingFaceModel
from genai_core.stages import pretrain
from genai_core.training import checkpoints
from genai_core.training.guards import Guard
from genai_core.training.loop import train
from genai_core.training.optimizers import Muon, build_optimizers, learning_rate_factor, orthogonalize
from tests.conftest import Interrupted, Recorder, die_after
from tests.genai_core.bases import config_of
from tests.genai_core.trainings import instruct, next_token, rlhf

CONFIG = {"layers": 2, "hidden_size": 32, "heads": 2, "key_value_heads": 1, "head_size": 16, "feed_forward_size": 64,
          "context_length": 32, "batch_size": 4, "tokens": 32 * 4 * 12, "learning_rate": 3e-3, "optimizer": "muon",
          "evaluations": 2, "validation_tokens": 1024}


def run_pretraining(tokens_dir, out, recorder, checkpoint_dir, monkeypatch=None, stop_after=None, seconds=1e-9,
                    **changes):
    out.mkdir(parents=True, exist_ok=True)
    if stop_after is not None:
        die_after(monkeypatch, stop_after)
    run = Context(checkpoint_dir, recorder, device="cpu", compile="off", checkpoint_seconds=seconds)
    try:
        return pretrain.run(PretrainConfig(**{**CONFIG, **changes}), tokens=tokens_dir, out_dir=out, context=run)
    finally:
        if stop_after is not None:
            monkeypatch.undo()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("stop_after", [1, 6, 11])
def test_resumed_equals_uninterrupted_to_the_bit(tokens, tmp_path, recorder, monkeypatch, optimizer, stop_after):
    whole = run_pretraining(tokens, tmp_path / "whole", recorder, tmp_path / "a", optimizer=optimizer)
    with pytest.raises(Interrupted):
        run_pretraining(tokens, tmp_path / "resumed", recorder, tmp_path / "b", monkeypatch, stop_after,
                        optimizer=optimizer)
    resumed = run_pretraining(tokens, tmp_path / "resumed", recorder, tmp_path / "b", optimizer=optimizer)
    assert resumed.measurements["resumed_from_step"] == stop_after
    for name in ("model.safetensors", "curves.json", "config.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes()
    assert whole.metrics == resumed.metrics


class Stopped(Exception):
    pass


@pytest.mark.parametrize("step", [3, 12])
def test_a_signal_takes_effect_after_the_step_is_saved_and_nothing_is_lost(tokens, tmp_path, step):
    """SIGTERM in mid-step: a checkpoint of that step, then what the signal does; the rest gives the same weights."""

    class Signalling(Recorder):
        def metrics(self, number, **values):
            super().metrics(number, **values)
            if number == step and "loss" in values:
                signal.raise_signal(signal.SIGTERM)
                self.notes.append("the step goes on")

    def stop(*_):
        raise Stopped

    original = signal.signal(signal.SIGTERM, stop)
    recorder = Signalling()
    try:
        with pytest.raises(Stopped):
            run_pretraining(tokens, tmp_path / "a", recorder, tmp_path / "checkpoints", seconds=1e9)
        assert signal.getsignal(signal.SIGTERM) is stop
    finally:
        signal.signal(signal.SIGTERM, original)
    assert "the step goes on" in recorder.notes
    assert f"SIGTERM: saved a checkpoint at step {step} of 12; the same run continues from it" in recorder.notes
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [f"step-{step:08d}"]
    run_pretraining(tokens, tmp_path / "b", Recorder(), tmp_path / "checkpoints", seconds=1e9)
    run_pretraining(tokens, tmp_path / "c", Recorder(), tmp_path / "other")
    assert (tmp_path / "b" / "model.safetensors").read_bytes() == (tmp_path / "c" / "model.safetensors").read_bytes()


def test_a_signal_before_the_first_step_is_over_is_not_held_back(tokens, tmp_path):
    class Signalling(Recorder):
        def metrics(self, number, **values):
            signal.raise_signal(signal.SIGTERM)

    def stop(*_):
        raise Stopped

    original = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(Stopped):
            run_pretraining(tokens, tmp_path / "a", Signalling(), tmp_path / "checkpoints", seconds=1e9)
    finally:
        signal.signal(signal.SIGTERM, original)
    assert not (tmp_path / "checkpoints").exists()


def test_a_spent_budget_stops_at_a_checkpoint_and_going_on_ends_in_the_same_bytes(tokens, tmp_path, recorder):
    def run(folder, stop_at=None):
        out = tmp_path / folder
        out.mkdir(exist_ok=True)
        context = Context(tmp_path / f"{folder}-checkpoints", recorder, device="cpu", compile="off",
                          checkpoint_seconds=1e9, stop_at=stop_at)
        pretrain.run(PretrainConfig(**CONFIG), tokens=tokens, out_dir=out, context=context)
        return (out / "model.safetensors").read_bytes()

    whole = run("whole")
    for step in (1, 2):      # over already when it begins: still a step further each time
        with pytest.raises(BudgetSpent, match=f"saved a checkpoint at step {step} of 12"):
            run("stopped", stop_at=1.0)
    assert run("stopped") == whole


def damage(checkpoint):
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])


@pytest.fixture
def stopped_at_six(tokens, tmp_path, recorder, monkeypatch):
    """Checkpoints of a training that saved one after every step and died after the sixth."""
    with pytest.raises(Interrupted):
        run_pretraining(tokens, tmp_path / "out", recorder, tmp_path / "saved", monkeypatch, 6)
    return tmp_path / "saved"


def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(tokens, tmp_path, recorder, caplog,
                                                                       stopped_at_six):
    before, newest = sorted(stopped_at_six.iterdir())
    assert (before.name, newest.name) == ("step-00000005", "step-00000006")
    damage(newest)
    resumed = run_pretraining(tokens, tmp_path / "out", recorder, stopped_at_six)
    assert resumed.measurements["resumed_from_step"] == 5
    assert any("the checkpoint at step 6 is damaged" in note for note in recorder.notes)
    assert any(record.levelname == "WARNING" and str(newest) in record.getMessage() for record in caplog.records)
    run_pretraining(tokens, tmp_path / "whole", recorder, tmp_path / "other")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == \
        (tmp_path / "whole" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("content", ["null", "[]", "{}", '{"step": 2}'])
def test_a_checkpoint_whose_state_is_none_is_passed_over_too(tokens, tmp_path, recorder, stopped_at_six, content):
    (max(stopped_at_six.iterdir()) / "state.json").write_text(content)
    assert run_pretraining(tokens, tmp_path / "out", recorder, stopped_at_six).measurements["resumed_from_step"] == 5


def test_training_begins_anew_when_every_checkpoint_is_damaged_and_says_so(tokens, tmp_path, recorder, stopped_at_six):
    for checkpoint in stopped_at_six.iterdir():
        damage(checkpoint)
    result = run_pretraining(tokens, tmp_path / "out", recorder, stopped_at_six)
    assert result.measurements["resumed_from_step"] == 0
    assert any("no checkpoint is whole" in note for note in recorder.notes)


def test_restoring_deletes_nothing_and_the_next_checkpoint_replaces_what_was_passed_over(tmp_path, recorder):
    model = torch.nn.Linear(2, 1)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1)]
    guard, state = Guard(["model"], 6.0, torch.device("cpu")), dict.fromkeys(checkpoints.STATE, 0)

    def save(step):
        checkpoints.write(tmp_path, step, checkpoints.snapshot(model, optimizers, guard.state()), state)

    for step in (10, 20):
        save(step)
    damage(tmp_path / "step-00000020")
    state = checkpoints.restore(tmp_path, model, optimizers, guard, recorder)
    assert state["step"] == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000020"]
    save(15)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000015"]


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tokens, tmp_path, recorder):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run_pretraining(tokens, tmp_path / name, recorder, tmp_path / f"{name}-checkpoints", seed=seed)
    first, second, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert first == second != other


@pytest.mark.parametrize(("make", "pieces"), [(next_token, 4), (instruct, 4), (rlhf, 2)])
def test_micro_batches_change_nothing_but_rounding(make, pieces, tiny_model, tokens, tokenizer, prose, tmp_path):
    """Where the loss is a sum over tokens or rows; that of a reward model is over pairs within a micro-batch."""
    curves = {}
    for count in (1, pieces):
        torch.manual_seed(0)
        model, objective, config = make(copy.deepcopy(tiny_model), tokens, tokenizer, prose, optimizer="adamw",
                                        accumulation_steps=count)
        curves[count] = train(model, objective, config, Context(tmp_path / str(count), device="cpu")).curves
    for name in ("loss", "gradient_norm"):
        whole, cut = ([value for _, value in curves[count][name][:6]] for count in (1, pieces))
        assert cut == pytest.approx(whole, rel=2e-4, abs=1e-5)


def test_a_batch_that_the_micro_batches_do_not_divide_is_refused_in_a_line(tiny_model, tokens, tokenizer, prose,
                                                                         tmp_path, recorder):
    model, objective, config = next_token(tiny_model, tokens, tokenizer, prose, accumulation_steps=4)
    whole = objective.batch
    objective.batch = lambda step: {name: tensor[:2] for name, tensor in whole(step).items()}
    with pytest.raises(InputError, match=r"accumulation_steps: 4 micro-batches do not divide 2 examples \(\w+\)"):
        train(model, objective, config, Context(tmp_path, recorder, device="cpu", compile="off"))


def test_it_learns(tokens, tmp_path, recorder):
    result = run_pretraining(tokens, tmp_path / "out", recorder, tmp_path / "checkpoints", tokens=32 * 4 * 120)
    losses = [values["loss"] for _, values in recorder.points if "loss" in values]
    assert losses[0] == pytest.approx(math.log(700), abs=0.3)
    assert result.metrics["loss"] < losses[0] - 1.0


def test_the_schedule_warms_up_holds_and_decays():
    config = TrainConfig(learning_rate=1.0, batch_size=1, warmup_fraction=0.1, decay_fraction=0.4,
                         final_learning_rate_fraction=0.05)
    factors = [learning_rate_factor(step, 100, config) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == 1.0 and factors[59] == 1.0
    assert factors[-1] == pytest.approx(0.05)
    assert all(later <= earlier for earlier, later in pairwise(factors[60:]))


def test_orthogonalised_matrices_have_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((3, 48, 96), (2, 96, 48)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape), 5, torch.float32))
        assert values.min() > 0.5 and values.max() < 1.3


def test_muon_equals_that_of_pytorch():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(12, 8)) for _ in range(2))
    own = Muon([ours], lr=0.02, dtype=torch.bfloat16)
    reference = torch.optim.Muon([theirs], lr=0.02, momentum=0.95, weight_decay=0.0, nesterov=True)
    for _ in range(4):
        gradient = torch.randn(12, 8)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        own.step()
        reference.step()
    assert torch.allclose(ours, theirs, atol=2e-3)


@pytest.mark.parametrize(("multiplied_by_hardware", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_muon_iterates_in_the_precision_that_the_hardware_multiplies(monkeypatch, multiplied_by_hardware, dtype):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: multiplied_by_hardware)
    model = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([torch.nn.Linear(8, 8)]), "head": torch.nn.Linear(8, 2)})
    config = TrainConfig(learning_rate=0.1, batch_size=1, optimizer="muon")
    (muon,) = [part for part in build_optimizers(model, config, torch.device("cpu")) if isinstance(part, Muon)]
    assert muon.dtype is dtype


@pytest.mark.parametrize("layout", ["gpt2", "llama"])
def test_muon_takes_the_matrices_of_the_blocks_whatever_a_layout_calls_them(layout):
    model = HuggingFaceModel(HuggingFaceConfig(config_of(layout, 300)))
    config = TrainConfig(learning_rate=1e-3, batch_size=1, optimizer="muon")
    others, muon = build_optimizers(model, config, torch.device("cpu"))
    taken = [parameter for group in muon.param_groups for parameter in group["params"]]
    expected = {id(part.weight) for part in linear_layers(model).values()}
    assert {id(parameter) for parameter in taken} == expected and len(taken) == len(expected) > 0
    assert all(group["transposed"] == (layout == "gpt2") for group in muon.param_groups)
    assert len(others.param_groups[0]["params"]) + len(taken) == len(list(model.parameters()))


def test_a_matrix_that_is_kept_transposed_makes_the_same_step():
    torch.manual_seed(0)
    plain = torch.nn.Parameter(torch.randn(12, 4))
    turned = torch.nn.Parameter(plain.detach().T.clone())
    gradient = torch.randn(12, 4)
    plain.grad, turned.grad = gradient, gradient.T.clone()
    for parameter, transposed in ((plain, False), (turned, True)):
        Muon([{"params": [parameter], "transposed": transposed}], lr=0.1, dtype=torch.float32).step()
    torch.testing.assert_close(turned.T, plain)


def test_muon_without_a_matrix_is_refused():
    with pytest.raises(InputError, match="muon trains the matrices of a model's blocks, and this one has none"):
        build_optimizers(torch.nn.Linear(3, 3), TrainConfig(learning_rate=1e-3, batch_size=1, optimizer="muon"),
                         torch.device("cpu"))


def test_preparing_for_a_gpu_leaves_the_matrix_precision_readable():
    """PyTorch refuses to tell it after TF32 was allowed through the setting of one backend alone."""
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        prepare(torch.device("cuda"))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.use_deterministic_algorithms(True, warn_only=warn_only)


def test_an_epoch_of_windows_shows_every_token_at_most_once_and_almost_all():
    file = TokenFile(np.arange(1000, dtype="<u2"), np.zeros(1), 0, np.zeros(1))
    windows = Windows(file, 10, 7, seed=3, device=torch.device("cpu"))
    steps = windows.windows // 7
    seen = torch.cat([windows.batch(step)["targets"].flatten() for step in range(steps)])
    assert len(seen.unique()) == len(seen) > 900
    again = Windows(file, 10, 7, seed=3, device=torch.device("cpu"))
    assert torch.equal(again.batch(50)["ids"], windows.batch(50)["ids"])
    assert not torch.equal(windows.batch(0)["ids"], windows.batch(steps + 1)["ids"])
