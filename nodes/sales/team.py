"""A sub-agent for each stage of a sale.

They look up, think and draft; they change nothing outside. What they bring is recorded by the graph, which
holds it against the evidence and asks a person where money would be given away.
"""

from collections.abc import Sequence

from nodes.hierarchical.state import SubAgent

SALES_TEAM: Sequence[SubAgent] = (
    SubAgent(
        name="qualification",
        description="Qualifies the deal: budget, authority (who decides), need and timeline.",
        instruction="Say for each of budget, authority, need and timeline what the customer or the CRM says, "
        "in their words, or that it is not known. Never assume one. Word one question that asks for what is "
        "not known.",
        tools=["get_contact", "get_opportunities"],
    ),
    SubAgent(
        name="needs",
        description="Works out what the customer needs, beyond what they ask for.",
        instruction="List each need in a few words, with where it comes from: the customer's words, their "
        "usage, their past tickets. Leave out what nobody said and nothing shows.",
        tools=["get_contact", "get_product_version", "search_past_tickets"],
    ),
    SubAgent(
        name="solution",
        description="Finds what of the product meets the customer's needs.",
        instruction="Meet each need with something the help articles say the product does, with exact "
        "limits. Name the needs that nothing meets.",
        tools=["search_knowledge_base", "get_product_version"],
    ),
    SubAgent(
        name="objections",
        description="Answers what speaks against buying, from facts.",
        instruction="Take each objection in the customer's own words and answer it with facts that you "
        "looked up. Where there is no honest answer, say so. Never answer with a lower price.",
        tools=["search_knowledge_base", "search_past_tickets", "check_service_status"],
    ),
    SubAgent(
        name="proposal",
        description="Writes the proposal: what is delivered, for which needs, by when, at which price.",
        instruction="Write the whole proposal. The price is the value of the deal in the CRM, with its "
        "currency's code; never another. Where the CRM holds none, say that a person must name it.",
        tools=["get_opportunities", "get_product_version"],
    ),
    SubAgent(
        name="negotiation",
        description="Works out the terms: duration, payment, start, what the customer asks to change.",
        instruction="Write the whole terms. You cannot grant money away: where the customer asks for it, say "
        "exactly what they ask and what the deal would be worth then; a person decides. Prefer changes that "
        "cost nothing: duration, start, way of paying.",
        tools=["get_opportunities", "get_invoices"],
    ),
    SubAgent(
        name="close",
        description="Reads whether the customer has agreed to the proposal, has declined, or needs time.",
        instruction="Copy the sentence in which the customer agrees or declines. A wish, a question or a "
        "condition is no agreement. Where they need time, say until when. Name the next step.",
        tools=["get_opportunities"],
    ),
)
