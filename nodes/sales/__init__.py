"""A sale: read the deal, let one sub-agent per stage work on it, record the results.

The stages and the BANT qualification (budget, authority, need, timeline) are those of consultative selling
(Rackham 1988, SPIN Selling). The CRM's opportunity is the only state of the deal.
"""
