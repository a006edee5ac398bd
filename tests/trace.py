"""Traces the package's own calls in one step of ddpm_digits, up to its first loss: python tests/trace.py.

Prints the files whose functions run, the stack in the loss, and how often schedule, model and generator are built.
"""

import sys
import tempfile
from pathlib import Path

PACKAGE = str(Path(__file__).parents[1] / "score_lightning")
ARGUMENTS = [
    "exp=ddpm_digits", "trainer.max_steps=1", "trainer.progress=false", "samples.n=0", "evaluation.n=0", "logger=off",
    "trainer.accelerator=cpu",
]  # fmt: skip
BUILT = {"Discrete": 0, "ScoreModel": 0, "Generator": 0}


class Done(BaseException):
    """The first loss is reached."""


def trace() -> tuple[list[str], list[str], dict[str, int]]:
    """(files that run, files of the stack in the first loss, number of objects built by class)."""
    from score_lightning import train
    from score_lightning.generation.generator import Generator
    from score_lightning.models import ScoreModel
    from score_lightning.objectives import Denoising
    from score_lightning.schedules import Discrete

    files: dict[str, None] = {}
    stack: list[str] = []
    counts = dict(BUILT)
    loss = Denoising.__call__.__code__

    def note(frame, event, argument):  # noqa: ARG001
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(PACKAGE) or code.co_name in ("<module>", "<lambda>"):
            return
        files[code.co_filename] = None
        if code is loss:
            while frame is not None:
                if frame.f_code.co_filename.startswith(PACKAGE):
                    stack.append(f"{Path(frame.f_code.co_filename).relative_to(PACKAGE)}: {frame.f_code.co_name}")
                frame = frame.f_back
            raise Done

    for kind in (Discrete, ScoreModel, Generator):
        build = kind.__init__

        def counted(self, *args, _build=build, _name=kind.__name__, **options):
            counts[_name] += 1
            _build(self, *args, **options)

        kind.__init__ = counted  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as out:
        sys.setprofile(note)
        try:
            train.main([*ARGUMENTS, f"out={out}"])
        except Done:
            pass
        finally:
            sys.setprofile(None)
    return [str(Path(path).relative_to(PACKAGE)) for path in files], stack[::-1], counts


if __name__ == "__main__":
    ran, stack, counts = trace()
    print(f"{len(ran)} files run before the first loss:", *ran, sep="\n  ")
    print(
        f"{len(stack)} of the package's functions in {len({s.split(':')[0] for s in stack})} files on the stack in it:",
        *stack,
        sep="\n  ",
    )
    print("built:", ", ".join(f"{name} {count}" for name, count in counts.items()))
