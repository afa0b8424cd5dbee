#!/usr/bin/env bash
# Starts what a parameter file asks for and has no result yet, on SLURM where there is one,
# else on this machine's cores:
#     slurm_scripts/submit.sh params/lr_sweep.json [options and overrides]
# The options are those of: gptopt sweep submit --help
set -euo pipefail
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
for python in "$project/.venv/bin/python" "${VIRTUAL_ENV:-}/bin/python" "$(type -P python3)"; do
  if [ -x "$python" ]; then break; fi
done
if ! "$python" -c 'import gptopt' 2>/dev/null; then
  echo "gptopt is not installed for $python: activate its environment, or see README.md" >&2
  exit 2
fi
exec "$python" -m gptopt.cli sweep submit "$@"
