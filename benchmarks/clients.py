"""A number of clients that work through one list together, as the servers' load."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def together(count: int, work: Callable[[T], R], items: Sequence[T]) -> tuple[float, list[R]]:
    """Do ``work`` for each item with ``count`` threads, begun at one moment.

    Returns:
        Seconds from the beginning to the end of the last, and what came out, in the order of the items.

    Raises:
        Exception: The first that ``work`` raised.
    """
    results: dict[int, R] = {}
    numbers, lock, gate = iter(range(len(items))), threading.Lock(), threading.Barrier(count + 1)

    def client() -> None:
        gate.wait()
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            results[number] = work(items[number])

    with ThreadPoolExecutor(count) as pool:
        clients = [pool.submit(client) for _ in range(count)]
        gate.wait()
        began = time.perf_counter()
        for each in clients:
            each.result()
        took = time.perf_counter() - began
    return took, [results[number] for number in range(len(items))]
