"""Pictures, sounds or clips and their captions as latents and text states, each computed once and kept in a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adapt.data.augment import PLAIN, UNCHANGED, Augmentation
from adapt.data.beside import Before, Holed
from adapt.data.buckets import Buckets
from adapt.data.cache import TensorCache, key_of
from adapt.data.contents import Contents
from adapt.data.controls import EXTRACTORS, FILES
from adapt.data.decode import decode
from adapt.data.media import Reader, reader_of
from adapt.data.picture import Picture
from adapt.data.seen import SeenPictures
from adapt.data.values import finite, naming, own
from adapt.data.view import View
from adapt.medium import PICTURES
from adapt.types import Encoder

Progress = Callable[[int, int], None]
"""`progress(done, total)`."""


class EncodedPictures(SeenPictures):
    """Latents of pictures and text states of captions, read from the cache.

    A picture at one resolution is an *example*: the pictures at the first resolution are examples 0 … n - 1, those at the
    second follow. Everything is encoded alone, in a batch of one, so that no value depends on its neighbours. A damaged
    entry is computed again. Safe to use from several threads; several processes may share the cache. Of a picture itself
    less than a hundred bytes are held.

    Args:
        pictures: judged ones.
        encoder: the backbone, or what stands for it.
        shelves: the buckets of each resolution.
        cache: where values are kept.
        augmentation: how the variants of a picture are made.
        flips: whether mirrored variants are wanted as well. A picture whose caption tells left from right is never
            mirrored.
        reader: how the files are read; None: as pictures on white.
        outside: weight of what a mask leaves out, 0 … 1.
        media_component: the component whose `content_key` latents depend on.
        text_component: the component whose `content_key` text states depend on.
        memory: bytes of values that are held in memory at most.
        texts: whether captions are encoded beforehand; not where their encoder is trained.
        control: a name of `controls.EXTRACTORS`: what pictures are controlled by; None: nothing.
        before: how their sources are encoded, for bases that edit; None: not.
        holed: how they are encoded with holes, for inpainting bases; None: not.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        encoder: Encoder,
        shelves: Sequence[Buckets],
        cache: TensorCache,
        *,
        augmentation: Augmentation = PLAIN,
        flips: bool = False,
        reader: Reader | None = None,
        outside: float = 0.0,
        media_component: str = "vae",
        text_component: str = "text_encoder",
        memory: int = 512 * 2**20,
        texts: bool = True,
        control: str | None = None,
        before: Before | None = None,
        holed: Holed | None = None,
    ) -> None:
        super().__init__(pictures, shelves, cache, augmentation, reader or reader_of(PICTURES), memory)
        self.encoder, self.flips, self.outside = encoder, flips, outside
        # Another torch, or another number of threads, rounds otherwise: what is found must be what would be computed now.
        here = f"torch {torch.__version__} threads {torch.get_num_threads()}"
        self._media_key = f"{encoder.content_key(media_component)} {here}"
        self._text_key = f"{encoder.content_key(text_component)} {here}"
        self._control, self._before, self._holed, self._texts = control, before, holed, texts

    # ------------------------------------------------------------------------------------------------ values
    def prepare(self, progress: Progress | None = None) -> None:
        """Makes sure that every value is in the cache: all latents and masks, all captions and the empty caption.

        Args:
            progress: called with (done, total) after each value.

        Raises:
            DataError: a picture or its mask cannot be read or its latents are not finite (it is named), or the cache
                cannot be written.
        """
        total = sum(1 for _ in self._jobs())
        for done, job in enumerate(self._jobs(), 1):
            job()
            if progress:
                progress(done, total)

    def latents(self, index: int, flip: bool = False, variant: int = 0) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of an example's scaled latents, each float32 (C, *dims), on the CPU. Not to be
        changed in place.

        Args:
            flip: whether it is mirrored, if it may be.
            variant: below `augmentation.variants`; 0 is the plain one.

        Raises:
            DataError: as `prepare`.
        """

        def found() -> dict[str, Tensor]:
            number, view = index % self.count, self._view(index, flip, variant)
            key = key_of("latents", self._contents.digest(number), self._settings(view), self._media_key)
            return self._cached(key, lambda: self._encode_picture(number, view))

        entry = self._recent(("latents", index, flip, variant), found)
        return entry["mean"], entry["std"]

    def weight(self, index: int, flip: bool = False, variant: int = 0) -> Tensor | None:
        """How much each place of the latents counts: float32 (1, h, w) in [outside, 1], the mean of the mask over the
        pixels that a latent stands for. None: all alike, the picture has no mask.

        Raises:
            DataError: as `prepare`.
        """
        if self.pictures[index].mask is None:
            return None

        def found() -> dict[str, Tensor]:
            number, view = index % self.count, self._view(index, flip, variant)
            grid = list(self.latents(index, flip, variant)[0].shape[-2:])
            facts = [self._contents.digest(number), self._mask_digest(number), self._settings(view), grid]
            return self._cached(key_of("mask", *facts), lambda: self._mask_on(number, view, *grid))

        return self.outside + (1 - self.outside) * self._recent(("mask", index, flip, variant), found)["area"]

    def control(self, index: int, flip: bool = False, variant: int = 0) -> Tensor:
        """Pixels of what an example is controlled by, float32 (3, H, W) in [0, 1]: made of what is seen of it, or of the file
        that it is drawn along, cut and mirrored alike.

        Raises:
            DataError: as `prepare`.
        """

        def found() -> dict[str, Tensor]:
            number, view = index % self.count, self._view(index, flip, variant)
            if self._control == FILES:  # a map's colours are no colours
                view = replace(
                    view, original=self._sources.size(number), variant=replace(view.variant, colour=UNCHANGED)
                )
            facts = [self._control_of.digest(number), self._settings(view), str(self._control)]
            return self._cached(key_of("hint", *facts), lambda: {"pixels": self._seen_control(number, view)})

        entry = self._recent(("control", index, flip, variant), found)
        return entry["pixels"].float() / 255

    def reference(self, index: int) -> Tensor:
        """Mean of the scaled latents of the picture that an example is asked for by, whole, as a square of the first
        resolution: (C, h, w).

        Raises:
            DataError: as `prepare`.
        """

        side = self.shelves[0].largest[0]

        def found() -> dict[str, Tensor]:
            facts = [self._references.digest(index % self.count), *self.reader.facts, side]
            key = key_of("reference", *facts, self._media_key)
            return self._cached(key, lambda: self._encode_reference(index % self.count, side))

        return self._recent(("reference", index), found)["mean"]

    @torch.no_grad()
    def _encode_reference(self, number: int, side: int) -> dict[str, Tensor]:
        picture = self._references.picture(number)
        with naming(picture):
            image = decode(self._references.read(number)).resize((side, side), Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1) / 127.5 - 1
        mean, _ = self.encoder.encode_media(pixels[None])
        return finite({"mean": own(mean[0].float())}, f"The latents of {picture.name}")

    @property
    def holes(self) -> int:
        """How many sources there are of a view: one, and in inpainting as many as make up all holes with the other variants'."""
        return 1 if self._holed is None else max(1, self._holed.holes.count // self.augmentation.variants)

    def source(self, index: int, flip: bool = False, variant: int = 0, hole: int = 0) -> dict[str, Tensor]:
        """The part `source` of an example without its row, on the CPU: what it was before, cut, recoloured and mirrored alike;
        in inpainting, itself with a hole.

        Args:
            hole: below `holes`. A picture with a mask has that one alone.

        Raises:
            DataError: as `prepare`.
        """
        hole = 0 if self.pictures[index].mask is not None else variant * self.holes + hole

        def found() -> dict[str, Tensor]:
            number, view = index % self.count, self._view(index, flip, variant)
            return (
                self._before_it(number, view) if self._holed is None else self._around(number, view, hole, self._holed)
            )

        return dict(self._recent(("source", index, flip, variant, hole), found))

    def _before_it(self, number: int, view: View) -> dict[str, Tensor]:
        assert self._before is not None, "only bases that edit or fill holes ask"
        view = self._of_source(number, view)
        facts = [self._sources.digest(number), self._settings(view), self._before.key, self._media_key]
        return self._cached(key_of("source", *facts), lambda: self._encode_source(number, view))

    def _around(self, number: int, view: View, hole: int, holed: Holed) -> dict[str, Tensor]:
        masked = self.pictures[number].mask is not None
        told = ["mask", self._mask_digest(number)] if masked else holed.holes.facts(hole)
        facts = [self._contents.digest(number), self._settings(view), told, holed.key, self._media_key]
        return self._cached(key_of("hole", *facts), lambda: self._encode_around(number, view, hole, holed))

    def text(self, caption: str) -> dict[str, Tensor]:
        """The part `text` of one caption: tensors (1, …) on the CPU, as the encoder gave them. Not to be changed in
        place.

        Raises:
            DataError: the encoder's values are not finite, or the cache cannot be written.
        """
        key = key_of("text", caption, self._text_key)
        found = self._recent(("text", caption), lambda: self._cached(key, lambda: self._encode_caption(caption)))
        return dict(found)

    def words(self, caption: str, index: int, flip: bool = False, variant: int = 0) -> dict[str, Tensor]:
        """As `text`, beside what an example was before, where the encoder sees both."""
        before = self._before
        if before is None or before.read is None:
            return self.text(caption)

        def found() -> dict[str, Tensor]:
            number = index % self.count
            view = self._of_source(number, self._view(index, flip, variant))
            facts = [caption, self._sources.digest(number), self._settings(view), before.key, self._text_key]
            return self._cached(key_of("words", *facts), lambda: self._encode_words(caption, number, view))

        return dict(self._recent(("words", caption, index, flip, variant), found))

    # ------------------------------------------------------------------------------------------------ how
    @property
    def _beside(self) -> bool:
        """Whether captions are read beside sources."""
        return self._before is not None and self._before.read is not None

    def _jobs(self) -> Iterator[Callable[[], object]]:
        for index, picture in enumerate(self.pictures):
            for variant in range(self.augmentation.variants):
                for flip in (False, True)[: 1 + (self.flips and picture.flippable)]:
                    yield lambda view=(index, flip, variant): (self.latents(*view), self.weight(*view))  # type: ignore[misc]
                    if self._control is not None:
                        yield lambda view=(index, flip, variant): self.control(*view)  # type: ignore[misc]
                    for hole in range(self._sources_of(picture)):
                        yield lambda view=(index, flip, variant, hole): self.source(*view)  # type: ignore[misc]
                    for caption in dict.fromkeys(("", *picture.texts)) if self._beside else ():
                        yield lambda told=(caption, index, flip, variant): self.words(*told)  # type: ignore[misc]
        for caption in self._captions() if self._texts and not self._beside else ():
            yield lambda caption=caption: self.text(caption)  # type: ignore[misc]

    def _sources_of(self, picture: Picture) -> int:
        """How many sources there are of each view of a picture."""
        if self._holed is None:
            return int(self._before is not None)
        return 1 if picture.mask is not None else self.holes

    def _captions(self) -> Iterator[str]:
        """Every caption once, the empty one first."""
        seen: set[int] = set()  # hashes: of two captions with one hash, one would be encoded when it is first asked for
        every = (caption for index in range(self.count) for caption in self.captions(index))
        for caption in chain([""], every):
            if hash(caption) not in seen:
                seen.add(hash(caption))
                yield caption

    @torch.no_grad()
    def _encode_picture(self, number: int, view: View) -> dict[str, Tensor]:
        picture = self.pictures[number]
        data = self._contents.read(number)
        with naming(picture):
            x = self.reader.row(data, view)  # (C, *dims)
        mean, std = self.encoder.encode_media(x[None])  # (1, C, *dims)
        entry = {"mean": own(mean[0].float()), "std": own(std[0].float())}
        return finite(entry, f"The latents of {picture.name}")

    @property
    def _control_of(self) -> Contents:
        """Whose files controls are taken from."""
        return self._sources if self._control == FILES else self._contents

    def _controlling(self, number: int, view: View) -> Tensor:
        """The control itself, (3, H, W) in [-1, 1]."""
        with naming(self._control_of.picture(number)):
            return EXTRACTORS[str(self._control)](self.reader.row(self._control_of.read(number), view))

    def _seen_control(self, number: int, view: View) -> Tensor:
        """The same in 8 bits, as files have it."""
        return ((self._controlling(number, view) / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)

    @torch.no_grad()
    def _encode_source(self, number: int, view: View) -> dict[str, Tensor]:
        assert self._before is not None
        part = self._before.encode(self._source_pixels(number, view))
        entry = {name: own(x[0].float()) for name, x in part.items()}
        return finite(entry, f"The latents of the source {self._sources.picture(number).name}")

    @torch.no_grad()
    def _encode_words(self, caption: str, number: int, view: View) -> dict[str, Tensor]:
        assert self._before is not None and self._before.read is not None
        part = self._before.read([caption], self._source_pixels(number, view))
        return finite({name: own(x) for name, x in part.items()}, f"The text states of {caption!r}")

    def _source_pixels(self, number: int, view: View) -> Tensor:
        """(1, 3, H, W)."""
        with naming(self._sources.picture(number)):
            return self.reader.row(self._sources.read(number), view)[None]

    @torch.no_grad()
    def _encode_around(self, number: int, view: View, hole: int, holed: Holed) -> dict[str, Tensor]:
        picture, (width, height) = self.pictures[number], view.size
        with naming(picture):
            x = self.reader.row(self._contents.read(number), view)
        if picture.mask is not None:
            filled = self._mask_on(number, view, height, width)["area"] >= 0.5
        else:
            filled = torch.from_numpy(holed.holes.hole(self._contents.digest(number), hole, height, width))[None]
        part = holed.encode(x[None], filled[None].to(x))
        entry = {name: own(y[0].float() if y.is_floating_point() else y[0]) for name, y in part.items()}
        return finite(entry, f"The latents around a hole of {picture.name}")

    @torch.no_grad()
    def _encode_caption(self, caption: str) -> dict[str, Tensor]:
        part = self.encoder.encode_text([caption])
        return finite({name: own(x) for name, x in part.items()}, f"The text states of {caption!r}")
