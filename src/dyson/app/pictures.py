"""The picture of a run, and where it may go."""

import io
import stat
from pathlib import Path

from matplotlib.figure import Figure

from dyson.app import plotting
from dyson.app.problem import Problems
from dyson.app.run import FILES, PICTURE, RunDirectory, RunError
from dyson.files import reason

_BEGIN = b"\x89PNG\r\n\x1a\n"


def drawn(run: RunDirectory, problems: Problems) -> bytes:
    """The metrics of a run as a picture."""
    records = run.records()
    columns = [
        [float("nan") if record.get(name) is None else record[name] for record in records]
        for name in ("step", "energy", "error", "v_score")
    ]
    sizes = [record["n_sites"] for record in records]
    exact = {n_sites: problems(n_sites).exact_energy for n_sites in run.settings.sizes}
    all_known = None not in exact.values()
    figure = Figure(figsize=(7, 6), layout="constrained")
    plotting.convergence(
        *columns,
        n_sites=sizes,
        exact=[exact[n_sites] or 0.0 for n_sites in sizes] if all_known else None,
        figure=figure,
    )
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    return picture.getvalue()


def picture_file(run: RunDirectory, file: Path) -> Path:
    """The file, if a picture may go there: not over anything that is none."""
    own = file.name in FILES and file.parent.exists() and file.parent.samefile(run.path)
    if own and file.name != PICTURE:
        raise RunError(f"--output {file} is another file of the run; name a new file")
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise RunError(f"--output {file} is not a file that a picture could replace")
        begin = file.read_bytes()[: len(_BEGIN)]
    except FileNotFoundError:
        return file
    except OSError as error:
        raise RunError(f"cannot write {file}: {reason(error)}") from error
    if begin and begin != _BEGIN:
        raise RunError(f"--output {file} exists and is not a PNG picture; name a new file")
    return file
