"""`genai publish`: a workspace that was alone joins a team."""

import os

from flows.cli.commands.shared import console, opened_workspace


def publish() -> None:
    """Bring everything of this workspace to the configured servers: models to MLFLOW_TRACKING_URI, datasets and reports
    to GENAI_DVC_REMOTE.

    What is there already is left alone. Where nothing is in service there yet, the release that is in service here
    comes into service, and the next run is held against it.
    """
    from tasks.execution.moving import publish_workspace, require_servers

    require_servers(dict(os.environ))
    workspace = opened_workspace()
    count = publish_workspace(workspace, lambda line: console.print(line, highlight=False, soft_wrap=True))
    console.print(f"{count} artifacts are published" if count else "this workspace has nothing to publish yet")
