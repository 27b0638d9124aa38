"""Whether the cleaned data has moved from that of the release in service further than its gates allow."""

import json
import logging
from typing import Any

from genai_core.config.pipeline import PipelineConfig
from genai_core.data.clean.card import CARD
from genai_core.data.clean.drift import drift
from genai_core.errors import InputError
from tasks.pipeline import PipelineRun
from tasks.registry.files import manifest_of
from tasks.registry.lineage import directory_of_digest
from tasks.registry.releases import Release, in_service
from tasks.registry.versions import model_name, read_version
from tasks.store import published
from tasks.store.remote import RemoteRefuses

logger = logging.getLogger("tasks")


def check_drift(run: PipelineRun) -> None:
    """Raises InputError that names each gate of `clean.gates` that does not hold, or that nothing tells of.

    The data is compared with that of the release in service; before a first release there is nothing to compare with.
    """
    assert isinstance(run.config, PipelineConfig)
    gates = run.config.clean.gates
    if not gates:
        return
    release = in_service()
    if release is None:
        logger.info("clean.gates: no release is in service yet, so there is no data to compare with")
        return
    now = json.loads((run.artifacts["clean"].directory(run.workspace) / CARD).read_text(encoding="utf-8"))
    before = _card_of(release, run)
    failed = []
    for name, gate in gates.items():
        moved, told = drift(gate, before, now)
        line = (f"{name}: {gate.of} of {gate.source or 'all'} {gate.table} moved by {moved:.3f}, at most {gate.most:g} "
                f"wanted ({told})")
        logger.info("%s: clean.gates.%s", "passed" if moved <= gate.most else "FAILED", line)
        failed += [line] if moved > gate.most else []
    if failed:
        raise InputError(f"clean.gates: the data is not that of release {release.name} any more: {'; '.join(failed)}; "
                         "`genai data` shows it. Loosen or drop the gate where that is meant")


def _card_of(release: Release, run: PipelineRun) -> Any:
    """The card of the data that a release was made from, from here or from the remote."""
    version = read_version(f"models:/{model_name('quantize')}/{release.versions['quantize']}")
    manifest = manifest_of(run.workspace, version)
    digest = manifest["inputs"].get("clean", "") if manifest else ""
    directory = directory_of_digest("clean", digest, run.workspace) if digest else None
    if directory and (directory / CARD).is_file():
        return json.loads((directory / CARD).read_text(encoding="utf-8"))
    reason = "neither here nor on the remote"
    try:
        entry = published.find_digest(run.workspace, "clean", digest) if digest else None
        if entry and CARD in entry.manifest["files"] and (card := published.read_file(run.workspace, entry, CARD)):
            return json.loads(card)
    except RemoteRefuses as refusal:
        reason = str(refusal)
    raise InputError(f"clean.gates: the data of release {release.name} is not known ({reason}), so nothing can be "
                     "compared with it; `genai rollback NAME` puts another release in service")
