"""Steps that must not count: skipped without effect, kept to be looked at, and gone back from when there are many."""

import time

import pytest
import torch
from safetensors.torch import load_file

from genai_core.config.training import TrainConfig
from genai_core.context import Context
from genai_core.errors import TrainingDiverged
from genai_core.training import checkpoints
from genai_core.training import saver as saver_module
from genai_core.training.guards import KEPT_BATCHES, WINDOW
from genai_core.training.loop import train
from genai_core.training.objectives.objective import Objective
from genai_core.training.optimizers import build_optimizers, take_step
from genai_core.training.saver import Saver


class Quadratic(Objective):
    """A loss that is not finite, or enormous, on chosen batches."""

    unit, flops, fixed_shapes, evaluation_steps = "things", 0.0, True, frozenset()

    def __init__(self, model, steps, bad, value=float("nan")):
        self.model, self.steps, self.bad, self.value = model, steps, bad, value
        self.seen = []

    def batch(self, step):
        self.seen.append(step)
        return {"x": torch.full((1, 2), self.value if step in self.bad else 1.0)}

    def loss(self, batch):
        return self.model(batch["x"]).pow(2).sum(), {}

    def targets(self, batch):
        return 1.0

    def size(self, batch):
        return 1

    def evaluate(self, step):
        return {}


def train_quadratic(tmp_path, recorder, steps, bad, policy, value=float("nan"), seconds=1e9, **changes):
    torch.manual_seed(4)
    model = torch.nn.Linear(2, 1, bias=False)
    config = TrainConfig(learning_rate=0.1, batch_size=1, on_non_finite=policy, **changes)
    run = Context(tmp_path, recorder, device="cpu", compile="off", checkpoint_seconds=seconds)
    objective = Quadratic(model, steps, bad, value)
    trained = train(model, objective, config, run)
    return model, trained, objective


def test_a_step_that_is_not_finite_is_skipped_and_reported(tmp_path, recorder):
    model, trained, _ = train_quadratic(tmp_path, recorder, 20, {3, 4}, "skip")
    assert trained.metrics["skipped_steps"] == 2
    assert torch.isfinite(model.weight).all()
    assert any("step 3" in note and "skipped" in note for note in recorder.notes)


def test_skipped_steps_are_counted_at_the_end_of_training(tmp_path, recorder):
    train_quadratic(tmp_path, recorder, 20, {3, 4}, "skip")
    assert recorder.notes[-1] == "2 steps were skipped: their loss or gradient was not finite, or exploded"


def test_no_skipped_steps_are_not_worth_a_note(tmp_path, recorder):
    train_quadratic(tmp_path, recorder, 20, set(), "skip")
    assert not any("skipped" in note for note in recorder.notes)


def test_the_loss_of_a_training_whose_last_step_was_skipped_is_the_last_finite_one(tmp_path, recorder):
    _, trained, _ = train_quadratic(tmp_path, recorder, 20, {18, 19}, "skip")
    assert trained.metrics["loss"] == trained.curves["loss"][17][1] > 0


def test_a_training_of_skipped_steps_alone_has_failed(tmp_path, recorder):
    with pytest.raises(TrainingDiverged, match="each of the 5 steps was skipped"):
        train_quadratic(tmp_path, recorder, 5, set(range(5)), "skip")


@pytest.mark.parametrize(("policy", "bad"), [("stop", {2}), ("skip", set(range(2, 20)))])
def test_training_stops_when_it_cannot_go_on(tmp_path, recorder, policy, bad):
    with pytest.raises(TrainingDiverged, match="lower the learning rate"):
        train_quadratic(tmp_path, recorder, 20, bad, policy)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_a_step_that_is_skipped_changes_neither_weights_nor_momentum(optimizer, first):
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([torch.nn.Linear(8, 8)]), "head": torch.nn.Linear(8, 2)})
    config = TrainConfig(learning_rate=0.1, batch_size=1, optimizer=optimizer, weight_decay=0.1)
    optimizers = build_optimizers(model, config, torch.device("cpu"))

    def step(gradient, found_inf):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        for each in optimizers:
            take_step(each, torch.tensor(found_inf))

    def everything():
        return checkpoints.snapshot(model, optimizers, {})

    if not first:
        step(0.5, 0.0)
    before = everything()
    step(float("nan"), 1.0)
    after = everything()
    for file in ("model", "optimizer"):
        assert all(torch.equal(before[file][name], after[file][name]) for name in before[file])
    assert all(tensor.abs().max() == 0 for tensor in after["optimizer"].values()) or not first
    step(0.5, 0.0)
    assert not torch.equal(everything()["model"]["head.weight"], before["model"]["head.weight"])


def test_a_loss_that_explodes_is_skipped_once_it_is_known_what_is_usual(tmp_path, recorder):
    bad = {5, WINDOW + 20}
    _, trained, _ = train_quadratic(tmp_path, recorder, WINDOW + 40, bad, "skip", value=1e6)
    assert trained.metrics["skipped_steps"] == 1
    assert any(f"step {WINDOW + 20}: loss" in note and "skipped" in note for note in recorder.notes)
    assert (WINDOW + 21, None) in trained.curves["loss"], "a gap, not a mountain"
    _, trained, _ = train_quadratic(tmp_path / "never", recorder, WINDOW + 40, bad, "skip", value=1e6,
                                    skip_above_deviations=0)
    assert trained.metrics["skipped_steps"] == 0


def test_the_batch_of_a_skipped_step_is_kept_to_be_looked_at(tmp_path, recorder):
    train_quadratic(tmp_path, recorder, 40, set(range(5, 30, 2)), "skip")
    kept = sorted(tmp_path.glob("skipped-step-*.safetensors"))
    assert len(kept) == KEPT_BATCHES and kept[0].name == "skipped-step-00000006.safetensors"
    assert load_file(kept[0])["x"].isnan().all()
    assert any(str(kept[0]) in note for note in recorder.notes)


def test_ten_skipped_steps_in_a_row_go_back_to_a_checkpoint_and_past_their_data(tmp_path, recorder, monkeypatch):
    monkeypatch.setattr(saver_module, "LARGEST_SHARE", 1e9)
    bad = set(range(7, 17))
    _, trained, objective = train_quadratic(tmp_path, recorder, 30, bad, "skip", seconds=1e-9)
    assert trained.metrics["rewinds"] == 1 and trained.metrics["skipped_steps"] == 10
    assert objective.seen == [*range(17), *range(17, 40)]      # from the checkpoint at step 7 on: 23 more
    assert [step for step, _ in trained.curves["loss"]] == list(range(1, 31))
    assert any("back to the checkpoint at step 7" in note for note in recorder.notes)


def test_what_was_sampled_for_several_steps_is_passed_over_as_a_whole(tmp_path, recorder, monkeypatch):
    monkeypatch.setattr(saver_module, "LARGEST_SHARE", 1e9)
    monkeypatch.setattr(Quadratic, "steps_of_a_batch", 4)
    _, trained, objective = train_quadratic(tmp_path, recorder, 30, set(range(7, 17)), "skip", seconds=1e-9)
    assert objective.seen == [*range(17), *range(20, 46)], "from the checkpoint at step 4 on: 26 more"
    assert trained.metrics["things"] == 8      # the batches that 30 steps take


def test_a_loss_that_is_not_finite_is_no_figure_of_the_progress(tmp_path, recorder, monkeypatch):
    shown = []
    monkeypatch.setattr(type(recorder), "progress", lambda _, *values, **figures: shown.append(set(figures)))
    train_quadratic(tmp_path, recorder, 3, {1}, "skip")
    assert shown == [{"per_second", "loss"}, {"per_second"}, {"per_second", "loss"}]


class TwoPlayers(Quadratic):
    """Even batches are the first player's, odd ones the second's, which may lose its head for good."""

    def players(self, model):
        return {"first": model[0], "second": model[1]}

    def player(self, step):
        return "second" if step % 2 else "first"

    def batch(self, step):
        return {**super().batch(step), "second": torch.tensor([bool(step % 2)])}

    def loss(self, batch):
        return self.model[int(batch["second"])](batch["x"]).pow(2).sum(), {}


def two_players(tmp_path, recorder, bad, steps=60):
    model = torch.nn.ModuleList([torch.nn.Linear(2, 1, bias=False) for _ in range(2)])
    for part in model:
        torch.nn.init.ones_(part.weight)
    objective = TwoPlayers(model, steps, bad)
    context = Context(tmp_path, recorder, device="cpu", compile="off", checkpoint_seconds=1e-9)
    return train(model, objective, TrainConfig(learning_rate=0.01, batch_size=1), context), objective


def test_a_player_whose_steps_are_all_skipped_does_not_go_unseen_beside_one_that_learns(tmp_path, recorder,
                                                                                       monkeypatch):
    monkeypatch.setattr(saver_module, "LARGEST_SHARE", 1e9)
    with pytest.raises(TrainingDiverged, match="10 in a row"):
        two_players(tmp_path, recorder, set(range(7, 1000, 2)))


def test_a_player_keeps_its_batches_after_going_back(tmp_path, recorder, monkeypatch):
    monkeypatch.setattr(saver_module, "LARGEST_SHARE", 1e9)
    trained, objective = two_players(tmp_path, recorder, set(range(7, 26, 2)))      # ten of the second player's
    assert trained.metrics["rewinds"] == 1 and trained.metrics["skipped_steps"] == 10
    assert objective.seen[-1] - 60 + 1 == 26 - 7      # passed over: an odd number, which swaps the turns of the steps
    losses = dict(trained.curves["loss"])
    assert all(losses[step + 2] < losses[step] for step in range(10, 50)), "each step moves the player of its batch"


def test_a_skipped_step_leaves_the_statistics_of_batch_normalisation(tmp_path, recorder):
    torch.manual_seed(4)
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))
    context = Context(tmp_path, recorder, device="cpu", compile="off", checkpoint_seconds=1e9)

    class Wider(Quadratic):
        def batch(self, step):
            return {"x": torch.full((2, 2), self.value if step in self.bad else 1.0)}

    train(model, Wider(model, 20, {3, 19}), TrainConfig(learning_rate=0.1, batch_size=1), context)
    assert torch.isfinite(model[0].running_mean).all() and model[0].num_batches_tracked == 18


def test_a_training_that_goes_back_in_vain_stops(tmp_path, recorder, monkeypatch):
    monkeypatch.setattr(saver_module, "LARGEST_SHARE", 1e9)
    with pytest.raises(TrainingDiverged, match="lower the learning rate"):
        train_quadratic(tmp_path, recorder, 100, set(range(7, 1000)), "skip", seconds=1e-9)
    assert sum("back to the checkpoint" in note for note in recorder.notes) == 2


def test_what_a_checkpoint_could_not_write_is_raised(tmp_path, recorder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "write", full)
    with pytest.raises(OSError, match="No space left"):
        train_quadratic(tmp_path, recorder, 30, set(), "skip", seconds=1e-9)


def test_saving_takes_a_small_share_of_the_time(tmp_path, recorder, monkeypatch):
    """Where the copy takes long, checkpoints come less often than was asked for."""
    slow = checkpoints.snapshot
    monkeypatch.setattr(checkpoints, "snapshot", lambda *inputs: time.sleep(0.02) or slow(*inputs))
    saver = Saver(tmp_path, 1e-9, torch.nn.Linear(2, 2), [])
    with saver:
        assert saver.due
        saver.save(1, dict.fromkeys(checkpoints.STATE, 0), {})
        assert not saver.due and saver.waited >= 0.02
