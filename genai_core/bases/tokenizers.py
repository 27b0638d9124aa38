"""The tokenizer and the chat template of a base.

Its own template is kept. Where it has none, or one that does not tell what the assistant says, this project's is taken,
with its tokens added; one that fails is refused.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from genai_core.bases.places import Place
from genai_core.data.chat import (
    CHAT_TEMPLATE,
    END_OF_TEXT,
    SPECIAL_TOKENS,
    TURN_END,
    Chat,
    render_prompt,
)
from genai_core.data.chat_formats import FIELD, ChatFormat
from genai_core.errors import InputError
from genai_core.models.huggingface import quiet, require_transformers
from genai_core.models.opened import read_json

DOCUMENT_ENDS = (END_OF_TEXT, "<|end_of_text|>", "<eos>", "</s>")
"""Tokens that end a document in the models there are; that of a chat model ends a turn."""
PROBE: Chat = [{"role": "user", "content": "One"}, {"role": "assistant", "content": "Two"},
               {"role": "user", "content": "Three"}, {"role": "assistant", "content": "Four"}]


CONFIG, JINJA = "tokenizer_config.json", "chat_template.jinja"


@dataclass
class AdoptedTokenizer:
    """The tokenizer of a base, ready for this project's stages."""

    tokenizer: Tokenizer
    values: dict[str, Any]
    """Content of `tokenizer_config.json`."""
    added: list[str] = field(default_factory=list)
    """Tokens that the base did not have."""
    note: str = ""
    """What is to be said of its chat template."""
    own_template: bool = True
    """Whether the template is the base's."""

    @property
    def added_ids(self) -> list[int]:
        """Ids of the added tokens."""
        vocabulary = self.tokenizer.get_vocab(with_added_tokens=True)
        return [vocabulary[token] for token in self.added]

    @property
    def entries(self) -> int:
        """Rows that an embedding needs for it."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def save(self, directory: Path) -> None:
        self.tokenizer.save(str(directory / "tokenizer.json"))
        text = json.dumps(self.values, indent=1, ensure_ascii=False) + "\n"
        (directory / "tokenizer_config.json").write_text(text, encoding="utf-8")


def adopt_tokenizer(place: Place, rows: int) -> AdoptedTokenizer:
    """The tokenizer of a base whose embedding has so many rows. Raises InputError where it is missing, damaged, or
    another model's, and for a chat template that fails."""
    tokenizer, values, template = _from_gguf(place) if place.gguf else _from_directory(place.directory)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    values = {name: value for name, value in values.items()
              if name not in ("auto_map", "added_tokens_decoder", "chat_template", FIELD)}
    values["tokenizer_class"] = "PreTrainedTokenizerFast"      # which reads tokenizer.json as it is
    adopted = AdoptedTokenizer(tokenizer, values)
    if adopted.entries > rows:
        raise InputError(f"{place.directory}: the tokenizer has {adopted.entries:,} entries and the weights have rows "
                         f"for {rows:,}: it is another model's tokenizer; fetch the base again, whole")
    start = _document_start(tokenizer, values)
    known = tokenizer.get_vocab(with_added_tokens=True)
    eos = _text(values.get("eos_token"))
    end = next((token for token in (*DOCUMENT_ENDS, eos) if token and token in known), "")
    if template:
        taken = _with_its_template(adopted, template, start, end, _place_of_template(place))
        if not taken:
            return adopted
        _with_our_template(adopted, start, end)
        adopted.note = f"the base's chat template cannot be used ({taken}); {adopted.note}"
    else:
        _with_our_template(adopted, start, end)
        adopted.note = f"the base has no chat template; {adopted.note}"
    return adopted


def _with_its_template(adopted: AdoptedTokenizer, template: str, start: str, end: str, where: str) -> str:
    """Take the base's template; why that is not possible, empty where it was. Raises InputError for one that fails.
    """
    tokenizer, values = adopted.tokenizer, adopted.values
    known = tokenizer.get_vocab(with_added_tokens=True)
    chat_format = ChatFormat(template, end, "", start, _text(values.get("bos_token")), _text(values.get("eos_token")),
                             _specials(tokenizer, template))
    try:
        for count, generate in ((1, True), (len(PROBE), False)):
            chat_format.render(PROBE[:count], generate)
    except InputError as error:
        reason = str(error).partition(": ")[2].partition("; change the conversation")[0]
        raise InputError(f"{where}: the chat template fails on a plain conversation ({reason}); mend it, or remove it, "
                         "and this project's is taken") from None
    try:
        turn_end = _turn_end(chat_format, tokenizer)
        if not turn_end:
            return "it ends an answer with no token of its own"
        chat_format = replace(chat_format, turn_end=turn_end, end_of_text=end or turn_end)
        chat_format.encode_chat(tokenizer, PROBE)
    except InputError as error:
        return str(error)
    ours = _is_ours(chat_format) and not start and all(token in known for token in SPECIAL_TOKENS)
    values |= {"chat_template": template, "eos_token": chat_format.turn_end, "pad_token": chat_format.end_of_text}
    if ours:
        adopted.note = "the chat template of the base is ChatML, as this project's"
    else:
        values[FIELD] = chat_format.to_dict()
        adopted.note = f"the chat template is the base's; {chat_format.turn_end} ends an answer"
    return ""


def _with_our_template(adopted: AdoptedTokenizer, start: str, end: str) -> None:
    """This project's template, its tokens added where the base lacks them."""
    tokenizer, values = adopted.tokenizer, adopted.values
    known = tokenizer.get_vocab(with_added_tokens=True)
    end = end or END_OF_TEXT
    wanted = [token for token in SPECIAL_TOKENS if token != END_OF_TEXT] + [end]
    adopted.added = [token for token in wanted if token not in known]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in wanted])
    template = ("{{ bos_token }}" if start else "") + CHAT_TEMPLATE
    values |= {"chat_template": template, "eos_token": TURN_END, "pad_token": end, "bos_token": start or None}
    if start or end != END_OF_TEXT:
        values[FIELD] = ChatFormat(template, end, TURN_END, start, start, TURN_END,
                                   _specials(tokenizer, template)).to_dict()
    adopted.own_template = False
    adopted.note = "this project's is taken" + (f", and {', '.join(adopted.added)} added to the tokenizer"
                                                if adopted.added else "")


def _turn_end(chat_format: ChatFormat, tokenizer: Tokenizer) -> str:
    """The first special token after an answer."""
    before = chat_format.render(PROBE[:1], generate=True)
    rest = chat_format.render(PROBE[:2], generate=False)[len(before):].partition(PROBE[1]["content"])[2]
    ids = tokenizer.encode(rest, add_special_tokens=False).ids
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items()}
    found = next((number for number in ids if number in special), None)
    return str(tokenizer.id_to_token(found)) if found is not None else ""


def _is_ours(chat_format: ChatFormat) -> bool:
    """Whether the template writes what this project's does."""
    with_system = [{"role": "system", "content": "Zero"}, *PROBE[:3]]
    try:
        return all(chat_format.render(chat, generate=True) == render_prompt(chat) for chat in (PROBE[:3], with_system))
    except InputError:      # it knows no system message
        return False


def _specials(tokenizer: Tokenizer, template: str) -> tuple[str, ...]:
    """Tokens of the template that the tokenizer does not hold for special, such as those around the call of a tool."""
    added = tokenizer.get_added_tokens_decoder().values()
    return tuple(sorted(token.content for token in added
                        if token.content.strip() and token.content in template and not token.special))


def _document_start(tokenizer: Tokenizer, values: dict[str, Any]) -> str:
    """The token that the base reads before every document; empty where it reads none."""
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a", add_special_tokens=True).ids
    if len(whole) > len(plain) and whole[1:1 + len(plain)] == plain:
        return str(tokenizer.id_to_token(whole[0]))
    return _text(values.get("bos_token")) if values.get("add_bos_token") else ""


def _text(token: Any) -> str:
    """The text of a token that may be written as an object."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _from_directory(directory: Path) -> tuple[Tokenizer, dict[str, Any], str]:
    path = directory / CONFIG
    values = read_json(path) if path.is_file() else {}
    specials = directory / "special_tokens_map.json"
    values = (read_json(specials) if specials.is_file() else {}) | values
    template = _template_of(directory, values.get("chat_template") or "")
    file = directory / "tokenizer.json"
    if file.is_file():
        try:
            return Tokenizer.from_file(str(file)), values, template
        except Exception as error:      # the library raises plain Exception
            raise InputError(f"{file}: not a readable tokenizer ({error}); fetch the base again") from None
    if not any((directory / name).is_file() for name in ("tokenizer.model", "vocab.json")):
        raise InputError(f"{directory}: the base has no tokenizer (tokenizer.json)")
    return _by_transformers(directory, {}, values)[0], values, template


def _template_of(directory: Path, given: Any) -> str:
    """The chat template of a directory whose tokenizer config has `given`: a text, or several by their names."""
    file = directory / JINJA
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise InputError(f"{file}: not readable as UTF-8 ({error}); mend the file, or remove it") from None
    if isinstance(given, list) and all(isinstance(entry, dict) for entry in given):
        given = next((entry.get("template") for entry in given if entry.get("name") == "default"), "")
    if not isinstance(given, str):
        raise InputError(f"{directory / CONFIG}: chat_template is neither a text nor a list of names and templates; "
                         "mend it, or remove it, and this project's is taken")
    return given


def _place_of_template(place: Place) -> str:
    """The file, or the field of the GGUF file, that holds the chat template."""
    if place.gguf:
        return f"{place.directory / place.gguf}: tokenizer.chat_template"
    return str(place.directory / (JINJA if (place.directory / JINJA).is_file() else CONFIG))


def _from_gguf(place: Place) -> tuple[Tokenizer, dict[str, Any], str]:
    tokenizer, values = _by_transformers(place.directory, {"gguf_file": place.gguf}, {})
    reader = place.reader()

    def field(name: str) -> Any:
        found = reader.get_field(name)
        return found.contents() if found else None

    starts = field("tokenizer.ggml.add_bos_token")
    if starts is None:      # llama.cpp's default
        starts = bool(values.get("bos_token")) and field("tokenizer.ggml.model") == "llama"
    content = json.loads(tokenizer.to_str())      # its converters add tokens that the file does not have
    tokens = reader.get_field("tokenizer.ggml.tokens")
    there = len(tokens.data) if tokens else 0
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < there]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    return tokenizer, values | {"add_bos_token": bool(starts)}, str(field("tokenizer.chat_template") or "")


def _by_transformers(directory: Path, options: dict[str, str], values: dict[str, Any]
                     ) -> tuple[Tokenizer, dict[str, Any]]:
    require_transformers()
    from transformers import AutoTokenizer

    try:
        with quiet():
            loaded = AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False,
                                                   **options)
        named = {name: getattr(loaded, name, None) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
        return loaded.backend_tokenizer, values | named
    except Exception as error:      # whatever its converters raise
        raise InputError(f"{directory}: the tokenizer of the base cannot be read ({type(error).__name__}: "
                         f"{' '.join(str(error).split())[:150]}); a base needs tokenizer.json") from None
