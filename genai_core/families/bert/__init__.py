"""A bidirectional encoder: masked tokens, then few labels."""

KINDS = {
    "bert": "genai_core.families.bert.generation:open_encoder",
    "bert_classifier": "genai_core.families.bert.generation:open_classifier",
}
