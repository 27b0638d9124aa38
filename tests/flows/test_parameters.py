"""The form of the Prefect UI: empty means the preset, bounds are the configs' own, and nothing untouched is sent."""

import re

import pytest
from pydantic import ValidationError

from flows.cli.combinations import combinations
from flows.parameters import Fields, overrides_of
from flows.pipeline_run import Limits, Request, describe
from flows.train_llm import train_llm
from genai_core.config.pipeline import load_pipeline
from genai_core.errors import InputError


def test_an_untouched_form_changes_nothing():
    assert overrides_of(0, Fields(), {}) == {}
    assert load_pipeline("smoke", overrides_of(0, Fields(), {})) == load_pipeline("smoke")


def test_what_is_filled_in_reaches_the_config():
    fields = Fields(clean={"mask_personal_data": "no"}, pretrain={"tokens": 5000}, reward={"sources": ["vader/tweets"]})
    overrides = overrides_of(2, fields, {"promote.gates.int8-size.bound": 0.3})
    config = load_pipeline("smoke", overrides)
    assert config.depth == 2 and config.pretrain.tokens == 5000 and config.pretrain.layers == 2
    assert config.clean.mask_personal_data is False and config.reward.sources == ("vader/tweets",)
    assert config.promote.gates["int8-size"].bound == 0.3


def test_no_field_is_a_switch_since_an_untouched_switch_says_off():
    definitions = train_llm.parameters.model_dump()["definitions"]
    kinds = {f"{form}.{name}": field.get("type") for form, fields in definitions.items()
             for name, field in fields["properties"].items()}
    assert len(kinds) > 90 and "boolean" not in kinds.values()
    assert definitions["CleanFields"]["properties"]["mask_personal_data"]["enum"] == ["yes", "no"]
    assert all("default" not in field and "anyOf" not in field for form in set(definitions) - {"Fields"}
               for field in definitions[form]["properties"].values())


def test_of_a_part_that_has_fields_of_its_own_only_what_is_filled_in_counts():
    assert overrides_of(0, Fields(evaluate={"gold": {}}), {}) == {}
    overrides = overrides_of(0, Fields(evaluate={"gold": {"label": "negative"}}), {})
    gold = load_pipeline("smoke", overrides).evaluate.gold
    assert (gold.task, gold.label) == ("sentiment", "negative")
    with pytest.raises(ValidationError):
        Fields(evaluate={"gold": {"fraction": 2}})


def test_a_part_that_the_preset_lacks_is_there_once_a_field_of_it_is_filled_in():
    assert load_pipeline("smoke", overrides_of(0, Fields(), {})).instruct.lora is None
    lora = load_pipeline("smoke", overrides_of(0, Fields(instruct={"lora": {"rank": 8}}), {})).instruct.lora
    assert (lora.rank, lora.alpha, lora.targets) == (8, 32, ("all-linear",))


@pytest.mark.parametrize("fields", [{"pretrain": {"tokens": 3}}, {"pretrain": {"token": 5000}}, {"cook": {}},
                                    {"rlhf": {"on_non_finite": "explode"}}])
def test_a_bad_value_is_refused(fields):
    with pytest.raises(ValidationError):
        Fields(**fields)


def test_a_field_set_twice_is_refused():
    with pytest.raises(InputError, match=r"pretrain.tokens: set in the form and in overrides"):
        overrides_of(0, Fields(pretrain={"tokens": 5000}), {"pretrain.tokens": 6000})


def test_the_command_of_a_request_starts_the_same_run():
    request = Request("smoke", {"pretrain.seed": 3, "rlhf.on_non_finite": "stop"}, until="instruct")
    assert request.command() == ("genai run --preset smoke --set pretrain.seed=3 --set 'rlhf.on_non_finite=\"stop\"' "
                                 "--until instruct")
    with pytest.raises(InputError, match="until: unknown stage 'cook'"):
        Request("smoke", {}, until="cook").config()


def test_a_run_is_called_by_what_it_is():
    assert re.fullmatch(r"laptop · instruct\.epochs=2 · \d{4}-\d\d-\d\d \d\d:\d\d",
                        describe(Request("laptop", {"instruct.epochs": 2})))
    assert describe(Request("/home/me/mine.yaml", {}, until="pretrain", family="vae")).startswith(
        "vae · mine.yaml · until pretrain · ")
    assert len(describe(Request("smoke", {f"pretrain.field_{number}": number for number in range(50)}))) < 120


def test_combinations_of_a_sweep():
    assert combinations(["a.b=1,2", "c.d=1e-3"]) == [{"a.b": 1, "c.d": 0.001}, {"a.b": 2, "c.d": 0.001}]
    for bad in (["a.b"], ["a.b="], ["a.b=1", "a.b=2"]):
        with pytest.raises(InputError):
            combinations(bad)


@pytest.mark.parametrize(("limits", "price", "seconds"), [
    (Limits(), 0, None), (Limits(max_hours=2), 0, 7200), (Limits(max_cost=1), 4, 900),
    (Limits(max_hours=2, max_cost=1), 4, 900), (Limits(max_hours=0.1, max_cost=1), 4, 360)])
def test_a_budget_is_the_sooner_of_time_and_money(limits, price, seconds):
    assert limits.seconds(price) == seconds


def test_a_cost_without_a_price_is_refused():
    with pytest.raises(InputError, match=r"max_cost.*set runtime\.price_per_hour"):
        Limits(max_cost=1).seconds(0)


def test_limits_are_no_part_of_the_command_that_makes_the_same_again():
    assert Request("smoke", {}, limits=Limits(1, 1, 1)).command() == Request("smoke", {}).command()
