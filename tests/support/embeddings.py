"""An embedding model for tests: it hashes words, counts its calls and can be made to fail."""

from langchain_core.embeddings import Embeddings
from typing_extensions import override

from core.embeddings import Embedder
from core.embeddings.local import LEXICAL_DIMENSIONS, HashedNgrams


class CountingEmbeddings(Embeddings):
    """Returns the vectors of :class:`~core.embeddings.local.HashedNgrams`."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.down = False
        self._inner = HashedNgrams()

    @override
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if self.down:
            raise ConnectionError("down")
        self.texts += texts
        return self._inner.embed_documents(texts)

    @override
    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def counting_embedder(model: CountingEmbeddings, name: str) -> Embedder:
    """Return an embedder. Fits are stored by model and examples, so another ``name`` has its own."""
    return Embedder(model=name, dimensions=LEXICAL_DIMENSIONS, purpose="similarity", embeddings=model)
