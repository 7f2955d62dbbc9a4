"""Many inputs at once: the engine sees all of them, and no more at a time than it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from langchain_core.callbacks import Callbacks
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ContextThreadPoolExecutor, get_config_list

from langchain_mlx_agent.open_requests import OpenRequests
from langchain_mlx_agent.parameters import EngineChatModel


class BatchingChatModel(EngineChatModel):
    """LangChain's ways to ask several things at once; how one is answered is for the subclass."""

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Answer all inputs at once, as many at a time as the engine runs unless max_concurrency says otherwise."""
        configs = self._with_concurrency(config, len(inputs))
        run = partial(super().batch, inputs, configs, return_exceptions=return_exceptions, **kwargs)
        return run() if len(inputs) < 2 else OpenRequests().run(run)

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Like batch: what the engine cannot run yet waits here, where no queue overflows."""
        configs = self._with_concurrency(config, len(inputs))
        return await super().abatch(inputs, configs, return_exceptions=return_exceptions, **kwargs)

    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        run_id: UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Answer several lists of messages at once; when one fails the others still finish, and then it is raised."""
        if len(messages) < 2:
            return super().generate(messages, stop, callbacks, run_id=run_id, **kwargs)
        generate = partial(super().generate, stop=stop, callbacks=callbacks, **kwargs)
        runs = [partial(generate, [one], run_id=None if index else run_id) for index, one in enumerate(messages)]
        results = OpenRequests().run(partial(_run_at_once, runs, self._num_at_a_time(len(messages))))
        return LLMResult(
            generations=[result.generations[0] for result in results],
            llm_output=self._combine_llm_outputs([result.llm_output for result in results]),
            run=[info for result in results for info in result.run or ()],
        )

    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None]) -> dict[str, Any]:
        usages = [output["token_usage"] for output in llm_outputs if output]
        total = {name: sum(usage[name] for usage in usages) for name in usages[0]} if usages else {}
        return {"token_usage": total, "model_name": self.model}

    def _num_at_a_time(self, num_inputs: int) -> int:
        return min(num_inputs, self._config.max_num_seqs)

    def _with_concurrency(
        self, config: RunnableConfig | list[RunnableConfig] | None, num_inputs: int
    ) -> list[RunnableConfig]:
        configs = get_config_list(config, num_inputs)
        if configs and configs[0].get("max_concurrency") is None:
            configs[0]["max_concurrency"] = self._num_at_a_time(num_inputs)
        return configs


def _run_at_once(runs: Sequence[Callable[[], LLMResult]], max_workers: int) -> list[LLMResult]:
    with ContextThreadPoolExecutor(max_workers=max_workers) as threads:
        started = [threads.submit(run) for run in runs]
    return [run.result() for run in started]
