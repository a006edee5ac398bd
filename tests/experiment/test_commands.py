"""Commands that repeat a training and an evaluation name what differs from their defaults."""

from score_lightning import config
from score_lightning.experiment.commands import evaluation_overrides, training_command


def test_training_commands_name_what_differs():
    plain = config.load(
        ["sampler=ancestral", "net.dropout=0.5", "labels.classes=10", "out=x", "guidance_interval=[0.5,2]"],
        "ddpm_digits",
    ).plain()
    assert training_command(plain) == (
        "exp=ddpm_digits sampler=ancestral labels.classes=10 net.dropout=0.5 'guidance_interval=[0.5,2.0]'"
    )
    assert training_command(config.load([], "ddpm_digits").plain()) == "exp=ddpm_digits"
    assert training_command({**plain, "exp": "none of these"}) is None


def test_evaluation_commands_name_what_differs():
    plain = config.load([], "ddpm_digits").plain()
    guided = {"guide": "a b.ckpt", "guidance": 1.0, "guidance_interval": [0.5, 2.0]}
    assert evaluation_overrides(plain, guided, plain["sampler"]) == (
        "'guide=a b.ckpt' guidance=1.0 'guidance_interval=[0.5,2.0]'"
    )
    assert (
        evaluation_overrides({**plain, "features": {"name": "auto"}}, {"features": "pixels"}, None) == "features=pixels"
    )
    assert evaluation_overrides(plain, {"likelihood": {"n": 50}}, None) == "likelihood=50"
    same = {"seeds": [0], "reference": "digits, held out", "labels": plain["labels"], "features": "classifier"}
    assert evaluation_overrides(plain, same, plain["sampler"]) == ""
