"""The right to make a key or to move a release, one host at a time, of those that share a Prefect server.

A lease is a variable on the server, whose name can be taken once. Its holder changes its value every few seconds; one
that has been read unchanged for a minute belongs to a holder that died. No clock is compared with another: whoever
waits counts its own looks. A lease lives through a restart of the server, which Prefect's concurrency limits do not
(their leases lie in the server's memory, the slots that they took in its database: docs/LOG.md).

When the server does not answer, the work is done without a lease: two hosts may then train the same model in vain, or
the later of two releases come into service without having been held against the earlier one.
"""

import hashlib
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from tasks.store import locks
from tasks.store.workspace import Workspace
from tasks.tracking import client as tracking
from tasks.tracking.curves import Repeating

logger = logging.getLogger("tasks")

BEAT_SECONDS = 15.0
LOOK_SECONDS = 5.0
LOOKS = 12
"""So many looks that find a lease unchanged, and its holder is dead."""
REMIND_SECONDS = 600.0


@contextmanager
def lease(workspace: Workspace, stage: str, key: str, on_loss: Callable[[], None] | None = None) -> Iterator[None]:
    """Make this key alone, of all processes of this workspace and of all hosts of this Prefect server.

    Who waits says for whom, and can be interrupted. `on_loss` is called when the lease is taken away: with it there is
    no going on without one, and what the server raises instead of giving it is raised.
    """
    folder = workspace.hidden / "locks"
    with locks.lock(folder / f"lease-{stage}-{key}.lock", f"{stage} {key}"):
        if not _has_server():
            yield
            return
        taken = _Lease(_name(stage, key), f"{stage} {key}", _place(folder), on_loss)
        with nullcontext() if on_loss else tracking.told(f"no lease for {taken.what}, so another host may do the same"):
            taken.take()
        beating = Repeating(BEAT_SECONDS, taken.beat)
        try:
            yield
        finally:
            beating.stop()
            with tracking.told(f"the lease of {taken.what} cannot be given back and ends within two minutes"):
                taken.give_back()


def place(workspace: Workspace) -> str:
    """What tells a workspace from all others, on whatever machine."""
    workspace.hidden.mkdir(parents=True, exist_ok=True)
    return _place(workspace.hidden)


def _name(stage: str, key: str) -> str:
    return f"genai_lease_{stage}_{key}".lower()


def _place(folder: Path) -> str:
    """What tells this workspace from all others. A lease of its own is of a dead process: a living one has the lock."""
    status = folder.stat()
    kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return hashlib.sha256(f"{kernel} {status.st_dev} {status.st_ino}".encode()).hexdigest()[:16]


class SignsOfLife:
    """Of whoever has the lease of a key, for one who looks every few seconds.

    Looks are counted, not seconds: while the server is away nobody can give a sign, and nobody looks.
    """

    def __init__(self, stage: str, key: str):
        self._name, self._id, self._last = _name(stage, key), "", ""
        self.unchanged = 0
        """So many looks in a row have found nothing new."""

    @property
    def seen(self) -> bool:
        """Whether there was any sign yet."""
        return bool(self._last)

    def look(self, patiently: bool = False) -> None:
        """Look once; `patiently` waits for a server that is away, as one does who has not begun yet."""
        with (nullcontext() if patiently else _without_patience()), _client() as client:
            found = client.read_variable_by_name(self._name)
        if found and found.value != self._last:
            self._id, self._last, self.unchanged = str(found.id), str(found.value), 0
        else:
            self.unchanged += 1

    def take_away(self) -> None:
        """Take the lease from its holder, who gives up when it sees that."""
        if self._id:
            _delete(self._id)


class _Lease:
    def __init__(self, name: str, what: str, place: str, on_loss: Callable[[], None] | None):
        self.name, self.what, self._place, self._on_loss = name, what, place, on_loss
        self._nonce, self._beats = uuid4().hex, 0
        self._since = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        self._id = ""

    def take(self) -> None:
        """Wait for the lease; the one of a dead holder is taken away from it."""
        unchanged, last, told = 0, "", 0.0
        while True:
            found = self._created() or self._read()
            if found is None:      # given back between the two
                continue
            value = _value(found)
            if value.get("nonce") == self._nonce:      # a request whose answer was lost is sent again
                self._id = str(found.id)
                return
            unchanged = unchanged + 1 if found.value == last else 0
            last = found.value
            if value.get("place") == self._place or unchanged >= LOOKS:
                logger.warning("the holder of %s, %s, is dead: taking over", self.what, _who(value))
                _delete(str(found.id))
                continue
            if not told or time.monotonic() - told > REMIND_SECONDS:
                told = time.monotonic()
                logger.warning("waiting for %s: %s", self.what, _who(value))
            time.sleep(LOOK_SECONDS)

    def beat(self) -> None:
        """Show that the holder lives."""
        if not self._id:
            return
        self._beats += 1
        with _without_patience(), _client() as client, _gone_is_well():
            client.request("PATCH", f"/variables/{self._id}", json={"value": self._text()})
            return
        logger.warning("the lease of %s was taken away after a long silence: another host may do the same", self.what)
        self._id = ""
        if self._on_loss:
            self._on_loss()

    def give_back(self) -> None:
        if self._id:
            _delete(self._id)

    def _text(self) -> str:
        return json.dumps({"who": locks.holder.get() or f"process {os.getpid()}", "host": socket.gethostname(),
                           "since": self._since, "place": self._place, "nonce": self._nonce, "beats": self._beats})

    def _created(self) -> Any:
        from prefect.client.schemas.actions import VariableCreate
        from prefect.exceptions import ObjectAlreadyExists

        with _client() as client:
            try:
                return client.create_variable(VariableCreate(name=self.name, value=self._text(), tags=["genai-lease"]))
            except ObjectAlreadyExists:
                return None

    def _read(self) -> Any:
        with _client() as client:
            return client.read_variable_by_name(self.name)


def _delete(variable_id: str) -> None:
    """By its id, so that nobody's newer lease of the same name goes."""
    with _client() as client, _gone_is_well():
        client.request("DELETE", f"/variables/{variable_id}")


@contextmanager
def _gone_is_well() -> Iterator[None]:
    from httpx import HTTPStatusError, codes

    try:
        yield
    except HTTPStatusError as error:
        if error.response.status_code != codes.NOT_FOUND:
            raise


@contextmanager
def _without_patience() -> Iterator[None]:
    """Requests fail at once: the next sign or look makes up for one, while a client that waits to try again would be
    silent long after the server is back."""
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        yield


def _has_server() -> bool:
    """Whether there is a server to ask: without an address the client would start one of its own."""
    from prefect.settings import get_current_settings

    return get_current_settings().api.url is not None


def _client() -> Any:
    from prefect.client.orchestration import get_client

    return get_client(sync_client=True)


def _value(variable: Any) -> dict[str, Any]:
    try:
        value = json.loads(variable.value)
        return value if isinstance(value, dict) else {}
    except (TypeError, ValueError):
        return {}


def _who(value: dict[str, Any]) -> str:
    return f"{value.get('who', 'another run')} on {value.get('host', 'another host')} has it since " \
           f"{value.get('since', 'some time')}"
