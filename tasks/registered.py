"""What is known of each stage whose artifacts last: what its models are for, and the figures that tell them apart."""

_IMAGES = "It makes images of handwritten digits: `genai generate`."
_CHARACTERS = "A language model of characters: it continues text in the manner of Shakespeare's plays."
_PAIRS = "A recurrent encoder-decoder that translates short English sentences into Spanish."

USES = {
    "pretrain": "A base language model: it continues text. It does not follow instructions.",
    "instruct": "A chat model: it answers trivia, tells the sentiment of reviews, translates short English sentences "
                "into Spanish and continues film reviews, each as far as its size allows.",
    "reward": "A reward model: it scores a text by how positively human raters would judge it. Its ratings are about "
              "sentiment, not helpfulness.",
    "rlhf": "A chat model whose continuations of reviews were pushed towards a higher reward.",
    "quantize": "The chat model with weights in eight bits (`int8/`) and in four bits (`int4/`).",
    "rnn": _CHARACTERS,
    "lstm": _CHARACTERS,
    "gru": _CHARACTERS,
    "character_transformer": _CHARACTERS,
    **dict.fromkeys(("rnn_classifier", "lstm_classifier", "gru_classifier", "fine_tuned", "frozen_features",
                     "from_scratch"), "A classifier: it tells whether a film review is positive or negative."),
    **dict.fromkeys(("rnn_namer", "lstm_namer", "gru_namer"), "It writes the name of a handwritten digit."),
    **dict.fromkeys(("sinusoidal_positions", "learned_positions", "rotary_positions", "no_positions", "sgd_optimizer",
                     "adam_optimizer", "muon_optimizer"), _CHARACTERS),
    **dict.fromkeys(("tune_lstm", "tune_transformer"), "A language model of fiddle tunes in ABC notation."),
    "code_model": "A language model of Python: it continues code.",
    "masked_encoder": "An encoder trained to fill in masked tokens of film reviews: others start from it.",
    **dict.fromkeys(("rnn_translator", "lstm_translator", "gru_translator", "no_attention"), _PAIRS),
    "bahdanau": f"{_PAIRS} Its decoder looks at the source by an additive score.",
    "luong": f"{_PAIRS} Its decoder looks at the source by a multiplicative score.",
    "t5": "An encoder-decoder transformer: text to text, the task named by a prefix (`translate English to Spanish: `, "
          "`sentiment: `, `title: `).",
    "digit_classifier": "A classifier of handwritten digits: the judge of the image families.",
    "vae": f"A variational autoencoder. {_IMAGES}",
    "conditional_vae": f"A variational autoencoder that is told which digit to make. {_IMAGES}",
    "collapsed_vae": "A variational autoencoder with too strong a prior, kept to show posterior collapse.",
    "dcgan": f"A generative adversarial network. {_IMAGES}",
    "wgan": f"A generative adversarial network trained with the Wasserstein distance. {_IMAGES}",
    "collapsed_gan": "A generative adversarial network out of balance, kept to show mode collapse.",
    "few_vae": f"A conditional variational autoencoder of few digits. {_IMAGES}",
    "few_classifier": "A classifier of handwritten digits that learned from few.",
    "augmented_classifier": "A classifier of handwritten digits that learned from few real and many made ones.",
    "diffusion": f"A diffusion model that is told which digit to make. {_IMAGES}",
}
"""The description of each registered model, and its model card's first words."""

_BITS = ("bits_per_byte/shakespeare", "parameters")
_VAE = ("elbo", "active_dimensions", "parameters")
_GAN = ("frechet_distance", "classes_covered", "parameters")

KEY_FIGURES = {
    "pretrain": ("bits_per_byte/wikitext-2", "bits_per_byte/reviews", "parameters"),
    "instruct": ("validation_loss",),
    "reward": ("accuracy_margin_1", "baseline_accuracy_margin_1"),
    "rlhf": ("reward_gain_deviations", "held_out_kl"),
    "quantize": ("int8/bits_per_byte_ratio", "int8/size_ratio", "int4/bits_per_byte_ratio"),
    "rnn": _BITS,
    "lstm": _BITS,
    "gru": _BITS,
    "character_transformer": _BITS,
    **dict.fromkeys(("rnn_classifier", "lstm_classifier", "gru_classifier"), ("validation_accuracy", "parameters")),
    **dict.fromkeys(("rnn_namer", "lstm_namer", "gru_namer"), ("validation_exact_match", "parameters")),
    **dict.fromkeys(("sinusoidal_positions", "learned_positions", "rotary_positions", "no_positions", "sgd_optimizer",
                     "adam_optimizer", "muon_optimizer"), _BITS),
    **dict.fromkeys(("tune_lstm", "tune_transformer"), ("bits_per_byte/tunes", "parameters")),
    "code_model": ("bits_per_byte/standard_library", "parameters"),
    "masked_encoder": ("held_out_masked_accuracy", "parameters"),
    **dict.fromkeys(("fine_tuned", "frozen_features", "from_scratch"),
                    ("accuracy_100_labels", "accuracy_10000_labels")),
    **dict.fromkeys(("rnn_translator", "lstm_translator", "gru_translator", "no_attention", "bahdanau", "luong", "t5"),
                    ("validation_loss", "parameters")),
    "digit_classifier": ("test_accuracy",),
    "vae": _VAE,
    "conditional_vae": _VAE,
    "collapsed_vae": _VAE,
    "dcgan": _GAN,
    "wgan": _GAN,
    "collapsed_gan": _GAN,
    "few_vae": _VAE,
    "few_classifier": ("test_accuracy",),
    "augmented_classifier": ("test_accuracy",),
    "diffusion": ("held_out_loss", "parameters"),
}
"""Figures of each model's training that lists show."""

DATASETS = ("collect", "clean", "tokenize", "characters", "tune_characters", "code_tokens", "digits", "few_digits",
            "pairs", "reviews")

STAGE_KINDS = {**dict.fromkeys(DATASETS, "data"), **dict.fromkeys(KEY_FIGURES, "models")}
"""The folder of the workspace in which the artifacts lie that a model can come from."""
