"""Config of the evaluation of language models of code."""

from pydantic import Field

from genai_core.config.base import Config
from genai_core.config.data import TokenizeConfig
from genai_core.config.training import PretrainConfig
from genai_core.families.config import FamilyConfig


class CodeEvaluationConfig(Config):
    """Measure a language model of Python code."""

    held_out_tokens: int = Field(default=60_000, ge=1024)
    """Most held-out tokens that are scored."""
    ngram_order: int = Field(default=6, ge=1, le=7)
    """Order of the byte n-grams that the models are compared with."""
    lines: int = Field(default=300, ge=1)
    """Number of held-out lines to complete."""
    line_tokens: int = Field(default=40, ge=4)
    """Longest line, in tokens."""
    functions: int = Field(default=100, ge=1)
    """Number of held-out functions to complete, of which the share that parses is taken."""
    function_tokens: int = Field(default=128, ge=16)
    """Longest body of a function, in tokens."""
    problems: int = Field(default=164, ge=1)
    """Number of HumanEval problems to solve, whose tests are run."""
    seconds: float = Field(default=5.0, gt=0)
    """Longest run of a problem's tests, in seconds."""


class CodeFamily(FamilyConfig):
    """Code completion."""

    code_tokens: TokenizeConfig
    code_model: PretrainConfig
    evaluate: CodeEvaluationConfig = CodeEvaluationConfig()
