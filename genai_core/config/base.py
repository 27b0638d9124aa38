"""The base of every config model."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Frozen, and closed: an unknown field is an error, so that a typing mistake never trains the wrong model."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False,
                              use_attribute_docstrings=True)
    beside_the_key: ClassVar[frozenset[str]] = frozenset()
    """Fields that what is made does not depend on."""

    def for_key(self) -> dict[str, Any]:
        """The fields that what is made depends on, as a key holds them."""
        return self.model_dump(mode="json", exclude=set(self.beside_the_key))
