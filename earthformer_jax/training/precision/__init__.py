"""Types of numbers: in which a model computes, and in which its parameters are kept."""
