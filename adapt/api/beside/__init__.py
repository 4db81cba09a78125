"""What is put beside pictures by programs, at the user's wish: captions and masks. Proposed first, then written; nothing that is
there is replaced unasked."""

from adapt.api.beside.proposal import Proposal, write
from adapt.api.beside.words import Captioner, propose_captions, wanting_captions

__all__ = ["Captioner", "Proposal", "propose_captions", "wanting_captions", "write"]
