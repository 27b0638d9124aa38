"""The transformer: cached equals naive, both attention paths agree, and `transformers` reads the same model."""

import pytest
import torch

from genai_core.data.tokens.batches import IGNORED
from genai_core.export.model_directory import load_model, save_model
from genai_core.hardware import autocast
from genai_core.models import transformer
from genai_core.models.transformer import attend, parameter_count
from genai_core.training.objectives import cross_entropy
from genai_core.training.objectives.cross_entropy import in_pieces, token_loss

CPU = torch.device("cpu")


def test_parameter_count_is_that_of_the_model(tiny_model):
    assert parameter_count(tiny_model.config) == sum(parameter.numel() for parameter in tiny_model.parameters())


def test_a_new_model_starts_as_the_identity_of_its_embedding():
    torch.manual_seed(0)
    model = transformer.Transformer(transformer.TransformerConfig(50, 32, 3, 2, 1, 16, 64, 64))
    ids = torch.randint(0, 50, (2, 9))
    embedded = model.model.norm(model.model.embed_tokens(ids))
    assert torch.allclose(model.hidden(ids), embedded, atol=1e-6)


def test_later_tokens_do_not_change_earlier_logits(tiny_model):
    ids = torch.randint(0, 700, (2, 20))
    changed = ids.clone()
    changed[:, 12:] = torch.randint(0, 700, (2, 8))
    assert torch.equal(tiny_model(ids)[:, :12], tiny_model(changed)[:, :12])


@pytest.mark.parametrize("chunks", [[1] * 20, [7, 1, 12], [20]])
def test_cached_equals_naive(tiny_model, chunks):
    ids = torch.randint(0, 700, (3, 20))
    cache = tiny_model.new_cache(3, 20)
    parts = [tiny_model(part, cache=cache) for part in ids.split(chunks, dim=1)]
    assert torch.allclose(torch.cat(parts, dim=1), tiny_model(ids), atol=1e-5)


def test_a_full_cache_says_so(tiny_model):
    cache = tiny_model.new_cache(1, 4)
    with pytest.raises(RuntimeError):
        tiny_model(torch.zeros(1, 5, dtype=torch.long), cache=cache)


@pytest.mark.parametrize("length", [15, 16, 128])
@pytest.mark.parametrize("masked", [False, True])
def test_plain_products_equal_the_fused_kernel(masked, length):
    torch.manual_seed(1)
    query, key, value = (torch.randn(2, heads, length, 8) for heads in (6, 2, 2))
    mask = None
    if masked:
        mask = (torch.rand(2, 1, length, length) > 0.4).tril() | torch.eye(length, dtype=torch.bool)
    fused = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None,
                                                             enable_gqa=True)
    assert torch.allclose(attend(query, key, value, mask), fused, atol=1e-5)


def test_transformers_gives_our_logits_and_our_greedy_text(tiny_model, tokenizer_dir, tmp_path):
    transformers = pytest.importorskip("transformers")
    save_model(tiny_model, tokenizer_dir, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids = torch.randint(3, 700, (2, 60))
    with torch.no_grad():
        assert (theirs(ids).logits - tiny_model(ids)).abs().max() < 1e-4
        prompt = ids[:1, :10]
        text = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=50, do_sample=False,
                               eos_token_id=None)
    from genai_core.inference.generate import generate

    ours = generate(tiny_model, [prompt[0].tolist()], 50, set(), pad_id=0)
    assert ours.ids[0].tolist() == text[0, 10:].tolist()


def test_a_model_directory_survives_a_round_trip(tiny_model, tokenizer_dir, tmp_path):
    save_model(tiny_model, tokenizer_dir, tmp_path)
    loaded = load_model(tmp_path, torch.device("cpu"))
    ids = torch.randint(0, 700, (1, 16))
    assert torch.equal(loaded(ids), tiny_model(ids))


def test_transformers_gives_our_gradients(tiny_model, tokenizer_dir, tmp_path):
    transformers = pytest.importorskip("transformers")
    save_model(tiny_model, tokenizer_dir, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.randint(3, 700, (2, 60))
    theirs(ids, labels=ids).loss.backward()
    (token_loss(tiny_model, tiny_model.hidden(ids[:, :-1]), ids[:, 1:]) / ids[:, 1:].numel()).backward()
    known = dict(theirs.named_parameters())
    for name, parameter in tiny_model.named_parameters():
        assert torch.allclose(parameter.grad, known[name].grad, atol=1e-5), name


def test_recomputed_activations_give_the_same_gradients(tiny_model):
    ids = torch.randint(3, 700, (2, 64))
    gradients = []
    for recompute in (False, True):
        tiny_model.model.recompute_activations = recompute
        tiny_model.zero_grad()
        token_loss(tiny_model, tiny_model.hidden(ids), ids).backward()
        gradients.append([parameter.grad.clone() for parameter in tiny_model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


@pytest.mark.parametrize(("precision", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("weighted", [False, True])
def test_logits_in_pieces_give_the_same_loss_and_gradients(weighted, precision, near, monkeypatch):
    """The loss to float32's rounding in bfloat16 too, where a sum in bfloat16 would lose percents of it."""
    torch.manual_seed(0)
    states, head = torch.randn(20_000, 32, requires_grad=True), torch.randn(700, 32, requires_grad=True)
    targets = torch.randint(0, 700, (20_000,))
    targets[::7] = IGNORED
    weights = torch.rand(20_000) if weighted else None
    results = []
    for size in (256, 20_000):
        monkeypatch.setattr(cross_entropy, "PIECE", size)
        states.grad = head.grad = None
        with autocast(CPU, precision):
            loss = in_pieces(states, head, targets, weights)
        loss.backward()
        results.append((loss.item(), states.grad, head.grad))
    naive = torch.nn.functional.cross_entropy(states @ head.T, targets, reduction="none")
    naive = (naive * (1 if weights is None else weights)).sum().item()
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5) == pytest.approx(naive, rel=near)
    for in_many, in_one in zip(results[0][1:], results[1][1:], strict=True):
        assert (in_many - in_one).norm() < near * in_one.norm()


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_states_of_chosen_tokens_and_their_gradients_are_those_among_all(masked, recompute, tiny_model):
    ids, only = torch.randint(0, 700, (3, 9)), torch.tensor([8, 0, 4])
    mask = torch.ones(3, 1, 9, 9).tril().bool() if masked else None
    if masked:
        mask[1, :, 3:, 1] = False
    decoder, positions, found = tiny_model.model, torch.arange(9)[None], []
    decoder.recompute_activations = recompute
    for states in (decoder(ids, positions, mask, None, only)[:, 0],
                   decoder(ids, positions, mask, None)[torch.arange(3), only]):
        decoder.zero_grad()
        (states ** 3).sum().backward()
        found.append([states.detach(), *(each.grad.clone() for each in decoder.parameters())])
    assert all(torch.allclose(ours, whole, rtol=1e-4, atol=1e-4 * whole.abs().max())
               for ours, whole in zip(*found, strict=True))
