"""The likely causes of a boot that failed: facts, and rules that look at them."""
