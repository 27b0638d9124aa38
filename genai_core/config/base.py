"""The base of every config model."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Frozen, and closed: an unknown field is an error, so that a typing mistake never trains the wrong model."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False,
                              use_attribute_docstrings=True)
