"""Figures: skill against lead time, maps, frames of forecasts, animations.

Functions take arrays and return a matplotlib `Figure` or pixels; `save` and
`save_animation` write them. None touches the global state of pyplot, so they can be
called from anywhere.
"""

from earthformer_jax.plotting.animation import forecast_animation, save_animation
from earthformer_jax.plotting.attention import AttentionRow, attention_maps
from earthformer_jax.plotting.calibration import calibration
from earthformer_jax.plotting.fields import render_frames
from earthformer_jax.plotting.forecast import draw as draw_forecast
from earthformer_jax.plotting.frames import contact_sheet, forecast_frames
from earthformer_jax.plotting.maps import forecast_maps
from earthformer_jax.plotting.nino import SkillPage, called, skill_page
from earthformer_jax.plotting.regimes import field_table, projection, regime_calendar
from earthformer_jax.plotting.rows import frame_rows
from earthformer_jax.plotting.skill import lead_curves, skill_curves
from earthformer_jax.plotting.style import look, save, step_of

__all__ = [
    "AttentionRow",
    "SkillPage",
    "attention_maps",
    "calibration",
    "called",
    "contact_sheet",
    "draw_forecast",
    "field_table",
    "forecast_animation",
    "forecast_frames",
    "forecast_maps",
    "frame_rows",
    "lead_curves",
    "look",
    "projection",
    "regime_calendar",
    "render_frames",
    "save",
    "save_animation",
    "skill_curves",
    "skill_page",
    "step_of",
]
