"""What the families on images of digits share."""

KINDS = {"digit_classifier": "genai_core.families.images.evaluation:open_classifier"}
