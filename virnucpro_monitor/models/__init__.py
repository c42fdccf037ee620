"""ESM-2: weights, packed models, kernels. All of it stands on fair-esm."""

from virnucpro_monitor.models.fair_esm import check_fair_esm

check_fair_esm()
