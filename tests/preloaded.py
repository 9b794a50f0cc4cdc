"""What the processes that tests start import, imported once: see fork_server.py."""

import gc
import importlib
import importlib.util

from unformatted import leave_configs_unformatted

MODULES = (
    "torch.distributed",
    "scipy.optimize",
    "mmdet.models",
    "mmdet.datasets",
    "mmseg.models",
    "mmseg.datasets",
    "detectron2.engine",
)

for module in MODULES:
    found = importlib.util.find_spec(module.partition(".")[0])
    if found is not None and found.origin is not None:
        importlib.import_module(module)
leave_configs_unformatted()
gc.collect()
gc.freeze()  # mmengine collects garbage for every dataset
