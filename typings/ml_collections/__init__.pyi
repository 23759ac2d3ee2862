"""The parts of ml_collections in use.

The library declares no types, and those inferred give every field a long union.
"""

from ml_collections import config_dict as config_dict
from ml_collections.config_dict import ConfigDict as ConfigDict
from ml_collections.config_dict import FieldReference as FieldReference
