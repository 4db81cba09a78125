"""Pictures and captions as the backbone's latents and text states, each computed once and kept in a cache."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from threading import Lock

import PIL
import torch
from torch import Tensor

from adapt.data.cache import TensorCache, key_of
from adapt.data.decode import VERSION, decode, fit, pixels
from adapt.data.picture import Picture
from adapt.data.wording import printable
from adapt.errors import DataError
from adapt.types import Encoder

Progress = Callable[[int, int], None]
"""`progress(done, total)`."""


class EncodedPictures:
    """Latents of pictures and text states of captions, read from the cache.

    Everything is encoded alone, in a batch of one, so that no value depends on its neighbours. A damaged entry is
    computed again. Safe to use from several threads; several processes may share the cache.

    Args:
        pictures: judged ones.
        encoder: the backbone, or what stands for it.
        size: (width, height) in pixels that pictures are cropped and resized to.
        cache: where values are kept.
        flips: whether mirrored variants are wanted as well.
        background: colour behind transparent pixels.
        media_component: the component whose `content_key` latents depend on.
        text_component: the component whose `content_key` text states depend on.
        memory: bytes of values that are held in memory at most.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        encoder: Encoder,
        size: tuple[int, int],
        cache: TensorCache,
        *,
        flips: bool = False,
        background: str = "white",
        media_component: str = "vae",
        text_component: str = "text_encoder",
        memory: int = 512 * 2**20,
    ) -> None:
        self.pictures, self.encoder, self.size, self.cache = tuple(pictures), encoder, size, cache
        self.flips, self.background = flips, background
        # Another torch may round otherwise: a run that is resumed must find what it began with, or know that it is new.
        self._media_key = f"{encoder.content_key(media_component)} torch {torch.__version__}"
        self._text_key = f"{encoder.content_key(text_component)} torch {torch.__version__}"
        self._digests: dict[int, str] = {}
        self._recent = _Recent(memory)

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.pictures)

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of a picture; the empty one when it has none."""
        return self.pictures[index].captions or ("",)

    def prepare(self, progress: Progress | None = None) -> None:
        """Makes sure that every value is in the cache: all latents, all captions and the empty caption.

        Args:
            progress: called with (done, total) after each value.

        Raises:
            DataError: a picture cannot be read or its latents are not finite (it is named), or the cache cannot be
                written.
        """
        jobs = list(self._jobs())
        for done, job in enumerate(jobs, 1):
            job()
            if progress:
                progress(done, len(jobs))

    def latents(self, index: int, flip: bool = False) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of a picture's scaled latents, each float32 (C, *dims), on the CPU. Not to be
        changed in place.

        Raises:
            DataError: as `prepare`.
        """
        digest = self._digest(index)
        settings = [VERSION, PIL.__version__, list(self.size), self.background, bool(flip)]
        key = key_of("latents", digest, settings, self._media_key)
        entry = self._entry(key, lambda: self._encode_picture(index, flip))
        return entry["mean"], entry["std"]

    def text(self, caption: str) -> dict[str, Tensor]:
        """The part `text` of one caption: tensors (1, …) on the CPU, as the encoder gave them. Not to be changed in
        place.

        Raises:
            DataError: the encoder's values are not finite, or the cache cannot be written.
        """
        key = key_of("text", caption, self._text_key)
        return dict(self._entry(key, lambda: self._encode_caption(caption)))

    # ------------------------------------------------------------------------------------------------ how
    def _jobs(self) -> Iterator[Callable[[], object]]:
        for index in range(len(self.pictures)):
            for flip in (False, True)[: 1 + self.flips]:
                yield lambda index=index, flip=flip: self.latents(index, flip)  # type: ignore[misc]
        captions = dict.fromkeys(caption for index in range(len(self)) for caption in self.captions(index))
        for caption in {"": None, **captions}:
            yield lambda caption=caption: self.text(caption)  # type: ignore[misc]

    def _entry(self, key: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """From memory, else from the cache, else computed and put there."""
        entry = self._recent.get(key)
        if entry is None:
            entry = self.cache.get(key)
            if entry is None:
                entry = compute()
                self.cache.put(key, entry)
            self._recent.put(key, entry)
        return entry

    def _digest(self, index: int) -> str:
        """sha256 of the picture's file, as it was when first asked for."""
        if index not in self._digests:
            self._digests[index] = hashlib.sha256(self.pictures[index].read()).hexdigest()
        return self._digests[index]

    @torch.no_grad()
    def _encode_picture(self, index: int, flip: bool) -> dict[str, Tensor]:
        picture = self.pictures[index]
        data = picture.read()
        if hashlib.sha256(data).hexdigest() != self._digest(index):
            raise DataError("A picture has changed since the start", given=picture.name, next="start again")
        try:
            image = decode(data, self.background)
        except DataError as error:
            raise DataError(f"A picture {error.message}", given=picture.name, next=error.next) from error
        x = pixels(fit(image, *self.size))  # (3, H, W)
        mean, std = self.encoder.encode_media((x.flip(-1) if flip else x)[None])  # (1, C, *dims)
        entry = {"mean": _own(mean[0].float()), "std": _own(std[0].float())}
        return _finite(entry, f"The latents of {picture.name}")

    @torch.no_grad()
    def _encode_caption(self, caption: str) -> dict[str, Tensor]:
        part = self.encoder.encode_text([caption])
        return _finite({name: _own(x) for name, x in part.items()}, f"The text states of {caption!r}")


def _own(x: Tensor) -> Tensor:
    """A copy on the CPU: neither views of larger tensors nor the device's memory are kept alive."""
    return x.detach().cpu().clone(memory_format=torch.contiguous_format)


def _finite(entry: dict[str, Tensor], what: str) -> dict[str, Tensor]:
    if all(bool(x.isfinite().all()) for x in entry.values()):
        return entry
    raise DataError(f"{printable(what)} are not finite", next="use dtype float32, or remove it")


class _Recent:
    """The entries used last, up to a number of bytes."""

    def __init__(self, memory: int) -> None:
        self._memory, self._used, self._lock = memory, 0, Lock()
        self._entries = OrderedDict[str, dict[str, Tensor]]()

    def get(self, key: str) -> dict[str, Tensor] | None:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: str, entry: dict[str, Tensor]) -> None:
        with self._lock:
            self._used += _bytes(entry) - _bytes(self._entries.pop(key, {}))
            self._entries[key] = entry
            while self._used > self._memory:
                self._used -= _bytes(self._entries.popitem(last=False)[1])


def _bytes(entry: dict[str, Tensor]) -> int:
    return sum(x.nbytes for x in entry.values())
