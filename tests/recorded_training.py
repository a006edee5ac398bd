"""score_lightning.train, which also writes down what every image of every step was given: OUT.seen."""

import hashlib
import sys
from pathlib import Path

from score_lightning import cli, train
from score_lightning.training.module import ScoreModule

OUT = next(word.removeprefix("out=") for word in sys.argv if word.startswith("out="))


def digest(values):
    return hashlib.sha256(values.contiguous().cpu().numpy().tobytes()).hexdigest()[:12]


def recorded(training_step):
    def step(self, batch, batch_idx):
        seen, objective = [], self._objective

        def record(model, x_0, t, randn_like):
            def noise(x):
                seen.extend(zip(x_0, t, z := randn_like(x), strict=True))
                return z

            return objective(model, x_0, t, noise)

        record.draw_t, record.stratified = objective.draw_t, objective.stratified
        self._objective = record
        loss = training_step(self, batch, batch_idx)
        self._objective = objective
        first = self.global_rank * len(seen)
        with Path(f"{OUT}.seen").open("a", encoding="utf-8") as file:
            for i, parts in enumerate(seen):
                file.write(f"{batch['step']} {first + i} {' '.join(map(digest, parts))}\n")
        return loss

    return step


if __name__ == "__main__":
    ScoreModule.training_step = recorded(ScoreModule.training_step)
    cli.run(train.main, train.usage)
