"""Private reasoning and answer: the one place that says which words of a reply are for whom.

Reasoning is what a provider marks as such (thinking and reasoning blocks), what stands in ``<think>`` tags,
and every word of a reply that calls tools. A reply that may call tools is only known to be an answer when it
has ended without a call, so that its text is held back until then, unless the model has marked the beginning
of its answer with ``<reply>``.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, TypeAlias

from langchain_core.messages import AIMessage, BaseMessage

# A piece of reasoning or of the answer. "retract" says that the answer so far was none; it has no text, and
# its words follow as a thought.
Piece: TypeAlias = tuple[Literal["thought", "answer", "retract"], str]

_THINK: Final = "think|thinking|thought|reasoning"
_REPLY: Final = "reply"
# The white space after a tag belongs to the tag.
_THINK_TAG: Final = re.compile(rf"<(/?)({_THINK})>\s*", re.IGNORECASE)
_ANY_TAG: Final = re.compile(rf"<(/?)({_THINK}|{_REPLY})>\s*", re.IGNORECASE)
_LONGEST_TAG: Final = len("</reasoning>")
# A text that may become a tag when it goes on.
_BEGINNING: Final = re.compile(r"</?[a-z]*\Z", re.IGNORECASE)
_REASONING_KEY: Final = "reasoning_content"


class ReplySplitter:
    """Split the text of a reply into reasoning and answer while it comes.

    However the text is cut into pieces, the thoughts together and the answer that is left at the end are the
    same, and nothing is lost but tags and the white space after them.

    Args:
        may_call_tools: Whether the reply may call tools: then text is held back, and ``<reply>`` is a tag.
    """

    def __init__(self, *, may_call_tools: bool = False) -> None:
        self._tag = _ANY_TAG if may_call_tools else _THINK_TAG
        self._holds = may_call_tools
        self._text = ""
        self._follows_tag = False
        self._thinks = False
        # Inside <reply>, and whether there was one.
        self._replies = False
        self._has_reply = False
        self._calls_tools = False
        self._held = ""
        self._shown = ""

    @property
    def held(self) -> str:
        """The text that is held back."""
        return self._held

    def feed(self, text: str) -> list[Piece]:
        """Return what the next piece of the reply adds."""
        self._text += text
        return list(self._read(is_last=False))

    def mark_tool_call(self) -> list[Piece]:
        """Note that the reply calls tools, so that it is a thought as a whole."""
        if self._calls_tools:
            return []
        self._calls_tools = True
        return list(self._withdraw())

    def close(self) -> list[Piece]:
        """Return what the end of the reply adds: the rest, and the text that was held back."""
        pieces = list(self._read(is_last=True))
        if self._held:
            pieces.append(("answer", self._held))
            self._shown, self._held = self._held, ""
        return pieces

    def _read(self, *, is_last: bool) -> Iterator[Piece]:
        while True:
            if self._follows_tag:
                self._text = self._text.lstrip()
                self._follows_tag = not self._text
            tag = self._tag.search(self._text)
            if tag is None:
                break
            text, self._text = self._text[: tag.start()], self._text[tag.end() :]
            yield from self._classify(text)
            yield from self._take_tag(tag[0].strip(), is_end=bool(tag[1]), name=tag[2].lower())
            self._follows_tag = True
        beginning = None if is_last else _BEGINNING.search(self._text[-_LONGEST_TAG:])
        kept = len(beginning[0]) if beginning else 0
        text, self._text = self._text[: len(self._text) - kept], self._text[len(self._text) - kept :]
        yield from self._classify(text)

    def _take_tag(self, tag: str, *, is_end: bool, name: str) -> Iterator[Piece]:
        if name == _REPLY:
            if self._thinks:
                yield from self._classify(tag)
            elif not is_end and not self._has_reply:
                # What stands before the marked answer was said to nobody.
                yield from self._withdraw()
            if not self._thinks:
                self._replies = not is_end
                self._has_reply = True
        elif is_end and not self._thinks:
            # Some templates open the thought for the model, so that only its end is in the reply.
            yield from self._withdraw()
        else:
            self._thinks = not is_end

    def _classify(self, text: str) -> Iterator[Piece]:
        if not text:
            return
        if self._thinks or self._calls_tools or (self._has_reply and not self._replies):
            yield "thought", text
        elif self._holds and not self._replies:
            self._held += text
        else:
            self._shown += text
            yield "answer", text

    def _withdraw(self) -> Iterator[Piece]:
        """Turn all text so far into a thought."""
        if self._shown:
            yield "retract", ""
        if text := self._shown + self._held:
            yield "thought", text
        self._shown = self._held = ""


def join_pieces(pieces: Iterable[Piece]) -> tuple[str, str]:
    """Return the thought and the answer that pieces amount to."""
    thought = answer = ""
    for kind, text in pieces:
        match kind:
            case "thought":
                thought += text
            case "answer":
                answer += text
            case "retract":
                answer = ""
    return thought, answer


def separate_reasoning(reply: AIMessage, *, may_call_tools: bool) -> AIMessage:
    """Return the reply without tags: its text is the answer, or what was said beside its tool calls.

    What stood in tags is kept in ``additional_kwargs["reasoning_content"]``, where adapters put it too.
    """
    text = reply.text
    splitter = ReplySplitter(may_call_tools=may_call_tools)
    thought, answer = join_pieces([*splitter.feed(text), *splitter.close()])
    if answer == text:
        return reply
    content: Any = answer
    if isinstance(reply.content, list):
        others = [block for block in reply.content if isinstance(block, dict) and block.get("type") != "text"]
        content = [*others, {"type": "text", "text": answer}]
    native = reply.additional_kwargs.get(_REASONING_KEY)
    reasoning = "\n\n".join(part for part in (native, thought) if isinstance(part, str) and part)
    return reply.model_copy(
        update={
            "content": content,
            "additional_kwargs": {**reply.additional_kwargs, _REASONING_KEY: reasoning},
        }
    )


def get_reasoning(message: BaseMessage) -> str:
    """Return what a message or a chunk marks as reasoning; empty if it marks none."""
    parts = [message.additional_kwargs.get(_REASONING_KEY)]
    for block in message.content if isinstance(message.content, list) else ():
        if isinstance(block, dict):
            parts += _list_block_reasoning(block)
    return "".join(part for part in parts if isinstance(part, str))


def _list_block_reasoning(block: dict[str, Any]) -> list[Any]:
    match block.get("type"):
        case "thinking":
            return [block.get("thinking")]
        case "reasoning":
            summary = block.get("summary")
            parts = summary if isinstance(summary, list) else []
            return [
                block.get("reasoning"),
                *(part.get("text") for part in parts if isinstance(part, dict)),
            ]
        case _:
            return []
