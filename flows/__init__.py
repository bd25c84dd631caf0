"""Prefect's part: chains the stages that `dvc.yaml` describes, schedules them, reports them. Knows no Paddle."""
