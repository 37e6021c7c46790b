"""Tables and plates become figures, and figures one self-contained HTML page; no model is seen."""

from interp.report.drawing import result_figures
from interp.report.figures_circuits import draw_circuit
from interp.report.figures_ladder import draw_ladder, draw_profile
from interp.report.figures_truth import draw_recovery, draw_truth
from interp.report.page import build_page

__all__ = [
    "build_page",
    "draw_circuit",
    "draw_ladder",
    "draw_profile",
    "draw_recovery",
    "draw_truth",
    "result_figures",
]
