"""`python -m tasks.analyze.profile`: the name under which deployments know `act.strategy.profile`."""

from act.strategy.profile.__main__ import main

if __name__ == "__main__":
    main()
