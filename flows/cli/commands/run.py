"""`genai run`, `genai plan`, `genai sweep`."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from flows.cli.commands.shared import (
    Also,
    AsJson,
    Base,
    Chats,
    Data,
    Family,
    Force,
    Preferences,
    Preset,
    Problems,
    Settings,
    Text,
    Until,
    console,
    opened_workspace,
)
from flows.cli.own_data import beside_named, own_data
from genai_core.config.own_data import ALL_BUT_TEXT, REPLACE
from genai_core.config.pipeline import PipelineConfig
from genai_core.config.presets import parse_overrides
from genai_core.errors import InputError
from genai_core.families.config import FamilyConfig
from genai_core.roots import allow_everything
from tasks.catalog import stages_for
from tasks.config import load_config, require_stages
from tasks.store.disk import require_space
from tasks.store.workspace import Workspace

if TYPE_CHECKING:
    from flows.cli.terminal import View

From = Annotated[str, typer.Option("--from", metavar="STAGE", help="Execute this stage and all that follow it.")]
MaxHours = Annotated[float, typer.Option(min=0, metavar="HOURS", help="Stop at a checkpoint after this time; the "
                                                                      "same command continues.")]
MaxCost = Annotated[float, typer.Option(min=0, metavar="MONEY", help="Likewise, by runtime.price_per_hour.")]
ApprovalHours = Annotated[float, typer.Option(min=0, metavar="HOURS", help="Wait this long for a person's word "
                                                                           "before a release comes into service.")]
Only = Annotated[str, typer.Option(metavar="STAGE", help="Run this stage alone; what comes before must be there.")]


def run(preset: Preset = "laptop", family: Family = "", text: Text = None, chats: Chats = None,
        preferences: Preferences = None, problems: Problems = None, data: Data = None, also: Also = False,
        base: Base = "", settings: Settings = None, force: Force = None, from_stage: From = "", until: Until = "",
        only: Only = "", max_hours: MaxHours = 0.0, max_cost: MaxCost = 0.0, approval_hours: ApprovalHours = 0.0
        ) -> None:
    """Run every stage that is not cached, and show it live.

    Example: `genai run --text book.txt` trains on a text of your own, `--chats mine.jsonl` fine-tunes on your chats;
    `genai run --set instruct.epochs=2` trains again from the instruct stage on; `genai run --family vae` trains another
    generative family.
    """
    allow_everything()
    overrides = base_override(base, family) | overrides_of_options(
        preset, family, settings, also, text=text, chats=chats, preferences=preferences, problems=problems, data=data)
    config = load_config(preset, family, overrides)      # a typing mistake ends here, before anything starts
    forced = _forced(force, from_stage, config)
    for option, stages in (("--until", [until]), ("--only", [only])):
        require_stages(option, stages, config)
    began = time.monotonic()
    require_space(Workspace.current(), "run")      # before Prefect, which has no words for it
    workspace = opened_workspace()
    if approval_hours and "PREFECT_API_URL" not in os.environ:
        raise InputError("--approval-hours: the server of a single run ends with it and shows no page to answer on; "
                         "start `genai up` first")
    with prefect_and_view(shown_stages(config)) as view:
        from flows.parameters import preset_parameters
        from flows.train_family import train_family
        from flows.train_llm import train_llm

        flow = partial(train_family, family=family) if family else train_llm
        flow(**preset_parameters(preset), overrides=overrides, force=forced, until=until, only=only,
             max_hours=max_hours, max_cost=max_cost, approval_hours=approval_hours)
    total, in_stages = time.monotonic() - began, sum(view.seconds.values())
    ran = [state for state in view.states.values() if state != "waiting"]
    cached = ran.count("Cached")
    console.print(f"\n{len(ran) - cached} tasks executed, {cached} cached; {total:.1f} s in all, "
                  f"{in_stages:.1f} s in stages", highlight=False)
    newest = max(workspace.reports.glob("*/report.html"), key=lambda path: path.stat().st_mtime, default=None)
    if newest and not (until or only):
        from tasks.registry.releases import in_service
        from tasks.tracking import client as tracking

        with tracking.told("which release is in service"):
            release = in_service(family)
            console.print(f"release: {release.name if release else 'none'} in service", highlight=False)
        use = f"make:    genai generate {family}" if family else "talk:    genai chat"
        if isinstance(config, PipelineConfig) and "instruct" not in config.stage_names:
            use = 'write:   genai generate models:/genai-quantize@champion --prompt "Once upon a time"'
        console.print(f"report:  {newest}\n{use}\nmodels:  genai models", highlight=False, markup=False, soft_wrap=True)


def plan(preset: Preset = "laptop", family: Family = "", text: Text = None, chats: Chats = None,
         preferences: Preferences = None, problems: Problems = None, data: Data = None, also: Also = False,
         base: Base = "", settings: Settings = None, force: Force = None, from_stage: From = "", until: Until = "",
         on: Annotated[str, typer.Option(metavar="GPUS", help="What training would take on GPUs, such as 8xH100; 4 "
                                         "machines of 2 are 4x2xH100.")] = "",
         as_json: AsJson = False) -> None:
    """Show what a run would do: each stage hit, miss or left out and why, and what it would take. Nothing is executed.

    `--on 8xH100` shows instead what training would take there: memory, communication, hours, energy and money.
    """
    allow_everything()
    overrides = base_override(base, family) | overrides_of_options(
        preset, family, settings, also, text=text, chats=chats, preferences=preferences, problems=problems, data=data)
    config = load_config(preset, family, overrides)
    require_stages("--until", [until], config)
    if on:
        _plan_on(on, config, as_json)
        return
    workspace = opened_workspace()
    from dataclasses import asdict

    from tasks.execution.plan import plan as make_plan

    lines = make_plan(config, workspace, frozenset(_forced(force, from_stage, config)))
    if until:
        lines = lines[:[line.stage for line in lines].index(until) + 1]
    if as_json:
        typer.echo(json.dumps([asdict(line) for line in lines], indent=1))
        return
    table = Table("stage", "state", "why")
    for heading in ("parameters", "trained", "tokens", "FLOPs", "memory", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        colour = {"hit": "green", "fetch": "magenta", "miss": "yellow"}.get(line.state, "dim")
        table.add_row(line.stage, f"[{colour}]{line.state}", _short(line.why, line.again), *_costs(line))
    console.print(table)
    if isinstance(config, PipelineConfig) and config.base.given:
        from genai_core.training.optimizers import rates

        said = ", ".join(f"{name} {rates(getattr(config, name))}" for name in ("pretrain", "instruct", "reward", "rlhf")
                         if name in config.stage_names)
        if said:
            console.print(f"learning rates: {said}", highlight=False)
    to_do = [line for line in lines if line.state in ("miss", "unknown")]
    known = [line.seconds for line in to_do if line.seconds is not None]
    unknown = [line.stage for line in to_do if line.seconds is None]
    if known or unknown:
        note = f" (not counting {', '.join(unknown)}: nothing tells before their first run)" if unknown else ""
        console.print(f"estimated: {sum(known):,.0f} s{note}", highlight=False)


def _plan_on(on: str, config: PipelineConfig | FamilyConfig, as_json: bool) -> None:
    """What the stages take there that are arithmetic most of the time: RLHF samples, which no formula here tells."""
    from dataclasses import asdict

    from genai_core.models.transformer import transformer_config
    from genai_core.training.estimate import estimate
    from genai_core.training.scaling import Cluster, training_on

    if isinstance(config, FamilyConfig):
        raise InputError("--on: only for the language model; a family's models train on one device in minutes")
    if config.base.given:
        raise InputError("--on: only for a model that pretrain makes from noise; without it, plan tells what a base "
                         "takes here")
    cluster, shape = Cluster.named(on), transformer_config(config.pretrain, config.tokenize.vocab_size)
    stages = {}
    for name in (name for name in ("pretrain", "instruct") if name in config.stage_names):
        stage, taken = getattr(config, name), estimate(name, config)
        assert taken
        stages[name] = training_on(cluster, shape, rows=stage.batch_size, length=stage.context_length,
                                   tokens=taken.tokens, accumulation=stage.accumulation_steps,
                                   shard_above=config.runtime.shard_above, muon=stage.optimizer == "muon",
                                   recompute=config.runtime.recompute_activations)
    if as_json:
        typer.echo(json.dumps({name: asdict(each) for name, each in stages.items()}, indent=1))
        return
    table = Table("stage", "model", "memory a GPU", "sent a step", "step", "MFU", "hours", "energy", "money")
    price = config.runtime.price_per_hour
    for name, each in stages.items():
        table.add_row(name, "in parts" if each.sharded else "whole",
                      f"{each.memory / 1e9:,.1f} GB" + ("" if each.fits else " [red]of "
                                                        f"{cluster.kind.memory / 1e9:.0f}[/red]"),
                      f"{each.sent / 1e9:,.2f} GB", f"{each.step_seconds:,.3f} s", f"{each.utilisation:.0%}",
                      f"{each.hours:,.3g}", f"{each.energy_kilowatt_hours:,.3g} kWh",
                      f"{price * cluster.nodes * each.hours:,.2f} {config.runtime.currency}" if price else "?")
    console.print(table)
    if not price:
        console.print("money: give the price of a machine, --set runtime.price_per_hour=24", highlight=False)
    if not all(each.fits for each in stages.values()):
        console.print("too much memory: more accumulation_steps, runtime.recompute_activations=true, or more GPUs",
                      highlight=False)


@contextmanager
def prefect_and_view(stages: Sequence[str]) -> Iterator["View"]:
    """A Prefect API to run against, and the live view of the `stages` that run."""
    from flows.cli.terminal import View
    from flows.services.environment import prefect_api
    from tasks.tracking import client as tracking

    with prefect_api() as server:
        import flows.sweep
        import flows.train_family  # noqa: F401 - two seconds of imports, and making the database, while the server starts

        tracking.experiment_id()
        if server:
            server.wait()
        view = View(console, stages)
        with view.shown():
            yield view


def overrides_of_options(preset: str, family: str, settings: list[str] | None, also: bool, **given: list[str] | None
                         ) -> dict[str, Any]:
    """What differs from the preset: a user's own data by the names of the options, and fields that are set."""
    own = {}
    if also or any(given.values()):
        known = load_config(preset, "", {})
        own = own_data(given, also, {*known.collect.sources, *known.tasks} if isinstance(known, PipelineConfig) else ())
        if also and isinstance(known, PipelineConfig):
            own |= beside_named(own, known.reward.sources, known.rlhf.tasks if known.reward.sources else ())
    if own and family:
        raise InputError(f"--family {family}: a family learns from its own data; set collect.sources in a YAML file")
    if own and own.get(f"collect.{REPLACE}") == ALL_BUT_TEXT:
        console.print("no text of your own: the preset's stays, which the base model learns the language from (--text "
                      "gives yours)", highlight=False)
    return own | parse_overrides(settings or [])


def base_override(base: str, family: str) -> dict[str, Any]:
    """The override of a base from outside, which takes the place of the preset's: where the user is counts, not where
    the workspace is."""
    if not base:
        return {}
    if family:
        raise InputError(f"--family {family}: a family makes its own models; --base is for the language model")
    path = Path(base).expanduser()
    here = path.exists() or path.is_absolute() or base.startswith(".")
    fields = ("packages", "sha256", "revision", "licence", "attribution")
    others: dict[str, Any] = {f"base.{field}": [] if field == "packages" else "" for field in fields}
    return {"base.source": str(path.absolute()) if here else base, **others}


def shown_stages(config: PipelineConfig | FamilyConfig) -> list[str]:
    """With the versioning of the data after the datasets, which come first."""
    stages = stages_for(config)
    datasets = [stage.name for stage in stages if stage.kind == "dataset"]
    return [*datasets, "version_data", *(stage.name for stage in stages if stage.kind != "dataset")]


def _forced(force: list[str] | None, from_stage: str, config: PipelineConfig | FamilyConfig) -> list[str]:
    require_stages("--force", force or [], config)
    require_stages("--from", [from_stage], config)
    names = [stage.name for stage in stages_for(config)]
    following = names[names.index(from_stage):] if from_stage else ()
    return list(dict.fromkeys([*(force or []), *following]))


def _short(why: str, again: str) -> str:
    """The first reasons, and on a line of its own what is made again; --json has them all."""
    reasons = why.split("; ")
    more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return "; ".join(reasons[:3]) + more + (f"\n{again}" if again else "")


def _costs(line: Any) -> list[str]:
    def count(value: float | None, unit: float, suffix: str) -> str:
        return "" if value is None else f"{value / unit:,.2f} {suffix}"

    seconds = "" if line.seconds is None else f"{line.seconds:,.0f} s"
    return [count(line.parameters, 1e6, "M"), count(line.trainable_parameters, 1e6, "M"),
            count(line.tokens, 1e6, "M"), count(line.flops, 1e12, "T"), count(line.memory_bytes, 2**30, "GiB"), seconds]
