"""The stages of the language model, in the order in which they run: reading this page is reading the pipeline."""

from tasks.stage import ONE_DEVICE, RANKS, FirstOf, Stage

BASE = FirstOf(("pretrain", "adopt"))
"""The base model of a run: one that it trains, or trains further, else the one from outside."""

adopt = Stage(
    "adopt", "genai_core.stages.adopt", "model", settings={"config": "base"}, inputs={},
    describe="take a base model from outside in", title="Base model from outside",
    use="A base language model that others have trained, as it came: weights, tokenizer and chat template.",
    figures=("parameters",), column="base", outside="genai_core.stages.adopt:file_digests")

collect = Stage(
    "collect", "genai_core.stages.collect", "dataset", settings={"config": "collect"}, inputs={},
    describe="bring the declared sources into one set of tables", title="Collected data",
    outside="genai_core.stages.collect:file_digests",
    again="sources that are as they were are taken over")

clean = Stage(
    "clean", "genai_core.stages.clean", "dataset", settings={"config": "clean"}, inputs={"collected": "collect"},
    describe="repair, filter, deduplicate, mask and decontaminate", title="Cleaned data",
    again="all shards are cleaned again: duplicates and held-out text are looked for in the whole")

tokenize = Stage(
    "tokenize", "genai_core.stages.tokenize", "dataset", settings={"config": "tokenize"},
    inputs={"cleaned": "clean", "adopted": "adopt"}, optional={"adopted": "adopt"},
    describe="train the tokenizer and write the token files", title="Token files",
    again="shards with the same text are not encoded again while the tokenizer is the same (tokenize.sources)")

pretrain = Stage(
    "pretrain", "genai_core.stages.pretrain", "model", settings={"config": "pretrain"},
    inputs={"tokens": "tokenize", "adopted": "adopt"}, optional={"adopted": "adopt"},
    describe="train the base model on the token files", title="Base model",
    use="A base language model: it continues text. It does not follow instructions.",
    figures=("bits_per_byte", "parameters"), curves=("loss", "bits_per_byte"), column="base", resources=RANKS)

instruct = Stage(
    "instruct", "genai_core.stages.instruct", "model", settings={"config": "instruct", "mixture": "mixture"},
    inputs={"base": BASE, "cleaned": "clean", "tokens": "tokenize"},
    describe="fine-tune on chats", title="Chat model",
    use="A chat model: it answers in the tasks that it was fine-tuned on, each as far as its size allows.",
    figures=("validation_loss",), curves=("loss", "validation_loss"), resources=RANKS)

reward = Stage(
    "reward", "genai_core.stages.reward", "model", settings={"config": "reward", "gold": "evaluate.gold"},
    inputs={"instruct": "instruct", "cleaned": "clean"},
    describe="learn to order texts and answers as people did", title="Reward model",
    use="A reward model: it scores a text or an answer as those people would whose ratings and preferences it was "
        "trained on.",
    figures=("accuracy", "baseline_accuracy", "accuracy_margin_1"), curves=("accuracy", "validation_accuracy"),
    resources=RANKS)

rlhf = Stage(
    "rlhf", "genai_core.stages.rlhf", "model",
    settings={"config": "rlhf", "questions": "questions", "mixture": "mixture", "fine_tuning": "instruct",
              "gold": "evaluate.gold", "judged": "reward.sources"},
    inputs={"instruct": "instruct", "reward": "reward", "cleaned": "clean", "tokens": "tokenize"},
    optional={"reward": "reward"}, outside="genai_core.rewards.functions:function_digests",
    describe="raise the reward, held near the instruct model", title="Aligned chat model",
    use="A chat model whose answers were pushed towards a higher reward.",
    figures=("reward_gain_deviations", "held_out_kl", "stopped_at_step"), curves=("reward", "held_out_reward"),
    resources=RANKS)

quantize = Stage(
    "quantize", "genai_core.stages.quantize", "model",
    settings={"config": "quantize", "mixture": "mixture", "fine_tuning": "instruct"},
    inputs={"model": FirstOf(("rlhf", "instruct", *BASE.stages)), "tokens": "tokenize", "cleaned": "clean"},
    describe="store the weights in eight and four bits", title="Quantized model",
    use="The last model of a run with weights in eight bits (`int8/`) and in four bits (`int4/`).",
    figures=("int8/bits_per_byte_ratio", "int8/size_ratio", "int4/bits_per_byte_ratio"), column="int8")

evaluate = Stage(
    "evaluate", "genai_core.stages.evaluate", "report", outside="genai_core.evaluation.outside:outside_digests",
    settings={"config": "evaluate", "tasks": "active_tasks", "mixture": "mixture", "mixture_seed": "instruct.seed",
              "alignment": "rlhf", "judging": "reward"},
    inputs={"base": BASE, "instruct": "instruct", "reward": "reward", "rlhf": "rlhf", "quantized": "quantize",
            "tokens": "tokenize", "cleaned": "clean"},
    optional={"instruct": "instruct", "reward": "reward", "rlhf": "rlhf", "alignment": "rlhf", "judging": "reward"},
    describe="one table of figures for every model, baselines beside it", title="Evaluation", resources=RANKS)

promote = Stage(
    "promote", "genai_core.stages.promote", "report",
    settings={"config": "promote", "questions": "evaluate", "tasks": "active_tasks"},
    inputs={"evaluate": "evaluate", "rlhf": "rlhf", "quantize": "quantize", "tokens": "tokenize",
            "cleaned": "clean"},
    optional={"rlhf": "rlhf"},
    in_service={"champion": "quantize", "champion_base": BASE},
    describe="hold the release against its parents, the baselines and the one in service", title="Gates",
    resources=ONE_DEVICE)

STAGES = (adopt, collect, clean, tokenize, pretrain, instruct, reward, rlhf, quantize, evaluate, promote)
"""Every stage that a language model may go through; which of them a run has follows from its data."""
