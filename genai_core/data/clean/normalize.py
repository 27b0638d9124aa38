"""Unicode repair, markup removal and the undoing of WikiText's tokenised spacing."""

import re
import warnings
from functools import partial

import ftfy
from bs4 import BeautifulSoup, MarkupResemblesLocatorWarning

_ELEMENTS = ("a abbr address article aside b base big blockquote body br button caption center cite code col "
             "colgroup dd del details dfn div dl dt em fieldset figcaption figure font footer form frame frameset "
             "h1 h2 h3 h4 h5 h6 head header hr html i iframe img input ins kbd label legend li link main map mark "
             "meta nav noscript ol optgroup option p param picture pre q s samp script section select small source "
             "span strike strong style sub summary sup svg table tbody td textarea tfoot th thead time title tr tt "
             "u ul var video")
_TAG = re.compile(rf"</?(?:{'|'.join(_ELEMENTS.split())})(?:\s[^<>]*)?/?>", re.IGNORECASE)
"""What may be a tag of HTML, and not `List<String>` or `<stdio.h>`, which look like one: a fast look."""
_KNOWN = frozenset(_ELEMENTS.split())
_ALONE = frozenset(("br", "dd", "div", "dt", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "tbody", "td", "tfoot",
                    "th", "thead", "tr"))
"""Elements whose tag is markup by itself: no code calls a type or a file so, unlike `map` in `#include <map>`."""
_PAGE = re.compile(r"<(?:!doctype\s+html|html|body)[\s>]", re.IGNORECASE)
_ANGLE = re.compile(r"<(?:(?P<special>!--|!doctype\b|!\[CDATA\[|\?xml\b)"
                    r"|(?P<slash>/?)(?P<name>[a-z][\w:.-]*)(?P<rest>[^<>]*)>)?", re.IGNORECASE)
"""An opening angle bracket, with the tag, the comment or the declaration that it may be the beginning of."""
_CLOSING = re.compile(r"</([A-Za-z][\w:.-]*)\s*>")
_ATTRIBUTE = re.compile(r"\s[\w:.-]+\s*=(?!=)")
_QUOTED_ATTRIBUTE = re.compile(r"""\s[\w:.-]+\s*=\s*["']""")
_NO_ATTRIBUTE = re.compile(r"(?:\s+[a-z]+)?\s*")
"""Nothing behind the name of a tag, or a word such as `async`."""
_BREAK = re.compile(r"(?<!\s)\s*(<\s*br\b[^<>]*>|</?(?:p|div|li|tr|h[1-6])\b[^<>]*>)\s*", re.IGNORECASE)
_TRAILING_SPACE = re.compile(r"[ \t\u00a0]+(?=\n|$)")
_SPACES = re.compile(r"(?<=[^\n \t\u00a0])[ \t\u00a0]{2,}")
"""Not those that a line begins with: they are the structure of code, lists and verse."""
_BLANK_LINES = re.compile(r"\n{3,}")

_LONGEST = 1_000_000
_WITH_MARKUP = ftfy.TextFixerConfig(explain=False, normalization="NFC", unescape_html=False)
_WITHOUT_MARKUP = ftfy.TextFixerConfig(explain=False, normalization="NFC")
_ENTITY = re.compile(r"&#?[0-9A-Za-z]{1,24};")
_PLAIN_ASCII = b"\t\n\f" + bytes(range(32, 127))
_ODD = re.compile(r"[^\t\n\f -~ß-ïñ-öø-ÿāăąćčďđēėęěğīłńňōőřśşšťūůűźżžА-яЁёء-غف-ي、。ぁ-ゖァ-ヺー一-\u9fff–—]")
"""Characters that ftfy may change: all but ASCII without its control characters, and letters of Latin, Russian, Arabic,
Japanese and Chinese that, among themselves, are no sign of a mistaken encoding."""

_HEADING = re.compile(r"^ ?((?:= )+)(.+?)((?: =)+) ?$", re.MULTILINE)
_JOINED = re.compile(r" @([-,.])@ ")
_NO_SPACE_BEFORE = re.compile(r" +([,.;:!?%)\]}]|'(?:s|t|re|ve|ll|d|m)\b|n't\b)")
_NO_SPACE_AFTER = re.compile(r"([(\[{$£€#]) +")
_QUOTED = re.compile(r'" ([^"\n]*?) "')
_SINGLE_QUOTED = re.compile(r"(?<= )' ([^'\n]*?) '(?= |$|[,.;:!?])", re.MULTILINE)
_SPACED_SLASH = re.compile(r" (/|–) (?=\d)")


def normalize(text: str, markup: bool = False) -> str:
    """Repaired Unicode (ftfy, NFC), single spaces but for indentation, at most one blank line in a row, and no HTML
    unless `markup` says that tags may be what the text is about."""
    if not markup and "<" in text and _TAG.search(text):
        text = strip_markup(text)
    text = repair_unicode(text)
    odd_space = "\t" in text or "\u00a0" in text
    if odd_space or " \n" in text:
        text = _TRAILING_SPACE.sub("", text)
    if odd_space or "  " in text:
        text = _SPACES.sub(" ", text)
    if "\n\n\n" in text:
        text = _BLANK_LINES.sub("\n\n", text)
    return text.strip()


def repair_unicode(text: str) -> str:
    """What `ftfy.fix_text` makes of a text, in a fraction of its time.

    ftfy repairs line by line, and here it is given only lines with something that it may change. `fix_text` stops
    reading HTML entities at the first line with a `<`, so that a line is told what came before it.
    """
    if is_plain(text):
        return text
    if len(text) > _LONGEST:      # ftfy breaks long lines
        return str(ftfy.fix_text(text, normalization="NFC"))
    lines = text.split("\n")
    markup = False
    last = len(lines) - 1
    for number, line in enumerate(lines):
        markup = markup or "<" in line
        if not is_plain(line):
            ended = line if number == last else line + "\n"
            fixed = ftfy.fix_text_segment(ended, _WITH_MARKUP if markup else _WITHOUT_MARKUP)
            lines[number] = fixed if number == last else fixed.removesuffix("\n")
            if number != last and not fixed.endswith("\n"):
                return str(ftfy.fix_text(text, normalization="NFC"))      # the end of a line was repaired away
    return "\n".join(lines)


def is_plain(text: str) -> bool:
    """Whether ftfy is sure to leave a text as it is."""
    if "&" in text and _ENTITY.search(text):
        return False
    if text.isascii():      # the same, many times as fast
        return not text.encode("ascii").translate(None, _PLAIN_ASCII)
    return not _ODD.search(text)


def strip_markup(text: str) -> str:
    """The text of an HTML fragment; block elements and line breaks become ends of lines.

    Beside markup a text may hold code: `std::map<int, List<A>>` stays. Only of a whole page all that is in angle
    brackets is markup.
    """
    if not _PAGE.search(text):
        closed = frozenset(_CLOSING.findall(text))
        text = _BREAK.sub(partial(_line_end, closed=closed), text)
        if not any(_is_markup(found, closed) for found in _ANGLE.finditer(text)):
            return text
        text = _ANGLE.sub(lambda found: found[0] if _is_markup(found, closed) else f"&lt;{found[0][1:]}", text)
    else:
        text = _BREAK.sub("\n", text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MarkupResemblesLocatorWarning)
        soup = BeautifulSoup(text, "html.parser")
    for invisible in soup(["script", "style", "head"]):
        invisible.decompose()
    return soup.get_text()


def _line_end(found: re.Match[str], closed: frozenset[str]) -> str:
    """The end of a line in place of what `_BREAK` found, if it is markup."""
    tag = _ANGLE.match(f"<{found[1][1:].lstrip()}")
    return "\n" if tag and _is_markup(tag, closed) else found[0]


def _is_markup(found: re.Match[str], closed: frozenset[str]) -> bool:
    """Whether an angle bracket begins markup, in a text that has closing tags of the elements `closed`."""
    name, rest = found["name"], found["rest"]
    if found["special"] or not name:
        return bool(found["special"])
    is_known = name.lower() in _KNOWN
    if found["slash"]:
        return not rest.strip() and (is_known or name in closed)
    if (_ATTRIBUTE if is_known else _QUOTED_ATTRIBUTE).search(rest):
        return True
    rest = rest.rstrip()
    is_ended = is_known and (name.lower() in _ALONE or rest.endswith("/"))
    return (is_ended or name in closed) and bool(_NO_ATTRIBUTE.fullmatch(rest.removesuffix("/")))


def detokenize_wikitext(text: str) -> str:
    """WikiText as it was written: ` @-@ ` is a hyphen, punctuation touches its word, ` = Title = ` is a heading."""
    text = _JOINED.sub(r"\1", text)
    text = _QUOTED.sub(r'"\1"', text)
    text = _SINGLE_QUOTED.sub(r"'\1'", text)
    text = _NO_SPACE_AFTER.sub(r"\1", _NO_SPACE_BEFORE.sub(r"\1", text))
    text = _SPACED_SLASH.sub(r"\1", text)
    text = _HEADING.sub(lambda match: "#" * match.group(1).count("=") + " " + match.group(2), text)
    return "\n".join(line.strip() for line in text.split("\n"))
