from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_agent_llm.errors import ModelLoadError
from mlx_agent_llm.models import load_model
from mlx_agent_llm.models.gguf.split import read_whole
from tests.support import gguf_files as files

TOKENS = mx.array([[5, 80, 3, 200]])


def write_parts(folder: Path, *, count: int = 3, changes: Mapping[int, Mapping[str, Any]] | None = None) -> list[Path]:
    """The tensors dealt out to several files; all of the metadata is in the first."""
    spec = files.llama_spec("Q4_0")
    paths = []
    for index in range(count):
        split = {"split.no": index, "split.count": count, "split.tensors.count": len(spec.tensors)}
        metadata = (spec.metadata if index == 0 else {"general.architecture": "llama"}) | split
        tensors = dict(list(spec.tensors.items())[index::count])
        part = files.Spec(metadata | dict((changes or {}).get(index, {})), tensors)
        paths.append(files.write(folder / f"model-{index + 1:05}-of-{count:05}.gguf", part))
    return paths


@pytest.mark.parametrize("named", [0, 2])
def test_a_model_in_parts_is_the_model_in_one_whichever_part_is_named(tmp_path: Path, named: int) -> None:
    whole = files.write(tmp_path / "whole.gguf", files.llama_spec("Q4_0"))
    parts = write_parts(tmp_path)
    logits = [np.array(load_model(str(path), device="cpu").model(TOKENS)) for path in (whole, parts[named])]
    np.testing.assert_array_equal(*logits)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    parts = write_parts(tmp_path)
    parts[1].unlink()
    with pytest.raises(ModelLoadError, match=r"model-00002-of-00003\.gguf: part 2 of 3 is missing"):
        read_whole(parts[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({1: {"split.no": 2}}, r"00002-of-00003.*are \(2, 3\), but must be \(1, 3\)"),
        ({1: {"split.count": 4}}, r"are \(1, 4\), but must be \(1, 3\)"),
        ({0: {"split.tensors.count": 99}}, "split.tensors.count=99, but the parts hold"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(
    tmp_path: Path, changes: Mapping[int, Mapping[str, Any]], message: str
) -> None:
    parts = write_parts(tmp_path, changes=changes)
    with pytest.raises(ModelLoadError, match=message):
        read_whole(parts[0])


def test_a_part_under_another_name_is_refused(tmp_path: Path) -> None:
    renamed = write_parts(tmp_path)[0].rename(tmp_path / "first.gguf")
    with pytest.raises(ModelLoadError, match=r"one of 3 parts, which must be named NAME-00001-of-00003\.gguf"):
        read_whole(renamed)


def test_a_tensor_in_two_parts_is_refused(tmp_path: Path) -> None:
    parts = write_parts(tmp_path)
    second = files.Spec(
        {"general.architecture": "llama", "split.no": 1, "split.count": 3},
        {"token_embd.weight": ("F32", np.ones((4, files.HIDDEN), np.float32))},
    )
    files.write(parts[1], second)
    with pytest.raises(ModelLoadError, match=r"'token_embd.weight' is in model-0000\d-of-00003\.gguf too"):
        read_whole(parts[0])
