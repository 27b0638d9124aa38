"""The decoding step in C: what PyTorch computes, for shapes that fill no register evenly, and only where it may."""

import hashlib
import logging

import pytest
import torch
from torch import nn

from genai_core.inference import native
from genai_core.inference.engine import Engine
from genai_core.inference.generate import generate, stream
from genai_core.inference.native import NativeStep, Pace, compiled_library, is_plain, native_step
from genai_core.inference.sampling import Sampling
from genai_core.models.transformer import Transformer, TransformerConfig
from tests.conftest import tiny
from tests.genai_core.test_generate import MANY, PROMPTS, naive

SHAPES = {
    "small": TransformerConfig(517, 64, 2, 4, 2, 16, 96, 128),
    "uneven": TransformerConfig(517, 50, 2, 3, 1, 22, 77, 128),
    "heads of their own": TransformerConfig(301, 72, 1, 3, 3, 12, 130, 128),
    "narrow": TransformerConfig(33, 6, 3, 2, 1, 2, 5, 128),
    "shared by many": TransformerConfig(700, 192, 2, 6, 1, 64, 512, 256, rope_theta=1e6),
}


@pytest.fixture(autouse=True)
def in_c(monkeypatch):
    """The step in C, whatever the environment says."""
    if compiled_library() is None:
        pytest.skip("no C compiler")
    monkeypatch.delenv("GENAI_NATIVE", raising=False)


@pytest.fixture
def from_nothing(monkeypatch, tmp_path):
    """Nothing is compiled yet, and what will be is put under `tmp_path`."""
    monkeypatch.setenv("GENAI_CACHE", str(tmp_path / "cache"))
    compiled_library.cache_clear()
    yield tmp_path / "cache" / "native"
    compiled_library.cache_clear()


def random(shape: TransformerConfig) -> Transformer:
    torch.manual_seed(1)
    model = Transformer(shape)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=0.1)
        else:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model.eval()


@torch.no_grad()
def both(model: Transformer, rows: int, steps: int = 4) -> float:
    """Largest difference of logits between C and PyTorch, over rows of different lengths of which some are finished."""
    vocabulary, capacity = model.config.vocab_size, 40
    lengths = torch.arange(rows) * 7 % (capacity - steps)
    caches = [model.new_cache(rows, capacity) for _ in range(2)]
    for cache in caches:
        generator = torch.Generator().manual_seed(2)
        for tensor in cache.keys + cache.values:
            tensor.normal_(generator=generator)
        cache.lengths.copy_(lengths)
    step = NativeStep(compiled_library(), model, caches[0])
    alive = torch.ones(rows, dtype=torch.bool)
    alive[1::5] = rows < 2
    difference = 0.0
    for number in range(steps):
        ids = torch.randint(vocabulary, (rows,), generator=torch.Generator().manual_seed(number))
        logits = step.logits(ids, alive)
        wanted = model.logits(model.hidden(ids[:, None], cache=caches[1]))[:, 0]
        caches[1].grow(alive.long() - 1)
        difference = max(difference, float((logits - wanted)[alive].abs().max()))
        assert caches[0].lengths.equal(caches[1].lengths)
    for own, theirs in zip(caches[0].keys + caches[0].values, caches[1].keys + caches[1].values, strict=True):
        difference = max(difference, float((own - theirs)[alive].abs().max()))
    return difference


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 16, 33])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_logits_and_cache_are_those_of_pytorch(shape, rows):
    assert both(random(shape), rows) < 1e-4


@pytest.mark.parametrize("rows", [1, 3, 16])
def test_threads_share_the_work_out_and_change_nothing(rows, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(native, "WORK_OF_A_THREAD", 1)
    monkeypatch.setattr(native, "_pace", native.Pace())      # the process's own may have settled on one thread
    for name in ("small", "uneven", "shared by many"):
        assert both(random(SHAPES[name]), rows) < 1e-4, name


@torch.no_grad()
@pytest.mark.parametrize("slots", [3, 7])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_prompts_are_read_as_pytorch_reads_them_whatever_their_length(shape, slots):
    model = random(shape)
    lengths = [70, 1, 128][:slots] if slots == 3 else [3, 64, 1, 70, 2]      # pieces end inside and between prompts
    generator = torch.Generator().manual_seed(3)
    prompts = [torch.randint(shape.vocab_size, (length,), generator=generator).tolist() for length in lengths]
    cache, rows = model.new_cache(slots, 128), list(range(slots))[-len(prompts):]
    logits = native_step(model, cache).read(prompts, rows)
    assert cache.lengths[rows].tolist() == lengths
    for row, prompt, found in zip(rows, prompts, logits, strict=True):
        alone = model.new_cache(1, len(prompt))
        assert torch.allclose(found, model.logits(model.hidden(torch.tensor([prompt]), cache=alone))[0, -1], atol=1e-4)
        for own, theirs in zip(cache.keys + cache.values, alone.keys + alone.values, strict=True):
            assert torch.allclose(own[row, :, :len(prompt)], theirs[0], atol=1e-4)


def test_a_prompt_that_many_share_is_read_once_and_copied(monkeypatch):
    model, read, original = tiny(), [], NativeStep.read
    monkeypatch.setattr(NativeStep, "read", lambda self, prompts, rows: read.append(prompts) or original(
        self, prompts, rows))
    shared = [PROMPTS[2], PROMPTS[0], PROMPTS[2], PROMPTS[2], PROMPTS[0]]
    done = generate(model, shared, 8, set(), pad_id=0)
    assert read == [[tuple(PROMPTS[2]), tuple(PROMPTS[0])]]
    assert done.unpadded() == [naive(model, prompt, 8) for prompt in shared]


@pytest.mark.parametrize(("prompt", "slot"), [([], 0), ([1] * 9, 0), ([700], 0), ([3, -1], 0), ([3], 1), ([3], -1)])
def test_prompts_without_room_and_of_no_tokens_are_refused(prompt, slot):
    model = tiny()
    cache = model.new_cache(1, 8)
    with pytest.raises(RuntimeError, match="longer than a row of the cache, or holds a token not in the vocabulary"):
        native_step(model, cache).read([prompt], [slot])
    assert cache.lengths.tolist() == [0]


@pytest.mark.parametrize("slots", [1, 2, 5, 9])
def test_greedy_tokens_are_the_naive_ones_while_slots_are_left_and_entered(slots, monkeypatch):
    model, steps = tiny(), []
    original = NativeStep.logits
    monkeypatch.setattr(NativeStep, "logits", lambda self, *rest: steps.append(1) or original(self, *rest))
    ends = {naive(model, prompt, 6)[3] for prompt in MANY[:3]}
    done = generate(model, MANY, 12, ends, pad_id=0, slots=slots)
    for row, prompt in zip(done.unpadded(), MANY, strict=True):
        wanted = naive(model, prompt, 12)
        end = next((place + 1 for place, token in enumerate(wanted) if token in ends), 12)
        assert row == wanted[:end]
    assert steps, "PyTorch was used"


def test_sampled_log_probabilities_are_those_of_the_model():
    model = tiny()
    done = generate(model, MANY, 12, set(), pad_id=0, sampling=Sampling(0.7), seeds=list(range(len(MANY))), slots=5)
    for prompt, ids, log_probs in zip(MANY, done.ids, done.log_probs, strict=True):
        logits = model(torch.tensor([prompt + ids.tolist()]))[0, len(prompt) - 1:-1] / 0.7
        wanted = torch.log_softmax(logits, -1).gather(-1, ids[:, None])[:, 0]
        assert torch.allclose(log_probs, wanted, atol=1e-4)


def test_one_thread_steps_while_others_are_kept_waiting_and_all_do_afterwards(monkeypatch):
    clock, pace, used = [0.0], Pace(), []      # 1 ms for two threads, 2 ms for one, 76 ms beside other programs
    monkeypatch.setattr(native.time, "perf_counter", lambda: clock[0])

    def make(count: int, *, busy: bool) -> float:
        """Share of the steps that one thread makes."""
        used.clear()
        for _ in range(count):
            def step(threads: int) -> int:
                used.append(threads)
                clock[0] += 0.002 if threads == 1 else 0.076 if busy else 0.001
                return 0

            pace.make(step, 2)
        return used.count(1) / count

    assert make(1000, busy=False) < 0.02
    assert make(3, busy=True) <= 1 and pace.alone
    assert make(3000, busy=True) > 0.99
    make(3000, busy=False)
    assert make(1000, busy=False) < 0.02


def test_nan_in_the_weights_is_nan_in_the_logits():
    model = tiny()
    with torch.no_grad():
        model.model.layers[0].mlp.gate_proj.weight[3, 5] = float("nan")
    for rows in (1, 5):
        step = native_step(model, model.new_cache(rows, 8))
        assert step.logits(torch.zeros(rows, dtype=torch.long), torch.ones(rows, dtype=torch.bool)).isnan().all()


def test_a_row_without_room_and_a_token_that_is_none_are_refused():
    model = tiny()
    for rows in (1, 5):
        cache, alive = model.new_cache(rows, 8), torch.ones(rows, dtype=torch.bool)
        step = native_step(model, cache)
        ids = torch.full((rows,), 3)
        for wrong in (-1, model.config.vocab_size):
            with pytest.raises(RuntimeError, match="not in the vocabulary"):
                step.logits(torch.full((rows,), wrong), alive)
        with pytest.raises(RuntimeError, match="another shape"):
            step.logits(ids[:-1], alive)
        with pytest.raises(RuntimeError, match="another shape"):
            step.logits(ids.int(), alive)
        cache.lengths[-1] = 8
        with pytest.raises(RuntimeError, match="is full"):
            step.logits(ids, alive)
        alive[-1] = False      # nobody writes there
        step.logits(ids, alive)
        assert cache.lengths.tolist() == [1] * (rows - 1) + [8]


@pytest.mark.parametrize("slots", [1, 5])
def test_weights_that_change_between_runs_are_the_ones_used(slots):
    model = tiny()
    engine = Engine(model, slots, 20, new_tokens=6, end_ids=set(), pad_id=0)
    for _ in range(2):
        done = {each.prompt: each.ids for each in engine.run(MANY)}
        assert [done[number] for number in range(len(MANY))] == [naive(model, prompt, 6) for prompt in MANY]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.9).add_(0.01)


def test_models_that_are_not_plain_are_left_to_pytorch():
    class Adapted(nn.Linear):
        pass

    assert is_plain(tiny())
    hooked, adapted, half, biased, renamed, doubled = (tiny() for _ in range(6))
    hooked.model.layers[1].mlp.register_forward_hook(lambda *rest: None)
    adapted.model.layers[0].self_attn.q_proj = Adapted(64, 64, bias=False)
    biased.model.layers[0].self_attn.q_proj = nn.Linear(64, 64)
    renamed.model.layers[0].forward = renamed.model.layers[0].forward
    for model in (hooked, adapted, half.bfloat16(), biased, renamed, doubled.double()):
        assert not is_plain(model) and native_step(model, model.new_cache(1, 8)) is None


def test_a_hook_that_comes_later_is_called():
    model, called = tiny(), []
    engine = Engine(model, 1, 12, new_tokens=4, end_ids=set(), pad_id=0)
    list(engine.run(PROMPTS[:1]))
    model.model.norm.register_forward_hook(lambda *rest: called.append(1))
    list(engine.run(PROMPTS[:1]))
    assert len(called) == 4


def used(model: Transformer) -> bool:
    engine = Engine(model, 1, 12, new_tokens=4, end_ids=set(), pad_id=0)
    list(engine.run(PROMPTS[:1]))
    return engine._native is not None


def test_the_environment_switches_it_off_and_autocast_goes_around_it(monkeypatch):
    assert used(tiny())
    for name in ("logits", "read"):
        monkeypatch.setattr(NativeStep, name, lambda *rest: pytest.fail("C was used"))
    with torch.autocast("cpu", torch.bfloat16):
        used(tiny())
    monkeypatch.setenv("GENAI_NATIVE", "0")
    assert not used(tiny())


@pytest.mark.parametrize(("name", "value"), [("CC", "/nonexistent"), ("PATH", ""), ("CC", "false"), ("CC", "true")])
def test_without_a_compiler_pytorch_decodes_and_the_log_says_so_once(name, value, monkeypatch, from_nothing, caplog):
    monkeypatch.setenv(name, value)
    with caplog.at_level(logging.INFO, "genai_core"):
        assert list(stream(tiny(), PROMPTS[0], 6, set())) == naive(tiny(), PROMPTS[0], 6)
        assert not used(tiny())
    assert caplog.text.count("without the step in C") == 1


def test_a_library_is_compiled_once_for_its_owner_alone_and_again_where_it_is_damaged(from_nothing, monkeypatch):
    assert used(tiny())
    [file] = from_nothing.iterdir()
    content, made = file.read_bytes(), file.stat().st_mtime_ns
    assert from_nothing.stat().st_mode & 0o777 == 0o700
    compiled_library.cache_clear()
    assert used(tiny()) and file.stat().st_mtime_ns == made
    file.unlink()      # not in place: this process has it open
    file.write_bytes(content[:len(content) // 2])
    compiled_library.cache_clear()
    assert used(tiny())
    [again] = from_nothing.iterdir()
    assert again.stem.split("-")[1] == hashlib.sha256(again.read_bytes()).hexdigest()[:32]


def test_a_folder_that_others_may_write_to_is_not_used(from_nothing):
    from_nothing.mkdir(parents=True)
    from_nothing.chmod(0o777)
    assert used(tiny()) and not list(from_nothing.iterdir())


def test_the_digest_is_that_of_the_source_and_no_other_source_is_compiled(from_nothing, monkeypatch, tmp_path, caplog):
    source = native.SOURCE.read_bytes()
    assert hashlib.sha256(source).hexdigest() == native.SOURCE_DIGEST, "write the new digest into native.py"
    other = tmp_path / "native.c"
    other.write_bytes(source + b"\n")
    monkeypatch.setattr(native, "SOURCE", other)
    with caplog.at_level(logging.INFO, "genai_core"):
        assert not used(tiny())
    assert "not the file" in caplog.text and not from_nothing.exists()
