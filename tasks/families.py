"""The other generative families: which stages each has, and what its models are judged by."""

from dataclasses import dataclass

from tasks.family_stages import (
    CHARACTERS,
    CLASSIFIER,
    COLLECT,
    CONDITIONAL_VAE,
    DIGITS,
    GATES,
    PAIRS,
    REVIEWS,
    VAE,
    dataset,
    evaluation,
    model,
    pair_model,
)
from tasks.stage import Stage

CELLS = ("rnn", "lstm", "gru")


@dataclass(frozen=True)
class Family:
    """A family of models that are trained and judged together."""

    name: str
    title: str
    stages: tuple[Stage, ...]
    """Between `collect` and `promote`, in the order in which they run; the evaluation is the last."""
    figures: tuple[str, ...]
    """Figures of the evaluation that tell how good a model is, the most telling one first."""
    shown_model: str
    """The model that `genai generate FAMILY` takes."""
    curves: tuple[str, ...] = ("loss", "validation_loss", "validation_accuracy")
    """Curves of each model's training that the report shows, where there are such."""

    @property
    def all_stages(self) -> tuple[Stage, ...]:
        return (COLLECT, *self.stages, GATES)

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(stage.name for stage in self.stages if stage.kind == "model")


def _recurrent() -> Family:
    judged = (*CELLS, "character_transformer")
    return Family(
        "recurrent", "Recurrent language models",
        (CHARACTERS,
         *(model(cell, "genai_core.families.recurrent.objective", f"train a language model of {cell.upper()} cells",
                 tokens="characters") for cell in CELLS),
         model("character_transformer", "genai_core.stages.pretrain", "train a transformer for about as many seconds",
               tokens="characters"),
         evaluation("genai_core.families.recurrent.evaluation", judged, tokens="characters")),
        ("bits_per_character",), "lstm")


def _many_to_one() -> Family:
    judged = tuple(f"{cell}_classifier" for cell in CELLS)
    return Family(
        "many_to_one", "Many to one: recurrent cells from a text to its label",
        (REVIEWS,
         *(model(name, "genai_core.families.many_to_one.objective", "train a recurrent classifier", data="reviews")
           for name in judged),
         evaluation("genai_core.families.classification.evaluation", judged, data="reviews")),
        ("accuracy", "majority_accuracy"), "gru_classifier")


def _one_to_many() -> Family:
    judged = tuple(f"{cell}_namer" for cell in CELLS)
    return Family(
        "one_to_many", "One to many: recurrent cells from an image to its name",
        (DIGITS,
         *(model(name, "genai_core.families.one_to_many.objective", "train a decoder that writes names", data="digits")
           for name in judged),
         evaluation("genai_core.families.one_to_many.evaluation", judged, data="digits")),
        ("exact_match",), "gru_namer", ("loss", "validation_exact_match"))


def _many_to_many() -> Family:
    judged = tuple(f"{cell}_translator" for cell in CELLS)
    return Family(
        "many_to_many", "Many to many: recurrent cells from sentence to sentence",
        (PAIRS,
         *(pair_model(name, "genai_core.families.encoder_decoder.train_recurrent", "train a recurrent encoder and decoder") for name in judged),
         evaluation("genai_core.families.encoder_decoder.evaluation", judged, data="pairs")),
        ("chrf", "bleu"), "gru_translator")


def _seq2seq() -> Family:
    judged = ("no_attention", "bahdanau", "luong")
    return Family(
        "seq2seq", "Sequence to sequence, without and with attention",
        (PAIRS,
         *(pair_model(name, "genai_core.families.encoder_decoder.train_recurrent", f"train an encoder and decoder: {name.replace('_', ' ')}")
           for name in judged),
         evaluation("genai_core.families.encoder_decoder.evaluation", judged, data="pairs")),
        ("chrf", "bleu", "chrf_from_8_words"), "luong")


def _t5() -> Family:
    return Family(
        "t5", "Encoder-decoder transformer: text to text",
        (PAIRS,
         pair_model("t5", "genai_core.families.encoder_decoder.train_transformer", "train an encoder-decoder transformer on every task"),
         pair_model("luong", "genai_core.families.encoder_decoder.train_recurrent", "train a recurrent one for about as many seconds"),
         evaluation("genai_core.families.encoder_decoder.evaluation", ("t5", "luong"), data="pairs")),
        ("chrf", "bleu", "sentiment_accuracy", "title_chrf"), "t5")


def _bert() -> Family:
    judged = ("fine_tuned", "frozen_features", "from_scratch")
    return Family(
        "bert", "Bidirectional encoder: masked tokens, then few labels",
        (REVIEWS,
         model("masked_encoder", "genai_core.families.bert.masked_tokens", "train an encoder to fill in masked tokens",
               data="reviews"),
         *(model(name, "genai_core.families.bert.fine_tuning", f"learn the sentiment of reviews: {name.replace('_', ' ')}",
                 data="reviews", encoder="masked_encoder") for name in judged),
         evaluation("genai_core.families.classification.evaluation", judged, data="reviews")),
        ("accuracy", "accuracy_100_labels", "accuracy_1000_labels", "accuracy_10000_labels"), "fine_tuned",
        ("loss", "held_out_masked_accuracy"))


def _positions() -> Family:
    judged = ("sinusoidal_positions", "learned_positions", "rotary_positions", "no_positions")
    return Family(
        "positions", "How a transformer knows positions",
        (CHARACTERS,
         *(model(name, "genai_core.families.positions.objective", f"train with {name.replace('_', ' ')}", tokens="characters")
           for name in judged),
         evaluation("genai_core.families.positions.evaluation", judged, tokens="characters")),
        ("bits_per_character", "bits_per_character_longer"), "rotary_positions", ())


def _optimizers() -> Family:
    judged = ("sgd_optimizer", "adam_optimizer", "muon_optimizer")
    return Family(
        "optimizers", "SGD, Adam and Muon",
        (CHARACTERS,
         *(model(name, "genai_core.families.positions.objective", f"train with the {name.replace('_', ' ')}",
                 tokens="characters") for name in judged),
         evaluation("genai_core.families.positions.evaluation", judged, tokens="characters")),
        ("bits_per_character",), "muon_optimizer", ())


def _music() -> Family:
    tunes = dataset("tune_characters", "genai_core.stages.tokenize", "cut the tunes into characters", argument="cleaned")
    judged = ("tune_lstm", "tune_transformer")
    return Family(
        "music", "Folk music in ABC notation",
        (tunes,
         model("tune_lstm", "genai_core.families.recurrent.objective", "train an LSTM on tunes", tokens="tune_characters"),
         model("tune_transformer", "genai_core.stages.pretrain", "train a transformer on tunes",
               tokens="tune_characters"),
         evaluation("genai_core.families.music.evaluation", judged, tokens="tune_characters")),
        ("bits_per_character", "parsed", "in_time"), "tune_transformer")


def _code() -> Family:
    tokens = dataset("code_tokens", "genai_core.stages.tokenize", "learn the words of code, cut it into them",
                     argument="cleaned")
    return Family(
        "code", "Code completion",
        (tokens,
         model("code_model", "genai_core.stages.pretrain", "train a transformer on the standard library",
               tokens="code_tokens"),
         evaluation("genai_core.families.code.evaluation", ("code_model",), tokens="code_tokens", collected="collect")),
        ("bits_per_character", "line_exact_match", "line_similarity", "parsed", "pass_at_1"), "code_model")


def _vae() -> Family:
    judged = ("vae", "conditional_vae", "collapsed_vae")
    return Family(
        "vae", "Variational autoencoders",
        (DIGITS, CLASSIFIER, VAE, CONDITIONAL_VAE,
         model("collapsed_vae", "genai_core.families.vae.objective", "train one whose prior is too strong: its code dies",
               data="digits"),
         evaluation("genai_core.families.vae.evaluation", judged, data="digits", classifier="digit_classifier")),
        ("frechet_distance", "squared_error", "elbo", "active_dimensions"), "conditional_vae",
        ("reconstruction", "divergence"))


def _gan() -> Family:
    judged = ("dcgan", "wgan", "collapsed_gan")
    return Family(
        "gan", "Generative adversarial networks",
        (DIGITS, CLASSIFIER, VAE,
         *(model(name, "genai_core.families.gan.objective", "train a generator against a discriminator", data="digits",
                 classifier="digit_classifier") for name in judged),
         evaluation("genai_core.families.gan.evaluation", (*judged, "vae"), data="digits", classifier="digit_classifier")),
        ("frechet_distance", "classes_covered", "confidence"), "dcgan", ("discriminator_loss", "generator_loss"))


def _diffusion() -> Family:
    return Family(
        "diffusion", "Diffusion",
        (DIGITS, CLASSIFIER, CONDITIONAL_VAE,
         model("diffusion", "genai_core.families.diffusion.objective", "train a network to take noise away", data="digits"),
         evaluation("genai_core.families.diffusion.evaluation", ("diffusion", "conditional_vae"), data="digits",
                    classifier="digit_classifier")),
        ("frechet_distance", "label_agreement", "classes_covered"), "diffusion", ("loss", "held_out_loss"))


def _augmentation() -> Family:
    few = dataset("few_digits", "genai_core.families.images.digits", "a few digits as tensors")
    judged = ("few_classifier", "augmented_classifier")
    return Family(
        "augmentation", "Data augmentation with made digits",
        (few,
         model("few_vae", "genai_core.families.vae.objective", "train an autoencoder on the few digits", data="few_digits"),
         model("few_classifier", "genai_core.families.images.train_classifier", "train a classifier on the few digits",
               data="few_digits"),
         model("augmented_classifier", "genai_core.families.augmentation.objective", "train it on made digits as well",
               data="few_digits", maker="few_vae"),
         evaluation("genai_core.families.augmentation.evaluation", judged, data="few_digits", maker="few_vae")),
        ("accuracy", "standard_error"), "few_vae", ("loss", "validation_accuracy"))


FAMILIES = {family.name: family for family in (
    _recurrent(), _many_to_one(), _one_to_many(), _many_to_many(), _seq2seq(), _t5(), _bert(), _positions(),
    _optimizers(), _music(), _code(), _vae(), _gan(), _diffusion(), _augmentation())}
