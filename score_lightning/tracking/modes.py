"""Whether a run is logged at Weights & Biases, and how."""

import netrc
import os

from score_lightning.errors import UserError


def wandb_mode(setting: str) -> str:
    """online, offline or off, for the setting logger.wandb: `auto` is online with a key, else offline.

    Raises:
        UserError: when the setting is online, and there is no key.
    """
    keyed = bool(os.environ.get("WANDB_API_KEY")) or _in_netrc("api.wandb.ai")
    if setting == "online" and not keyed:
        raise UserError("logger.wandb=online needs a key: run `wandb login`, or take logger.wandb=auto or offline")
    if setting != "auto":
        return setting
    mode = os.environ.get("WANDB_MODE")
    if mode:
        return {"disabled": "off", "dryrun": "offline"}.get(mode, mode)
    return "online" if keyed else "offline"


def _in_netrc(host: str) -> bool:
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
