"""Decoding many prompts through a fixed number of slots: what is finished leaves, and the next prompt takes its place.

A slot is a row of the cache. Prompts are read on their own, each distinct one once, and then put into slots; from there
on every step makes one token for all slots, of fixed shapes, so that it is compiled once. What became of the tokens the
host looks at only every few steps. On a CPU the step of a plain transformer is a program in C (`native.py`).

Shapes: B slots, N new tokens at most, V vocabulary.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from genai_core.data.tokens.batches import pad
from genai_core.inference.native import NativeStep, native_step
from genai_core.inference.sampling import Sampling, choose
from genai_core.models.language_model import LanguageModel

STEPS_BETWEEN_LOOKS = {"cpu": 1, "cuda": 16, "mps": 16}
"""A look waits for the device; a CPU has nothing to wait for."""
ADMIT_SHARE = 0.25
"""Of the slots, as many have to be free before prompts are read again: one by one would take longer."""


@dataclass
class Sequences:
    """Sequences that are being written, one in each of B rows."""

    ids: Tensor
    """New tokens (B, N + 1): the first `count` of each row; what is written after them nobody reads."""
    log_probs: Tensor
    """Of each new token (B, N + 1)."""
    draws: Tensor
    """Numbers (B, N) that they are drawn by."""
    seen: Tensor
    """Tokens (B, V) that are already there, or (B, 0) where nobody asks."""
    last: Tensor
    """The newest token (B,); of a finished row any."""
    count: Tensor
    """How many are written (B,)."""
    alive: Tensor
    """Whether there are more to come (B,)."""

    @classmethod
    def blank(cls, rows: int, tokens: int, vocabulary: int, pad_id: int, device: torch.device) -> "Sequences":
        return cls(torch.full((rows, tokens + 1), pad_id, device=device),
                   torch.zeros((rows, tokens + 1), device=device),
                   torch.zeros((rows, tokens), device=device),
                   torch.zeros((rows, vocabulary), dtype=torch.bool, device=device),
                   torch.full((rows,), pad_id, device=device), torch.zeros(rows, dtype=torch.long, device=device),
                   torch.zeros(rows, dtype=torch.bool, device=device))

    def put(self, rows: Tensor, others: "Sequences") -> None:
        for each in fields(self):
            getattr(self, each.name)[rows] = getattr(others, each.name)


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt."""

    prompt: int
    """Number of the prompt, in the order in which they were given."""
    ids: list[int]
    """Its tokens, an end token included."""
    log_probs: list[float]
    """Log-probability of each in the distribution that it was drawn from."""


class Engine:
    """A model with its slots, for prompts and completions of up to `capacity` tokens together."""

    def __init__(self, model: LanguageModel, slots: int, capacity: int, *, new_tokens: int, end_ids: set[int],
                 pad_id: int, sampling: Sampling | None = None, compiled: bool = False):
        self.model, self.slots, self.capacity, self.new_tokens = model, slots, capacity, new_tokens
        self.sampling, self.pad_id = sampling or Sampling(), pad_id
        self.device = next(model.parameters()).device
        self.ends = end_ids
        self._goes_on = torch.ones(model.config.vocab_size, dtype=torch.bool, device=self.device)
        self._goes_on[[token for token in end_ids if token < len(self._goes_on)]] = False
        self.cache = model.new_cache(slots, capacity)
        self.sequences = self._blank(slots)
        self.compiled = compiled
        self._make_step = torch.compile(self._step, dynamic=False) if compiled else self._step
        self._native: NativeStep | None = None

    @torch.no_grad()
    def run(self, prompts: Sequence[list[int]], draws: Tensor | None = None, go_on: Callable[[bool], bool] = bool
            ) -> Iterator[Completion]:
        """Completions in the order in which they end. `draws` (prompts, N) are numbers from 0 to 1 to draw tokens by.

        `go_on` is given whether any is unfinished, and says whether there is a next token: processes that share a model
        out have to go on together, and all their prompts must find a slot at once. Raises ValueError for an empty
        prompt and for one that leaves no room.
        """
        self._check(prompts)
        self._prepare_native()
        if draws is None:
            draws = torch.rand(len(prompts), self.new_tokens) if self.sampling.temperature else \
                torch.zeros(len(prompts), self.new_tokens)
        waiting = deque(range(len(prompts)))
        held: list[int | None] = [None] * self.slots
        self.sequences.alive.zero_()
        while go_on(bool(waiting) or any(number is not None for number in held)):
            free = [slot for slot, number in enumerate(held) if number is None]
            if waiting and (len(free) >= ADMIT_SHARE * self.slots):
                taken = [waiting.popleft() for _ in free[:len(waiting)]]
                for slot, admitted in zip(free, taken, strict=False):
                    held[slot] = admitted
                self._admit(free[:len(taken)], [prompts[number] for number in taken], draws[taken])
            else:
                for _ in range(STEPS_BETWEEN_LOOKS.get(self.device.type, 1)):
                    self._make_step()
            alive = self.sequences.alive.tolist()
            for slot, number in enumerate(held):
                if number is not None and not alive[slot]:
                    yield self._completion(slot, number)
                    held[slot] = None

    @torch.no_grad()
    def stream(self, prompt: list[int], draws: Tensor | None = None) -> Iterator[int]:
        """Tokens of one completion as they come, without the end token."""
        self._check([prompt])
        self._prepare_native()
        draws = torch.rand(1, self.new_tokens) if draws is None else draws
        self._admit([0], [prompt], draws)
        while True:
            token = int(self.sequences.last[0])
            if token in self.ends:
                return
            yield token
            if not self.sequences.alive[0]:
                return
            self._make_step()

    def _check(self, prompts: Sequence[list[int]]) -> None:
        if not all(prompts):
            raise ValueError("every prompt needs at least one token")
        if prompts and (longest := max(map(len, prompts))) + self.new_tokens > self.capacity:
            raise ValueError(f"a prompt of {longest} tokens and {self.new_tokens} new ones do not fit into "
                             f"{self.capacity} places")

    def _blank(self, rows: int) -> Sequences:
        vocabulary = self.model.config.vocab_size if self.sampling.repetition_penalty != 1 else 0
        return Sequences.blank(rows, self.new_tokens, vocabulary, self.pad_id, self.device)

    def _admit(self, slots: list[int], prompts: list[list[int]], draws: Tensor) -> None:
        """Read prompts, those that are alike once, choose the first token of each, and put them into slots."""
        distinct = list(dict.fromkeys(map(tuple, prompts)))
        place = {prompt: number for number, prompt in enumerate(distinct)}
        of = torch.tensor([place[tuple(prompt)] for prompt in prompts], device=self.device)
        rows = torch.tensor(slots, device=self.device)
        logits = self._read(distinct, rows, of)
        begun = self._blank(len(prompts))
        begun.draws.copy_(draws)
        begun.alive.fill_(True)
        if begun.seen.shape[1]:
            for number, prompt in enumerate(prompts):
                begun.seen[number, prompt] = True
        self._write(begun, logits[of])
        self.sequences.put(rows, begun)

    def _read(self, distinct: list[tuple[int, ...]], rows: Tensor, of: Tensor) -> Tensor:
        """Read distinct prompts, prompt `of[i]` into row `rows[i]`; logits (P, V) of what follows each."""
        if self._native is not None and not torch.is_autocast_enabled("cpu"):
            first = [int(rows[of == number][0]) for number in range(len(distinct))]
            logits = self._native.read(distinct, first)
            if len(distinct) < len(rows):
                self.cache.put(rows, self.cache, torch.tensor(first)[of], max(map(len, distinct)))
            return logits
        ids, attention_mask = (tensor.to(self.device) for tensor in pad([list(each) for each in distinct], self.pad_id,
                                                                         "right"))
        cache = self.model.new_cache(len(distinct), ids.shape[1])
        states = self.model.read(ids, attention_mask.sum(1), cache)
        self.cache.put(rows, cache, of)
        return self.model.logits(states)

    def _prepare_native(self) -> None:
        """Have the step in C, with the weights as they are now; None where there is none for this model."""
        if not self.compiled and (self._native is None or not self._native.is_of(self.model)):
            self._native = native_step(self.model, self.cache)

    def _step(self) -> None:
        """One token for each slot; what is finished stays as it is."""
        if self._native is not None and not torch.is_autocast_enabled("cpu"):
            logits = self._native.logits(self.sequences.last, self.sequences.alive)
        else:
            unfinished = self.sequences.alive.long()
            states = self.model.hidden(self.sequences.last[:, None], cache=self.cache)
            self.cache.grow(unfinished - 1)
            logits = self.model.logits(states[:, -1])
        self._write(self.sequences, logits)

    def _write(self, sequences: Sequences, logits: Tensor) -> None:
        """Choose the next token of each sequence that is alive; what others get is written where nobody reads."""
        place = sequences.count[:, None]
        drawn = sequences.draws.gather(1, place.clamp(max=self.new_tokens - 1))[:, 0] if self.sampling.temperature \
            else None
        chosen, log_probs = choose(logits, self.sampling, drawn, sequences.seen if sequences.seen.shape[1] else None)
        sequences.ids.scatter_(1, place, chosen[:, None])
        sequences.log_probs.scatter_(1, place, log_probs[:, None])
        if sequences.seen.shape[1]:
            sequences.seen.scatter_(1, chosen[:, None], True)
        sequences.last.copy_(chosen)
        sequences.count.add_(sequences.alive)
        sequences.alive.logical_and_(self._goes_on[chosen]).logical_and_(sequences.count < self.new_tokens)

    def _completion(self, slot: int, number: int) -> Completion:
        count = int(self.sequences.count[slot])
        return Completion(number, self.sequences.ids[slot, :count].tolist(),
                          self.sequences.log_probs[slot, :count].tolist())
