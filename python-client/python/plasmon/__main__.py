"""``python -m plasmon``: the command line `plasmon`."""

from plasmon._programs import plasmon

if __name__ == "__main__":
    plasmon("python -m plasmon")
