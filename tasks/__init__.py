"""The stages of the pipeline, one folder each; a stage imports `act` and never another stage."""
