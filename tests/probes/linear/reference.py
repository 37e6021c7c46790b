"""The probe as scikit-learn fits it, to hold ours against."""

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler


def plain_probe(C: float = 0.01) -> Pipeline:
    """scikit-learn's own logistic regression on standardised features."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, tol=1e-6, max_iter=1000))
