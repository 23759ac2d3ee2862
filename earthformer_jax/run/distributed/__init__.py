"""Training by several processes, on one machine or on many.

`job` finds out which process of which job this one is, `joining` makes them meet,
`peers` ends them all when one is lost, `launching` starts them on one machine, and
`forecasting` lets all of them forecast for the one that writes.
"""
