"""Theorem 1 with link tensors, for one and two blocks.

==========  ====================================================================================
recurrence  a local change as an impurity: the formulas of Theorem 1, per window offset
offsets     which tokens a move changes in which layer; one move, or all tokens at once
tensors     how the link between two blocks is made, chunk by chunk
reference   the cache of a configuration: activations, links, readouts
updates     :class:`LinkUpdates`
==========  ====================================================================================
"""
