"""``python -m gptopt.cli``: the command where no script of it is on the PATH."""

from gptopt.cli import main

if __name__ == "__main__":
    main(prog_name="gptopt")
