"""Nowcasting without learning: the motion that frames show, and what moves on."""
