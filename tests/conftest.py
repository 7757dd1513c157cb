"""What every test shares: hypothesis keeps its examples out of the tree and tries the same ones on every CI run."""

import os
from pathlib import Path

from hypothesis import HealthCheck, configuration, settings

REPOSITORY = Path(__file__).resolve().parent.parent

configuration.set_hypothesis_home_dir(REPOSITORY / ".cache" / "hypothesis")
# No deadline: a law that holds does not break because the machine is shared.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("here"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")
