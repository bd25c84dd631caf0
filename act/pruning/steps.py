"""One strategy after another: prune, train, and keep what was done where a killed stage finds it again."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from act.artifacts import replace_folder
from act.program.model import InferenceModel
from act.pruning.context import Context, Pruned
from act.pruning.sparse import Gradual, has_two_of_four, masked, prune_two_of_four, prune_unstructured, sparse_layers
from act.pruning.structured import prune_channels, prune_transformer
from act.results.artifact import Artifact
from act.results.training import PruningStep, Sparsity
from act.samples.dataset import Array
from act.settings import Job
from act.training.loop import Fit, count_steps
from act.training.train import Trained, train, why_untrainable

log = logging.getLogger(__name__)

MODEL, STEP, START, TRAINING = "model", "step.json", "start", "training"


@dataclass
class Sparse:
    """Zeros that must stay: by weight, where it may be other than zero, and the pattern `2:4`, if it is one."""

    masks: dict[str, Array] = field(default_factory=dict)
    pattern: str | None = None

    def verify(self, model: InferenceModel) -> dict[str, Sparsity]:
        """Return the share of zeros in each of the weights of a model; `RuntimeError` where one is missing."""
        axes = {layer.weight: layer.axis for layer in sparse_layers(model)}
        found = {}
        for name, mask in self.masks.items():
            weight = model.weight(name)
            if weight[mask == 0].any():
                raise RuntimeError(f"the pruned weight {name} has values where it should be zero")
            if self.pattern and not has_two_of_four(weight, axes[name]):
                raise RuntimeError(f"the saved weight {name} lacks the pattern {self.pattern}")
            found[name] = Sparsity(zeros=float((weight == 0).mean()), pattern=self.pattern)
        return found


class KeptStep(Artifact):
    """A step on disk, beside its model, while the stage lasts: the names of its sparse weights, and their pattern."""

    result: PruningStep
    sparse: list[str]
    pattern: str | None


@dataclass
class Step:
    """The outcome of one strategy; what `result` says of the training holds once that has ended."""

    model: InferenceModel
    result: PruningStep
    sparse: Sparse

    def save(self, folder: Path) -> None:
        with replace_folder(folder / MODEL) as fresh:
            self.model.save(fresh)
        kept = KeptStep(result=self.result, sparse=sorted(self.sparse.masks), pattern=self.sparse.pattern)
        kept.write(folder / STEP)
        shutil.rmtree(folder / TRAINING, ignore_errors=True)

    @classmethod
    def load(cls, folder: Path) -> Step:
        kept = KeptStep.read(folder / STEP)
        model = InferenceModel.load(folder / MODEL)
        masks = {name: model.weight(name) != 0 for name in kept.sparse}
        return cls(masked(model, masks), kept.result, Sparse(masks, kept.pattern))


@dataclass(frozen=True)
class Pruner:
    """Prunes a model by one strategy after another, and trains it after each.

    Attributes:
        evaluate: measures the quality of a model; higher is better.
        scratch: a folder that outlives a kill; what stands there is taken up.
    """

    job: Job
    context: Context
    teachers: Sequence[InferenceModel]
    evaluate: Callable[[InferenceModel], float]
    scratch: Path

    def run(self, strategies: Sequence[str], model: InferenceModel, quality: float) -> list[Step]:
        """Return what each strategy did, each on what the one before left; the whole model is not changed."""
        steps: list[Step] = []
        sparse = Sparse()
        for number, name in enumerate(strategies):
            step = self._step(name, model, quality, sparse, self.scratch / f"{number}-{name}")
            model, quality, sparse = step.model, step.result.quality_after, step.sparse
            steps.append(step)
        return steps

    def _step(self, name: str, model: InferenceModel, quality: float, sparse: Sparse, scratch: Path) -> Step:
        if (scratch / STEP).exists():
            log.info("prune: %s: was done before the stage was stopped", name)
            return Step.load(scratch)
        settings, gradual = self.job.prune, None
        if name == "UnstructurePrune" and settings.unstructured.gradual:
            # What zeros come gradually hangs on the weights' names, and not on their values.
            gradual = Gradual.of(model, settings.unstructured, count_steps(self.context.samples, settings))
        if (scratch / START / STEP).exists():
            log.info("prune: %s: goes on with the training", name)
            start = Step.load(scratch / START)
        else:
            start = self._start(name, model, quality, sparse, gradual)
            start.save(scratch / START)
        trained = self._train(name, model, start, gradual, scratch / TRAINING)
        if gradual is not None:
            start, trained = self._complete(start, trained)
        fit = trained.fit
        log.info("prune: %s: %s", name, fit.why)
        after = {"quality_after": fit.quality_after, "training": fit.why, "history": fit.history}
        result = start.result.model_copy(update={**after, "distillation": trained.compared})
        step = Step(trained.model or start.model, result, start.sparse)
        step.save(scratch)
        return step

    def _start(self, name: str, model: InferenceModel, quality: float, sparse: Sparse, gradual: Gradual | None) -> Step:
        """Return the pruned model before it is trained."""
        pruned = Pruned(model.copy(), gradual.describe()) if gradual is not None else self._prune(name, model)
        # What comes gradually chooses among all weights anew.
        masks = sparse.masks if gradual is None and not pruned.masks else pruned.masks
        log.info("prune: %s: %s", name, pruned.why)
        result = PruningStep(
            name=name,
            why=pruned.why,
            layers=pruned.layers,
            measured_speedup=pruned.speedup,
            quality_before=quality,
            quality_pruned=None if gradual is not None else self.evaluate(pruned.model),
        )
        return Step(pruned.model, result, Sparse(dict(masks), "2:4" if name == "ASPPrune" else sparse.pattern))

    def _prune(self, name: str, model: InferenceModel) -> Pruned:
        settings = self.job.prune
        ways: dict[str, Callable[[], Pruned]] = {
            "ChannelPrune": lambda: prune_channels(model, settings.channel, self.context),
            "TransformerPrune": lambda: prune_transformer(model, settings.transformer, self.context),
            "ASPPrune": lambda: prune_two_of_four(model, settings.asp),
            "UnstructurePrune": lambda: prune_unstructured(model, settings.unstructured),
        }
        return ways[name]()

    def _train(
        self, name: str, whole: InferenceModel, start: Step, gradual: Gradual | None, checkpoint: Path
    ) -> Trained:
        """Train what was pruned, where something is gone and something can be learned."""
        same_size = start.model.count_parameters() == whole.count_parameters()
        if gradual is None and not start.sparse.masks and same_size:
            ended = "nothing was trained, for nothing is gone"
        elif (why := why_untrainable(start.model)) is not None:
            ended = f"nothing was trained: {why}"
        else:
            return train(
                start.model,
                None,
                self.teachers,
                self.context.samples,
                self.job.prune,
                self.job.distillation,
                lambda state, _: self.evaluate(state),
                masks=start.sparse.masks,
                after_step=gradual.after_step if gradual else None,
                counts=gradual.counts if gradual else None,
                checkpoint=checkpoint,
                label=f"prune: {name}",
            )
        quality = start.result.quality_pruned
        quality = self.evaluate(start.model) if quality is None else quality
        return Trained(Fit(ended, quality, quality), [])

    def _complete(self, start: Step, trained: Trained) -> tuple[Step, Trained]:
        """Return what gradual pruning led to; where training ended before all zeros were there, set them at once."""
        pruned = prune_unstructured(start.model, self.job.prune.unstructured)
        if trained.model is None:
            why = f"{trained.fit.why}; training ended before all zeros were there, so that they were set at once"
            fit = replace(trained.fit, why=why, quality_after=self.evaluate(pruned.model))
            trained = Trained(fit, trained.compared, pruned.model)
            masks = pruned.masks
        else:
            masks = {name: trained.model.weight(name) != 0 for name in sorted(pruned.masks)}
        layers = [layer.describe(masks[layer.weight]) for layer in sparse_layers(start.model) if layer.weight in masks]
        return Step(start.model, start.result.model_copy(update={"layers": layers}), Sparse(masks)), trained
