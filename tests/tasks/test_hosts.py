"""Where hosts meet: what the first one says of another that does not come, or has another time, or is in trouble."""

import json
import socket
import time
from datetime import timedelta

import pytest
import torch
from torch.distributed import TCPStore

from genai_core.config.pipeline import load_pipeline
from genai_core.config.runtime import Runtime
from genai_core.errors import InputError
from tasks.catalog import find_stage
from tasks.pipeline import RunIdentity, StageRequest
from tasks.placement import meeting as meetings
from tasks.placement.apart import runs_apart
from tasks.placement.meeting import LEFT, Meeting, alive
from tasks.placement.torchrun import environment_of_ranks, host_and_port, require_devices, torchrun
from tasks.store.artifacts import KeyParts
from tests.end_to_end.helpers import free_port


@pytest.fixture
def request_of_two(tmp_path):
    runtime = Runtime(processes=2, hosts=2, rendezvous=f"127.0.0.1:{free_port()}", meet_seconds=1)
    parts = KeyParts(stage="pretrain", config={}, inputs={}, code={})
    return StageRequest(family="", parts=parts, inputs={}, runtime=runtime, workspace=tmp_path, identity=RunIdentity())


def other_host(request, clock: float = 0.0) -> TCPStore:
    """Comes to the meeting with a clock that is some seconds off."""
    port = int(request.runtime.rendezvous.rpartition(":")[2])
    store = TCPStore("127.0.0.1", port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=5))
    store.set("host-1", json.dumps(["far", time.time() + clock]))
    store.add("came", 1)
    return store


def test_a_host_that_comes_is_waited_for_and_one_that_does_not_is_told(request_of_two):
    with Meeting(request_of_two) as meeting:
        with pytest.raises(InputError, match=r"0 of 1 other hosts have come to .* within 1 s; run `genai join"):
            meeting.wait()
        store = other_host(request_of_two)
        meeting.wait()
        assert json.loads(store.get("order"))["meeting"] == meeting.name
    with Meeting(request_of_two):      # the port is free again
        pass


def test_a_clock_that_is_off_is_told(request_of_two):
    with Meeting(request_of_two) as meeting:
        other_host(request_of_two, clock=400)
        with pytest.raises(InputError, match=r"far: its clock and this host's are (399|400) s apart"):
            meeting.wait()


def test_what_another_host_says_is_raised_here(request_of_two):
    with Meeting(request_of_two) as meeting:
        other_host(request_of_two).set("trouble", "far: has other code")
        with pytest.raises(InputError, match=r"far: has other code"):
            meeting.wait()


def test_a_host_without_signs_of_life_is_told_of_once_and_one_that_left_is_not(request_of_two):
    with Meeting(request_of_two) as meeting:
        meeting._silent_seconds = 0.2
        store = other_host(request_of_two)
        store.add("numbers", 2)
        assert not meeting.fallen_silent()      # nothing was heard of it yet
        store.set(alive(1), "1")
        store.set(alive(2), LEFT)
        assert not meeting.fallen_silent()
        time.sleep(0.3)
        store.set(alive(1), "2")
        assert not meeting.fallen_silent()
        time.sleep(0.3)
        assert meeting.fallen_silent() == ["far"] and not meeting.fallen_silent()


def test_a_host_that_was_lost_before_the_ranks_began_again_costs_no_rank(request_of_two, monkeypatch):
    monkeypatch.setattr(meetings, "BEGINNING_SECONDS", 0.1)
    with Meeting(request_of_two) as meeting:
        meeting._silent_seconds = 0.3
        store = other_host(request_of_two)
        store.add("numbers", 1)
        store.set(alive(1), "1")
        assert not meeting.fallen_silent()
        time.sleep(0.2)
        meeting.ranks_began()
        time.sleep(0.3)
        assert not meeting.fallen_silent()


def test_an_address_that_is_taken_or_leads_nowhere_is_told(request_of_two, monkeypatch):
    with Meeting(request_of_two), pytest.raises(InputError, match=r"this host cannot serve it"):
        Meeting(request_of_two)
    named = request_of_two.model_copy(update={"runtime": Runtime(processes=2, hosts=2, rendezvous="gpu-1:29400")})
    monkeypatch.setattr(meetings, "own_address", lambda address: "127.0.1.1")
    with pytest.raises(InputError, match=r"on this machine gpu-1 means 127.0.1.1, where no other one comes"):
        Meeting(named)
    for wrong in ("gpu-1", ":29400", "gpu-1:http"):
        with pytest.raises(InputError, match=r"write it as HOST:PORT"):
            host_and_port(wrong)


def test_more_ranks_than_gpus_are_refused_before_anything_starts(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(InputError, match=r"4 ranks on a machine, but this one has 2 GPUs; take 2"):
        require_devices(Runtime(processes=4), 4)
    require_devices(Runtime(processes=4, device="cpu"), 4)
    require_devices(Runtime(processes=2), 2)


def test_the_command_of_ranks_names_the_meeting_of_several_hosts_alone(tmp_path, monkeypatch):
    assert "--standalone" in torchrun(Runtime(processes=2), tmp_path)
    several = torchrun(Runtime(processes=4, hosts=2, rendezvous="127.0.0.1:29400"), tmp_path, "name")
    assert several[several.index("--nproc-per-node") + 1] == "2" and several[several.index("--rdzv-id") + 1] == "name"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert "OMP_NUM_THREADS" not in environment_of_ranks(Runtime(processes=2))      # the user's own goes first
    two = Runtime(processes=2, hosts=2, rendezvous="127.0.0.1:29400")
    assert environment_of_ranks(two)["GLOO_SOCKET_IFNAME"] == next(
        name for _, name in socket.if_nameindex() if name.startswith("lo"))


@pytest.mark.parametrize(("runtime", "stage", "apart"), [
    ({}, "pretrain", False), ({"processes": 2}, "pretrain", True), ({"processes": 2}, "evaluate", True),
    ({"processes": 2}, "quantize", False),
    ({"stages_at_once": 2}, "evaluate", True), ({"stages_at_once": 2}, "clean", False)])
def test_which_stages_run_in_other_processes(runtime, stage, apart):
    assert runs_apart(find_stage("", stage), Runtime(**runtime)) is apart


@pytest.mark.parametrize(("wrong", "says"), [
    ({"runtime.processes": 3, "runtime.hosts": 2}, "processes 3 is not a multiple of hosts 2"),
    ({"runtime.processes": 2, "runtime.hosts": 2}, "set rendezvous to HOST:PORT"),
    ({"runtime.processes": 2, "runtime.stages_at_once": 2}, "leave one of the two at 1")])
def test_settings_that_do_not_go_together_are_told(wrong, says):
    with pytest.raises(InputError, match=says):
        load_pipeline("smoke", wrong)
