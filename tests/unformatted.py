"""Leave the configs of runs as they are: mmengine lets yapf format each of them twice, which takes 2 s a time.

What it writes is the same Python in longer lines. Tools that a test starts ``anew`` format theirs as ever.
"""

from __future__ import annotations

from typing import Any

__all__ = ["leave_configs_unformatted"]


def leave_configs_unformatted() -> None:
    """Let yapf return in this process what it is given; mmengine/config/config.py imports it for each call."""
    try:
        from yapf.yapflib import yapf_api
    except ImportError:
        return
    yapf_api.FormatCode = _as_it_is


def _as_it_is(code: str, **options: Any) -> tuple[str, bool]:
    compile(code, "config", "exec")  # yapf raises for what is no Python
    return code, False
