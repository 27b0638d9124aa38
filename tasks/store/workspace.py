"""Where everything of a workspace lies. `GENAI_HOME` names it; the default is the repository."""

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Workspace:
    root: Path

    @classmethod
    def current(cls) -> "Workspace":
        return cls(Path(os.environ.get("GENAI_HOME", REPOSITORY)).expanduser().resolve())

    @property
    def data(self) -> Path:
        """Datasets, followed by `data.dvc`."""
        return self.root / "data"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def hidden(self) -> Path:
        """What people need not look at: checkpoints, locks, records, Prefect's files."""
        return self.root / ".genai"

    @property
    def scratch(self) -> Path:
        """Half-made artifacts; on the same file system as the finished ones, so that a rename moves them."""
        return self.hidden / "scratch"

    @property
    def sources(self) -> Path:
        """Files that sources name in MLflow, each in a folder of its digest."""
        return self.hidden / "sources"

    @property
    def checkpoints(self) -> Path:
        return self.hidden / "checkpoints"

    @property
    def prefect(self) -> Path:
        return self.hidden / "prefect"

    @property
    def tracking_uri(self) -> str:
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.root / 'mlflow.db'}"
