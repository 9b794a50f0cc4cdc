"""Look at a machine and an environment, and say what is wrong and what to do: the core of ``cvplugins doctor``.

Importing this package needs Python's library alone. Risky imports happen in a process of their own, and checks are
functions from plain facts to findings.
"""

from .distributions import Distribution, owners, read_distributions
from .examination import Facts, Part, collect, examine
from .findings import Finding, Report, Section, Status
from .imports import Outcome, Probe, try_imports
from .installer import Installer
from .machine import Machine, read_machine
from .machine_checks import check_machine
from .python_checks import PROBES, check_python
from .rendering import to_json, to_text

__all__ = [
    "MACHINE",
    "PYTHON",
    "Distribution",
    "Facts",
    "Finding",
    "Installer",
    "Machine",
    "Outcome",
    "Part",
    "Probe",
    "Report",
    "Section",
    "Status",
    "collect",
    "examine",
    "owners",
    "read_distributions",
    "read_machine",
    "to_json",
    "to_text",
    "try_imports",
]

MACHINE = Part("Machine", lambda facts: check_machine(facts.machine, facts.environment))
PYTHON = Part("Python", check_python, PROBES)
