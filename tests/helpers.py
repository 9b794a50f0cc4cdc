"""What several test files share."""

from __future__ import annotations

import os
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from fork_server import start_server, use_environment

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])  # (2, 1)


def needs_torch(major: int, minor: int, why: str) -> pytest.MarkDecorator:
    """Skip a test where torch is older; ``why`` says what is lacking there."""
    return pytest.mark.skipif((major, minor) > TORCH, reason=f"needs torch {major}.{minor}: {why}")


def run_ranks(function: Callable[..., Any], world_size: int, *args: Any, timeout: float = 180.0) -> list[Any]:
    """Return what ``function(*args)`` returns on each of ``world_size`` Gloo ranks on this machine.

    ``function`` has to stand at the top level of a module. Ranks meet in a file, so that no port can be taken.

    Raises:
        RuntimeError: A rank failed; the message is its traceback. The others are ended.
        TimeoutError: The ranks were not done after ``timeout`` seconds; they are killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        results = [Path(folder, f"{rank}.pt") for rank in range(world_size)]
        start_server()
        arguments = (function, args, world_size, folder, dict(os.environ))
        ranks = mp.start_processes(_run_rank, arguments, nprocs=world_size, join=False, start_method="forkserver")
        deadline = time.monotonic() + timeout
        try:
            while not all(result.exists() for result in results):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{world_size} ranks of {function.__name__} were not done after {timeout} s")
                ranks.join(0.05)
        except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
            # A rank that fails takes the others with it, and torch names any of them: show the first.
            failures = sorted(Path(folder).glob("*.error"), key=lambda file: file.stat().st_mtime_ns)
            raise RuntimeError(failures[0].read_text() if failures else str(error)) from None
        finally:
            for process in ranks.processes:
                process.kill()
                process.join()
        return [torch.load(result, weights_only=False) for result in results]


def _run_rank(
    rank: int,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    world_size: int,
    folder: str,
    environment: dict[str, str],
) -> None:
    use_environment(environment)
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world_size)
    try:
        torch.save(function(*args), Path(folder, f"{rank}.part"))
        Path(folder, f"{rank}.part").rename(Path(folder, f"{rank}.pt"))
    except Exception:
        Path(folder, f"{rank}.error").write_text(traceback.format_exc())
        raise
    # Wait to be killed: destroy_process_group of torch 2.1 sometimes hangs.
    threading.Event().wait()


def peak_memory(call):
    """Return the most bytes that ``call`` held at once on the CPU, above what it found: torch's own count."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    now = peak = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak
