"""`genai sweep`: several runs that differ in some fields, or a search for their best values."""

from typing import Annotated, Any

import typer
from rich.table import Table

from flows.cli.commands.run import prefect_and_view, shown_stages
from flows.cli.commands.shared import Preset, Settings, Until, console, opened_workspace
from genai_core.config.presets import parse_overrides
from genai_core.errors import InputError
from genai_core.roots import allow_everything
from tasks.config import load_config, require_stages


def sweep(grid: Annotated[list[str], typer.Argument(metavar="STAGE.FIELD=V1,V2…", help="Values to try for a field; "
                                                    "several fields give every combination.")],
          preset: Preset = "laptop", settings: Settings = None, until: Until = "evaluate",
          trials: Annotated[int, typer.Option(help="Look for the best in so many runs, in place of all combinations; "
                                              "then a field may have a range, 1e-4..1e-2.")] = 0,
          minimize: Annotated[str, typer.Option(metavar="FIGURE", help="Of a search: what is to be small, "
                                                "e.g. pretrain/bits_per_byte.")] = "",
          maximize: Annotated[str, typer.Option(metavar="FIGURE", help="Likewise, to be large.")] = "") -> None:
    """Run once for every combination of values, and compare. Stages that the runs share are made once.

    A combination that fails is shown with the reason, the others go on, and the command fails at the end.

    Example: `genai sweep pretrain.learning_rate=1e-3,3e-3 --until pretrain`, or, to look for the best,
    `genai sweep pretrain.learning_rate=1e-3..3e-2 --trials 12 --minimize pretrain/bits_per_byte --until pretrain`.
    """
    from flows.cli.combinations import combinations

    allow_everything()
    search = _search(grid, trials, minimize, maximize)
    combined = [] if search else combinations(grid)
    overrides = parse_overrides(settings or [])
    for combination in combined or _ends(search):
        config = load_config(preset, "", overrides | combination)
        require_stages("--until", [until], config)
    opened_workspace()
    with prefect_and_view(shown_stages(config)):
        from flows.sweep import CombinationsFailed, columns
        from flows.sweep import sweep as sweep_flow

        failed = None
        try:
            rows = sweep_flow(preset, combined, overrides, until, search)
        except CombinationsFailed as error:
            rows, failed = error.rows, error
    table = Table(*columns(rows))
    from tasks.tables import shown

    for row in rows:
        table.add_row(*(shown(row.get(name, "")) for name in columns(rows)))
    console.print(table)
    if failed:
        raise failed


def _search(grid: list[str], trials: int, minimize: str, maximize: str) -> Any:
    """The search that the options ask for; None for all combinations."""
    if not (trials or minimize or maximize):
        return None
    from pydantic import ValidationError

    from flows.cli.combinations import fields
    from flows.search import Search

    try:
        return Search(fields=fields(grid), trials=trials, minimize=minimize, maximize=maximize)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "search"
        raise InputError(f"--{where}: {first['msg'].removeprefix('Value error, ')}") from None


def _ends(search: Any) -> list[dict[str, Any]]:
    """The first and the last values of a search, to be checked before anything runs."""
    given = {name: values if isinstance(values, list) else
             [values.low, values.high]
             for name, values in search.fields.items()}
    return [{name: values[which] for name, values in given.items()} for which in (0, -1)]
