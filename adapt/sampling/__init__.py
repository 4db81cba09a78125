"""Drawing: one denoising loop for all families, with diffusers' schedulers.

`request`, `schedulers` (its table), `prompts` and `png` import no torch, so that the command line can judge what it was
given before anything heavy is loaded. Import from the modules.
"""
