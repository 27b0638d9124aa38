"""Models that turn one text into another: recurrent (many to many, sequence to sequence) and transformer (T5)."""

KINDS = {
    "seq2seq": "genai_core.families.encoder_decoder.generation:open_recurrent",
    "t5": "genai_core.families.encoder_decoder.generation:open_transformer",
}
