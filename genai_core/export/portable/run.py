"""Chat with the model beside this file, with nothing but NumPy.

    python run.py "Hello"              one answer
    python run.py                      a conversation; an empty line ends it
    python run.py --ids 5,9,300 -n 20  plain token ids, for tests

How `model.bin` is laid out: magic, twelve int32 (sizes), two float32, tokens, merges, kinds of characters, weights.
"""

import argparse
import struct
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np

SIZES = ("vocabulary", "hidden", "layers", "heads", "key_value_heads", "head_size", "feed_forward", "context",
         "turn_end", "text_end", "merges", "ranges")
LETTER, NUMBER, SPACE = 1, 2, 3
CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


class Tokenizer:
    """Byte-level BPE: text is cut into words, words into bytes, and bytes are merged, the most frequent pairs first."""

    def __init__(self, tokens, special, merges, ranges):
        self.tokens = tokens
        self.special = {token.decode(): number for number, token in enumerate(tokens) if special[number]}
        self.of_byte = {token[0]: number for number, token in enumerate(tokens) if len(token) == 1}
        self.merges = {(left, right): (rank, merged) for rank, (left, right, merged) in enumerate(merges.tolist())}
        self.firsts, self.lasts, self.kinds = ranges.T

    def kind(self, character):
        """Whether a character is a letter, a number, white space, or none of them."""
        place = int(np.searchsorted(self.firsts, ord(character), side="right")) - 1
        return int(self.kinds[place]) if place >= 0 and ord(character) <= self.lasts[place] else 0

    def words(self, text):
        """Cut a text as the pattern of Qwen2 does; each rule is tried in its turn."""
        place = 0
        while place < len(text):
            end = self._end_of_word(text, place)
            yield text[place:end]
            place = end

    def _end_of_word(self, text, place):
        kind = [self.kind(character) for character in text[place:place + 2]] + [None]

        def run(start, *kinds):
            """Where characters of these kinds, from `start` on, end."""
            while start < len(text) and self.kind(text[start]) in kinds:
                start += 1
            return start

        for contraction in CONTRACTIONS:
            if text[place:place + len(contraction)].lower() == contraction:
                return place + len(contraction)
        if kind[0] == LETTER:
            return run(place, LETTER)
        if text[place] not in "\r\n" and kind[0] != NUMBER and kind[1] == LETTER:
            return run(place + 1, LETTER)
        if kind[0] == NUMBER:
            return place + 1
        start = place + (text[place] == " " and kind[1] == 0)
        if start < len(text) and self.kind(text[start]) == 0:
            end = run(start, 0)
            while end < len(text) and text[end] in "\r\n":
                end += 1
            return end
        end = run(place, SPACE)
        line = max(text.rfind("\n", place, end), text.rfind("\r", place, end))
        if line >= 0:
            return line + 1
        return end - 1 if end < len(text) and end - place > 1 else end

    def encode(self, text):
        """Token ids of a text; special tokens in it are what they say."""
        for token, number in self.special.items():
            if token in text:
                before, _, after = text.partition(token)
                return [*self.encode(before), number, *self.encode(after)]
        ids = []
        for word in self.words(text):
            parts = [self.of_byte[byte] for byte in word.encode()]
            while len(parts) > 1:
                pairs = [self.merges.get(pair, (len(self.merges), 0)) for pair in pairwise(parts)]
                rank, merged = min(pairs)
                if rank == len(self.merges):
                    break
                place = pairs.index((rank, merged))
                parts[place:place + 2] = [merged]
            ids += parts
        return ids


class Model:
    """A decoder-only transformer in the layout of Qwen3, one token at a time, with a key-value cache."""

    def __init__(self, path):
        with Path(path).open("rb") as file:
            if file.read(8) != b"GENAI-1\n":
                sys.exit(f"{path}: not a parameter file of this program")
            self.size = dict(zip(SIZES, struct.unpack("<12i", file.read(48)), strict=True))
            self.theta, self.epsilon = struct.unpack("<2f", file.read(8))
            tokens, special = [], []
            for _ in range(self.size["vocabulary"]):
                (length,) = struct.unpack("<i", file.read(4))
                tokens.append(file.read(abs(length)))
                special.append(length < 0)
            merges = np.fromfile(file, "<i4", 3 * self.size["merges"]).reshape(-1, 3)
            ranges = np.fromfile(file, "<i4", 3 * self.size["ranges"]).reshape(-1, 3)
            self.tokenizer = Tokenizer(tokens, special, merges, ranges)
            file.seek(-file.tell() % 64, 1)
            self.weights = self._read(np.fromfile(file, "<f4"))
        shape = (self.size["layers"], 2, self.size["key_value_heads"], self.size["context"], self.size["head_size"])
        self.cache = np.zeros(shape, np.float32)

    def _read(self, numbers):
        size, place = self.size, 0
        query, key = (size[name] * size["head_size"] for name in ("heads", "key_value_heads"))

        def take(*shape):
            nonlocal place
            begin, place = place, place + int(np.prod(shape))
            if place > len(numbers):
                raise ValueError("cut off")
            return numbers[begin:place].reshape(shape)

        hidden, wide = size["hidden"], size["feed_forward"]
        weights = {"embedding": take(size["vocabulary"], hidden), "layers": []}
        for _ in range(size["layers"]):
            weights["layers"].append({
                "norm": take(hidden), "query": take(query, hidden), "key": take(key, hidden),
                "value": take(key, hidden), "query_norm": take(size["head_size"]),
                "key_norm": take(size["head_size"]), "out": take(hidden, query), "feed_norm": take(hidden),
                "gate": take(wide, hidden), "up": take(wide, hidden), "down": take(hidden, wide)})
        weights["norm"] = take(hidden)
        if place != len(numbers):
            sys.exit("the parameter file has more than this program knows: it is of another version")
        return weights

    def normed(self, x, weight):
        """x / sqrt(mean(x²) + ε) · weight"""
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(self.epsilon)) * weight

    def rotated(self, x, position):
        """Turn each pair (x_i, x_{i+D/2}) by its angle."""
        half = self.size["head_size"] // 2
        exponents = np.arange(half, dtype=np.float32) / np.float32(half)
        angles = np.float32(position) * np.float32(self.theta) ** -exponents
        cosine, sine = np.cos(angles), np.sin(angles)
        first, second = x[:, :half], x[:, half:]
        return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=1)

    def logits(self, token, position):
        """Logits of the token that follows `token`, which stands at `position`."""
        heads, shared, size = self.size["heads"], self.size["key_value_heads"], self.size["head_size"]
        x = self.weights["embedding"][token]
        for layer, weight in enumerate(self.weights["layers"]):
            normed = self.normed(x, weight["norm"])
            query, key, value = ((weight[name] @ normed).reshape(-1, size) for name in ("query", "key", "value"))
            keys, values = self.cache[layer]
            keys[:, position] = self.rotated(self.normed(key, weight["key_norm"]), position)
            values[:, position] = value
            query = self.rotated(self.normed(query, weight["query_norm"]), position).reshape(shared, -1, size)
            scores = query @ keys[:, :position + 1].transpose(0, 2, 1) * np.float32(size ** -0.5)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            attended = (scores / scores.sum(-1, keepdims=True)) @ values[:, :position + 1]
            x = x + weight["out"] @ attended.reshape(heads * size)
            normed = self.normed(x, weight["feed_norm"])
            gate = weight["gate"] @ normed
            x = x + weight["down"] @ (gate / (1 + np.exp(-gate)) * (weight["up"] @ normed))
        return self.weights["embedding"] @ self.normed(x, self.weights["norm"])

    def generate(self, ids, count, temperature=0.0, seed=None):
        """Token ids after a prompt, one by one."""
        random = np.random.default_rng(seed)
        for position in range(min(len(ids) + count, self.size["context"]) - 1):
            logits = self.logits(ids[position], position)
            if position < len(ids) - 1:
                continue
            if temperature:
                weights = np.exp((logits - logits.max()) / temperature, dtype=np.float64)
                token = int(random.choice(len(logits), p=weights / weights.sum()))
            else:
                token = int(logits.argmax())
            ids = [*ids, token]
            yield token


def answer(model, turns, arguments):
    """Print the answer to a conversation as it is written, and return it."""
    tokenizer = model.tokenizer
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns) + "<|im_start|>assistant\n"
    context = model.size["context"]
    ids = tokenizer.encode(text)[-max(context - arguments.n, context // 2):]      # a long answer makes room for it
    written, shown = b"", ""
    for token in model.generate(ids, arguments.n, arguments.temperature, arguments.seed):
        if token in (model.size["turn_end"], model.size["text_end"]):
            break
        written += tokenizer.tokens[token]
        text = written.decode(errors="ignore")      # a character may take several tokens
        print(text[len(shown):], end="", flush=True)
        shown = text
    print()
    return shown


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("message", nargs="?", help="what to say; without it a conversation begins")
    parser.add_argument("-n", type=int, default=128, help="most tokens of an answer")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--model", default=Path(__file__).with_name("model.bin"))
    parser.add_argument("--ids", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        model = Model(arguments.model)
    except (OSError, ValueError, struct.error) as error:
        sys.exit(f"{arguments.model}: not a whole parameter file of this program ({error})")
    if arguments.ids:
        print(*model.generate([int(number) for number in arguments.ids.split(",")], arguments.n))
        return
    turns = []
    while True:
        try:
            message = arguments.message or input("> ")
        except EOFError:
            return
        while any(token in message for token in model.tokenizer.special):      # whoever writes must not end a turn
            for token in model.tokenizer.special:
                message = message.replace(token, "")
        if not message:
            return
        turns.append(("user", message))
        turns.append(("assistant", answer(model, turns, arguments)))
        if arguments.message:
            return


if __name__ == "__main__":
    main()
