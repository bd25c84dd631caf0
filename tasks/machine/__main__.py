"""`python -m tasks.machine --job NAME`: note what a job's results depend on that the checkout does not hold.

Writes `machine.json`, this machine, on which stages with timings depend, and `plugins.json`, the versions of the other
distributions that the job may use entries of. DVC always runs the stage, which takes a moment; as long as nothing has
changed it writes the same bytes, so that nothing after it is done again. Each job has its own notes, because DVC lets
nobody write what a stage of another job reads at that moment. A job without a file of attempts gets one, too, because
`select` depends on it.
"""

from pathlib import Path

from act import machine, registry
from act.artifacts import stage_folder
from act.errors import InputError
from act.results.artifact import Artifact
from act.results.machine import PlugIns, TimedOn
from act.settings import DEFAULT_PATH, Job, load_job
from act.strategy import attempts
from tasks.stage import job_from_command_line


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.machine", "Note which machine and plug-ins one job is for.") as (name, job):
        for file, note in _notes(job).items():
            stage_folder(name, file).parent.mkdir(parents=True, exist_ok=True)
            note.write(stage_folder(name, file))
        attempts.make_files([name])


def are_noted(root: Path, name: str) -> bool:
    """Tell whether the notes of a job in a checkout are those of here and now."""
    notes = _notes(load_job(name, root / DEFAULT_PATH))
    try:
        return all(type(note).read(root / stage_folder(name, file)) == note for file, note in notes.items())
    except InputError:
        return False


def _notes(job: Job) -> dict[str, Artifact]:
    # Every text in the settings may be a name.
    versions = registry.plugged_in(job.model_dump_json().split('"'))
    return {"machine.json": TimedOn(**machine.identity()), "plugins.json": PlugIns(versions=versions)}


if __name__ == "__main__":
    main()
