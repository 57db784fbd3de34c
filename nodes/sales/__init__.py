"""The steps of a sale: read the deal, let a sub-agent a stage work on it, record what they brought.

The stages and the BANT qualification (budget, authority, need, timeline) are those of consultative selling
(Rackham 1988, SPIN Selling). The deal's state is the CRM's opportunity and nothing else.
"""
