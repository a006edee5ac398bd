"""Generated commands: each is carried out or refused with one message, in time, and a refusal leaves no file behind."""

import re
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import QUICK, answer

from score_lightning import config, export, import_weights, sample, suggest_noise, train
from score_lightning import eval as evaluate
from score_lightning.data import sources
from score_lightning.data.pictures import Shape
from score_lightning.experiment import sweeping

TINY = ["data=digits", "images.size=8", "images.channels=1", "net.channels=8", "net.multipliers=[1,1]"]
BASES = {  # all networks, kinds of schedules and objectives
    "ddpm_digits": [],
    "ddpm_digits_labels": [],
    "ncsn_digits": [],
    "toy_two_moons": [],
    "toy_langevin": [],
    "edm_ncsnpp_cifar": [*TINY, "net.blocks=1"],
    "iddpm_cifar_vlb": [*TINY, "net.blocks=1", "net.groups=8"],
    "ncsnv2_cifar": [*TINY, "net.dilations=[1,1]", "schedule.levels=10"],
    "ddpmpp_subvp_cifar_continuous": [*TINY, "net.blocks=1"],
}
PARTS = [f"{kind}={name}" for kind in config.PART_KINDS for name in config.parts(kind)]

NUMBERS = ["0", "-1", "1", "2", "3", "7", "1.5", "1e9", "-1e9", "1e-300", "1e300", ".inf", "-.inf", ".nan"]
EXTREMES = ["1000000000000", "-1000000000000", str(10**18), str(10**30), "-" + "9" * 40, "9" * 5000]
OTHERS = [
    "",
    "null",
    "true",
    "[]",
    "[1]",
    "[1,2,2]",
    "[-1,1]",
    "[.nan]",
    "[[1]]",
    "{}",
    "{a: 1}",
    "'1'",
    "${seed}",
    "???",
]
TEXTS = [
    "none.ckpt",
    "/proc/none",
    "auto",
    "a b",
    "x" * 1000,
    "ünïcode ☃",
    "../..",
    "a: b: c",
    "*a",
    "!!python/name:os",
]
VALUES = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(EXTREMES),
    st.sampled_from(OTHERS),
    st.sampled_from(TEXTS),
    st.integers(-5, 40).map(str),
    st.floats(-2, 2).map(str),
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8),
)


def names(section, prefix=""):
    """Dotted names of all settings of a configuration, and of its sections."""
    for key, value in section.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from names(value, f"{prefix}{key}.")


KEYS = {exp: sorted(names(config.load(words, exp).plain())) for exp, words in BASES.items()}


def changes(keys):
    """Words that set one of the keys, a misspelt one, exchange a part or are no words at all."""
    return st.one_of(
        st.builds("{}={}".format, st.sampled_from(keys), VALUES),
        st.builds("{}={}".format, st.sampled_from(keys), VALUES),
        st.builds("{}{}={}".format, st.sampled_from(keys), st.sampled_from("aelsx."), VALUES),
        st.sampled_from(PARTS),
        st.text(max_size=6),
    )


def trainings(*words):
    """Words of a training of one of the experiments, changed."""
    return st.sampled_from(sorted(BASES)).flatmap(
        lambda exp: st.lists(changes(KEYS[exp]), min_size=1, max_size=2).map(
            lambda changed: [f"exp={exp}", *BASES[exp], *words, *changed]
        )
    )


def commands(call, own, *words):
    """A command with its options, changed."""
    keys = [*own, *own, *KEYS["ddpm_digits"]]
    return st.lists(changes(keys), min_size=1, max_size=2).map(lambda more: (call, [*words, *more]))


OTHER_COMMANDS = st.one_of(
    commands(
        sample.main,
        [key for key in sample.OPTIONS if key != "devices"],
        *["ckpt=CKPT", "n=2", "sampler.steps=2", "out=out"],
    ),
    commands(
        evaluate.main,
        ["n", "seed", "seeds", "weights", "device", "likelihood", "reference", "images", "out", "ckpt"],
        *["ckpt=CKPT", "n=2", "sampler.steps=2", "out=out", "reference=REFERENCE", "evaluation.metrics=[fid]"],
    ),
    commands(import_weights.main, ["path", "exp", "format", "out"], "path=CKPT", "exp=ddpm_digits", "out=a.ckpt"),
    commands(export.main, ["ckpt", "format", "out"], "ckpt=CKPT", "format=safetensors", "out=out"),
    commands(suggest_noise.main, ["exp", "sigma_min", "steps", "n"], "exp=ncsn_digits", "n=20"),
    commands(sweeping.plan, ["exp", "seed", "out"], "exp=[ddpm_digits,ncsn_digits]", "seed=[0,1]"),
)
TRAINING = trainings("dry_run=true").map(lambda words: (train.main, words))


def obeys(call, words):
    """Whether a command in an empty folder is carried out, or refused with one message and no file."""
    with TemporaryDirectory() as folder, chdir(folder):
        message = answer(call, words)
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        return message is None or (0 < len(message) < 5000 and not files)


def obeys_with_files(command, ckpt, reference):
    call, words = command
    assert obeys(call, [word.replace("CKPT", str(ckpt)).replace("REFERENCE", str(reference)) for word in words])


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """A file of a few digits."""
    path = tmp_path_factory.mktemp("reference") / "digits.npz"
    np.savez(path, images=sources.digits(Shape(8, 1))[0].images[:12, 0].numpy())
    return path


@settings(max_examples=550, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.one_of(TRAINING, TRAINING, TRAINING, OTHER_COMMANDS))
@pytest.mark.slow
def test_a_generated_command_is_carried_out_or_refused_in_words(ckpt, reference, command):
    obeys_with_files(command, ckpt, reference)


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.one_of(TRAINING, OTHER_COMMANDS))
def test_a_few_generated_commands_are_carried_out_or_refused_in_words(ckpt, reference, command):
    obeys_with_files(command, ckpt, reference)


QUIET = [*QUICK, "trainer.max_steps=1", "samples.n=0", "evaluation.n=0", "validation.n=10", "out=runs"]
# what a dry run does not use; numbers of steps and of machines are whatever one asks for
LATE = r"""(data|images|labels|objective|optimizer|ema|schedule|logger)\.|net.dropout|sigma_data|seed|validation.levels|
    samples\.|trainer\.(batch|accu|check|keep|log|prec|accel|strat|skip|work)"""
LATE_KEYS = [key for key in KEYS["ddpm_digits"] if re.match(LATE, key, re.VERBOSE)]


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.builds("{}={}".format, st.sampled_from(LATE_KEYS), VALUES), min_size=1, max_size=2))
@pytest.mark.slow
def test_a_generated_training_trains_or_is_refused_before_it_begins(words):
    assert obeys(train.main, ["exp=ddpm_digits", *QUIET, *words])
