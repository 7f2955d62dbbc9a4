"""A bounded store of values, each made once for all who ask for it at the same time (as Go's singleflight)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Keeps the `size` values that were used last. A failure is everybody's who waits for it, and is not kept."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._futures: OrderedDict[Hashable, Future[T]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key, which `make` makes unless somebody did or is doing so."""
        future, is_mine = self._claim(key)
        if is_mine:
            try:
                future.set_result(make())
            except BaseException as error:
                self._drop(key, future)
                future.set_exception(error)
        return future.result()

    def _claim(self, key: Hashable) -> tuple[Future[T], bool]:
        with self._lock:
            is_mine = key not in self._futures
            future = self._futures.setdefault(key, Future())
            self._futures.move_to_end(key)
            while len(self._futures) > self._size:
                self._futures.popitem(last=False)
            return future, is_mine

    def _drop(self, key: Hashable, future: Future[T]) -> None:
        with self._lock:
            if self._futures.get(key) is future:
                del self._futures[key]
