"""`python -m tasks.benchmark.infer`: the name under which ACT's users know `act.timing.infer`."""

from act.timing.infer.__main__ import main

if __name__ == "__main__":
    main()
