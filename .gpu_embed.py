"""On a GPU: parity of tiny random models with the CPU's vectors, and texts a second in bge-large's shape at bf16."""

import tempfile
import time
from pathlib import Path

import mlx_agent_llm  # noqa: F401, I001  (before mlx, for its BLAS)
import mlx.core as mx
import numpy as np
import torch
from transformers import AutoModel, BertConfig

from mlx_agent_llm import Embedder, Reranker
from tests.support import embedders as tiny

TEXTS = [" ".join(tiny.WORDS[(i * 7 + j) % 60] for j in range(i * 9 % 200)) for i in range(24)]


def parity() -> None:
    for kind, names, write in (
        ("encoder", tiny.CONFIGS, tiny.write_tiny_encoder),
        ("decoder", tiny.DECODERS, tiny.write_tiny_decoder),
    ):
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder), name)
                found = []
                for device in ("cpu", "gpu"):
                    with Embedder.load(folder, device=device) as embedder:
                        found.append(embedder.embed(TEXTS))
                print(f"{kind} {name}: lowest cosine of GPU and CPU {(found[0] * found[1]).sum(axis=1).min():.6f}")
    with tempfile.TemporaryDirectory() as folder:
        tiny.write_tiny_cross_encoder(Path(folder), "bert")
        scores = [Reranker.load(folder, device=device).score("w1", TEXTS) for device in ("cpu", "gpu")]
        print(f"cross-encoder bert: largest difference {np.abs(scores[0] - scores[1]).max():.6f}")


def speed() -> None:
    config = BertConfig(
        vocab_size=64, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        model = AutoModel.from_config(config).to(torch.bfloat16)
        model.save_pretrained(path)
        tiny.write_tokenizer(path)
        tiny.write_modules(path, "Pooling")
        tiny.write_json(path / "1_Pooling" / "config.json", {"pooling_mode": "cls", "embedding_dimension": 1024})
        with Embedder.load(folder, device="gpu", dtype="bfloat16") as embedder:
            for length in (16, 128, 280):
                texts = ["w1 " * length] * 512
                embedder.embed(texts)
                began = time.perf_counter()
                embedder.embed(texts)
                print(f"bge-large's shape, {length} words: ours {512 / (time.perf_counter() - began):.0f} texts/s")
    if not torch.cuda.is_available():
        print("torch has no CUDA here: no peer")
        return
    model = model.cuda().eval()
    for length in (16, 128, 280):
        tokens = torch.full((64, length + 2), 5, device="cuda")
        with torch.no_grad():
            model(tokens)
            torch.cuda.synchronize()
            began = time.perf_counter()
            for _ in range(8):
                model(tokens)[0][:, 0].float().cpu()
        print(f"bge-large's shape, {length} words: torch {512 / (time.perf_counter() - began):.0f} texts/s")


if __name__ == "__main__":
    print(mx.default_device())
    parity()
    speed()
