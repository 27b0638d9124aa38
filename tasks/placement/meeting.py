"""Where several hosts meet for one stage: an address that the first, which runs the flow, serves while it lasts.

There the others find the order, and the first learns who has come, what is wrong with one, and which has fallen silent.
"""

import json
import time
from datetime import timedelta
from typing import Any
from uuid import uuid4

from genai_core.errors import InputError
from tasks.pipeline import StageRequest
from tasks.placement.torchrun import host_and_port, own_address

LEAVE_SECONDS = 10.0
CLOCK_SECONDS = 10.0
"""How far the clocks of two hosts may be apart: `torchrun` takes one for dead whose signs of life are 15 s old."""
LOOK_SECONDS = 1.0
LEFT = b"left"
"""The last sign of life of a host whose ranks have ended."""
NEVER = float("inf")
BEGINNING_SECONDS = 10.0
"""A host whose last sign of life is older when ranks begin is not among them: `torchrun` has waited longer for it."""


class Meeting:
    """On the first host: the address that it serves for one stage, with the order to the others."""

    def __init__(self, request: StageRequest):
        from torch.distributed import DistError, TCPStore

        self.name = uuid4().hex
        self._address, self._others = request.runtime.rendezvous, request.runtime.hosts - 1
        self._seconds, self._silent_seconds = request.runtime.meet_seconds, request.runtime.silent_seconds
        self._beats: dict[int, tuple[bytes, float]] = {}
        """Of each other host, its last sign of life and when it was first seen here; never for those that are lost."""
        host, port = host_and_port(self._address)
        if (own := own_address(self._address)).startswith("127.") and host != "localhost" and host != own:
            raise InputError(f"runtime.rendezvous {self._address}: on this machine {host} means {own}, where no other "
                             "one comes; give an IP address, or mend /etc/hosts")
        try:
            self._store: Any = TCPStore(host, port, is_master=True, wait_for_workers=False,
                                        timeout=timedelta(seconds=30))
        except (DistError, RuntimeError) as error:
            raise InputError(f"runtime.rendezvous {self._address}: this host cannot serve it "
                             f"({str(error).splitlines()[0]}); give an address of this machine and a free port"
                             ) from None
        self._store.set("order", json.dumps({"meeting": self.name, "request": request.model_dump(mode="json")}))

    def __enter__(self) -> "Meeting":
        return self

    def __exit__(self, *_: object) -> None:
        """The others end their ranks when the address is gone."""
        self._store = None

    def wait(self) -> None:
        """Until the others have come. Raises InputError after `runtime.meet_seconds`, with what one of them says, and
        for one whose clock is another's."""
        began, greeted = time.monotonic(), 0
        while greeted < self._others:
            self.raise_trouble()
            if greeted < self._store.add("came", 0):
                greeted += 1
                name, clock = json.loads(self._store.get(f"host-{greeted}"))
                if (apart := abs(time.time() - clock)) > CLOCK_SECONDS:
                    raise InputError(f"{name}: its clock and this host's are {apart:.0f} s apart, and ranks that are "
                                     "alive seem dead; set the clocks")
            elif time.monotonic() - began > self._seconds:
                raise InputError(f"runtime.hosts: {greeted} of {self._others} other hosts have come to {self._address} "
                                 f"within {self._seconds:.0f} s; run `genai join {self._address}` on each of them")
            else:
                time.sleep(LOOK_SECONDS / 10)

    def wait_for_leaving(self) -> None:
        """Let the others see the end of their ranks before the address is gone."""
        deadline = time.monotonic() + LEAVE_SECONDS
        while self._store.add("left", 0) < self._store.add("came", 0) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS / 10)

    def raise_trouble(self) -> None:
        """Raises InputError with what went wrong on another host."""
        if trouble := self.trouble():
            raise InputError(trouble)

    def trouble(self) -> str:
        store = self._store      # gone when the meeting is over
        return store.get("trouble").decode() if store and store.check(["trouble"]) else ""

    def fallen_silent(self) -> list[str]:
        """Hosts that have given no sign of life for `runtime.silent_seconds`; each is told of once."""
        store, now, silent = self._store, time.monotonic(), []
        for number in range(1, store.add("numbers", 0) + 1 if store else 0):
            if not store.check([alive(number)]):
                continue
            beat, since = store.get(alive(number)), now
            if beat == self._beats.get(number, (b"", now))[0]:
                since = self._beats[number][1]
            self._beats[number] = (beat, since)
            if now - since > self._silent_seconds and beat != LEFT:
                silent.append(json.loads(store.get(f"host-{number}"))[0])
                self._beats[number] = (beat, NEVER)
        return silent

    def ranks_began(self) -> None:
        """Ranks have begun, perhaps again: whoever was silent before is not among them, and is waited for no more."""
        for number, (beat, since) in list(self._beats.items()):
            if time.monotonic() - since > BEGINNING_SECONDS:
                self._beats[number] = (beat, NEVER)


def alive(number: int) -> str:
    """Under which name a host leaves its signs of life."""
    return f"alive-{number}"
