import json
from checkpoints.pool import Pool
from core.models import chat_models
from core.settings import FeatureSettings, ModelSettings
from graphs.consensus import SPEC
from tests.support.graphs import compiled, development_deps
from tests.support.service import CONTACT

async def test_offline(pool: Pool) -> None:
    async with development_deps(pool, chat_models(ModelSettings(), FeatureSettings())) as deps:
        graph = await compiled(SPEC, deps, pool)
        for n, more in enumerate(({}, {"options": ["refund", "replace", "decline"], "question": "Should we refund or replace the broken router? The customer prefers we replace it."},{"options":["full refund","no refund", "credit for two weeks"]})):
            out = await graph.ainvoke({**SPEC.example, **more}, {"configurable": {"thread_id": f"t{n}"}})
            for m in out.pop("messages"): print(m.type, m.text)
            print(json.dumps(out, indent=1))
    assert 0
