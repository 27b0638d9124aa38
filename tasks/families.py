"""The other generative families: the stages of each, declared one below the other."""

from tasks.family import Family, dataset, evaluation, model
from tasks.stage import Stage

CELLS = ("rnn", "lstm", "gru")
RECURRENT = "genai_core.families.recurrent"
PAIR = "genai_core.families.encoder_decoder"
REVIEW = "genai_core.families.classification"
IMAGE = "genai_core.families.images"

_MAKES_DIGITS = "It makes images of handwritten digits: `genai generate`."
_CONTINUES_PLAYS = "A language model of characters: it continues text in the manner of Shakespeare's plays."
_TRANSLATES = "A recurrent encoder-decoder that translates short English sentences into Spanish."
_CLASSIFIES = "A classifier: it tells whether a film review is positive or negative."
_TUNES = "A language model of fiddle tunes in ABC notation."

_BITS = ("bits_per_byte/shakespeare", "parameters")
_PAIR_FIGURES = ("validation_loss", "parameters")
_VAE_FIGURES = ("elbo", "active_dimensions", "parameters")
_GAN_FIGURES = ("frechet_distance", "classes_covered", "parameters")
_VAE_CURVES = ("reconstruction", "divergence")
_LENGTHS = {"source_tokens": "pairs.source_tokens", "target_tokens": "pairs.target_tokens"}


def _seq2seq_model(name: str, describe: str, use: str = _TRANSLATES) -> Stage:
    return model(name, f"{PAIR}.train_recurrent", describe, use, _PAIR_FIGURES, settings=_LENGTHS, data="pairs")


characters = dataset("characters", "genai_core.stages.tokenize", "cut the text into characters", "cleaned")
digits = dataset("digits", f"{IMAGE}.digits", "the images as tensors")
pairs = dataset("pairs", f"{PAIR}.pairs", "pairs of texts, and their vocabulary")
reviews = dataset("reviews", f"{REVIEW}.reviews", "labelled reviews, and their vocabulary")
digit_classifier = model("digit_classifier", f"{IMAGE}.train_classifier", "train the judge of generated images",
                         "A classifier of handwritten digits: the judge of the image families.", ("test_accuracy",),
                         data="digits")
vae = model("vae", "genai_core.families.vae.objective", "train a variational autoencoder",
            f"A variational autoencoder. {_MAKES_DIGITS}", _VAE_FIGURES, _VAE_CURVES, data="digits")
conditional_vae = model("conditional_vae", "genai_core.families.vae.objective",
                        "train an autoencoder that is given the digit",
                        f"A variational autoencoder that is told which digit to make. {_MAKES_DIGITS}", _VAE_FIGURES,
                        _VAE_CURVES, data="digits")
luong = _seq2seq_model("luong", "train an encoder and decoder: luong",
                       f"{_TRANSLATES} Its decoder looks at the source by a multiplicative score.")

recurrent = Family(
    "recurrent", "Recurrent language models", f"{RECURRENT}.config:RecurrentFamily",
    (characters,
     *(model(cell, f"{RECURRENT}.objective", f"train a language model of {cell.upper()} cells", _CONTINUES_PLAYS, _BITS,
             tokens="characters") for cell in CELLS),
     model("character_transformer", "genai_core.stages.pretrain", "train a transformer for about as many seconds",
           _CONTINUES_PLAYS, _BITS, tokens="characters"),
     evaluation(f"{RECURRENT}.evaluation", (*CELLS, "character_transformer"), tokens="characters")),
    figures=("bits_per_character",), shown_model="lstm")

many_to_one = Family(
    "many_to_one", "Many to one: recurrent cells from a text to its label",
    "genai_core.families.many_to_one.config:ManyToOneFamily",
    (reviews,
     *(model(f"{cell}_classifier", "genai_core.families.many_to_one.objective", "train a recurrent classifier",
             _CLASSIFIES, ("validation_accuracy", "parameters"), data="reviews") for cell in CELLS),
     evaluation(f"{REVIEW}.evaluation", tuple(f"{cell}_classifier" for cell in CELLS), data="reviews")),
    figures=("accuracy", "majority_accuracy"), shown_model="gru_classifier")

one_to_many = Family(
    "one_to_many", "One to many: recurrent cells from an image to its name",
    "genai_core.families.one_to_many.config:OneToManyFamily",
    (digits,
     *(model(f"{cell}_namer", "genai_core.families.one_to_many.objective", "train a decoder that writes names",
             "It writes the name of a handwritten digit.", ("validation_exact_match", "parameters"),
             ("loss", "validation_exact_match"), data="digits") for cell in CELLS),
     evaluation("genai_core.families.one_to_many.evaluation", tuple(f"{cell}_namer" for cell in CELLS), data="digits")),
    figures=("exact_match",), shown_model="gru_namer")

many_to_many = Family(
    "many_to_many", "Many to many: recurrent cells from sentence to sentence", f"{PAIR}.config:ManyToManyFamily",
    (pairs,
     *(_seq2seq_model(f"{cell}_translator", "train a recurrent encoder and decoder") for cell in CELLS),
     evaluation(f"{PAIR}.evaluation", tuple(f"{cell}_translator" for cell in CELLS), data="pairs")),
    figures=("chrf", "bleu"), shown_model="gru_translator")

seq2seq = Family(
    "seq2seq", "Sequence to sequence, without and with attention", f"{PAIR}.config:Seq2SeqFamily",
    (pairs,
     _seq2seq_model("no_attention", "train an encoder and decoder: no attention"),
     _seq2seq_model("bahdanau", "train an encoder and decoder: bahdanau",
                    f"{_TRANSLATES} Its decoder looks at the source by an additive score."),
     luong,
     evaluation(f"{PAIR}.evaluation", ("no_attention", "bahdanau", "luong"), data="pairs")),
    figures=("chrf", "bleu", "chrf_from_8_words"), shown_model="luong")

t5 = Family(
    "t5", "Encoder-decoder transformer: text to text", f"{PAIR}.config:T5Family",
    (pairs,
     model("t5", f"{PAIR}.train_transformer", "train an encoder-decoder transformer on every task",
           "An encoder-decoder transformer: text to text, the task named by a prefix (`translate English to Spanish: "
           "`, `sentiment: `, `title: `).", _PAIR_FIGURES, settings=_LENGTHS, data="pairs"),
     luong,
     evaluation(f"{PAIR}.evaluation", ("t5", "luong"), data="pairs")),
    figures=("chrf", "bleu", "sentiment_accuracy", "title_chrf"), shown_model="t5")

_STARTS = ("fine_tuned", "frozen_features", "from_scratch")
bert = Family(
    "bert", "Bidirectional encoder: masked tokens, then few labels", "genai_core.families.bert.config:BertFamily",
    (reviews,
     model("masked_encoder", "genai_core.families.bert.masked_tokens", "train an encoder to fill in masked tokens",
           "An encoder trained to fill in masked tokens of film reviews: others start from it.",
           ("held_out_masked_accuracy", "parameters"), ("loss", "held_out_masked_accuracy"), data="reviews"),
     *(model(name, "genai_core.families.bert.fine_tuning",
             f"learn the sentiment of reviews: {name.replace('_', ' ')}", _CLASSIFIES,
             ("accuracy_100_labels", "accuracy_10000_labels"), data="reviews", encoder="masked_encoder")
       for name in _STARTS),
     evaluation(f"{REVIEW}.evaluation", _STARTS, data="reviews")),
    figures=("accuracy", "accuracy_100_labels", "accuracy_1000_labels", "accuracy_10000_labels"),
    shown_model="fine_tuned")

_POSITIONS = ("sinusoidal_positions", "learned_positions", "rotary_positions", "no_positions")
positions = Family(
    "positions", "How a transformer knows positions", "genai_core.families.positions.config:PositionsFamily",
    (characters,
     *(model(name, "genai_core.families.positions.objective", f"train with {name.replace('_', ' ')}", _CONTINUES_PLAYS,
             _BITS, (), tokens="characters") for name in _POSITIONS),
     evaluation("genai_core.families.positions.evaluation", _POSITIONS, tokens="characters")),
    figures=("bits_per_character", "bits_per_character_longer"), shown_model="rotary_positions")

_OPTIMIZERS = ("sgd_optimizer", "adam_optimizer", "muon_optimizer")
optimizers = Family(
    "optimizers", "SGD, Adam and Muon", "genai_core.families.positions.config:OptimizersFamily",
    (characters,
     *(model(name, "genai_core.families.positions.objective", f"train with the {name.replace('_', ' ')}",
             _CONTINUES_PLAYS, _BITS, (), tokens="characters") for name in _OPTIMIZERS),
     evaluation("genai_core.families.positions.evaluation", _OPTIMIZERS, tokens="characters")),
    figures=("bits_per_character",), shown_model="muon_optimizer")

music = Family(
    "music", "Folk music in ABC notation", "genai_core.families.music.config:MusicFamily",
    (dataset("tune_characters", "genai_core.stages.tokenize", "cut the tunes into characters", "cleaned"),
     model("tune_lstm", f"{RECURRENT}.objective", "train an LSTM on tunes", _TUNES,
           ("bits_per_byte/tunes", "parameters"), tokens="tune_characters"),
     model("tune_transformer", "genai_core.stages.pretrain", "train a transformer on tunes", _TUNES,
           ("bits_per_byte/tunes", "parameters"), tokens="tune_characters"),
     evaluation("genai_core.families.music.evaluation", ("tune_lstm", "tune_transformer"), tokens="tune_characters")),
    figures=("bits_per_character", "parsed", "in_time"), shown_model="tune_transformer")

code = Family(
    "code", "Code completion", "genai_core.families.code.config:CodeFamily",
    (dataset("code_tokens", "genai_core.stages.tokenize", "learn the words of code, cut it into them", "cleaned"),
     model("code_model", "genai_core.stages.pretrain", "train a transformer on the standard library",
           "A language model of Python: it continues code.", ("bits_per_byte/standard_library", "parameters"),
           tokens="code_tokens"),
     evaluation("genai_core.families.code.evaluation", ("code_model",), tokens="code_tokens", collected="collect")),
    figures=("bits_per_character", "line_exact_match", "line_similarity", "parsed", "pass_at_1"),
    shown_model="code_model")

vaes = Family(
    "vae", "Variational autoencoders", "genai_core.families.vae.config:VaeFamily",
    (digits, digit_classifier, vae, conditional_vae,
     model("collapsed_vae", "genai_core.families.vae.objective", "train one whose prior is too strong: its code dies",
           "A variational autoencoder with too strong a prior, kept to show posterior collapse.", _VAE_FIGURES,
           _VAE_CURVES, data="digits"),
     evaluation("genai_core.families.vae.evaluation", ("vae", "conditional_vae", "collapsed_vae"), data="digits",
                classifier="digit_classifier")),
    figures=("frechet_distance", "squared_error", "elbo", "active_dimensions"), shown_model="conditional_vae")

_GANS = {
    "dcgan": f"A generative adversarial network. {_MAKES_DIGITS}",
    "wgan": f"A generative adversarial network trained with the Wasserstein distance. {_MAKES_DIGITS}",
    "collapsed_gan": "A generative adversarial network out of balance, kept to show mode collapse.",
}
gan = Family(
    "gan", "Generative adversarial networks", "genai_core.families.gan.config:GanFamily",
    (digits, digit_classifier, vae,
     *(model(name, "genai_core.families.gan.objective", "train a generator against a discriminator", use, _GAN_FIGURES,
             ("discriminator_loss", "generator_loss"), data="digits", classifier="digit_classifier")
       for name, use in _GANS.items()),
     evaluation("genai_core.families.gan.evaluation", (*_GANS, "vae"), data="digits", classifier="digit_classifier")),
    figures=("frechet_distance", "classes_covered", "confidence"), shown_model="dcgan")

diffusion = Family(
    "diffusion", "Diffusion", "genai_core.families.diffusion.config:DiffusionFamily",
    (digits, digit_classifier, conditional_vae,
     model("diffusion", "genai_core.families.diffusion.objective", "train a network to take noise away",
           f"A diffusion model that is told which digit to make. {_MAKES_DIGITS}", ("held_out_loss", "parameters"),
           ("loss", "held_out_loss"), data="digits"),
     evaluation("genai_core.families.diffusion.evaluation", ("diffusion", "conditional_vae"), data="digits",
                classifier="digit_classifier")),
    figures=("frechet_distance", "label_agreement", "classes_covered"), shown_model="diffusion")

augmentation = Family(
    "augmentation", "Data augmentation with made digits",
    "genai_core.families.augmentation.config:AugmentationFamily",
    (dataset("few_digits", f"{IMAGE}.digits", "a few digits as tensors"),
     model("few_vae", "genai_core.families.vae.objective", "train an autoencoder on the few digits",
           f"A conditional variational autoencoder of few digits. {_MAKES_DIGITS}", _VAE_FIGURES,
           ("loss", "validation_accuracy"), data="few_digits"),
     model("few_classifier", f"{IMAGE}.train_classifier", "train a classifier on the few digits",
           "A classifier of handwritten digits that learned from few.", ("test_accuracy",), data="few_digits"),
     model("augmented_classifier", "genai_core.families.augmentation.objective", "train it on made digits as well",
           "A classifier of handwritten digits that learned from few real and many made ones.", ("test_accuracy",),
           data="few_digits", maker="few_vae"),
     evaluation("genai_core.families.augmentation.evaluation", ("few_classifier", "augmented_classifier"),
                data="few_digits", maker="few_vae")),
    figures=("accuracy", "standard_error"), shown_model="few_vae")

ALL = (recurrent, many_to_one, one_to_many, many_to_many, seq2seq, t5, bert, positions, optimizers, music, code, vaes,
       gan, diffusion, augmentation)
