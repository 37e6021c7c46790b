"""Activations on disk: saved shard by shard, resumed where they stopped, read back a few rows at a
time."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp.core.errors import (
    DataError,
    NumericsError,
    OutputError,
    SampleError,
    SpecificationError,
    check_known,
)
from interp.core.images import ImageTable, Preprocess
from interp.core.model import Tower
from interp.core.progress import say, track
from interp.core.store import fingerprint, writable, write_atomic
from interp.models.memory import Forecast, forecast, in_words
from interp.models.selection import Keep, read
