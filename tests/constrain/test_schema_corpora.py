"""Schemas as the world writes them: compiled or refused with a reason, and grammars that hold what is valid alone."""

from __future__ import annotations

import gc
import json
import random
import time
from functools import cache
from itertools import islice

import pytest

from mlx_agent_llm.bench.grammar_walks import GrammarWalk
from mlx_agent_llm.bench.mutants import mutants
from mlx_agent_llm.constrain.closing.pushdown import Pushdown
from mlx_agent_llm.constrain.schema import write_json
from mlx_agent_llm.constrain.violation import violation
from mlx_agent_llm.errors import ConstraintError, RequestError, UnsupportedSchemaError
from tests.support.schema_corpora import CORPORA, LEAST_COMPILED, Named, compile_schema, grammar_of

NUM_SAMPLED = 12  # of a corpus, in the default run
NUM_MUTANTS = 60


@cache
def schemas_of(corpus: str) -> list[Named]:
    return list(CORPORA[corpus]())


def check(named: Named, num_texts: int) -> tuple[int, int]:
    """How many of the mutants of some texts are valid, and of these how many are written."""
    grammar = grammar_of(named)
    walk, reader, rng = GrammarWalk(grammar, depth=12), Pushdown(grammar), random.Random(named.name)
    num_valid = num_written = 0
    for _ in range(num_texts):
        value = json.loads(walk.text(rng))
        problem = violation(named.schema, value, named.documents)
        assert problem is None, f"{named.name}: {problem}"
        for mutant in islice(mutants(value, rng), NUM_MUTANTS):
            is_written = reader.accepts(write_json(mutant))
            is_valid = violation(named.schema, mutant, named.documents) is None
            assert is_valid or not is_written, f"{named.name}: {mutant}"
            num_valid += is_valid
            num_written += is_written
    return num_valid, num_written


def check_all(schemas: list[Named], num_texts: int) -> None:
    counts = []
    for named in schemas:
        try:
            counts.append(check(named, num_texts))
        except RequestError:
            continue  # which schemas are refused another test counts
    valid, written = map(sum, zip(*counts, strict=True))
    print(f"{schemas[0].corpus}: of {valid} valid mutants {written} are written")
    assert written >= 0.98 * valid


@pytest.mark.parametrize("corpus", ["tools", "kubernetes"])
def test_texts_are_valid_and_what_is_not_valid_is_no_text(corpus: str) -> None:
    check_all(random.Random(1).sample(schemas_of(corpus), NUM_SAMPLED), num_texts=1)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("corpus", CORPORA)
def test_all_texts_are_valid_and_what_is_not_valid_is_no_text(corpus: str) -> None:
    check_all(schemas_of(corpus), num_texts=2)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("corpus", CORPORA)
def test_nearly_all_schemas_are_compiled_and_the_rest_is_refused_with_its_place(corpus: str) -> None:
    refused, seconds = [], []
    for named in schemas_of(corpus):
        gc.freeze()  # the collector's passes over what earlier schemas left are not this one's
        begin = time.process_time()
        try:
            compile_schema(named)
        except (UnsupportedSchemaError, ConstraintError) as error:
            refused.append(f"{named.name}: {error}")
        seconds.append(time.process_time() - begin)
    seconds.sort()
    print(f"{corpus}: {len(seconds) - len(refused)} of {len(seconds)}", *refused, sep="\n")
    p50, p99 = (1e3 * seconds[len(seconds) * share // 100] for share in (50, 99))
    print(f"compiled in {p50:.1f} ms (median), {p99:.0f} ms (p99), at most {seconds[-1]:.2f} s of one core")
    assert len(seconds) - len(refused) >= LEAST_COMPILED[corpus] * len(seconds)
    assert seconds[-1] < 6
    gc.unfreeze()
