"""The stage adopt: a base model from outside becomes a model directory, with where it comes from beside it."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

from genai_core.bases.hub import HubModel
from genai_core.bases.licences import PROVENANCE, licence_of, require_acceptance, terms_beside
from genai_core.bases.places import Place, file_digests, find_place, found_on_hub
from genai_core.bases.tokenizers import adopt_tokenizer
from genai_core.bases.weights import grown, load_base, require_memory
from genai_core.config.base_model import BaseModelConfig
from genai_core.context import Context, Result
from genai_core.export.model_directory import save_model

__all__ = ["file_digests", "run"]


def run(config: BaseModelConfig, *, out_dir: Path, context: Context) -> Result:
    """Write the model directory of the base that `config` names, and `base.json`: source, licence and digest.

    Relative paths start at `context.root`. Raises InputError for a base that cannot be used: see `genai_core/bases`.
    """
    reporter = context.reporter
    if offered := found_on_hub(config, context.root):
        _check_before_download(offered, config)
    place = find_place(config, context.root)
    licence = licence_of(config, place)
    require_acceptance(licence, config, place)
    model = load_base(place)
    rows = model.config.vocab_size
    adopted = adopt_tokenizer(place, rows)
    model = grown(model, adopted.entries, adopted.added_ids)
    with tempfile.TemporaryDirectory() as tokenizer_dir:
        adopted.save(Path(tokenizer_dir))
        save_model(model, Path(tokenizer_dir), out_dir)
    _keep_terms(place, out_dir)
    digests = file_digests(config, context.root)
    source = config.origin or config.source or ", ".join(each.package for each in config.packages)
    layout = str(json.loads((out_dir / "config.json").read_text(encoding="utf-8"))["model_type"])
    parameters = sum(parameter.numel() for parameter in model.parameters())
    provenance = {
        "source": source, "revision": config.revision, "licence": licence, "accepted": config.accept_licence,
        "attribution": config.attribution, "layout": layout, "parameters": parameters, "files": digests,
        "sha256": hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest(),
        "chat_template": "the base's" if adopted.own_template else "this project's", "added_tokens": adopted.added}
    (out_dir / PROVENANCE).write_text(json.dumps(provenance, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    reporter.note(f"{source}: {layout}, {parameters / 1e6:,.1f}M parameters, vocabulary of {adopted.entries:,}, "
                  f"context of {model.context_length:,}; licence: {licence}")
    begun = f"; rows of the embedding that begin near the mean of the others: {len(adopted.added)}"
    reporter.note(adopted.note + (begun if adopted.added else ""))
    return Result({"parameters": parameters, "vocab_size": adopted.entries, "context_length": model.context_length,
                   "added_tokens": len(adopted.added), "added_rows": model.config.vocab_size - rows})


def _check_before_download(offered: HubModel, config: BaseModelConfig) -> None:
    """Raise InputError for a model on the hub that the memory does not hold, or whose terms nobody has accepted."""
    require_memory(offered.parameters, offered.name)
    card = Place(offered.card())
    require_acceptance(licence_of(config, card), config, card)


def _keep_terms(place: Place, out_dir: Path) -> None:
    """What the base says of itself stays beside it: its terms and its card."""
    for file in terms_beside(place):
        shutil.copyfile(file, out_dir / file.name)
    if (card := place.directory / "README.md").is_file():
        shutil.copyfile(card, out_dir / "BASE_CARD.md")

