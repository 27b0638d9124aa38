"""Who is told when a run fails, a gate fails or a loss stalls: a block and two automations of Prefect.

The address and the key are secrets of the block, encrypted in Prefect's database; nothing else holds them.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlparse

from genai_core.errors import InputError
from tasks.tracking.stall import STALLED

BLOCK = "genai-notify"
FAILED_TEXT = "{{ flow_run.name }}: {{ flow_run.state.name }}: {{ flow_run.state.message }}"
"""The message of a failed gate names the gate, the figure and the bound."""
STALLED_TEXT = "{{ event.payload.run }}: {{ event.payload.text }}"
DELIVERY_SECONDS = 15.0


def set_up(webhook: str = "", email: str = "", sender: str = "", key: str = "") -> list[str]:
    """Save the block and the automations, in place of earlier ones; the names of the automations."""
    actions = _webhook(webhook) if webhook else _email(email, sender, key)
    return [_automation("genai: a run or a gate failed", _failures(), actions[0]),
            _automation("genai: a loss stalled", _stalls(), actions[1])]


def take_down() -> list[str]:
    """Delete what `set_up` made; the names of what there was."""
    from prefect.client.orchestration import get_client

    gone = []
    with get_client(sync_client=True) as client:
        for automation in _ours(client):
            client.delete_automation(automation.id)
            gone.append(automation.name)
        for slug in ("webhook", "sendgrid-email"):
            for document in client.read_block_documents_by_type(slug):
                if document.name == BLOCK:
                    client.delete_block_document(document.id)
    return gone


def wait_for_delivery() -> None:
    """Where somebody is to be told of failures: give the server time to tell of the one just now, before it ends with
    its run. What was told earlier, say of a stall, does not count."""
    from prefect.client.orchestration import get_client

    since = datetime.now(UTC) - timedelta(seconds=3)
    with get_client(sync_client=True) as client:
        if not _ours(client):
            return
        deadline = time.monotonic() + DELIVERY_SECONDS
        while time.monotonic() < deadline:
            if _acted(client, since):
                return
            time.sleep(0.3)


def _webhook(url: str) -> tuple[Any, Any]:
    from prefect.blocks.webhook import Webhook
    from prefect.events.actions import CallWebhook

    parsed = urlparse(url)
    if parsed.scheme not in ("http", "https") or not parsed.hostname:
        raise InputError("--webhook: the address begins with http:// or https:// and names a host")
    block: Any = Webhook(method="POST", url=url, headers={"Content-Type": "application/json"})
    identity = block.save(BLOCK, overwrite=True)

    def call(text: str) -> Any:      # what Slack, Mattermost and Teams take as a message
        return CallWebhook(block_document_id=identity,
                           payload='{"text": {% filter tojson %}' + text + '{% endfilter %}}')

    return call(FAILED_TEXT), call(STALLED_TEXT)


def _email(address: str, sender: str, key: str) -> tuple[Any, Any]:
    from prefect.blocks.notifications import SendgridEmail
    from prefect.events.actions import SendNotification

    if not (sender and key):
        raise InputError("--email: e-mail goes through SendGrid; give --sender, an address that it knows, and its key "
                         "in the variable SENDGRID_API_KEY")
    block: Any = SendgridEmail(api_key=key, sender_email=sender, to_emails=[address])
    identity = block.save(BLOCK, overwrite=True)
    return (SendNotification(block_document_id=identity, subject="genai: a run failed", body=FAILED_TEXT),
            SendNotification(block_document_id=identity, subject="genai: a loss stalled", body=STALLED_TEXT))


def _failures() -> Any:
    from prefect.events import EventTrigger

    return EventTrigger(expect={f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut")},
                        match={"prefect.resource.id": "prefect.flow-run.*"}, posture="Reactive", threshold=1)


def _stalls() -> Any:
    from prefect.events import EventTrigger

    return EventTrigger(expect={STALLED}, posture="Reactive", threshold=1)


def _automation(name: str, trigger: Any, action: Any) -> str:
    from prefect.automations import Automation
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for earlier in client.read_automations_by_name(name):
            client.delete_automation(earlier.id)
    Automation(name=name, trigger=trigger, actions=[action]).create()
    return name


def _ours(client: Any) -> list[Any]:
    return [automation for automation in client.read_automations() if automation.name.startswith("genai: ")]


def _acted(client: Any, since: datetime) -> bool:
    """Whether an automation has told somebody, or could not, since then."""
    ends = ["prefect.automation.action.executed", "prefect.automation.action.failed"]
    wanted = {"occurred": {"since": since.isoformat()}, "event": {"prefix": ends}}
    answer = client.request("POST", "/events/filter", json={"filter": wanted})
    return bool(answer.json()["total"])
