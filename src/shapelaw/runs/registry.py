"""Published files: the address of each at its pinned commit, and its SHA-256."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class PublishedFile:
    """One file of a public repository.

    Args:
        local: path inside the folder named by SHAPELAW_DATA_DIR.
        remote: path inside the repository.
        sha256: digest of its content.
    """

    local: str
    remote: str
    sha256: str


@dataclass(frozen=True)
class Repository:
    """A public GitHub repository at one commit."""

    name: str
    commit: str

    def url(self, remote: str) -> str:
        """Address of the raw content of a file; `+` is spelled out, as some servers read it as a space."""
        return f"https://raw.githubusercontent.com/{self.name}/{self.commit}/{remote.replace('+', '%2B')}"


GEMSTONES = Repository("mcleish7/gemstone-scaling-laws", "5f420478f6057b0cbb4d13405fb10ca64675bccb")
"""Analysis repository of "Gemstones" (arXiv 2502.06857), MIT licence."""
CHINCHILLA = Repository("epoch-research/analyzing-chinchilla", "92258837425e1b5f2851d624287f0120583a3d0e")
"""Epoch AI's extraction of Chinchilla's Figure 4 (arXiv 2404.10102)."""

CHINCHILLA_POINTS = PublishedFile(
    "chinchilla/epoch_chinchilla_svg_extracted_data.csv",
    "data/svg_extracted_data.csv",
    "193478df4e90f040016431996c45682659306840ecdadf83cfb9cd5ca0aa1b30",
)
INDUSTRY_MODELS = PublishedFile(
    "gemstones/our_val_loss_data.json",
    "data/our_val_loss_data.json",
    "6d3f5d014c895d4e8eeede2a9431c4fe53c428104cc4250e4fedd53394f8e204",
)
RATE_STUDY = PublishedFile(
    "gemstones/preflight_mup_olmo_variant.csv",
    "data/preflight_mup_olmo_variant.csv",
    "e75730274996b31eda60cc665d940ca2e32d8c0ad6ba9902d086ca93008d397c",
)

_SUBSET_SHA256 = {
    "cool_begin": "0e9991b2e0f694f7e01b4c49debd28b5075c1aff993344f753ebca96341b9510",
    "cool_end": "bdf01b6b21bafc414218124a6f9e195cee07f3d69ceacbfae2fcf069d34f4e61",
    "hot": "655467b59c99383403d6f73f5b7f23c02aea3f12935dc110382d8a8b43a0ff5d",
    "hot_100b+": "1da97ce3d1394e0223826c8f5ca081cb0fb289ec65d2707fb5430721e92e9659",
    "hot_100b+_477": "c7a56e023c2cee6be296defc284126778c62387023a6e0c01e57599999591f5d",
    "hot_100b+_512x": "e8f81466f7f858eeb90b20d5ed3fc9f084a14b661cf07602fba1c1a02a9a5c03",
    "hot_120b+_only": "0b7bf892572ab01fce4688d0bb962c1bf782052d9ce3a8a723c61796ba0293a2",
    "hot_120b+_only_477": "a87060114be6cd0dc2ffeebab7ff7e6f662b8f6301601c1048773116b3d2f397",
    "hot_477": "bebd60d6c3f28094451b629aa717ec36baeab81097d4be39e7dd9241ee982aad",
    "hot_sampled_like_chinchilla": "cd77120b51cb60621bddafc2291e7f301dcb7610092ccc37ced802e5fd887cd1",
    "lr_ablation_hot": "acb4468e5fcba4f01bdf9584ccbaa513e9cece68f8daf46e452a867f355483ac",
    "lr_ablation_hot_477": "10f606c27a52b31a8c97a8fe50ff265fdea795869b9a35804a7b1cad2fa233c2",
    "lr_ablation_hot_sampled_like_chinchilla": "c6cfd2d3dbdcd6170ed79b748a1302d091c00ec4a2064bcde15b5e44593dc5f8",
    "lr_ablation_slim_chinchilla": "df96baef7018bd02d4f7c2274c949e98d09968c941efe87a41349e9c687ca8bd",
    "slim_chinchilla": "38cd9dba89a7c9e25c5959cf67817522264e8db4921f8deeab15e0ffdc386f8d",
}

SUBSETS: dict[str, PublishedFile] = {
    name: PublishedFile(
        f"gemstones/runs/wandb_df_for_fitting_{name}.jsonl", f"wandb_dfs/wandb_df_for_fitting_{name}.jsonl", sha256
    )
    for name, sha256 in _SUBSET_SHA256.items()
}
"""Data sets of the paper by the suffix of their published file."""

_FIT_FOLDERS = {"approach_1": "parameters", "delta_1e-3": "parameters_delta-3", "delta_1e-4": "parameters_delta-4"}
"""Folder of the published fits here -> there."""


def _fits() -> dict[str, PublishedFile]:
    """The files in published_fits.sha256, by their path there without its ending."""
    out = {}
    for line in resources.files(__package__).joinpath("published_fits.sha256").read_text().splitlines():
        sha256, place = line.split()
        folder, name = place.split("/")
        remote = f"{_FIT_FOLDERS[folder]}/{name}"
        out[place.removesuffix(".json")] = PublishedFile(f"gemstones/published/{place}", remote, sha256)
    return out


FITS = _fits()
"""The paper's own fits by folder and stem of their file: lines of approach 1, laws of approach 3 at delta 1e-3 and 1e-4."""

EVERY: tuple[tuple[PublishedFile, Repository], ...] = (
    (CHINCHILLA_POINTS, CHINCHILLA),
    *((file, GEMSTONES) for file in (INDUSTRY_MODELS, RATE_STUDY, *SUBSETS.values(), *FITS.values())),
)
"""Every published file, with its repository."""
