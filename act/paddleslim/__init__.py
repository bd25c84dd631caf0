"""Configurations of PaddleSlim's ACT, translated into a job of `params.yaml`."""
