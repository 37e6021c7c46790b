from .drawing import draw_multiverse as draw_multiverse
from .drawing import result_figures as result_figures
from .figures.circuit_graphs import draw_circuit as draw_circuit
from .figures.ladders import draw_ladder as draw_ladder
from .figures.ladders import draw_profile as draw_profile
from .page import build_page as build_page
from .planted_truth import draw_recovery as draw_recovery
from .planted_truth import draw_truth as draw_truth
