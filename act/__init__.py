"""The vocabulary that every stage speaks: model, samples, quality, settings, engines. No stage, no Prefect, no DVC."""
