"""The gallery: the notebooks of `examples/`, run while the site is built, one page each.

A hook of MkDocs (`mkdocs.yml`). The cells run one after the other in a process of their own, as a
program: what they print and draw stands below them. A notebook that fails, fails the build.

`python .ci/gallery.py FOLDER` writes the pages and their pictures into a folder.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ("strengths", "nifti_and_bids", "own_training_data", "what_the_gate_caught")


def on_files(files, *, config):  # type: ignore[no-untyped-def]  # as MkDocs calls it
    """Add a page for each notebook, with its pictures."""
    from mkdocs.structure.files import File

    with tempfile.TemporaryDirectory() as work:
        paths = os.environ.get("PYTHONPATH", "")
        environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": f"{ROOT}:{paths}"}
        command = [sys.executable, "-W", "ignore", __file__, work]
        subprocess.run(command, cwd=work, env=environment, check=True)
        for path in sorted(Path(work).glob("*.*")):
            page = File.generated(config, f"gallery/{path.name}", content=path.read_bytes())
            files.append(page)
    return files


def page_of(notebook: Path, folder: Path) -> str:
    """Run a notebook and return its page; pictures are written into the folder."""
    import matplotlib.pyplot as plt

    names: dict[str, object] = {}
    parts = []
    for number, cell in enumerate(json.loads(notebook.read_text(encoding="utf-8"))["cells"]):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        assert not cell["outputs"], f"{notebook.name}: clear the outputs before a commit"
        with redirect_stdout(io.StringIO()) as said:
            exec(compile(text, f"{notebook.name}, cell {number}", "exec"), names)
        parts.append(f"```python\n{text}\n```")
        if said.getvalue():
            parts.append(f"```text\n{said.getvalue().rstrip()}\n```")
        for figure in plt.get_fignums():
            picture = f"{notebook.stem}-{number}-{figure}.png"
            plt.figure(figure).savefig(folder / picture, dpi=80, bbox_inches="tight")
            parts.append(f"![What the cell above draws]({picture})")
        plt.close("all")
    parts.append(f"From `examples/{notebook.name}`, run when this page was built.")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    out = Path(sys.argv[1])
    for name in NOTEBOOKS:
        page = page_of(ROOT / "examples" / f"{name}.ipynb", out)
        (out / f"{name}.md").write_text(page, encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)  # libraries that were loaded have threads of their own
