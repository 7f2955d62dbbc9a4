"""From a batch to the logits of its sampled rows."""
