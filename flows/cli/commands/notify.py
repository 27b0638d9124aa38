"""`genai notify`: who is told when a run or a gate fails, or a loss stalls."""

from typing import Annotated

import typer

from flows.cli.commands.shared import console, opened_workspace
from genai_core.errors import InputError


def notify(webhook: Annotated[str, typer.Option(metavar="URL", envvar="GENAI_NOTIFY_WEBHOOK",
                                                help="Where to post {\"text\": …}, say a channel of Slack; kept as a "
                                                     "secret. The variable keeps it out of the shell's history.")] = "",
           email: Annotated[str, typer.Option(metavar="ADDRESS", help="Whom to write to, through SendGrid.")] = "",
           sender: Annotated[str, typer.Option(metavar="ADDRESS", help="Sender of the e-mail.")] = "",
           key: Annotated[str, typer.Option(envvar="SENDGRID_API_KEY", hidden=True)] = "",
           off: Annotated[bool, typer.Option("--off", help="Tell nobody any more.")] = False) -> None:
    """Tell somebody when a run or a gate fails or a loss stalls, by a block and two automations of Prefect."""
    if off + bool(webhook) + bool(email) != 1:
        raise InputError("notify: give one of --webhook URL, --email ADDRESS and --off")
    opened_workspace()
    from flows.services.environment import prefect_api
    from flows.services.notifications import set_up, take_down

    with prefect_api() as server:
        if server:
            server.wait()
        done = take_down() if off else set_up(webhook, email, sender, key)
    for name in done:
        console.print(f"{'deleted' if off else 'saved'}: automation “{name}”", highlight=False)
    if off and not done:
        console.print("nobody was told")
