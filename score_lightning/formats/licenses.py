"""The names of licenses that the Hugging Face Hub knows."""

from score_lightning.errors import UserError

UNKNOWN = "unknown"
KNOWN = frozenset((
    "unknown", "afl-3.0", "agpl-3.0", "apache-2.0", "apple-amlr", "apple-ascl", "artistic-2.0",
    "bigcode-openrail-m", "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bsd", "bsd-2-clause",
    "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0",
    "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
    "cc0-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "creativeml-openrail-m", "ecl-2.0",
    "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "isc", "lgpl",
    "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by", "ofl-1.1",
    "openrail", "openrail++", "osl-3.0", "pddl", "postgresql", "unlicense", "wtfpl", "zlib",
))  # fmt: skip


def read_license(text: str) -> dict[str, str]:
    """The entries of a model card's metadata for a license: its name at the Hub, or other:NAME for one of your own.

    Raises:
        UserError: when the Hub does not know it.
    """
    kind, _, name = text.partition(":")
    if kind == "other" and name.strip():
        return {"license": "other", "license_name": name.strip()}
    if text not in KNOWN:
        raise UserError(
            f"license={text} is not a license that the Hugging Face Hub knows, such as mit, apache-2.0, cc-by-4.0 or "
            "cc-by-nc-4.0; give one of your own as license=other:NAME"
        )
    return {"license": text}
