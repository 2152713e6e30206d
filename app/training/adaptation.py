"""Fine-tuning a bundle's student on a site's noisy series, as a run of one stage."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import asdict, dataclass

from stillscan.app.training.run import Progress, Run, Trained
from stillscan.models.bundle import BundleInfo
from stillscan.models.denoisers.student import StudentDenoiser
from stillscan.models.networks.blind_spot import BlindSpotNetwork
from stillscan.models.networks.conditional_diffusion import DiffusionNetwork
from stillscan.models.training.stages import train_one_step
from stillscan.models.training.teacher_choice import choose

AS_IT_CAME = "as it came"
ADAPTED = "adapted"

Teacher = tuple[BlindSpotNetwork, DiffusionNetwork]


@dataclass(frozen=True)
class Origin:
    """The bundle from which a run starts.

    Attributes:
        info: description of the bundle.
        digest: SHA-256 of the weights of its student.
        teacher: networks of its teacher; None if it has none.
    """

    info: BundleInfo
    digest: str
    teacher: Teacher | None


@dataclass(frozen=True)
class Adaptation(Run):
    """A run that trains only the student: from y + a z it predicts y - z / a.

    This needs no clean image, no label and no teacher: for noise of the same distribution the
    minimiser is the mean of the clean image (`recorrupted`). The run starts from the bundle's
    student, at a tenth of the usual learning rate, and keeps the bundle's teacher.

    Attributes:
        teacher: networks of the bundle's teacher.
    """

    teacher: Teacher | None = None

    def train(self) -> Generator[Progress, None, Trained]:
        """Run the stage, or the remaining part of it.

        Raises:
            DivergedError: if the loss is not finite.
            OutputError: if a file cannot be written.
        """
        assert self.start is not None
        student = yield from self._stage(
            "student",
            self._first_student,
            self.profile.student,
            lambda training, plan, seed: train_one_step(training, self.training, plan, seed),
        )
        blind_spot, diffusion = self.teacher or (None, None)
        figures = {}
        if self.ranks.speaks:
            candidates = {
                AS_IT_CAME: StudentDenoiser(self._first_student(), self.ranks.device),
                ADAPTED: StudentDenoiser(student, self.ranks.device),
            }
            images = self._judged()
            chosen, table = choose(candidates, images, self._seed("teacher"))
            figures = {
                "chosen": chosen,
                "images": len(images),
                "candidates": [asdict(line) for line in table],
            }
        best = str(figures.get("chosen", ADAPTED))
        return Trained(student, blind_spot, diffusion, student, ADAPTED, best, figures)
