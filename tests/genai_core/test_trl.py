"""The loss of TRL's SFTTrainer on the same chats, with all weights and with adapters."""

import pytest
import torch

from genai_core.config.training import InstructConfig, LoraConfig
from genai_core.data.chat import encode_chat
from genai_core.data.instruction.packing import pack
from genai_core.export.adapter import FOLDER, save_adapter
from genai_core.export.model_directory import save_model
from genai_core.models.adapters import adapters_of, add_adapters
from genai_core.training.objectives.assistant_tokens import AssistantTokens

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def chats(prose):
    """Of one and two answers, each of another length."""
    short = [[{"role": "user", "content": text[:20 + 7 * number]},
              {"role": "assistant", "content": text[60:90 + 9 * number]}] for number, text in enumerate(prose[:6])]
    return [*short, [*short[0], *short[1]], [{"role": "system", "content": "Be brief."}, *short[2]]]


def our_loss(model, tokenizer, chats):
    """Of the chats packed into rows, by the token; its gradients are left on the model."""
    rows = pack([encode_chat(tokenizer, chat) for chat in chats], 128, 0, [1.0] * len(chats))
    assert len(rows.ids) < len(chats), "some share a row"
    config = InstructConfig(context_length=128, batch_size=len(rows.ids), learning_rate=1e-3)
    objective = AssistantTokens(model, rows, rows, config, CPU)
    batch = objective.batch(0)
    loss = objective.loss(batch)[0] / objective.targets(batch)
    loss.backward()
    return loss.item()


def their_loss(directory, chats, folder, adapter=None):
    """Of the chats in one padded batch of TRL's trainer, and its model with the gradients."""
    datasets, peft = pytest.importorskip("datasets"), pytest.importorskip("peft")
    transformers, trl = pytest.importorskip("transformers"), pytest.importorskip("trl")
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    if adapter:
        model = peft.PeftModel.from_pretrained(model, adapter, is_trainable=True)
    options = trl.SFTConfig(output_dir=str(folder), per_device_train_batch_size=len(chats), assistant_only_loss=True,
                            max_length=128, report_to=[], use_cpu=True, bf16=False,
                            activation_checkpointing=False)
    trainer = trl.SFTTrainer(model, options, train_dataset=datasets.Dataset.from_list([{"messages": chat}
                                                                                       for chat in chats]),
                             processing_class=transformers.AutoTokenizer.from_pretrained(directory))
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.item(), trainer.model


def test_the_loss_and_its_gradients_are_those_of_trl(tiny_model, tokenizer, tokenizer_dir, chats, tmp_path):
    save_model(tiny_model, tokenizer_dir, tmp_path)
    expected, theirs = their_loss(tmp_path, chats, tmp_path / "trl")
    assert our_loss(tiny_model, tokenizer, chats) == pytest.approx(expected, abs=1e-4)
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert all(torch.allclose(parameter.grad, gradients[name], atol=1e-4)
               for name, parameter in tiny_model.named_parameters())


def test_the_loss_of_adapters_and_its_gradients_are_those_of_trl(tiny_model, tokenizer, tokenizer_dir, chats, tmp_path):
    save_model(tiny_model, tokenizer_dir, tmp_path)
    add_adapters(tiny_model, LoraConfig(rank=4), 0)
    for _, adapter in adapters_of(tiny_model):
        torch.nn.init.normal_(adapter.lora_B, std=0.1)
    save_adapter(tiny_model, tmp_path / FOLDER)
    expected, theirs = their_loss(tmp_path, chats, tmp_path / "trl", adapter=tmp_path / FOLDER)
    assert our_loss(tiny_model, tokenizer, chats) == pytest.approx(expected, abs=1e-4)
    gradients = dict(theirs.named_parameters())
    for name, adapter in adapters_of(tiny_model):
        for part in ("lora_A", "lora_B"):
            gradient = gradients[f"base_model.model.{name}.{part}.default.weight"].grad
            assert torch.allclose(getattr(adapter, part).grad, gradient, atol=1e-4)
