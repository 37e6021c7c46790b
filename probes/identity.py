"""What a pass's numbers depend on, as hashes: by them one model's activations are told apart."""

from hashlib import blake2b
from typing import Any

from interp.core.identity import weights_hash
from interp.core.images import ImageTable, Preprocess
from interp.core.store import fingerprint
from interp.probes.reading import Reading


def identity(
    reading: Reading, images: ImageTable, preprocess: Preprocess
) -> dict[str, str | list[str]]:
    """Hashes of all that the numbers depend on."""
    picture = preprocess(images.picture(0)).detach().cpu().float().contiguous().numpy()
    return {
        "weights": weights_hash(reading.tower, asked="store activations", leave_out="folder"),
        "configuration": fingerprint(
            type(reading.tower).__name__, list(reading.tower.sites), _configuration(reading.tower)
        ),
        "pictures": fingerprint(
            images.source, images.fingerprint, images.frame["path"].tolist(), _files(images)
        ),
        "preprocess": blake2b(picture.data, digest_size=8).hexdigest(),
        "names": reading.names,
        "pool": reading.pool,
        "dtype": str(reading.dtype),
    }


def _configuration(tower: Any) -> dict[str, str]:
    """What the tower says of itself beside its weights, less where it is."""
    said = vars(tower.cfg) if hasattr(tower, "cfg") and hasattr(tower.cfg, "__dict__") else {}
    return {name: str(said[name]) for name in sorted(said) if "device" not in name}


def _files(images: ImageTable) -> list[tuple[int, int]]:
    """Size and time of each file, for pictures that nobody has taken a fingerprint of."""
    if images.fingerprint or images.reader is not None:
        return []
    stats = [(images.root / str(path)).stat() for path in images.frame["path"]]
    return [(stat.st_size, stat.st_mtime_ns) for stat in stats]
