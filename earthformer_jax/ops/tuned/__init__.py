"""Versions of functions of `ops` that were measured to be faster, with equal results.

Each has the signature of the plain function it replaces and is used on the backends in
`choice.MEASURED`; elsewhere, and inside `ops.forward_mode()`, a call runs the plain
function. Each module says what it gains and where that was measured.
"""
