"""`python -m tasks.machine --job NAME`: note what a job's results depend on that the checkout does not hold.

Writes `machine.json`, this machine, on which stages with timings depend; `plugins.json`, the versions of the other
distributions that the job may use entries of; and `model.json`, `teachers.json` and `data.json`, the digests of the
user's model, of the models that teach and of the data, because DVC reads no file again whose size and time it knows,
and follows no weights beside a program file. DVC always runs the stage, which
takes a moment; as long as nothing has changed it writes the same bytes, so that nothing after it is done again. Each
job has its own notes, because DVC lets nobody write what a stage of another job reads at that moment. A job without a
file of attempts gets one, too, because `select` depends on it.
"""

from collections.abc import Iterator
from pathlib import Path

from act import machine, registry
from act.artifacts import sha256, stage_folder
from act.errors import InputError
from act.results.artifact import Artifact
from act.results.machine import DataFiles, ModelFiles, PlugIns, TimedOn
from act.samples.digest import files_of, sampled_digest
from act.settings import DEFAULT_PATH, REFERENCES, Job, ModelSource, load_job
from act.strategy import attempts
from tasks.stage import job_from_command_line


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.machine", "Note which machine and plug-ins one job is for.") as (name, job):
        for file, note in _notes(job, Path()).items():
            stage_folder(name, file).parent.mkdir(parents=True, exist_ok=True)
            note.write(stage_folder(name, file))
        attempts.make_files([name])


def are_noted(root: Path, name: str) -> bool:
    """Tell whether the notes of a job in a checkout are those of here and now."""
    notes = _notes(load_job(name, root / DEFAULT_PATH), root)
    try:
        return all(type(note).read(root / stage_folder(name, file)) == note for file, note in notes.items())
    except InputError:
        return False


def _notes(job: Job, root: Path) -> dict[str, Artifact]:
    # Every text in the settings may be a name.
    versions = registry.plugged_in(job.model_dump_json().split('"'))
    return {
        "machine.json": TimedOn(**machine.identity()),
        "plugins.json": PlugIns(versions=versions),
        "model.json": ModelFiles(sha256=_digests(job.model, root)),
        "teachers.json": ModelFiles(
            sha256={
                f"{number}: {name}": digest
                for number, teacher in enumerate(job.distillation.teachers)
                for name, digest in _digests(teacher, root).items()
            }
        ),
        "data.json": _data(job, root),
    }


def _data(job: Job, root: Path) -> DataFiles:
    """Return what every file holds that the settings of the data name, as `path` does, or that is below."""
    texts = [value for value in job.data.model_dump().values() if isinstance(value, str) and value]
    try:
        files = files_of(path for path in (root / text for text in texts) if path.exists())
        return DataFiles(
            files=len(files), bytes=sum(file.stat().st_size for file in files), sha256=sampled_digest(files)
        )
    except OSError as error:
        raise InputError(f"{job.data.path}: cannot be read: {error}") from None


def _digests(model: ModelSource, root: Path) -> dict[str, str]:
    """Return the digest of each file of a model; none where the job names a reference into a package, which has a
    version, or what is not there, which `prepare` tells."""
    path = root / model.path
    if path.suffix in REFERENCES or not path.exists():
        return {}
    folder, files = (path, path.rglob("*")) if path.is_dir() else (path.parent, _beside(path, model))
    try:
        return {file.relative_to(folder).as_posix(): sha256(file).hex() for file in sorted(files) if file.is_file()}
    except OSError as error:
        raise InputError(f"{model.path}: cannot be read: {error}") from None


def _beside(path: Path, model: ModelSource) -> Iterator[Path]:
    """Yield a model's file and what may hold its weights: files that are called after it or that the job names, and all
    beside a program of old exporters, which has no suffix."""
    for file in path.parent.glob("*"):
        if file.name.startswith(path.stem) or file.name == model.params_filename or not path.suffix:
            yield file


if __name__ == "__main__":
    main()
