"""From run directories to tables, figures and a report; reads files of runs, nothing else."""

from gptopt.results.load import Runs, load
from gptopt.results.report import report, table

__all__ = ["Runs", "load", "report", "table"]
