from . import circuits as circuits
from . import data as data
from . import models as models
from . import probes as probes
from .core import errors as errors
from .core.errors import InterpError as InterpError
from .core.images import ImageTable as ImageTable
from .core.sites import Site as Site
from .core.tables import Table as Table
from .core.tower import Patch as Patch
from .data.sources.opening import open_images as open_images
from .measures.compare import ComparedModels as ComparedModels
from .measures.compare import compare as compare
from .measures.ladder import ladder as ladder
from .measures.multiverse import multiverse as multiverse
from .models.evaluation.decision_bias import decision_bias as decision_bias
from .models.loading.load_clip import load_clip as load_clip
from .models.towers.open_tower import open_tower as open_tower
from .study.archive import open_runs as open_runs
from .study.compare_results import compare_results as compare_results
from .study.examine import examine as examine
from .study.export import export as export
from .study.results import open_result as open_result
from .study.study import Study as Study
from .verdicts.levels.across_checkpoints import verdict as verdict

__version__: str
