"""Several ranks train as one does: the same losses, whatever the objective, from any checkpoint, on however many."""

import json
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from tokenizers import Tokenizer

from genai_core.context import Context
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.training import loop
from genai_core.training.loop import train
from genai_core.training.ranks import Ranks
from tests.conftest import Recorder, tiny
from tests.genai_core import golden, trainings

STEPS = 8


Job = tuple[str, bool]
"""The name of a training, and whether the ranks have parts of the model."""


def join(rank: int, count: int, store: Path) -> None:
    torch.set_num_threads(1)
    for module in golden.PRECISE:
        module.choose_precision = lambda device: torch.float32
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)


def train_here(folder: Path, name: str, tokens: Path, in_parts: bool, stop_after: int = 0, compiled: bool = False
               ) -> dict:
    """One rank's training, in float32: what is kept of it."""
    tokenizer: Tokenizer = load_tokenizer(tokens)
    prose = [topics[page] for page in sorted(topics)]
    torch.manual_seed(0)
    of_groups = name.startswith("rlhf") or name in ("dpo", "best_of_n")
    changes = {"batch_size": 16} if of_groups else {}      # of four answers a prompt
    if name == "diffusion":      # Adam makes a whole step of the rounding of a gradient that is 0
        changes = {"optimizer": "sgd", "learning_rate": 0.05} if not in_parts else {"optimizer": "adamw"}
    model, objective, config = trainings.BY_NAME[name](tiny(), tokens, tokenizer, prose, **changes)
    objective.steps = STEPS
    context = Context(folder / "checkpoints", Recorder(), device="cpu", compile="on" if compiled else "off",
                      checkpoint_seconds=1e-9 if stop_after else 1e9, shard_above=0 if in_parts else 10**9)
    if name == "next_token" and (folder / "poisoned").exists():
        _poison(objective, step=4)
    trained = train(model, objective, config, context)
    weights = sum(parameter.double().square().sum().item() for parameter in model.parameters())
    return {"curves": trained.curves, "from": trained.measurements["resumed_from_step"], "metrics": trained.metrics,
            "weights": weights}


def run_rank(rank: int, count: int, folder: Path, name: str, tokens: Path, stop_after: int, in_parts: bool,
             compiled: bool) -> None:
    """One rank of one training; the first writes its curves to `folder`."""
    join(rank, count, folder / f"store-{count}-{stop_after}")
    if stop_after:
        _stop_after(stop_after)
    with suppress(Stopped):
        kept = train_here(folder, name, tokens, in_parts, stop_after, compiled)
        if rank == 0:
            (folder / f"curves-{count}.json").write_text(json.dumps(kept))
    dist.destroy_process_group()


def run_jobs(rank: int, count: int, folder: Path, tokens: Path, jobs: list[Job]) -> None:
    """One rank of many trainings, one after the other: starting processes takes longer than these do."""
    join(rank, count, folder / "store")
    for name, in_parts in jobs:
        kept = train_here(folder / f"{name}-{in_parts}", name, tokens, in_parts)
        if rank == 0:
            (folder / f"{name}-{in_parts}.json").write_text(json.dumps(kept))
    dist.destroy_process_group()


def _poison(objective, step: int) -> None:
    """No number for a loss, of the examples of one step."""
    calls = iter(range(10**6))
    loss = objective.loss

    def poisoned(batch):
        value, others = loss(batch)
        return (value * float("nan") if next(calls) == step else value), others

    objective.loss = poisoned


class Stopped(Exception):
    pass


def _stop_after(step: int) -> None:
    """Save after each step, and leave the training on all ranks once `step` is saved."""
    original = loop._Training.save_if_due

    def save_and_stop(training, interruption):
        training.saver._interval = 0.0
        original(training, interruption)
        if training.step == step:
            training.saver.wait()
            training.ranks.on_any(True)
            raise Stopped

    loop._Training.save_if_due = save_and_stop


def run(count: int, folder: Path, name: str, tokens: Path, stop_after: int = 0, in_parts: bool = False,
        compiled: bool = False) -> dict:
    folder.mkdir(exist_ok=True)
    multiprocessing.spawn(run_rank, (count, folder, name, tokens, stop_after, in_parts, compiled), nprocs=count)
    result = folder / f"curves-{count}.json"
    return json.loads(result.read_text()) if result.is_file() else {}


@pytest.fixture(scope="module")
def trained(tokens, tmp_path_factory) -> Callable[[int], dict[Job, dict]]:
    """What so many ranks come to with each objective, trained once for all tests."""
    @cache
    def of(count: int) -> dict[Job, dict]:
        folder = tmp_path_factory.mktemp(f"ranks-{count}")
        jobs = [(name, in_parts) for name in trainings.BY_NAME if count in counts(name)
                for in_parts in ((False,) if count == 1 or name == "diffusion" else (False, True))]
        multiprocessing.spawn(run_jobs, (count, folder, tokens, jobs), nprocs=count)
        return {(name, in_parts): json.loads((folder / f"{name}-{in_parts}.json").read_text())
                for name, in_parts in jobs}

    return of


@pytest.fixture
def alone(trained) -> Callable[[str], dict]:
    """What one rank comes to."""
    return lambda name: trained(1)[name, False]


def require_the_same(other: dict, one: dict) -> None:
    assert len(values(one, "loss")) == STEPS
    for curve in one["curves"]:      # of figures, sums over other texts, a little more
        tolerance = 1e-5 if curve == "loss" else 5e-5
        assert values(other, curve) == pytest.approx(values(one, curve), rel=tolerance, abs=tolerance), curve
    assert other["metrics"] == pytest.approx(one["metrics"], rel=5e-5, abs=1e-5)
    assert other["weights"] == pytest.approx(one["weights"], rel=1e-5)


def counts(name: str) -> tuple[int, ...]:
    """Numbers of ranks: what shares its code with others is trained by two alone."""
    return (1, 2) if name.endswith("_adapters") or name in ("ppo", "dpo", "kto", "best_of_n") else (1, 2, 4)


def values(result: dict, curve: str) -> list[float]:
    return [value for _, value in result["curves"][curve]]


@pytest.mark.parametrize("name", list(trainings.BY_NAME))
def test_one_two_and_four_ranks_have_the_same_losses(name, alone, trained):
    for count in counts(name)[1:]:
        require_the_same(trained(count)[name, False], alone(name))


@pytest.mark.parametrize("name", [name for name in trainings.BY_NAME if name != "diffusion"])
def test_ranks_with_parts_of_the_model_have_the_same_losses(name, alone, trained):
    for count in counts(name)[1:]:
        require_the_same(trained(count)[name, True], alone(name))


@pytest.mark.slow
@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("name", ["next_token", "reward"])
def test_compiled_ranks_have_the_losses_of_one_that_is_not(name, in_parts, alone, tokens, tmp_path):
    two = run(2, tmp_path / "2", name, tokens, in_parts=in_parts, compiled=True)
    assert values(two, "loss") == pytest.approx(values(alone(name), "loss"), rel=1e-4)


def test_a_moving_average_follows_weights_in_parts(tokens, tmp_path):
    two = run(2, tmp_path / "2", "diffusion", tokens, in_parts=True)
    losses = values(two, "loss")
    assert len(losses) == STEPS and losses[-1] < losses[0] and values(two, "held_out_loss")


@pytest.mark.parametrize(("name", "in_parts"), [("next_token", (False, False, False, False)),
                                                ("rlhf", (True, True, False, True))])
def test_a_checkpoint_goes_on_with_more_ranks_and_with_fewer(name, in_parts, alone, tokens, tmp_path):
    folder = tmp_path / "resumed"
    for count, stop_after, parts in zip((2, 4, 1), (2, 4, 6), in_parts, strict=False):
        assert run(count, folder, name, tokens, stop_after, parts) == {}
    resumed = run(2, folder, name, tokens, in_parts=in_parts[-1])
    assert resumed["from"] == 6
    assert values(resumed, "loss") == pytest.approx(values(alone(name), "loss"), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("in_parts", [False, True])
def test_a_step_that_does_not_count_counts_on_no_rank(in_parts, tokens, tmp_path):
    for count in (1, 2):
        (tmp_path / str(count)).mkdir()
        (tmp_path / str(count) / "poisoned").touch()
    one = run(1, tmp_path / "1", "next_token", tokens)
    two = run(2, tmp_path / "2", "next_token", tokens, in_parts=in_parts and True)
    assert one["metrics"]["skipped_steps"] == two["metrics"]["skipped_steps"] == 1
    assert values(one, "loss")[4] is values(two, "loss")[4] is None
    kept = [[value for value in values(each, "loss") if value is not None] for each in (one, two)]
    assert kept[0] == pytest.approx(kept[1], rel=1e-5)
    assert list((tmp_path / "2" / "checkpoints").glob("skipped-step-*.safetensors"))


def test_a_checkpoint_that_lacks_a_part_is_passed_over(tokens, tmp_path):
    folder = tmp_path / "parts"
    assert run(2, folder, "next_token", tokens, stop_after=4, in_parts=True) == {}
    newest, before = sorted((folder / "checkpoints").glob("step-*"))[::-1]
    assert (newest.name, before.name) == ("step-00000004", "step-00000003")
    (first, *_) = sorted(newest.glob("*.safetensors"))
    first.unlink()
    assert run(2, folder, "next_token", tokens, in_parts=True)["from"] == 3


def share_out(rank: int, count: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store-{count}", rank=rank, world_size=count)
    names = ["base", "instruct", "baseline"]
    made = Ranks.current().share_out(names, lambda name: {"name": name, "made_by": rank, "figure": 0.1 + 0.2})
    assert list(made) == names
    assert made == {name: {"name": name, "made_by": number % count, "figure": 0.1 + 0.2}
                    for number, name in enumerate(names)}
    dist.destroy_process_group()


@pytest.mark.parametrize("count", [2, 4])
def test_what_ranks_share_out_is_made_once_and_known_to_all(count, tmp_path):
    multiprocessing.spawn(share_out, (count, tmp_path), nprocs=count)
    assert Ranks().share_out(["one"], lambda name: name.upper()) == {"one": "ONE"}


def test_a_batch_that_the_ranks_do_not_divide_is_refused():
    with pytest.raises(InputError, match=r"runtime.processes: 3 ranks do not divide 4 examples"):
        Ranks(0, 3).share({"ids": torch.zeros(4, 2)})
