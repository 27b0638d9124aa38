"""Gates: a figure that misses its bound fails, and so does a model that is worse than its parent beyond noise."""

import numpy as np
import pytest

from genai_core.config.pipeline import load_pipeline
from genai_core.config.release import Gate, Pair, PromoteConfig
from genai_core.errors import InputError
from genai_core.evaluation.release.columns import parent_of
from genai_core.evaluation.release.gates import check_gates, check_pairs, judge


def gate(**values):
    return PromoteConfig(gates={"g": Gate(figure="int8/bpb", **values)})


@pytest.mark.parametrize(("values", "passed", "bound"), [
    ({"comparison": "<=", "bound": 2.0}, True, 2.0),
    ({"comparison": "<=", "bound": 1.9}, False, 1.9),
    ({"comparison": ">=", "bound": 1.99}, True, 1.99),
    ({"comparison": "<=", "bound": 1.005, "reference": "rlhf/bpb", "relative": True}, True, 1.995 * 1.005),
    ({"comparison": "<=", "bound": 0.001, "reference": "rlhf/bpb"}, False, 1.996),
])
def test_gates(values, passed, bound):
    (verdict,) = check_gates(gate(**values), {"int8/bpb": 2.0, "rlhf/bpb": 1.995})
    assert verdict.passed == passed
    assert verdict.bound == pytest.approx(bound)
    assert ("passed" if passed else "FAILED") in str(verdict)


@pytest.mark.parametrize("comparison", ["<=", ">="])
def test_a_figure_that_is_not_a_number_passes_no_gate(comparison):
    (verdict,) = check_gates(gate(comparison=comparison, bound=0), {"int8/bpb": float("nan")})
    assert not verdict.passed


def test_a_gate_on_an_unknown_figure_says_what_is_near():
    with pytest.raises(InputError, match="there is no figure 'int8/bpb'; near it are int8/bits"):
        check_gates(gate(comparison="<=", bound=0), {"int8/bits": 1.0})


QUESTIONS = 1000
ACCURACY, CHRF, BITS = "sentiment_accuracy", "translation_chrf", "bits_per_byte/test.prose"


def answers(right: float) -> list[list[float]]:
    """Outcomes of which the share `right` is right, the same questions first."""
    correct = np.arange(QUESTIONS) < right * QUESTIONS
    return [correct.astype(float).tolist(), [1.0] * QUESTIONS]


def stretches(bits_per_byte: float) -> list[list[float]]:
    difficulty = np.random.default_rng(1).normal(1, 0.1, 200)
    return [(bits_per_byte * 512 * difficulty).tolist(), [512.0] * 200]


def judged(recorder, pair: Pair, **models):
    """Verdicts by figure for models that are given as figure to outcomes."""
    tables = {name: {figure: sum(values) / sum(weights) for figure, (values, weights) in outcomes.items()}
              for name, outcomes in models.items()}
    config = PromoteConfig(pairs={"keeps": pair})
    return {verdict.gate.removeprefix("keeps/"): verdict for verdict in check_pairs(config, tables, models, recorder)}


@pytest.mark.parametrize(("child", "passed"), [(0.75, True), (0.8, True), (0.745, True), (0.735, False), (0.5, False)])
def test_a_model_that_lost_accuracy_beyond_noise_fails(recorder, child, passed):
    """The margin is two points; the interval decides, so that a loss of 1.5 points is not shown to be less than two."""
    verdicts = judged(recorder, Pair(model="rlhf", against="instruct"),
                      instruct={ACCURACY: answers(0.75)}, rlhf={ACCURACY: answers(child)})
    assert verdicts[ACCURACY].passed == passed, str(verdicts[ACCURACY])


def test_one_lost_task_is_enough_to_fail_and_is_named(recorder):
    scale = np.random.default_rng(0).normal(30, 5, QUESTIONS)
    good = {ACCURACY: answers(0.8), CHRF: [scale.tolist(), [1.0] * QUESTIONS]}
    worse = {ACCURACY: answers(0.9), CHRF: [(scale - 2).tolist(), [1.0] * QUESTIONS]}
    verdicts = judged(recorder, Pair(model="int8", against="rlhf"), rlhf=good, int8=worse)
    assert verdicts[ACCURACY].passed and not verdicts[CHRF].passed
    assert str(verdicts[CHRF]).startswith("FAILED: keeps/translation_chrf: translation_chrf of int8 minus rlhf: -2.0")


@pytest.mark.parametrize(("child", "passed"), [(2.0, True), (1.9, True), (2.05, True), (2.2, False)])
def test_bits_per_byte_may_cost_the_declared_bound(recorder, child, passed):
    verdicts = judged(recorder, Pair(model="instruct", against="base", bits_per_byte=0.1),
                      base={BITS: stretches(2.0)}, instruct={BITS: stretches(child)})
    assert verdicts[BITS].passed == passed


def test_a_gain_that_may_be_noise_is_no_gain(recorder):
    noise = np.random.default_rng(3).normal(0, 1, 60)
    pair = Pair(model="rlhf", against="instruct", tasks=False, gold_reward=0.0)

    def scored(values):
        return {name: [values.tolist(), [1.0] * 60] for name in ("gold_reward", "gold_reward_greedy")}

    small = judged(recorder, pair, instruct=scored(noise), rlhf=scored(noise[::-1] + 0.05))
    large = judged(recorder, pair, instruct=scored(noise), rlhf=scored(noise[::-1] + 0.8))
    assert not small["gold_reward"].passed and large["gold_reward"].passed


def test_a_policy_that_gains_by_chance_and_repeats_itself_in_a_chat_fails(recorder):
    noise = np.random.default_rng(4).normal(0, 1, 300)

    def scored(sampled, greedy):
        return {name: [(noise + gain).tolist(), [1.0] * 300]
                for name, gain in (("gold_reward", sampled), ("gold_reward_greedy", greedy))}

    verdicts = judged(recorder, Pair(model="rlhf", against="instruct", tasks=False, gold_reward=0.25),
                      instruct=scored(0, 0), rlhf=scored(0.9, -3.0))
    assert verdicts["gold_reward"].passed and not verdicts["gold_reward_greedy"].passed


def test_more_tasks_make_each_interval_wider(recorder):
    rest = {f"task{number}_accuracy": answers(0.5) for number in range(9)}
    pair = Pair(model="b", against="a")
    one = judged(recorder, pair, a={ACCURACY: answers(0.75)}, b={ACCURACY: answers(0.745)})[ACCURACY]
    ten = judged(recorder, pair, a={ACCURACY: answers(0.75), **rest}, b={ACCURACY: answers(0.745), **rest})[ACCURACY]
    assert ten.low < one.low < one.difference


def test_a_first_release_has_no_champion_and_says_so(recorder):
    verdicts = judged(recorder, Pair(model="int8", against="champion"), int8={ACCURACY: answers(0.7)})
    assert verdicts == {}
    assert recorder.notes == ["keeps: no release is in service yet, so there is none to be held against"]


@pytest.mark.parametrize(("override", "value", "message"), [
    ("promote.pairs.rlhf-keeps.against", "instructt", "promote.pairs.rlhf-keeps.against instructt is none of base, "),
    ("promote.gates.int8-size.figure", "int9/size", "promote.gates.int8-size: there can be no figure int9/size"),
    ("promote.margins.accuracy", "much", "promote.margins.accuracy"),
    ("promote.margins.acuracy", 0.01, "promote.margins.acuracy"),
])
def test_a_gate_that_can_never_be_judged_ends_the_run_before_it_begins(override, value, message):
    with pytest.raises(InputError, match=message):
        load_pipeline("laptop", {override: value})


def test_tightening_one_margin_leaves_the_others():
    margins = load_pipeline("laptop", {"promote.margins.accuracy": 0.01}).promote.margins
    assert (margins.accuracy, margins.exact_match, margins.chrf) == (0.01, 0.02, 1.0)


@pytest.mark.parametrize(("pair", "lost"), [
    (Pair(model="rlhf", against="instruct"), CHRF),
    (Pair(model="rlhf", against="instruct", bits_per_byte=0.1), BITS),
    (Pair(model="rlhf", against="instruct", bits_per_byte=0.1), "bits_per_byte/test.verse"),
    (Pair(model="rlhf", against="instruct", gold_reward=0.1), "gold_reward"),
    (Pair(model="rlhf", against="instruct", gold_reward=0.1), "gold_reward_greedy"),
])
@pytest.mark.parametrize("loser", ["instruct", "rlhf"])
def test_a_figure_that_one_of_two_models_lacks_is_an_error_and_not_a_pass(recorder, pair, lost, loser):
    models = {name: {ACCURACY: answers(0.7), CHRF: answers(0.3), BITS: stretches(2.0),
                     "bits_per_byte/test.verse": stretches(3.0), "gold_reward": answers(0.5),
                     "gold_reward_greedy": answers(0.5)} for name in ("instruct", "rlhf")}
    del models[loser][lost]
    with pytest.raises(InputError, match=f"promote.pairs.keeps: {loser} has no figure {lost},"):
        judged(recorder, pair, **models)


@pytest.mark.parametrize(("pair", "message"), [
    (Pair(model="rlhff", against="instruct"), "promote.pairs.keeps: there is no model 'rlhff'"),
    (Pair(model="rlhf", against="instruct", tasks=False), "rlhf and instruct have no figure in common"),
])
def test_a_pair_that_cannot_be_compared_is_an_error(recorder, pair, message):
    with pytest.raises(InputError, match=message):
        judged(recorder, pair, instruct={ACCURACY: answers(0.7)}, rlhf={ACCURACY: answers(0.7)})


DIALOGUE = "dialogue_bits_per_byte"


@pytest.mark.parametrize(("child", "passed"), [(2.0, True), (1.5, True), (2.04, True), (2.06, False), (3.0, False)])
def test_of_the_bits_per_byte_of_answers_fewer_are_better(recorder, child, passed):
    """Each question by its own bytes, so that a long answer counts for more; the margin is 0.05."""
    verdict = judged(recorder, Pair(model="rlhf", against="instruct"), instruct={DIALOGUE: stretches(2.0)},
                     rlhf={DIALOGUE: stretches(child)})[DIALOGUE]
    assert verdict.passed == passed, str(verdict)
    assert (verdict.comparison, verdict.bound) == ("<=", 0.05)
    assert verdict.difference == pytest.approx(child - 2.0, rel=0.02, abs=1e-9)


@pytest.mark.parametrize(("tables", "parents"), [
    (["base", "int8", "int4"], {"int8": "base", "int4": "base"}),
    (["base", "instruct", "int8"], {"instruct": "base", "int8": "instruct"}),
    (["base", "instruct", "rlhf", "int8", "int4"],
     {"instruct": "base", "rlhf": "instruct", "int8": "rlhf", "int4": "rlhf"}),
])
def test_the_parent_of_a_model_is_the_one_that_it_was_made_from_in_this_run(tables, parents):
    assert {model: parent_of(model, tables) for model in parents} == parents


def test_a_pair_against_the_parent_is_held_against_it_and_says_which_it_is(recorder):
    models = {"base": {ACCURACY: answers(0.9)}, "instruct": {ACCURACY: answers(0.7)}, "int8": {ACCURACY: answers(0.7)}}
    verdict = judged(recorder, Pair(model="int8", against="parent"), **models)[ACCURACY]
    assert verdict.passed and verdict.figure == f"{ACCURACY} of int8 minus instruct"


def test_what_is_asked_of_models_that_the_run_does_not_have_is_left_out_and_said_so(recorder, tmp_path):
    gates = {"small": Gate(figure="quantize/size", comparison="<=", bound=0.5),
             "kl": Gate(figure="rlhf/held_out_kl", comparison="<=", bound=9.0),
             "gain": Gate(figure="quantize/size", comparison="<=", bound=9.0, reference="reward/accuracy")}
    pairs = {"keeps": Pair(model="int8", against="base"), "rlhf-keeps": Pair(model="rlhf", against="instruct"),
             "int8-keeps-instruct": Pair(model="int8", against="instruct")}
    outcomes = {"base": {ACCURACY: answers(0.7)}, "int8": {ACCURACY: answers(0.7)}}
    tables = {"base": {ACCURACY: 0.7}, "int8": {ACCURACY: 0.7}}
    result = judge(PromoteConfig(gates=gates, pairs=pairs), {"quantize/size": 0.4}, tables, outcomes, tmp_path,
                   recorder, absent={"instruct", "reward", "rlhf"})
    assert result.metrics == {"gates": 2, "failed_gates": 0}
    left_out = [note for note in recorder.notes if "left out" in note]
    assert left_out == ["rlhf-keeps: left out, since this run has no rlhf",
                        "int8-keeps-instruct: left out, since this run has no instruct",
                        "kl: left out, since this run has no rlhf", "gain: left out, since this run has no reward"]


@pytest.mark.parametrize(("gate_on", "pair", "message"), [
    ("quantize/sise", None, "promote.gates.g: there is no figure 'quantize/sise'"),
    ("qantize/size", None, "promote.gates.g: there is no figure 'qantize/size'"),
    ("quantize/size", Pair(model="int9", against="base"), "promote.pairs.keeps: there is no model 'int9'"),
])
def test_a_typing_mistake_is_an_error_although_models_are_absent(recorder, tmp_path, gate_on, pair, message):
    config = PromoteConfig(gates={"g": Gate(figure=gate_on, comparison="<=", bound=1.0)},
                           pairs={"keeps": pair} if pair else {})
    outcomes = {"base": {ACCURACY: answers(0.7)}, "int8": {ACCURACY: answers(0.7)}}
    with pytest.raises(InputError, match=message):
        judge(config, {"quantize/size": 0.4}, {"base": {}, "int8": {}}, outcomes, tmp_path, recorder,
              absent={"instruct", "reward", "rlhf"})
