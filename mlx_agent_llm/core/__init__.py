"""One step of the engine, top to bottom: loop, scheduler, KV, batch, runner, sampler, stopping."""
