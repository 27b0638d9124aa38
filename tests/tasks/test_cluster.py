"""The mapper of a stage: which it is, and what is said of an address that cannot be one."""

import sys

import pytest
from pydantic import ValidationError

from genai_core.config.runtime import Runtime
from genai_core.errors import InputError
from genai_core.mapping import Processes
from tasks.placement.cluster import DaskCluster, Surroundings, call_beside, lacking, mapper_for

CORE = "genai_core.stages.clean"


def test_stages_are_mapped_over_this_machine_unless_a_cluster_is_named(tmp_path):
    assert isinstance(mapper_for(Runtime(workers=3), CORE, tmp_path), Processes)
    named = mapper_for(Runtime(data_cluster="tcp://scheduler:8786"), CORE, tmp_path)
    assert isinstance(named, DaskCluster) and named.address == "tcp://scheduler:8786"


def test_without_dask_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (DaskCluster("tcp://scheduler:8786", CORE, tmp_path) as mapper,
          pytest.raises(InputError, match=r"Dask is not installed; pip install -c constraints.txt -e '.\[dask\]'")):
        next(mapper(abs, [1]))


@pytest.mark.parametrize("address", ["tcp://scheduler:8786", "tls://10.0.0.1:8786", "tcp://[::1]:8786", ""])
def test_addresses_of_schedulers_are_taken(address):
    assert Runtime(data_cluster=address).data_cluster == address


@pytest.mark.parametrize("address", ["scheduler:8786", "http://scheduler:8787", "tcp://scheduler", "tcp://a:1 b",
                                     "tcp://scheduler:8786/?token=x"])
def test_what_is_no_address_of_a_scheduler_is_refused(address):
    with pytest.raises(ValidationError, match="write it as tcp://HOST:PORT or tls://HOST:PORT"):
        Runtime(data_cluster=address)


def test_an_address_with_a_password_is_refused_and_not_shown():
    with pytest.raises(ValidationError) as refused:
        Runtime(data_cluster="tcp://user:hunter2@scheduler:8786")
    (error,) = refused.value.errors(include_input=False)
    assert "a user or a password" in error["msg"] and "hunter2" not in error["msg"]


def test_a_worker_does_nothing_for_a_stage_whose_folder_is_gone(tmp_path):
    """A call that outlives its stage would make the scratch folder again."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    surroundings = Surroundings.here(CORE, folder)
    assert not lacking(surroundings) and call_beside(surroundings, abs, -1) == 1
    folder.rmdir()
    with pytest.raises(InputError, match="does not see"):
        call_beside(surroundings, abs, -1)


def test_a_worker_with_other_versions_is_told(tmp_path):
    here = Surroundings.here(CORE, tmp_path)
    other = Surroundings(here.folder, here.core, here.code, (*here.environment[1:], ("numpy", "0.1")))
    assert "in place of 0.1; install the same versions" in lacking(other)
