"""vLLM's server of one model directory, in a process of its own: `python -m genai_core.serving.vllm`.

How it is spoken to stands in `engine.py`, how vLLM is started and ended in `genai_core/inference/vllm/process.py`. It
imports nothing that takes time or memory.
"""

import json
import sys
from typing import Any

from genai_core.inference.vllm.process import run


def main() -> None:
    given: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    run(given["command"], {"VLLM_API_KEY": given["key"], "OMP_NUM_THREADS": str(given["threads"])})


if __name__ == "__main__":
    main()
