"""Configs of the other generative families: each family is a config whose sections are its stages."""

from functools import partial
from typing import Any

from pydantic import ValidationError

from genai_core.config.base import Config
from genai_core.config.data import CollectConfig, TokenizeConfig
from genai_core.config.pipeline import PRESETS, Runtime, explain, merged, read_preset, read_yaml, set_value
from genai_core.config.release import PromoteConfig
from genai_core.config.training import PretrainConfig
from genai_core.errors import InputError
from genai_core.families.classification.config import (
    ClassificationEvaluationConfig,
    FineTuneConfig,
    ManyToOneConfig,
    MaskedConfig,
    NamesEvaluationConfig,
    OneToManyConfig,
    ReviewsConfig,
)
from genai_core.families.code.config import CodeEvaluationConfig
from genai_core.families.encoder_decoder.config import (
    EncoderDecoderConfig,
    PairEvaluationConfig,
    PairsConfig,
    Seq2SeqConfig,
)
from genai_core.families.images.config import (
    AugmentedClassifierConfig,
    ClassifierConfig,
    DiffusionConfig,
    DiffusionEvaluationConfig,
    DigitsConfig,
    GanConfig,
    ImageEvaluationConfig,
    VaeConfig,
)
from genai_core.families.recurrent.config import (
    CharacterEvaluationConfig,
    ComparisonEvaluationConfig,
    PositionalConfig,
    RecurrentConfig,
    TuneEvaluationConfig,
)

FAMILY_PRESETS = ("laptop", "smoke")


class FamilyConfig(Config):
    """What every family has beside its own stages."""

    family: str
    """Name of the family."""
    runtime: Runtime = Runtime()
    collect: CollectConfig
    promote: PromoteConfig = PromoteConfig()


class RecurrentFamily(FamilyConfig):
    """Language models of recurrent cells, on characters."""

    characters: TokenizeConfig
    rnn: RecurrentConfig
    lstm: RecurrentConfig
    gru: RecurrentConfig
    character_transformer: PretrainConfig
    evaluate: CharacterEvaluationConfig = CharacterEvaluationConfig()


class ManyToManyFamily(FamilyConfig):
    """Recurrent cells from sequence to sequence."""

    pairs: PairsConfig = PairsConfig()
    rnn_translator: Seq2SeqConfig
    lstm_translator: Seq2SeqConfig
    gru_translator: Seq2SeqConfig
    evaluate: PairEvaluationConfig = PairEvaluationConfig()


class Seq2SeqFamily(FamilyConfig):
    """Sequence to sequence, without and with attention."""

    pairs: PairsConfig = PairsConfig()
    no_attention: Seq2SeqConfig
    bahdanau: Seq2SeqConfig
    luong: Seq2SeqConfig
    evaluate: PairEvaluationConfig = PairEvaluationConfig()


class T5Family(FamilyConfig):
    """An encoder-decoder transformer, text to text."""

    pairs: PairsConfig
    t5: EncoderDecoderConfig
    luong: Seq2SeqConfig
    evaluate: PairEvaluationConfig = PairEvaluationConfig()


class ManyToOneFamily(FamilyConfig):
    """Recurrent cells from a text to its label."""

    reviews: ReviewsConfig
    rnn_classifier: ManyToOneConfig
    lstm_classifier: ManyToOneConfig
    gru_classifier: ManyToOneConfig
    evaluate: ClassificationEvaluationConfig = ClassificationEvaluationConfig()


class OneToManyFamily(FamilyConfig):
    """Recurrent cells from an image to its name."""

    digits: DigitsConfig = DigitsConfig()
    rnn_namer: OneToManyConfig
    lstm_namer: OneToManyConfig
    gru_namer: OneToManyConfig
    evaluate: NamesEvaluationConfig = NamesEvaluationConfig()


class PositionsFamily(FamilyConfig):
    """How a transformer knows positions."""

    characters: TokenizeConfig
    sinusoidal_positions: PositionalConfig
    learned_positions: PositionalConfig
    rotary_positions: PositionalConfig
    no_positions: PositionalConfig
    evaluate: ComparisonEvaluationConfig = ComparisonEvaluationConfig()


class OptimizersFamily(FamilyConfig):
    """SGD, Adam and Muon."""

    characters: TokenizeConfig
    sgd_optimizer: PositionalConfig
    adam_optimizer: PositionalConfig
    muon_optimizer: PositionalConfig
    evaluate: ComparisonEvaluationConfig = ComparisonEvaluationConfig()


class MusicFamily(FamilyConfig):
    """Folk music in ABC notation."""

    tune_characters: TokenizeConfig
    tune_lstm: RecurrentConfig
    tune_transformer: PretrainConfig
    evaluate: TuneEvaluationConfig = TuneEvaluationConfig()


class CodeFamily(FamilyConfig):
    """Code completion."""

    code_tokens: TokenizeConfig
    code_model: PretrainConfig
    evaluate: CodeEvaluationConfig = CodeEvaluationConfig()


class BertFamily(FamilyConfig):
    """A bidirectional encoder: masked tokens, then few labels."""

    reviews: ReviewsConfig
    masked_encoder: MaskedConfig
    fine_tuned: FineTuneConfig
    frozen_features: FineTuneConfig
    from_scratch: FineTuneConfig
    evaluate: ClassificationEvaluationConfig = ClassificationEvaluationConfig()


class VaeFamily(FamilyConfig):
    """Variational autoencoders of digit images."""

    digits: DigitsConfig = DigitsConfig()
    digit_classifier: ClassifierConfig
    vae: VaeConfig
    conditional_vae: VaeConfig
    collapsed_vae: VaeConfig
    evaluate: ImageEvaluationConfig = ImageEvaluationConfig()


class GanFamily(FamilyConfig):
    """Adversarial networks that make digit images."""

    digits: DigitsConfig = DigitsConfig()
    digit_classifier: ClassifierConfig
    vae: VaeConfig
    dcgan: GanConfig
    wgan: GanConfig
    collapsed_gan: GanConfig
    evaluate: ImageEvaluationConfig = ImageEvaluationConfig()


class DiffusionFamily(FamilyConfig):
    """A diffusion model of digit images."""

    digits: DigitsConfig = DigitsConfig()
    digit_classifier: ClassifierConfig
    conditional_vae: VaeConfig
    diffusion: DiffusionConfig
    evaluate: DiffusionEvaluationConfig = DiffusionEvaluationConfig()


class AugmentationFamily(FamilyConfig):
    """Made digits added to few real ones."""

    few_digits: DigitsConfig
    few_vae: VaeConfig
    few_classifier: ClassifierConfig
    augmented_classifier: AugmentedClassifierConfig
    evaluate: ImageEvaluationConfig = ImageEvaluationConfig()


FAMILIES: dict[str, type[FamilyConfig]] = {
    "recurrent": RecurrentFamily,
    "many_to_one": ManyToOneFamily,
    "one_to_many": OneToManyFamily,
    "many_to_many": ManyToManyFamily,
    "seq2seq": Seq2SeqFamily,
    "t5": T5Family,
    "bert": BertFamily,
    "positions": PositionsFamily,
    "optimizers": OptimizersFamily,
    "music": MusicFamily,
    "code": CodeFamily,
    "vae": VaeFamily,
    "gan": GanFamily,
    "diffusion": DiffusionFamily,
    "augmentation": AugmentationFamily,
}


def load_family(family: str, preset: str, overrides: dict[str, Any] | None = None) -> FamilyConfig:
    """The config of a family: its preset `laptop`, what `smoke` changes, then `overrides` (`stage.field` to value).

    `preset` may also be the path of a YAML file: a whole config, as a run stores it, or what changes in the preset or
    file that it `extends`.
    Raises InputError, in one line that names the field, for anything that is not right.
    """
    if family not in FAMILIES:
        raise InputError(f"unknown family {family!r}; there are {', '.join(FAMILIES)}")
    values = read_preset(preset, {name: partial(_shipped, family, name) for name in FAMILY_PRESETS})
    values["family"] = family
    for dotted, value in (overrides or {}).items():
        set_value(values, dotted, value)
    try:
        return FAMILIES[family].model_validate(values)
    except ValidationError as error:
        raise InputError(explain(error, family, FAMILIES[family])) from None


def section_names(family: str) -> tuple[str, ...]:
    """The stages of a family, each with a section of its own, in the order in which they run."""
    fields = [name for name in FAMILIES[family].model_fields if name not in ("family", "runtime", "promote", "collect")]
    return ("collect", *fields, "promote")


def _shipped(family: str, preset: str) -> dict[str, Any]:
    presets = read_yaml(str(PRESETS / "families" / f"{family}.yaml"))
    values = presets["laptop"] if preset == "laptop" else merged(presets["laptop"], presets["smoke"])
    values["collect"]["sources"] = _defined(values["collect"]["sources"])
    return values


def _defined(chosen: dict[str, dict[str, Any] | None]) -> dict[str, Any]:
    """The sources that a preset names, with their definitions from `sources.yaml` below what it says itself."""
    definitions = read_yaml(str(PRESETS / "families" / "sources.yaml"))
    return {name: merged(definitions.get(name, {}), values or {}) for name, values in chosen.items()}
