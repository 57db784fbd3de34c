"""The session in words."""

from nodes.onboarding.questions import steps_of
from nodes.onboarding.state import PROFILE, OnboardingState
from nodes.onboarding.texts import TEXTS


def summary_of(state: OnboardingState) -> str:
    """How it stands, what is known of the company, what became of each step."""
    texts = TEXTS[state["language"]]
    known = [
        f"{texts.fields[name]}: {state['profile'][name]}"
        for name in PROFILE
        if state["profile"][name] is not None
    ]
    if state["integration"]:
        known.append(f"{texts.fields['integration']}: {state['integration']}")
    steps = steps_of(state["outcomes"], welcomed="welcome" in state["told"])
    return texts.summary.format(
        status=texts.ended[state["status"]],
        profile=f"{'; '.join(known)}." if known else texts.nothing_known,
        steps=", ".join(f"{texts.steps[step['name']]} {texts.statuses[step['status']]}" for step in steps),
    )
