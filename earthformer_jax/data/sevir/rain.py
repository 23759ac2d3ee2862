"""Codes as rain, for nowcasting by motion."""

import math

from earthformer_jax.data.nowcasting.rain import Rain
from earthformer_jax.data.sevir import twin

# Codes from 18 on are logarithms of VIL, and the least threshold of the scores is 16.
RAIN = Rain(16.0, 10 / (twin.CODE_SCALE * math.log(10)))
