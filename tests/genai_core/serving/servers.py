"""A server in a thread of the test, with a real engine behind it."""

import asyncio
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import torch

from genai_core.export.model_directory import save_model
from genai_core.models.transformer import Transformer, TransformerConfig
from genai_core.serving.engines.choice import start_engine
from genai_core.serving.front.app import create_app
from genai_core.serving.limits import Limits
from genai_core.serving.pool import EnginePool, ServedModel
from genai_core.serving.server import bound_socket, quiet_server

CONTEXT = 256
HELLO = [{"role": "user", "content": "Hello"}]
KEY = "a-key-for-tests"


def model_directory(tokenizer, tokenizer_dir, directory: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    model = Transformer(TransformerConfig(vocab_size=tokenizer.get_vocab_size(), hidden_size=64, num_hidden_layers=2,
                                          num_attention_heads=4, num_key_value_heads=2, head_dim=32,
                                          intermediate_size=96, max_position_embeddings=CONTEXT))
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    directory.mkdir()
    save_model(model.eval(), tokenizer_dir, directory)
    return directory


class Serving:
    """A server that runs in a thread of this process, where a test can look at its engines."""

    def __init__(self, served_models, folder: Path, limits: Limits, key: str, engine: str = "auto"):
        self.folder, self.key, self.kind = folder, key, engine
        listener = bound_socket("127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(served_models, limits, listener)))
        self._thread.start()
        wait_until(lambda: self._ready.is_set() or not self._thread.is_alive(), 60 if engine == "auto" else 300)
        assert self._ready.is_set(), "the server did not start"

    async def _run(self, served_models, limits: Limits, listener: socket.socket) -> None:
        self.loop = asyncio.get_running_loop()
        self.pool = EnginePool(served_models, lambda served_model, announce: start_engine(
            served_model.locate(), served_model.name, slots=limits.slots, queue=limits.queue, context=limits.context,
            threads=limits.threads, folder=self.folder, engine=self.kind, announce=announce), 30,
            limits.slots + limits.queue)
        app = create_app(self.pool, limits, key=self.key, host="127.0.0.1", feedback=self.folder / "feedback")
        self.server = quiet_server(app, 5)
        await self.pool.start(self.pool.main)
        listener.listen(64)
        self._ready.set()
        await self.server.serve(sockets=[listener])
        await self.pool.stop()

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive(), "the server did not end"

    @property
    def engine(self):
        return self.pool.engines[self.pool.main.key]

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def client(self, **more):
        import openai

        return openai.OpenAI(base_url=f"{self.address}/v1", api_key=self.key or "none", max_retries=0, **more)

    def post(self, path: str, **more) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx.post(f"{self.address}{path}", headers={**headers, **more.pop("headers", {})}, timeout=60, **more)


@contextmanager
def running(folder: Path, *served_models: ServedModel, key: str = "", engine: str = "auto", **limits):
    server = Serving(served_models, folder, Limits(**limits), key, engine)
    try:
        yield server
    finally:
        server.stop()


def served_model(path: Path, name: str = "tiny", **more) -> ServedModel:
    return ServedModel(name, str(path), lambda: path, **more)


def wait_until(condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
